"""TensorFlow.js graph models: read into a frozen graph, and their folded batch norms taken apart again.

`model.json` holds the graph as protobuf's JSON, and in `weightsManifest` where each constant lies in the
files beside it. TensorFlow.js' converter joins each batch norm to the convolution before it: kernels arrive
multiplied, with an offset. Taken apart, a batch norm has the mean 0 and the variance that its epsilon completes
to 1, so that it multiplies by gamma alone; where maps share a kernel, gamma is each map's factor of it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.json_format import (  # type: ignore[import-untyped]
    ParseDict,
    ParseError,
)
from numpy.typing import NDArray

from odtrain.errors import CheckpointError, first_line

Arrays = dict[str, NDArray[Any]]

EPSILON = 0.001
"""Of the batch norms of the networks in `NAMES`."""
DTYPES = ("float32", "int32", "uint8", "bool", "float16", "uint16")
FUSED = {
    "_FusedConv2D": "Conv2D",
    "FusedConv2D": "Conv2D",
    "FusedDepthwiseConv2dNative": "DepthwiseConv2dNative",
}
"""TensorFlow.js' operations that do several things, and the first of these."""
ACTIVATIONS = ("Relu", "Relu6", "Elu", "LeakyRelu")
OUTPUTS = (
    "detection_anchor_indices",
    "detection_boxes",
    "detection_classes",
    "detection_multiclass_scores",
    "detection_scores",
    "num_detections",
    "raw_detection_boxes",
    "raw_detection_scores",
)
"""What the Object Detection API of TensorFlow 2 gives, as its exporter numbers `Identity`, `Identity_1`, ..."""

V2, HEADS = "FeatureExtractor/MobilenetV2", "WeightSharedConvolutionalBoxPredictor"
NAMES = [
    (r"feature_extractor/model/Conv1", rf"{V2}/Conv"),
    (r"feature_extractor/model/(expanded_conv)_(expand|depthwise|project)", rf"{V2}/\1/\2"),
    (
        r"feature_extractor/model/block_(\d+)_(expand|depthwise|project)",
        rf"{V2}/expanded_conv_\1/\2",
    ),
    (r"feature_extractor/model/(Conv_1)", rf"{V2}/\1"),
    (r"feature_extractor/FeatureMaps/top_down/(projection_\d+)", rf"{V2}/fpn/\1"),
    (r"feature_extractor/FeatureMaps/top_down/(smoothing_\d+)_depthwise_conv", rf"{V2}/fpn/\1"),
    (r"feature_extractor/(bottom_up_Conv2d_\d+)_depthwise_conv", rf"{V2}/fpn/\1"),
    (rf"{HEADS}/(PredictionTower/conv2d_\d+)", rf"{HEADS}/\1"),
    (rf"{HEADS}/\w+/(BoxPredictor|ClassPredictor)", rf"{HEADS}/\1"),
]
"""How names of layers end in TensorFlow 2's FPNLite, and the name that TensorFlow 1 gives the same layer."""
MOST_APART = 1e-4
"""How far kernels of one layer may be from multiples of each other, as a share of the largest number."""


def read_model(file: Path) -> Any:
    """The graph of a `model.json` with its constants in it, as the Object Detection API freezes one.

    Raises:
        CheckpointError: no graph model of TensorFlow.js, or its files of weights are not whole.
    """
    try:
        model = json.loads(file.read_bytes())
        graph = ParseDict(model["modelTopology"], tf.compat.v1.GraphDef())
        manifest = model["weightsManifest"]
        weights = {name: value for group in manifest for name, value in _weights(file, group)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ParseError) as error:
        raise CheckpointError(
            file,
            f"no graph model of TensorFlow.js: {first_line(error)}.",
            "Give its model.json, with the files of weights that it names beside it.",
        ) from error
    for node in graph.node:
        if node.op == "Const" and node.name in weights:
            # TensorFlow.js keeps int64 as int32; TensorFlow ends the process where they differ.
            value = weights[node.name].astype(tf.as_dtype(node.attr["dtype"].type).as_numpy_dtype)
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    return _with_known_ends(_unfused(graph))


