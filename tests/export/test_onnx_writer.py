"""Exports to ONNX: proven like other files, by what the checkpoint says of the same whole levels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from support.made_up_model import made_up_model

from odtrain.config.compose import compose_config
from odtrain.errors import ConfigError
from odtrain.export.benchmark import agreement, measure
from odtrain.export.parity import not_exact
from odtrain.export.raw_outputs import raw_beside, raw_difference
from odtrain.export.writers import export
from odtrain.models.build import build_detector
from odtrain.models.ssd import SSD
from odtrain.structures import UInt8Image
from odtrain_runtime.model_files import load_detector

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/detect_onnx.py"
NAMES = ("open", "엘리베이터")
PASSPORT = {"run": "r1", "data": "panels"}


def pictures(count: int) -> list[UInt8Image]:
    random = np.random.default_rng(1)
    return [random.integers(0, 256, (90 + 10 * i, 120, 3), np.uint8) for i in range(count)]


def spread(detector: SSD) -> SSD:
    """With scores that differ, as after training."""
    random = np.random.default_rng(0)
    for name, variable in detector.variables_by_name().items():
        if "ClassPredictor" in name and name.endswith("biases"):
            variable.assign(random.normal(-2, 1, variable.shape))
    return detector


def agrees(detector: SSD, folder, shown: list[UInt8Image]) -> None:
    files = export(detector, NAMES, ["onnx", "onnx_raw"], folder, [], "builtin", PASSPORT)
    for name, file in files.items():
        measured = measure(file, shown, runs=2, threads=1, proven=True)
        assert not_exact(raw_difference(raw_beside(detector, shown)(file), measured.raw)) is None
        assert measured.class_names == NAMES
        assert (measured.passport["run"], measured.passport["format"]) == ("r1", name)
    prepared = [load_detector(files["onnx"]).prepare(each)[0] for each in shown]
    expected = list(map(detector.as_detect(), prepared))
    found = measure(files["onnx"], shown, runs=2, threads=1).detections
    same = agreement(expected, found)
    assert (same.within_tolerance, same.unmatched) == (True, 0)
    assert min(map(len, found)) > 10


@pytest.mark.slow
def test_both_files_do_what_the_checkpoint_does_and_name_what_they_are(tmp_path):
    detector = spread(
        build_detector(made_up_model(input_size=[64, 96], depth_multiplier=0.25), len(NAMES))
    )
    agrees(detector, tmp_path, pictures(2))
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    (image,) = session.get_inputs()
    assert (image.name, image.type, image.shape) == ("images", "tensor(uint8)", [1, 64, 96, 3])
    boxes, scores, classes, count = session.run(
        ["boxes", "scores", "classes", "count"], {"images": np.zeros(image.shape, np.uint8)}
    )
    assert (boxes.shape, scores.shape, classes.shape) == ((1, 100, 4), (1, 100), (1, 100))
    assert classes.min() >= 0 and count.shape == (1,)
    runs_without_odtrain(tmp_path)


def runs_without_odtrain(folder: Path) -> None:
    (shown,) = pictures(1)
    Image.fromarray(shown).save(folder / "picture.png")
    words = [EXAMPLE, folder / "model.onnx", folder / "picture.png", "0.02"]
    done = subprocess.run(
        [sys.executable, "-I", *map(str, words)], capture_output=True, text=True, check=True
    )
    found = load_detector(folder / "model.onnx")(shown).above(0.02)
    printed = [line.split() for line in done.stdout.splitlines()]
    assert abs(len(printed) - len(found)) <= 2  # levels of Pillow's bilinear may be one off
    assert {line[0] for line in printed} <= set(NAMES)
    assert float(printed[0][1]) == pytest.approx(float(found.scores[0]), abs=0.02)


@pytest.mark.long
@pytest.mark.parametrize("model", ["panels_ssd_mobilenet_v1", "panels_ssdlite_mobilenet_v2"])
def test_the_small_networks_that_are_shipped_agree(model, tmp_path):
    config = compose_config([f"model={model}"])
    agrees(spread(build_detector(config.model, len(NAMES))), tmp_path, pictures(4))


def test_without_tf2onnx_the_line_that_installs_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    detector = build_detector(made_up_model(input_size=64, depth_multiplier=0.1), len(NAMES))
    with pytest.raises(ConfigError) as error:
        export(detector, NAMES, ["onnx"], tmp_path, [], "builtin", PASSPORT)
    assert str(error.value) == (
        "export.formats: onnx is written by tf2onnx, which is not here.\n"
        "  Install it: pip install 'odtrain[onnx]'"
    )
