"""Fixtures that several test modules share."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import TypeAlias

import numpy as np
import pytest
from support.commands import TINY_RUN, TrainedRun, odtrain
from support.disks import mounted
from support.pictures import SHAPES, TINY, Labelled, label_picture, with_exif
from support.s3_server import S3, environment, serving_s3

from odtrain.config.compose import section
from odtrain.config.schema import DataConfig, TrackingConfig
from odtrain.dataset.prepare import prepare
from odtrain.dataset.read import Dataset
from odtrain.io.locks import alone
from odtrain.system import logs

Made: TypeAlias = AbstractContextManager[tuple[Path, bool]]

pytest_plugins = ["support.tiny_models", "support.videos"]

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def on_the_terminal() -> None:
    """What is said goes to stderr, as under the command."""
    logs.show()


@pytest.fixture
def said() -> Iterator[list[str]]:
    """The lines that are said while a test runs."""

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    lines: list[str] = []
    handler = Lines(logging.INFO)
    logs.ROOT.addHandler(handler)
    yield lines
    logs.ROOT.removeHandler(handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the project: raccoon pictures, zoo weights, goldens."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the real data beside the project: {SHARED} is not there")
    return SHARED


@pytest.fixture(autouse=True)
def nothing_is_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power is cut while tests run: what this process writes need not reach the disk at once."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(autouse=True)
def nothing_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said of slow things depends on the machine: in this process it is not said by itself."""
    monkeypatch.setattr("odtrain.system.progress.SOON", 3600.0)


@pytest.fixture
def tiny_voc(tmp_path: Path) -> Path:
    """Four pictures with labelImg XML beside them, in one folder: see `TINY`."""
    folder = tmp_path / "tiny_voc"
    for seed, (name, (size, objects)) in enumerate(TINY.items()):
        label_picture(folder / name, size, objects, seed=seed)
    return folder


@pytest.fixture(scope="session")
def of_all(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Callable[[str], Made]:
    """A folder of this name that all processes of pytest share, and whether it is there already.

    Whoever asks first makes what is in it; the others wait.
    """
    own = tmp_path_factory.getbasetemp()
    common = own if worker_id == "master" else own.parent

    @contextmanager
    def made(name: str) -> Iterator[tuple[Path, bool]]:
        with alone(common / f"{name}.lock"):
            done = common / f"{name}.done"
            yield common / name, done.exists()
            done.touch()

    return made


@pytest.fixture(scope="session")
def shapes(of_all: Callable[[str], Made]) -> Path:
    """Twenty pictures of 96 x 80 with one or two large boxes of two classes, XML beside them.

    The JPEGs say in EXIF whose camera took them, and where.
    """
    with of_all("shapes") as (folder, there):
        if not there:
            draw_shapes(folder)
    return folder


def draw_shapes(folder: Path) -> None:
    folder.mkdir()
    random = np.random.default_rng(5)
    for i, name in enumerate(SHAPES):
        objects: list[Labelled] = []
        for k in range(1 + i % 2):
            width, height = (int(side) for side in random.integers(24, 40, 2))
            x, y = int(random.integers(1, 96 - width)), int(random.integers(1, 80 - height))
            objects.append((("circle", "square")[(i + k) % 2], x, y, x + width, y + height))
        label_picture(folder / name, (96, 80), objects, seed=i)
        if name.endswith(".jpg"):
            with_exif(folder / name)


@pytest.fixture(scope="session")
def prepared_shapes(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The pictures of `shapes`, prepared: 14 for training, 2 for validation, 4 for test."""
    folder = tmp_path_factory.mktemp("prepared")
    return prepare(
        section(
            DataConfig,
            name="shapes",
            validation_fraction=0.1,
            images=str(shapes),
            prepared=str(folder / "shapes"),
        )
    )


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A real S3 server with one bucket."""
    with serving_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_server: S3, own_environment: None) -> Iterator[S3]:
    """The same, which this process and those it starts find by their variables; with an empty cache."""
    with environment(s3_server.variables):
        yield s3_server


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 300 KB."""
    with mounted(tmp_path / "small disk", "size=300k") as folder:
        yield folder


@pytest.fixture(scope="session")
def database(of_all: Callable[[str], Made]) -> Path:
    """An MLflow database without runs, to be copied: making one takes seconds."""
    from support.stores import migrated_database

    with of_all("migrated") as (folder, there):
        if not there:
            folder.mkdir()
            migrated_database(folder)
    return folder / "mlflow.db"


@pytest.fixture
def store(tmp_path: Path, database: Path) -> TrackingConfig:
    """An empty store of its own."""
    from support.stores import store_at

    return store_at(tmp_path / "store", database)


@pytest.fixture
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No store, run or cache of whoever runs the tests."""
    for name in ("TRACKING_URI", "REGISTRY_URI", "RUN_ID", "EXPERIMENT_NAME", "EXPERIMENT_ID"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def trained(shapes: Path, of_all: Callable[[str], Made]) -> TrainedRun:
    """One tiny training, exported as pb, fp32 and an int8 file that no gate lets through."""
    overrides = (
        f"data.images={shapes}",
        *TINY_RUN,
        "export.formats=[pb,tflite_fp32,tflite_int8]",
        "export.max_map_drop=-1",
    )
    with of_all("trained") as (folder, there):
        said = folder / "said.json"
        if not there:
            folder.mkdir()
            done = odtrain(["train", *overrides], folder)
            assert done.returncode == 0, done.stderr
            said.write_text(json.dumps([done.args, done.returncode, done.stdout, done.stderr]))
        done = CompletedProcess(*json.loads(said.read_text()))
    (run,) = (folder / "outputs/Default").iterdir()
    return TrainedRun(folder, overrides, done, run)


@pytest.fixture
def again(trained, tmp_path, monkeypatch):
    """A copy of the training's folder, to go on working in."""
    shutil.copytree(trained.folder, tmp_path / "again")
    monkeypatch.chdir(tmp_path / "again")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{tmp_path}/again/mlflow.db")


@pytest.fixture
def new(database, shapes, tmp_path, monkeypatch):
    """An empty folder with a database, where commands are run."""
    shutil.copy(database, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