def _weights(file: Path, group: Mapping[str, Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    """The constants of a group, which lie one behind the other in its files."""
    content = b"".join((file.parent / Path(path).name).read_bytes() for path in group["paths"])
    at = 0
    for each in group["weights"]:
        packed = each.get("quantization")
        dtype, kept = (_dtype(name) for name in (each["dtype"], (packed or each)["dtype"]))
        size = math.prod(each["shape"]) * kept.itemsize
        if at + size > len(content):
            raise ValueError(f"{each['name']} lies beyond the end of {', '.join(group['paths'])}")
        values = np.frombuffer(content, kept, math.prod(each["shape"]), at).reshape(each["shape"])
        at += size
        if packed and "scale" in packed:
            values = values * np.float32(packed["scale"]) + np.float32(packed["min"])
        yield each["name"], values.astype(dtype)


def _dtype(name: str) -> np.dtype[Any]:
    if name not in DTYPES:
        raise ValueError(f"constants of type {name}")
    return np.dtype(name)


def _unfused(graph: Any) -> Any:
    """The graph with TensorFlow's own operations in place of those that do several things."""
    plain = tf.compat.v1.GraphDef(versions=graph.versions)
    for node in graph.node:
        if node.op not in FUSED:
            plain.node.add().CopyFrom(node)
            continue
        steps = [each.decode() for each in node.attr["fused_ops"].list.s]
        if steps[:1] != ["BiasAdd"] or len(steps) > 2 or not {*steps[1:]} <= {*ACTIVATIONS}:
            raise CheckpointError(
                node.name,
                f"joins {', '.join(steps)} to a convolution.",
                f"Known here: BiasAdd, and one of {', '.join(ACTIVATIONS)}.",
            )
        names = [f"{node.name}/{FUSED[node.op]}", *(f"{node.name}/{each}" for each in steps)]
        names[-1] = node.name
        first = plain.node.add(name=names[0], op=FUSED[node.op], input=node.input[:2])
        for key in ("T", "strides", "padding", "dilations", "data_format", "explicit_paddings"):
            if key in node.attr:
                first.attr[key].CopyFrom(node.attr[key])
        inputs = [[names[0], node.input[2]], [names[1]]]
        for name, op, of in zip(names[1:], steps, inputs, strict=False):
            plain.node.add(name=name, op=op, input=of).attr["T"].CopyFrom(node.attr["T"])
    return plain


def _with_known_ends(graph: Any) -> Any:
    """The graph with the names that the Object Detection API's frozen graphs have for pictures and results."""
    names = {node.name for node in graph.node}
    inputs = [node.name for node in graph.node if node.op == "Placeholder"]
    ends = ["Identity", *(f"Identity_{i}" for i in range(1, len(OUTPUTS)))]
    if len(inputs) != 1 or not names >= {*ends}:
        return graph
    for node in graph.node:
        node.name = "image_tensor" if node.name == inputs[0] else node.name
        for i, each in enumerate(node.input):
            node.input[i] = re.sub(rf"^(\^?){re.escape(inputs[0])}(:0)?$", r"\1image_tensor", each)
    for name, end in zip(OUTPUTS, ends, strict=True):
        own = graph.node.add(name=name, op="Identity", input=[end])
        own.attr["T"].type = tf.float32.as_datatype_enum
    return graph


# ---- folded batch norms


def unfolded_variables(graph: Any) -> Arrays:
    """The variables of the networks in `NAMES`, under TensorFlow 1's names; empty for other graphs.

    Raises:
        CheckpointError: kernels of one layer are no multiples of each other.
    """
    constants = {
        node.name: tf.make_ndarray(node.attr["value"].tensor)
        for node in graph.node
        if node.op == "Const" and node.attr["value"].tensor.dtype == tf.float32.as_datatype_enum
    }
    found: Arrays = {}
    for layer, name in _layers(constants).items():
        found |= _plain_layer(constants, layer, name) or _folded_layer(constants, layer, name)
    return found


def _layers(constants: Mapping[str, Any]) -> dict[str, str]:
    """Layers' names in the graph, and in TensorFlow 1."""
    layers = {}
    for key in constants:
        layer = re.sub(r"/(Conv2D|depthwise|separable_conv2d|BiasAdd)(_\d+)?([/_].*)$", "", key)
        for pattern, name in NAMES:
            if match := re.search(f"{pattern}$", layer):
                layers[layer] = match.expand(name)
    return layers


def _plain_layer(constants: Arrays, layer: str, name: str) -> Arrays:
    """A layer with biases."""
    parts = {
        "weights": "Conv2D/ReadVariableOp",
        "depthwise_weights": "separable_conv2d/ReadVariableOp",
        "pointwise_weights": "separable_conv2d/ReadVariableOp_1",
        "biases": "BiasAdd/ReadVariableOp",
    }
    there = {own: constants.get(f"{layer}/{part}") for own, part in parts.items()}
    if there["biases"] is None:
        return {}
    return {f"{name}/{own}": value for own, value in there.items() if value is not None}


def _folded_layer(constants: Arrays, layer: str, name: str) -> Arrays:
    """A layer with a batch norm, or one for each map that it reads."""
    for part, own in (("Conv2D", "weights"), ("depthwise", "depthwise_weights")):
        if (kernel := constants.get(f"{layer}/{part}_weights")) is not None:
            offset = constants[f"{layer}/{part}_bn_offset"]
            return {f"{name}/{own}": kernel} | _batch_norm(f"{name}/BatchNorm", offset)
    depthwise = constants.get(f"{layer}/separable_conv2d/ReadVariableOp")
    pattern = re.compile(rf"{re.escape(layer)}/separable_conv2d(?:_(\d+))?_weights")
    maps = {int(m[1] or 0): key for key in constants if (m := pattern.fullmatch(key))}
    if depthwise is None or not maps:
        return {}
    kernels = np.stack([constants[maps[i]] for i in sorted(maps)])
    kernel, gammas = shared_kernel(kernels, layer)
    found = {f"{name}/depthwise_weights": depthwise, f"{name}/pointwise_weights": kernel}
    for i, gamma in zip(sorted(maps), gammas, strict=True):
        scope = f"{name}/BatchNorm" + (f"/feature_{i}" if "PredictionTower" in name else "")
        offset = constants[maps[i].removesuffix("weights") + "bn_offset"]
        found |= _batch_norm(scope, offset, gamma)
    return found


def shared_kernel(
    kernels: NDArray[np.float32], layer: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """One kernel for all maps, and what each map's is multiplied by.

    Args:
        kernels: (maps, 1, 1, in, out), equal but for a factor for each map and output.
        layer: for the message.

    Returns:
        (1, 1, in, out), the largest of each output's, and factors, (maps, out).

    Raises:
        CheckpointError: they differ by more than factors.
    """
    norms = np.square(kernels).sum(axis=(1, 2, 3))  # (maps, out)
    largest = norms.argmax(axis=0)
    kernel = np.take_along_axis(kernels, largest[None, None, None, None, :], axis=0)[0]
    factors = (kernels * kernel).sum(axis=(1, 2, 3)) / np.maximum(norms.max(axis=0), 1e-30)
    apart = np.abs(kernels - factors[:, None, None, None, :] * kernel).max()
    if apart > MOST_APART * np.abs(kernels).max():
        raise CheckpointError(
            layer,
            "its kernels for several maps are no multiples of each other: no batch norm makes that.",
            "Give the floating-point form of the model, not one that was rounded to fewer bits.",
        )
    return kernel, factors.astype(np.float32)


def _batch_norm(
    scope: str, offset: NDArray[np.float32], gamma: NDArray[np.float32] | None = None
) -> Arrays:
    ones = np.ones_like(offset)
    return {
        f"{scope}/gamma": ones if gamma is None else gamma,
        f"{scope}/beta": offset,
        f"{scope}/moving_mean": 0 * ones,
        f"{scope}/moving_variance": ones - np.float32(EPSILON),
    }
