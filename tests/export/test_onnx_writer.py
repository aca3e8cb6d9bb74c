"""Exports to ONNX: proven like other files, by what the checkpoint says of the same whole levels."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
import tf2onnx
from support.made_up_model import made_up_model
from support.whole_levels import NAMES, agrees, lively, printed_alike, shown_pictures

from odtrain.config.compose import compose_config
from odtrain.errors import ConfigError
from odtrain.export.onnx_writer import HANDLERS, OPSET
from odtrain.export.writers import export
from odtrain.models.blocks import hard_sigmoid
from odtrain.models.build import build_detector
from odtrain.models.efficientdet_layers import Nearest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/detect_onnx.py"
MODELS = sorted(file.stem for file in (ROOT / "conf/model").glob("*.yaml"))
RAW_TOO = "panels_ssd_mobilenet_v1"


@pytest.mark.slow
def test_both_files_do_what_the_checkpoint_does_and_name_what_they_are(tmp_path):
    detector = lively(
        build_detector(made_up_model(input_size=[64, 96], depth_multiplier=0.25), len(NAMES))
    )
    for name in ("onnx", "onnx_raw"):
        agrees(detector, name, tmp_path, shown_pictures(2))
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    (image,) = session.get_inputs()
    assert (image.name, image.type, image.shape) == ("images", "tensor(uint8)", [1, 64, 96, 3])
    boxes, scores, classes, count = session.run(
        ["boxes", "scores", "classes", "count"], {"images": np.zeros(image.shape, np.uint8)}
    )
    assert (boxes.shape, scores.shape, classes.shape) == ((1, 100, 4), (1, 100), (1, 100))
    assert classes.min() >= 0 and count.shape == (1,)
    printed_alike(EXAMPLE, tmp_path / "model.onnx", tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
def test_every_network_that_is_shipped_agrees(model, tmp_path):
    detector = lively(build_detector(compose_config([f"model={model}"]).model, len(NAMES)))
    names = ["onnx", *["onnx_raw"] * (model == RAW_TOO)]
    if importlib.util.find_spec("openvino"):
        names.append("openvino_fp32")
    for name in names:
        agrees(detector, name, tmp_path, shown_pictures(2))


def test_maps_of_odd_sides_are_enlarged_to_the_size_that_they_had():
    """By tf2onnx's own factor five cells of three become four."""
    signature = [tf.TensorSpec((1, 3, 10, 2), name="map")]
    function = tf.function(Nearest((5, 14)), input_signature=signature)
    model, _ = tf2onnx.convert.from_function(
        function, input_signature=signature, opset=OPSET, custom_op_handlers=HANDLERS
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    shown = np.arange(60, dtype=np.float32).reshape(1, 3, 10, 2)
    (larger,) = session.run(None, {"map": shown})
    assert np.array_equal(larger, function(shown))


def test_transposes_are_moved_past_sums_with_a_number(caplog):
    """tf2onnx gives up on all of them where one number that is added has no axis, as in hard sigmoid."""
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 4)).astype(np.float32)
    signature = [tf.TensorSpec((1, 8, 8, 2), name="map")]
    function = tf.function(
        lambda x: hard_sigmoid(tf.nn.conv2d(x, kernel, 1, "SAME")), input_signature=signature
    )
    model, _ = tf2onnx.convert.from_function(
        function, input_signature=signature, opset=OPSET, custom_op_handlers=HANDLERS
    )
    assert "Failed to apply" not in caplog.text
    shown = np.arange(128, dtype=np.float32).reshape(1, 8, 8, 2) / 128
    (found,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"map": shown})
    assert found == pytest.approx(function(shown).numpy(), abs=1e-5)


def test_without_tf2onnx_the_line_that_installs_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    detector = build_detector(made_up_model(input_size=64, depth_multiplier=0.1), len(NAMES))
    with pytest.raises(ConfigError) as error:
        export(detector, NAMES, ["onnx"], tmp_path, [], "builtin", {})
    assert str(error.value) == (
        "export.formats: onnx is written by tf2onnx, which is not here.\n"
        "  Install it: pip install 'odtrain[onnx]'"
    )
