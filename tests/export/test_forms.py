"""What a network is written down as for .tflite of float and of int8."""

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from support.made_up_model import made_up_model

from odtrain.config.compose import compose_config
from odtrain.export.writers import export
from odtrain.models.blocks import hard_swish
from odtrain.models.build import build_detector
from odtrain.models.form import Form, traced_for
from odtrain.models.layers import layers_for


def operators(content: bytes) -> Counter[str]:
    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    return Counter(operator["op_name"] for operator in interpreter._get_ops_details())


def converted(function, shapes, form, inputs=None):
    """The content of a .tflite of a function; in int8 where there are `inputs` to calibrate with."""
    given = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    traced = tf.function(function, input_signature=given, autograph=False)
    with traced_for(form):
        concrete = traced.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], traced)
    if inputs is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: ([each] for each in inputs)
    return converter.convert()


def outputs(content, given):
    """What a file makes of the arrays, in the order of its inputs and outputs."""
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    for detail, array in zip(interpreter.get_input_details(), given, strict=True):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


def test_hard_swish_for_int8_is_the_same_function():
    x = tf.constant(np.linspace(-8, 8, 4001, dtype=np.float32))
    with traced_for(Form.LITE_INT8):
        found = hard_swish(x)
    np.testing.assert_allclose(found, hard_swish(x), rtol=3e-7, atol=0)


@pytest.mark.filterwarnings("ignore:Statistics for quantized inputs:UserWarning")
def test_hard_swish_in_int8_is_within_a_step_of_its_own_operator():
    inputs = np.linspace(-6, 6, 64 * 32, dtype=np.float32).reshape(32, 1, 64)
    found = {}
    for form in (Form.PLAIN, Form.LITE_INT8):
        content = converted(hard_swish, [(1, 64)], form, inputs)
        found[form] = np.stack([outputs(content, [each])[0] for each in inputs])
        assert ("HARD_SWISH" in operators(content)) == (form is Form.PLAIN)
    step = (6.0 + 0.375) / 255  # of what the function gives between -6 and 6
    assert np.abs(found[Form.PLAIN] - found[Form.LITE_INT8]).max() <= 1.01 * step


@pytest.fixture(scope="module")
def swishing(tmp_path_factory):
    model = compose_config(
        ["model=ssdlite_mobilenet_v3_small_0.5_depth_256", "model.input_size=96"]
    ).model
    files = export(
        build_detector(model, 2),
        ["bell", "cat"],
        ["tflite_fp32", "tflite_int8"],
        tmp_path_factory.mktemp("swishing"),
        list(np.random.default_rng(1).integers(0, 256, (2, 90, 120, 3), np.uint8)),
        "builtin",
        {},
    )
    return {name: operators(path.read_bytes()) for name, path in files.items()}


def test_a_float_file_has_the_operator_of_hard_swish(swishing):
    assert swishing["tflite_fp32"]["HARD_SWISH"] == 18


def test_an_int8_file_has_hard_swish_of_operators_that_kernels_exist_for(swishing):
    assert swishing["tflite_int8"]["HARD_SWISH"] == 0


def test_a_kernel_that_levels_share_is_stored_once():
    layers = layers_for(
        made_up_model(), frozen_stages=0, batch_norm_trained=True, precision="fp32", seed=0
    )
    maps = [tf_keras.Input((side, side, 64), 1) for side in (8, 4, 2)]
    network = tf_keras.Model(maps, layers.shared_conv(maps, "tower", 64, 3))
    for norm in network.layers:
        if isinstance(norm, tf_keras.layers.BatchNormalization):  # no two of them alike
            norm.gamma.assign(tf.random.stateless_uniform([64], [1, len(norm.name)], 0.5, 2))
    content = converted(
        lambda *maps: network(list(maps)), [each.shape for each in maps], Form.LITE_FLOAT
    )
    assert len(content) < 1.5 * 3 * 3 * 64 * 64 * 4
    given = [tf.random.stateless_normal(each.shape, [0, 0]).numpy() for each in maps]
    found = {each.shape: each for each in outputs(content, given)}
    for each in network(given):
        np.testing.assert_allclose(found[tuple(each.shape)], each, atol=1e-5)
