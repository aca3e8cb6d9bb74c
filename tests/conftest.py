"""Fixtures that several test modules share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from odtrain.config.compose import section
from odtrain.config.schema import DataConfig
from odtrain.dataset.check import Dataset
from odtrain.dataset.prepare import prepare
from odtrain.io import atomic

SHARED = Path(__file__).resolve().parents[2] / "shared"

Labelled = tuple[str, int, int, int, int]
"""Class name, xmin, ymin, xmax, ymax in pixels, as labelImg writes them."""


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the project: raccoon pictures, zoo weights, goldens."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the real data beside the project: {SHARED} is not there")
    return SHARED


def write_xml(
    file: Path, filename: str, size: tuple[int, int], objects: list[Labelled], depth: int = 3
) -> Path:
    """Write `file` as labelImg does; `size` is (width, height)."""
    lines = [
        "<annotation>",
        f"\t<folder>{file.parent.name}</folder>",
        f"\t<filename>{filename}</filename>",
        f"\t<path>C:\\Users\\someone\\Desktop\\{filename}</path>",
        "\t<source>\n\t\t<database>Unknown</database>\n\t</source>",
        f"\t<size>\n\t\t<width>{size[0]}</width>\n\t\t<height>{size[1]}</height>",
        f"\t\t<depth>{depth}</depth>\n\t</size>",
        "\t<segmented>0</segmented>",
    ]
    for name, *corners in objects:
        tags = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        box = "".join(f"\t\t\t<{tag}>{value}</{tag}>\n" for tag, value in tags)
        lines.append(
            f"\t<object>\n\t\t<name>{name}</name>\n\t\t<pose>Unspecified</pose>\n"
            "\t\t<truncated>0</truncated>\n\t\t<difficult>0</difficult>\n"
            f"\t\t<bndbox>\n{box}\t\t</bndbox>\n\t</object>"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([*lines, "</annotation>\n"]), encoding="utf-8")
    return file


def draw_picture(file: Path, size: tuple[int, int], objects: list[Labelled], seed: int = 0) -> Path:
    """Noise with one bright rectangle per object, saved in the format that the suffix names."""
    picture = Image.new("RGB", size)
    for name, *corners in objects:
        colour = {"circle": (170, 10, 10), "square": (10, 10, 170)}.get(name, (10, 170, 10))
        ImageDraw.Draw(picture).rectangle(corners, fill=colour)
    noise = np.random.default_rng(seed).integers(0, 80, (size[1], size[0], 3), np.uint8)
    picture = Image.fromarray(np.asarray(picture) + noise)
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file)
    return file


def label_picture(
    picture: Path,
    size: tuple[int, int],
    objects: list[Labelled],
    labels: Path | None = None,
    seed: int = 0,
) -> Path:
    """Draw `picture` and write its XML beside it, or into the folder `labels`."""
    draw_picture(picture, size, objects, seed)
    xml = (labels or picture.parent) / f"{picture.stem}.xml"
    return write_xml(xml, picture.name, size, objects)


TINY: dict[str, tuple[tuple[int, int], list[Labelled]]] = {
    "img1.jpg": ((64, 48), [("circle", 4, 6, 30, 40)]),
    "img2.png": ((48, 64), [("square", 10, 12, 40, 50), ("circle", 1, 1, 9, 9)]),
    "img3.jpg": ((80, 60), []),
    "img4.jpg": ((64, 64), [("square", 20, 20, 60, 64)]),
}
"""Picture name: (width, height), objects. Four boxes of two classes; img3.jpg is background."""


@pytest.fixture
def tiny_voc(tmp_path: Path) -> Path:
    """Four pictures with labelImg XML beside them, in one folder: see `TINY`."""
    folder = tmp_path / "tiny_voc"
    for seed, (name, (size, objects)) in enumerate(TINY.items()):
        label_picture(folder / name, size, objects, seed=seed)
    return folder


SHAPES = [f"판 {i}.png" if i % 5 == 0 else f"img{i}.jpg" for i in range(20)]
"""Picture names of the fixture `shapes`, some with letters and spaces that not every tool expects."""


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures of 96 x 80 with one or two large boxes of two classes, XML beside them."""
    folder = tmp_path_factory.mktemp("shapes")
    random = np.random.default_rng(5)
    for i, name in enumerate(SHAPES):
        objects: list[Labelled] = []
        for k in range(1 + i % 2):
            width, height = (int(side) for side in random.integers(24, 40, 2))
            x, y = int(random.integers(1, 96 - width)), int(random.integers(1, 80 - height))
            objects.append((("circle", "square")[(i + k) % 2], x, y, x + width, y + height))
        label_picture(folder / name, (96, 80), objects, seed=i)
    return folder


@pytest.fixture(scope="session")
def prepared_shapes(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The pictures of `shapes`, prepared: 14 for training, 2 for validation, 4 for test."""
    folder = tmp_path_factory.mktemp("prepared")
    return prepare(
        section(DataConfig, name="shapes", images=str(shapes), prepared=str(folder / "shapes"))
    )


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system in memory at `folder` for a while; skips the test where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"needs to mount a file system: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def left_by_a_killed_process(place: Path) -> Path:
    """Where a process that was killed has begun to write the folder `place`."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    return place.with_name(f".{place.name}.new-{atomic._host()}-{gone.pid}-{gone.pid}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 300 KB."""
    with mounted(tmp_path / "small disk", "size=300k") as folder:
        yield folder


TINY_RUN = (
    "data.name=shapes",
    "model.input_size=64",
    "model.depth_multiplier=0.1",
    "train.steps=14",
    "train.batch_size=2",
    "train.log_every=1",
    "train.checkpoint_every=3",
    "train.trace_batches=true",
    "evaluate.every=5",
    "evaluate.bootstrap=20",
    "evaluate.drawn=2",
    "benchmark.runs=2",
    "tracking.system_metrics=false",
)
"""Settings of a training that takes seconds: checkpoints at 3, 5, 6, 9, 10, 12, 14, validated at 5, 10, 14."""


def odtrain(
    arguments: Sequence[str],
    cwd: Path,
    program: Sequence[str] = ("-m", "odtrain"),
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, as a user would in the folder `cwd`."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=cwd,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs, to be copied: making one takes seconds."""
    from support.stores import migrated_database

    return migrated_database(tmp_path_factory.mktemp("migrated"))


@dataclass(frozen=True)
class TrainedRun:
    """A training that went from pictures to a registered model without interruption.

    Attributes:
        folder: where the command was run; holds outputs/, datasets/ and mlflow.db.
        overrides: it was given.
        done: its exit status, and what it said.
        run: the run's own folder, named by its id.
    """

    folder: Path
    overrides: tuple[str, ...]
    done: subprocess.CompletedProcess[str]
    run: Path

    @property
    def uri(self) -> str:
        """The store that holds the run."""
        return f"sqlite:///{self.folder}/mlflow.db"


@pytest.fixture(scope="session")
def trained(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """One tiny training, exported as pb, fp32 and an int8 file that no gate lets through."""
    folder = tmp_path_factory.mktemp("trained")
    overrides = (
        f"data.images={shapes}",
        *TINY_RUN,
        "export.formats=[pb,tflite_fp32,tflite_int8]",
        "export.max_map_drop=-1",
    )
    done = odtrain(["train", *overrides], folder)
    assert done.returncode == 0, done.stderr
    (run,) = (folder / "outputs/odtrain").iterdir()
    return TrainedRun(folder, overrides, done, run)
