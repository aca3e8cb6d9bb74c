"""Networks computed as their int8 files will be: ranges, gradients, and what the converter makes of them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from odtrain.config.compose import compose_config
from odtrain.errors import ConfigError
from odtrain.export.lite import LiteWriter
from odtrain.models.blocks import hard_sigmoid, hard_swish
from odtrain.models.build import build_detector, plain_copy
from odtrain.models.int8.quantized import Quantized
from odtrain.models.int8.ranges import DECAY, SETTLED, Range

pytestmark = pytest.mark.slow

SMALL = "model=ssd_mobilenet_v1_coco model.input_size=64 model.depth_multiplier=0.25"
LONG = [pytest.mark.long]
KINDS = [
    pytest.param(SMALL, id="v1"),
    *(
        pytest.param(f"model={name} model.input_size={size} {more}", id=name, marks=LONG)
        for name, size, more in (
            ("ssdlite_mobilenet_v2_coco", 96, "model.depth_multiplier=0.35"),
            ("ssd_mobilenet_v3_small_coco", 96, "model.depth_multiplier=0.5"),
            ("ssd_mobiledet_cpu_coco", 96, "model.depth_multiplier=0.5"),
            ("ssd_mobiledet_dsp_coco", 96, "model.depth_multiplier=0.5"),
            ("ssd_mobilenet_edgetpu_coco", 96, "model.depth_multiplier=0.5"),
            ("ssd_mobilenet_v2_fpnlite_320_coco", 128, "model.depth_multiplier=0.35"),
            ("ssd_mobilenet_v2_mnasfpn_coco", 128, "model.depth_multiplier=0.35"),
            ("ssd_mobilenet_v1_ppn_coco", 128, "model.depth_multiplier=0.25"),
            ("ssd_inception_v2_coco", 96, "model.depth_multiplier=0.25"),
            ("ssd_resnet_50_fpn_coco", 128, "model.depth_multiplier=0.25"),
            ("efficientdet_lite0_coco", 128, "model.depth_multiplier=0.5"),
        )
    ),
]


def lively(overrides):
    """A detector whose maps keep their spread, mostly where activations are straight, and pictures.

    Untrained networks that bend what they see at every layer make much of the smallest difference.
    """
    config = compose_config(overrides.split()).model
    detector = build_detector(config, 3, quantized=True)
    random = np.random.default_rng(0)
    for name, variable in detector.variables_by_name().items():
        *_, last = name.split("/")
        if len(variable.shape) == 4:
            sides = variable.shape[:2] if "depthwise" in last else variable.shape[:3]
            spread = np.sqrt(2 / np.prod(sides))
            variable.assign(random.normal(0, spread, variable.shape))
        elif last == "beta":
            variable.assign(random.normal(2, 0.3, variable.shape))
    coarse = tf.constant(random.uniform(-1, 1, (16, 5, 5, 3)), tf.float32)
    pictures = tf.image.resize(coarse, config.size, "nearest")
    for layer in detector.network._flatten_layers():
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            layer.momentum = 0.5
    for _ in range(8):
        detector.network(pictures, training=True)
    return detector, pictures


@pytest.fixture(scope="module")
def small():
    """A detector whose ranges have seen one batch, and that batch; tests only read it."""
    detector, pictures = lively(SMALL)
    detector.quantized(pictures, training=True)
    return detector, pictures


def int8_file(detector, nms="builtin"):
    names = [f"class {number}" for number in range(detector.num_classes)]
    return LiteWriter(detector, [], nms).content("tflite_int8", names, {})


def interpreted(content):
    """An interpreter of the plain operators, and its operators as (name, inputs, outputs)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that this takes more memory
        interpreter = Interpreter(
            model_content=content,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
    interpreter.allocate_tensors()
    details = {each["index"]: each for each in interpreter.get_tensor_details()}
    found = [
        (
            one["op_name"],
            *([details[i] for i in one[key] if i >= 0] for key in ("inputs", "outputs")),
        )
        for one in interpreter._get_ops_details()
    ]
    return interpreter, found


def before_suppression(operators):
    """Those up to the scores and encodings in float."""
    last = max(i for i, (name, *_) in enumerate(operators) if name == "DEQUANTIZE")
    return operators[: last + 1]


@pytest.mark.parametrize("overrides", KINDS)
def test_every_trained_range_is_in_the_file_and_all_of_the_network_is_int8(overrides):
    detector, pictures = lively(overrides)
    detector.quantized(pictures, training=True)
    _, operators = interpreted(int8_file(detector))
    outputs = [each for _, _, tensors in before_suppression(operators) for each in tensors]
    assert {each["dtype"] for each in outputs[:-1]} <= {np.int8, np.float32}
    floats = [
        name for name, _, (out, *_) in before_suppression(operators) if out["dtype"] != np.int8
    ]
    assert floats == ["DEQUANTIZE"] * 2
    scales = np.array(sorted({each["quantization"][0] for each in outputs} - {0.0}))
    for point, (low, high) in detector.quantized.ranges.values().items():
        scale = (max(high, low + 1e-5) - low) / 255
        assert np.abs(scales / scale - 1).min() < 1e-5, point


def test_the_file_finds_what_the_simulation_finds(small):
    detector, pictures = small
    interpreter, operators = interpreted(int8_file(detector))
    (image,) = interpreter.get_input_details()
    pixels = np.round((pictures[:1].numpy() + 1) * 127.5).astype(np.uint8)
    interpreter.set_tensor(image["index"], pixels)
    interpreter.invoke()
    _, logits = detector.quantized(detector.normalize(pixels), training=False)
    expected = tf.sigmoid(logits)[:, :, 1:].numpy()
    (score,) = [
        out["index"]
        for name, _, (out, *_) in operators
        if name == "DEQUANTIZE" and out["shape"][-1] == 3
    ]
    found = interpreter.get_tensor(score)
    # A sum at the edge between two levels may be rounded to the other one; a score is one of 256.
    assert np.abs(found - expected).mean() < 2 / 256
    assert np.abs(found - expected).max() < 0.15
    assert np.std(expected) > 0.1


def test_no_picture_is_read_for_a_file_of_trained_ranges(small):
    detector, _ = small
    (interpreter, _) = interpreted(int8_file(detector, "fast"))
    (image,) = interpreter.get_input_details()
    assert image["dtype"] == np.uint8
    with pytest.raises(ConfigError):
        int8_file(plain_copy_without_ranges(detector))


def plain_copy_without_ranges(detector):
    return build_detector(detector.config, detector.num_classes)


def test_float_files_are_those_of_the_network_as_it_was(small):
    detector, _ = small
    copy = plain_copy_without_ranges(detector)
    for name, variable in copy.variables_by_name().items():
        variable.assign(detector.variables_by_name()[name])
    names = ["a", "b", "c"]
    ours, theirs = (
        LiteWriter(one, [], "builtin").content("tflite_fp32", names, {}) for one in (detector, copy)
    )
    assert buffers(ours) == buffers(theirs)


def buffers(content):
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    found = [b"" if one.data is None else bytes(one.data) for one in model.buffers]
    return sorted(one for one in found if len(one) > 16)


def test_a_plain_copy_has_the_ranges_too(small):
    detector, _ = small
    copy = plain_copy(detector)
    assert copy.trained_int8.ranges.values() == detector.quantized.ranges.values()


def test_rounding_changes_what_is_found_and_hardly(small):
    detector, pictures = small
    for rounded, plain in zip(
        detector.quantized(pictures, training=False),
        detector.network(pictures, training=False),
        strict=True,
    ):
        difference, spread = np.abs(rounded - plain).mean(), np.std(plain)
        assert 0.001 * spread < difference < 0.1 * spread


def test_gradients_pass_through_rounding(small):
    detector, pictures = small
    variables = detector.network.trainable_variables
    with tf.GradientTape() as tape:
        encodings, logits = detector.quantized(pictures, training=False)
        loss = tf.reduce_mean(encodings**2) + tf.reduce_mean(logits**2)
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        assert np.abs(gradient).max() > 0, variable.name


# ---- ranges


def tiny(layer):
    """A network of one layer behind a picture of 2 x 2, as it is computed in int8."""
    images = tf_keras.Input((2, 2, 3))
    return Quantized(tf_keras.Model(images, layer(images)))


def kernel_of_ones():
    return tf_keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones", name="sum")


def pictures_of(*colours):
    return tf.concat([tf.fill((1, 2, 2, 3), colour) for colour in colours], axis=0)


def test_a_range_is_the_mean_of_what_batches_reach():
    quantized = tiny(kernel_of_ones())
    for low, high in ((-0.25, 0.5), (-0.75, 0.25)):
        quantized(pictures_of(low, high), training=True)
    (found,) = quantized.ranges.values().values()
    assert found == pytest.approx((3 * -0.5, 3 * 0.375), abs=0.03)
    assert quantized.ranges.seen.numpy() == [2]


def test_a_settled_range_follows_slowly():
    quantized = tiny(kernel_of_ones())
    quantized.ranges.take({"sum": Range(-2.0, 2.0)})
    quantized(pictures_of(-0.5, 1.0), training=True)
    (found,) = quantized.ranges.values().values()
    assert found.low == pytest.approx(-2 + (1 - DECAY) * 0.5, abs=1e-4)
    assert quantized.ranges.seen.numpy() == [SETTLED + 1]


def test_a_range_stays_outside_of_training():
    quantized = tiny(kernel_of_ones())
    quantized.ranges.take({"sum": Range(-2.0, 2.0)})
    quantized(pictures_of(-0.5, 1.0), training=False)
    assert quantized.ranges.values() == {"sum": (-2.0, 2.0)}


def test_a_range_holds_zero():
    quantized = tiny(kernel_of_ones())
    quantized(pictures_of(0.5, 1.0), training=True)
    (found,) = quantized.ranges.values().values()
    assert found.low == 0


@pytest.mark.parametrize(
    ("activation", "expected"), [(hard_swish, (-3, 12)), (hard_sigmoid, (-3, 3))]
)
def test_no_level_is_spent_where_an_activation_no_longer_changes(activation, expected):
    conv = tf_keras.layers.Conv2D(
        1, 1, use_bias=False, kernel_initializer=tf_keras.initializers.Constant(4.0), name="conv"
    )
    quantized = tiny(lambda x: tf_keras.layers.Activation(activation)(conv(x)))
    quantized(pictures_of(-1.0, 1.0), training=True)
    assert quantized.ranges.values()["conv"] == pytest.approx(expected, abs=0.1)


def test_a_channel_of_zeros_stays_one():
    layer = tf_keras.layers.Conv2D(2, 1, use_bias=False, kernel_initializer="zeros")
    (found,) = (tiny(layer)(pictures_of(1.0), training=True),)
    assert not np.any(found)


def test_what_is_joined_has_one_range():
    convs = [kernel_of_ones() for _ in range(2)]
    convs[1]._name = "other"
    quantized = tiny(
        lambda x: tf_keras.layers.Concatenate(name="joined")([one(x) for one in convs])
    )
    assert list(quantized.ranges.low) == ["joined"]


def test_a_network_of_other_layers_is_refused():
    with pytest.raises(ConfigError) as caught:
        tiny(tf_keras.layers.LayerNormalization())
    assert str(caught.value) == (
        "train.quantize_from: the network has a LayerNormalization, whose int8 arithmetic is not simulated.\n"
        "  Leave it out, or choose an SSD or an EfficientDet-Lite."
    )
