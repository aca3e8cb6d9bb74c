"""TensorFlow.js graph models: read whole, and taken apart into the layers that they were joined of."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import tensorflow as tf
from support.commands import odtrain
from support.tfjs_files import write_model

from odtrain.errors import CheckpointError
from odtrain.io.packages import PackageError, check, packaged
from odtrain.zoo.tfjs import EPSILON, read_model, shared_kernel, unfolded_variables

RANDOM = np.random.default_rng(0)
EXTRACTOR = "call/ssd_mobile_net_v2fpn_keras_feature_extractor"
HEADS = "call/WeightSharedConvolutionalBoxPredictor"
V2 = "FeatureExtractor/MobilenetV2"
HANDS = "ssd_mobilenet_v2_fpnlite_320_hands"


def kernel(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


def values(graph):
    return {n.name: tf.make_ndarray(n.attr["value"].tensor) for n in graph.node if n.op == "Const"}


def test_constants_are_read_across_files(tmp_path):
    constants = {"one": kernel(3, 2), "two": kernel(5)}
    found = values(read_model(write_model(tmp_path, constants)))
    for name, value in constants.items():
        np.testing.assert_array_equal(found[name], value)


def test_constants_that_were_rounded_to_bytes_are_read(tmp_path):
    constants = {"one": np.linspace(-1, 1, 9, dtype=np.float32)}
    packed = {"dtype": "uint8", "scale": 2 / 255, "min": -1.0}
    found = values(read_model(write_model(tmp_path, constants, quantization=packed)))
    np.testing.assert_allclose(found["one"], constants["one"], atol=1 / 255)


def test_whole_numbers_of_64_bits_are_kept_in_32_and_read_as_what_the_graph_calls_them(tmp_path):
    """TensorFlow ends the process where a constant is of another type than its operation says."""
    kept = np.array([3, -1], np.int32)
    graph = read_model(write_model(tmp_path / "net", {"sides": kept}, kind="DT_INT64"))
    assert values(graph)["sides"].dtype == np.int64
    assert values(graph)["sides"].tolist() == [3, -1]


def test_files_of_weights_that_are_not_whole_are_told(tmp_path):
    file = write_model(tmp_path, {"one": kernel(100)})
    (tmp_path / "b.bin").write_bytes(b"half")
    with pytest.raises(CheckpointError) as raised:
        read_model(file)
    assert str(raised.value) == (
        f"{file}: no graph model of TensorFlow.js: one lies beyond the end of a.bin, b.bin.\n"
        "  Give its model.json, with the files of weights that it names beside it."
    )


def test_a_json_that_is_no_model_is_told(tmp_path):
    (tmp_path / "x.json").write_text("[1, 2]")
    with pytest.raises(CheckpointError, match=r"x\.json: no graph model of TensorFlow\.js: "):
        read_model(tmp_path / "x.json")


def test_joined_operations_compute_the_same_one_by_one(tmp_path):
    constants = {"kernel": kernel(3, 3, 2, 4), "offset": kernel(4)}
    steps = [base64.b64encode(each).decode() for each in (b"BiasAdd", b"Relu6")]
    attributes = {
        "T": {"type": "DT_FLOAT"},
        "strides": {"list": {"i": ["1", "2", "2", "1"]}},
        "padding": {"s": base64.b64encode(b"SAME").decode()},
        "fused_ops": {"list": {"s": steps}},
    }
    given = {"name": "given", "op": "Placeholder", "attr": {"dtype": {"type": "DT_FLOAT"}}}
    joined = {
        "name": "joined",
        "op": "_FusedConv2D",
        "input": ["given", "kernel", "offset"],
        "attr": attributes,
    }
    graph = read_model(write_model(tmp_path, constants, [given, joined]))
    whole = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), [])
    pictures = kernel(1, 8, 6, 2)
    (found,) = whole.prune(["given:0"], ["joined:0"])(tf.constant(pictures))
    expected = tf.nn.conv2d(pictures, constants["kernel"], 2, "SAME") + constants["offset"]
    np.testing.assert_allclose(found, tf.nn.relu6(expected), atol=1e-6)


def test_a_folded_batch_norm_is_taken_apart_into_one_that_does_the_same(tmp_path):
    weights, offset = kernel(1, 1, 3, 4), kernel(4)
    layer = f"{EXTRACTOR}/model/block_7_expand/Conv2D"
    graph = read_model(
        write_model(tmp_path, {f"{layer}_weights": weights, f"{layer}_bn_offset": offset})
    )
    found = unfolded_variables(graph)
    scope = f"{V2}/expanded_conv_7/expand"
    np.testing.assert_array_equal(found[f"{scope}/weights"], weights)
    norm = {name: found[f"{scope}/BatchNorm/{name}"] for name in ("gamma", "beta")}
    mean, variance = (found[f"{scope}/BatchNorm/moving_{name}"] for name in ("mean", "variance"))
    x = kernel(5, 4)
    y = norm["gamma"] * (x - mean) / np.sqrt(variance + np.float32(EPSILON)) + norm["beta"]
    np.testing.assert_allclose(y, x + offset, atol=1e-6)


def test_layers_that_maps_share_have_a_batch_norm_for_each_map(tmp_path):
    shared, gammas, offsets = kernel(1, 1, 6, 4), kernel(3, 4), kernel(3, 4)
    layer = f"{HEADS}/PredictionTower/conv2d_2/separable_conv2d"
    constants = {f"{layer}/ReadVariableOp": kernel(3, 3, 6, 1)}
    for i, end in enumerate(("", "_1", "_2")):
        constants[f"{layer}{end}_weights"] = shared * gammas[i]
        constants[f"{layer}{end}_bn_offset"] = offsets[i]
    found = unfolded_variables(read_model(write_model(tmp_path, constants)))
    scope = "WeightSharedConvolutionalBoxPredictor/PredictionTower/conv2d_2"
    for i in range(3):
        norm = f"{scope}/BatchNorm/feature_{i}"
        product = found[f"{scope}/pointwise_weights"] * found[f"{norm}/gamma"]
        np.testing.assert_allclose(product, shared * gammas[i], atol=1e-5)
        np.testing.assert_array_equal(found[f"{norm}/beta"], offsets[i])


def test_kernels_that_are_no_multiples_are_refused():
    with pytest.raises(CheckpointError) as raised:
        shared_kernel(kernel(2, 1, 1, 6, 4), "net/conv")
    assert str(raised.value) == (
        "net/conv: its kernels for several maps are no multiples of each other: no batch norm makes "
        "that.\n  Give the floating-point form of the model, not one that was rounded to fewer bits."
    )


@pytest.mark.long
def test_the_network_of_hands_of_the_configured_index_is_equal_to_its_graph(
    shared, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = packaged("npm:handtrackjs@0.1.5:x")
    assert found is not None
    try:
        check(found)
    except PackageError as error:
        pytest.skip(f"{found.requirement}: {error}")
    done = odtrain(["zoo", "verify", HANDS, f"input={shared / 'data/raccoon/images'}"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "equal to its frozen graph on 5 pictures.\n  all anchors: boxes within " in done.stdout
