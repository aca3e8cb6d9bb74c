"""The ranges of published quantised networks, in checkpoints as TensorFlow 1 wrote them."""

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from support.tf1_checkpoints import write_checkpoint

from odtrain.config.compose import compose_config
from odtrain.export.lite import LiteWriter
from odtrain.models.build import build_detector
from odtrain.models.int8.ranges import SETTLED
from odtrain.zoo.restore import restore

pytestmark = pytest.mark.slow

TFLITE = "zoo/ssd_mobilenet_v1_0.75_depth_quantized_coco.tflite"
"""Google's own file of that training: its ranges are what the checkpoint, which is out of reach, had."""


def published_ranges(file):
    """(min, max) by scope, of what flows between the layers of a uint8 file."""
    found = {}
    for each in Interpreter(str(file)).get_tensor_details():
        scope, _, operation = each["name"].rpartition("/")
        scale, zero = each["quantization"]
        if operation in ("Relu6", "BiasAdd") and scale:
            found[scope] = (-zero * scale, (255 - zero) * scale)
    return found


@pytest.fixture(scope="module")
def published(shared):
    return published_ranges(shared / TFLITE)


@pytest.fixture(scope="module")
def small():
    """A network of the same layers, narrow."""
    return build(90)


def build(classes):
    overrides = ["model=ssd_mobilenet_v1_0.75_depth_quantized_coco", "model.depth_multiplier=0.25"]
    config = compose_config([*overrides, "model.input_size=96"]).model
    return build_detector(config, classes, quantized=True)


def in_todays_width(scope, detector):
    """The scope as the narrow network has it: the names of extra maps say their channels."""
    head, _, channels = scope.rpartition("_")
    for name in detector.variables_by_name():
        own = name.rpartition("/")[0]
        if channels.isdigit() and own.rpartition("_")[0] == head:
            return own
    return scope


@pytest.fixture(scope="module")
def checkpoint(small, published, tmp_path_factory):
    """Weights of the narrow network, and the published ranges under the names of `contrib.quantize`."""
    tensors = {name: variable.numpy() for name, variable in small.variables_by_name().items()}
    for scope, ends in published.items():
        for end, value in zip(("min", "max"), ends, strict=True):
            key = f"{in_todays_width(scope, small)}/act_quant"
            tensors[f"{key}/{end}"] = np.float32(value)
            tensors[f"{key}/{key}/{end}/biased"] = np.float32(value)
            tensors[f"{key.replace('act', 'weights')}/{end}"] = np.float32(value)
    return write_checkpoint(tmp_path_factory.mktemp("quantized") / "model.ckpt", tensors)


def test_every_published_range_is_taken(small, checkpoint, published):
    detector = build(90)
    report = restore(detector, checkpoint, ranges=True)
    ranges = detector.quantized.ranges
    assert len(published) == 35 + 12
    assert report.ranges == len(ranges.low) == 35 + 2
    assert set(ranges.seen.numpy()) == {SETTLED}
    first = ranges.values()["FeatureExtractor/MobilenetV1/Conv2d_0/activation"]
    assert first == pytest.approx(
        published["FeatureExtractor/MobilenetV1/MobilenetV1/Conv2d_0"], abs=1e-6
    )
    boxes = [ends for scope, ends in published.items() if "BoxEncodingPredictor" in scope]
    lows, highs = zip(*boxes, strict=True)
    assert ranges.values()["encodings"] == pytest.approx((min(lows), max(highs)), abs=1e-6)
    assert report.table().endswith(
        "\n37 fake-quantisation ranges of what flows between layers are taken, and followed."
    )


def test_the_file_has_the_published_scales(small, checkpoint, published):
    detector = build(90)
    restore(detector, checkpoint, ranges=True)
    names = [f"class {number}" for number in range(90)]
    content = LiteWriter(detector, [], "builtin").content("tflite_int8", names, {})
    scales = np.array(
        [
            each["quantization"][0]
            for each in Interpreter(model_content=content).get_tensor_details()
            if each["dtype"] == np.int8
        ]
    )
    for scope, (low, high) in published.items():
        if "Predictor" not in scope:
            assert np.abs(scales - (high - low) / 255).min() < 1e-6, scope


def test_ranges_of_layers_that_begin_anew_are_left(checkpoint):
    detector = build(3)
    report = restore(detector, checkpoint, ranges=True)
    seen = dict(
        zip(detector.quantized.ranges.low, detector.quantized.ranges.seen.numpy(), strict=True)
    )
    assert {point for point, steps in seen.items() if steps == 0} == {"logits"}
    assert report.ranges == 36


def test_ranges_are_left_where_nobody_asks_for_them(checkpoint):
    detector = build(90)
    report = restore(detector, checkpoint)
    assert not detector.quantized.ranges.seen.numpy().any()
    assert report.ranges == 0
    assert report.table().endswith(
        "\nThe fake-quantisation ranges are not used: weights are trained as floats, and int8 files get "
        "ranges measured\non your pictures (export.calibration_pictures). train.quantize_from=0 takes them."
    )
