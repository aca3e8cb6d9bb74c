"""The scripts for devices, run as people run them: without odtrain."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
from support.commands import TrainedRun
from support.pictures import SHAPES

from odtrain.structures import Detections
from odtrain_runtime.model_files import load_detector
from odtrain_runtime.pictures import read_upright
from odtrain_runtime.provenance import LABELS_FILE

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
LINE = re.compile(r"(\w+) (\d\.\d\d) (-?\d+) (-?\d+) (-?\d+) (-?\d+)")


def with_requirements(names: list[str]) -> set[str]:
    """Distributions, and what they need, as installed here; extras are not needed."""
    found: set[str] = set()
    while names:
        name = re.split(r"[\s;<>=!\[~(]", names.pop())[0]
        if name in found:
            continue
        try:
            needed = distribution(name).requires or []
        except PackageNotFoundError:  # needed on another Python only
            continue
        found.add(name)
        names += [each for each in needed if "extra ==" not in each]
    return found


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has ai-edge-litert, numpy, Pillow and what these need, and nothing else."""
    folder = tmp_path_factory.mktemp("board")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in with_requirements(["ai-edge-litert", "numpy", "pillow"]):
        for top in {Path(file).parts[0] for file in distribution(name).files or []} - {".."}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(distribution(name).locate_file(top))).resolve())
    return folder / "bin/python"


def run(python: str | Path, *arguments: object) -> str:
    done = subprocess.run(
        [str(python), *map(str, arguments)],
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_same(
    printed: str, expected: Detections, names: tuple[str, ...], threshold: float
) -> None:
    """Each printed line is a detection of ours, within a pixel of 96 x 80 and 0.02 in score."""
    lines = printed.splitlines()
    sure = int((expected.scores >= threshold + 0.02).sum())
    assert lines and sure <= len(lines) <= int((expected.scores >= threshold - 0.02).sum())
    scale = np.array([80, 96, 80, 96])
    for line in lines:
        match = LINE.fullmatch(line)
        assert match, line
        left, top, right, bottom = (int(match[n]) for n in (3, 4, 5, 6))
        near = np.abs(expected.boxes * scale - (top, left, bottom, right)).max(1) <= 1.6
        near &= np.abs(expected.scores - float(match[2])) <= 0.02
        near &= np.array([names[number - 1] for number in expected.classes]) == match[1]
        assert near.any(), line


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.tflite", "model_int8.tflite"])
def test_the_litert_script_finds_what_odtrain_finds(board, trained: TrainedRun, shapes, name):
    model, picture = trained.run / "export" / name, shapes / SHAPES[1]
    detector = load_detector(model, threads=1)
    expected = detector(read_upright(picture))
    threshold = float(np.sort(expected.scores)[::-1][:8].min())
    printed = run(board, EXAMPLES / "detect_litert.py", model, picture, threshold)
    assert_same(printed, expected, detector.class_names, threshold)


@pytest.mark.slow
def test_the_board_has_neither_tensorflow_nor_odtrain(board):
    code = "import importlib.util as u; print(u.find_spec('tensorflow'), u.find_spec('odtrain'))"
    assert run(board, "-c", code) == "None None\n"


@pytest.mark.slow
def test_the_frozen_graph_script_finds_what_odtrain_finds(trained: TrainedRun, shapes):
    export, picture = trained.run / "export", shapes / SHAPES[1]
    model = export / "frozen_inference_graph.pb"
    detector = load_detector(model, threads=1)
    expected = detector(read_upright(picture))
    threshold = float(np.sort(expected.scores)[::-1][:8].min())
    script = EXAMPLES / "detect_frozen_graph.py"
    printed = run(sys.executable, script, model, export / LABELS_FILE, picture, threshold)
    assert_same(printed, expected, detector.class_names, threshold)
