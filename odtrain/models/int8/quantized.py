"""A network as its int8 file computes it, in float and with gradients: for training that gets used to it.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference". Layers and variables are the network's own. Batch norm, by its moving statistics, is folded into the
convolution before it; kernels are rounded channel by channel; what flows between operators is rounded where
TensorFlow Lite's converter puts a range. tensorflow-model-optimization does so to Keras' own layers alone, and
has batch norm behind the rounded kernel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras

from odtrain.errors import ConfigError
from odtrain.models.blocks import FIVE_DIGITS, hard_sigmoid, hard_swish
from odtrain.models.efficientdet_layers import Nearest, Survival
from odtrain.models.int8.ranges import ALL, Deployed, Range, Ranges, Simulated
from odtrain.models.layers import Beside, StageEnd, kept_scale

PICTURES = Range(-1.0, 1.0)
"""Of the network's input."""
SHIFTED = Range(0.0, 6.0)
"""Of relu6(x + 3)."""
SIGMOID = Range(0.0, 255 / 256)
"""That TensorFlow Lite fixes for what the logistic function gives."""


@dataclass(frozen=True, eq=False)
class Operator:
    """One operator of the converted network, or several whose inside nobody else sees.

    Attributes:
        layer: what it computes.
        inputs: keys of the maps that it reads.
        output: key of the map that it gives.
        points: where its ranges are, in its order. Of what a concatenation joins the last one is missing:
            all that it joins has its range.
        norm: batch norm that is folded into the layer.
        activation: that the operator ends with.
        bounds: beyond which values of its output make no difference to what reads it.
    """

    layer: Any
    inputs: tuple[str, ...]
    output: str
    points: tuple[str, ...]
    norm: Any = None
    activation: Callable[[tf.Tensor], tf.Tensor] = tf.identity
    bounds: Range = ALL


class Quantized:
    """What a network gives when it is computed as its int8 file will be.

    Attributes:
        ranges: of its points.
    """

    def __init__(self, network: tf_keras.Model) -> None:
        """Use the layers and variables of `network`.

        Raises:
            ConfigError: it has a layer whose int8 arithmetic is not known here.
        """
        (self._input,), self._outputs = _keys(network.inputs), _keys(network.outputs)
        self._operators = list(_operators(network))
        self.ranges = Ranges([point for one in self._operators for point in one.points])

    def __call__(self, images: tf.Tensor, training: bool) -> tuple[tf.Tensor, ...]:
        """What the network makes of (B, H, W, 3) float32 pictures from -1 to 1."""
        return self._run(images, Simulated(self.ranges, training), training)

    def deployed(self, images: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The same for the converter, which takes the ranges from it."""
        return self._run(images, Deployed(self.ranges), training=False)

    def _run(self, images: tf.Tensor, exact: Simulated, training: bool) -> tuple[tf.Tensor, ...]:
        maps = {self._input: Map(exact.within(images, PICTURES), PICTURES)}
        for one in self._operators:
            inputs = [maps[key] for key in one.inputs]
            maps[one.output] = COMPUTED[_kind(one.layer)](one, inputs, exact, training)
        exact.done()
        return tuple(maps[key].values for key in self._outputs)


class Map(NamedTuple):
    """What flows between operators.

    Attributes:
        values: (B, H, W, C), or behind the predictors (B, A, D).
        range: in which they are rounded; None where they are not yet.
        factor: that is left to the kernels behind it: what is meant are the values times it.
    """

    values: tf.Tensor
    range: Range | None
    factor: float = 1.0


Compute = Callable[[Operator, Sequence[Map], Simulated, bool], Map]


def _rounded(one: Operator, x: tf.Tensor, exact: Simulated, point: int = -1) -> Map:
    """`x` in the range of one of the operator's points."""
    bounds = one.bounds if point == -1 else ALL
    range_ = exact.range_at(one.points[point], x, bounds)
    return Map(exact.within(x, range_), range_)


def _ended(one: Operator, x: tf.Tensor, exact: Simulated, inner: int = 0) -> Map:
    """`x` after the activation, rounded unless that is left to a concatenation; `inner` points come before."""
    x = one.activation(x)
    return _rounded(one, x, exact) if len(one.points) > inner else Map(x, None)


def _values(given: Map, exact: Simulated) -> tf.Tensor:
    """What is meant, for what takes no factor: the same integers in a range wider by it."""
    if given.factor == 1:
        return given.values
    assert given.range is not None  # of a map that is not joined to others
    low, high = (end * given.factor for end in given.range)
    return exact.within(given.values * given.factor, Range(low, high))


def _folded(one: Operator, kernel: tf.Tensor, factor: float) -> tuple[tf.Tensor, tf.Tensor]:
    """An (h, w, I, O) kernel, with batch norm and its input's factor folded into it, and (O,) biases."""
    layer, norm, kernel = one.layer, one.norm, kernel * factor
    bias = tf.convert_to_tensor(layer.bias) if layer.use_bias else tf.zeros(kernel.shape[-1:])
    if norm is not None:
        scale = kept_scale(norm)
        kernel, bias = kernel * scale, norm.beta + (bias - norm.moving_mean) * scale
    return kernel, bias


def _by_channel(kernel: tf.Variable) -> tf.Tensor:
    """A depthwise (h, w, C, M) kernel with its output channels last, (h, w, 1, C * M)."""
    return tf.reshape(kernel, (*kernel.shape[:2], 1, -1))


def _conv(one: Operator, inputs: Sequence[Map], exact: Simulated, training: bool) -> Map:
    layer = one.layer
    with exact.folding():
        kernel, bias = _folded(one, tf.convert_to_tensor(layer.kernel), inputs[0].factor)
    x = tf.nn.conv2d(inputs[0].values, exact.kernel(kernel), layer.strides, layer.padding.upper())
    return _ended(one, tf.nn.bias_add(x, exact.bias(bias)), exact)


def _depthwise(one: Operator, inputs: Sequence[Map], exact: Simulated, training: bool) -> Map:
    with exact.folding():
        kernel, bias = _folded(one, _by_channel(one.layer.depthwise_kernel), inputs[0].factor)
    x = _filtered_by_channel(inputs[0].values, one.layer, exact.kernel(kernel))
    return _ended(one, tf.nn.bias_add(x, exact.bias(bias)), exact)


def _separable(one: Operator, inputs: Sequence[Map], exact: Simulated, training: bool) -> Map:
    layer = one.layer
    with exact.folding():
        first = _by_channel(layer.depthwise_kernel) * inputs[0].factor
        kernel, bias = _folded(one, tf.convert_to_tensor(layer.pointwise_kernel), 1.0)
    x = _filtered_by_channel(inputs[0].values, layer, exact.kernel(first))
    x = _rounded(one, x, exact, point=0).values
    x = tf.nn.conv2d(x, exact.kernel(kernel), 1, "VALID")
    return _ended(one, tf.nn.bias_add(x, exact.bias(bias)), exact, inner=1)


def _filtered_by_channel(x: tf.Tensor, layer: Any, kernel: tf.Tensor) -> tf.Tensor:
    kernel = tf.reshape(kernel, layer.depthwise_kernel.shape)
    return tf.nn.depthwise_conv2d(x, kernel, (1, *layer.strides, 1), layer.padding.upper())


def _add(one: Operator, inputs: Sequence[Map], exact: Simulated, training: bool) -> Map:
    """Two by two, as the converter has it."""
    x, *others = (_values(each, exact) for each in inputs)
    for number, each in enumerate(others):
        x = x + each
        if number < len(inputs) - 2:
            x = _rounded(one, x, exact, point=number).values
    return _ended(one, x, exact, inner=len(inputs) - 2)


def _multiply(one: Operator, inputs: Sequence[Map], exact: Simulated, training: bool) -> Map:
    """Factors pass through."""
    x, gate = inputs
    found = _ended(one, x.values * gate.values, exact)
    return found._replace(factor=x.factor * gate.factor)


def _joined(one: Operator, inputs: Sequence[Map], exact: Simulated, training: bool) -> Map:
    values = [_values(each, exact) for each in inputs]
    return _ended(one, tf.concat(values, one.layer.axis), exact)


def _averaged(one: Operator, inputs: Sequence[Map], exact: Simulated, training: bool) -> Map:
    found = _ended(one, one.layer.call(inputs[0].values), exact)
    return found._replace(factor=inputs[0].factor)


def _passed(one: Operator, inputs: Sequence[Map], exact: Simulated, training: bool) -> Map:
    """What gives only values that it was given: range and factor stay."""
    values = [each.values for each in inputs]
    return inputs[0]._replace(values=one.layer.call(values[0] if len(values) == 1 else values))


def _survived(one: Operator, inputs: Sequence[Map], exact: Simulated, training: bool) -> Map:
    return inputs[0]._replace(values=one.layer.call(inputs[0].values, training=training))


def _rescaled(one: Operator, inputs: Sequence[Map], exact: Simulated, training: bool) -> Map:
    """A product and a sum with constants, whose ranges follow from that of the pictures."""
    x, ends = inputs[0].values, np.array(inputs[0].range, np.float32)
    scale, offset = np.float32(one.layer.scale), np.float32(one.layer.offset)
    scaled = ends[:, None] * scale.reshape(1, -1)
    x = exact.within(x * scale, Range(scaled.min(), scaled.max()))
    moved = scaled + offset.reshape(1, -1)
    range_ = Range(min(moved.min(), 0.0), max(moved.max(), 0.0))
    return Map(exact.within(x + offset, range_), range_)


def _activated(one: Operator, inputs: Sequence[Map], exact: Simulated, training: bool) -> Map:
    """An activation that is an operator, or several, of its own."""
    return ACTIVATIONS[one.layer.activation](one, _values(inputs[0], exact), exact)


def _clipped(one: Operator, x: tf.Tensor, exact: Simulated) -> Map:
    return _ended(one, one.layer.activation(x), exact)


def _hard_swish(one: Operator, x: tf.Tensor, exact: Simulated) -> Map:
    """relu6(x + 3) times x; the sixth of it is left to the kernels behind."""
    shifted = exact.within(tf.nn.relu6(x + 3.0), SHIFTED)
    return _ended(one, shifted * x, exact)._replace(factor=1 / 6)


def _hard_sigmoid(one: Operator, x: tf.Tensor, exact: Simulated) -> Map:
    return Map(exact.within(tf.nn.relu6(x + 3.0), SHIFTED), SHIFTED, factor=FIVE_DIGITS)


def _sigmoid(one: Operator, x: tf.Tensor, exact: Simulated) -> Map:
    return Map(exact.within(tf.sigmoid(x), SIGMOID), SIGMOID)


FUSED = (tf.nn.relu, tf.nn.relu6)
"""Activations that an operator ends with in TensorFlow Lite."""
ACTIVATIONS: dict[
    Callable[[tf.Tensor], tf.Tensor], Callable[[Operator, tf.Tensor, Simulated], Map]
] = {
    tf.nn.relu: _clipped,
    tf.nn.relu6: _clipped,
    hard_swish: _hard_swish,
    hard_sigmoid: _hard_sigmoid,
    tf.sigmoid: _sigmoid,
}
SATURATED: dict[Callable[[tf.Tensor], tf.Tensor], Range] = {
    hard_swish: Range(-3.0, np.inf),
    hard_sigmoid: Range(-3.0, 3.0),
}
"""Beyond which an activation's output no longer changes: none of the 255 steps is spent there."""
COMPUTED: dict[type, Compute] = {
    tf_keras.layers.Conv2D: _conv,
    tf_keras.layers.DepthwiseConv2D: _depthwise,
    tf_keras.layers.SeparableConv2D: _separable,
    tf_keras.layers.Add: _add,
    tf_keras.layers.Multiply: _multiply,
    tf_keras.layers.Concatenate: _joined,
    tf_keras.layers.GlobalAveragePooling2D: _averaged,
    tf_keras.layers.Activation: _activated,
    tf_keras.layers.Rescaling: _rescaled,
    Survival: _survived,
    **dict.fromkeys(
        (
            tf_keras.layers.Reshape,
            tf_keras.layers.MaxPool2D,
            tf_keras.layers.AveragePooling2D,
            tf_keras.layers.UpSampling2D,
            tf_keras.layers.Cropping2D,
            tf_keras.layers.ZeroPadding2D,
            StageEnd,
            Nearest,
            Beside,
        ),
        _passed,
    ),
}
WITHOUT_POINTS = (_passed, _survived, _rescaled)
FILTERS = (_conv, _depthwise, _separable)


# ---- which operators a network is made of


def _kind(layer: Any) -> type:
    """The key of `COMPUTED` that a layer is one of.

    Raises:
        ConfigError: there is none.
    """
    for kind in COMPUTED:
        if isinstance(layer, kind):
            return kind
    raise ConfigError(
        "train.quantize_from",
        f"the network has a {type(layer).__name__}, whose int8 arithmetic is not simulated.",
        "Leave it out, or choose an SSD or an EfficientDet-Lite.",
    )


def _keys(tensors: Sequence[Any]) -> list[str]:
    return [str(id(tensor)) for tensor in tensors]


def _operators(network: tf_keras.Model) -> Iterator[Operator]:
    """In an order in which each comes behind those that it reads."""
    depths = sorted(network._nodes_by_depth, reverse=True)
    nodes = [
        node for depth in depths for node in network._nodes_by_depth[depth] if not node.is_input
    ]
    readers: Readers = defaultdict(list)
    for node in nodes:
        for key in node.flat_input_ids:
            readers[key].append(node)
    done: set[int] = set()
    for node in nodes:
        if id(node) not in done:
            parts = _parts(node, readers)
            done |= set(map(id, parts))
            yield _operator(parts, readers)


Readers = Mapping[str, list[Any]]
"""Nodes of the network by the key of what they read."""


def _parts(node: Any, readers: Readers) -> list[Any]:
    """A node and those behind it that the converter makes part of its operator."""
    parts, compute = [node], COMPUTED[_kind(node.layer)]
    behind = _only_reader(node, readers)
    if compute in FILTERS and isinstance(behind, tf_keras.layers.BatchNormalization):
        parts += readers[node.flat_output_ids[0]]
        behind = _only_reader(parts[-1], readers)
    if (
        compute in (*FILTERS, _add)
        and isinstance(behind, tf_keras.layers.Activation)
        and behind.activation in FUSED
    ):
        parts += readers[parts[-1].flat_output_ids[0]]
    return parts


def _only_reader(node: Any, readers: Readers) -> Any:
    """The layer that reads what a node gives; None where there is not just one."""
    found = readers[node.flat_output_ids[0]]
    return found[0].layer if len(found) == 1 else None


def _operator(parts: Sequence[Any], readers: Readers) -> Operator:
    first, last = parts[0], parts[-1]
    layers = [node.layer for node in parts]
    norms = [one for one in layers if isinstance(one, tf_keras.layers.BatchNormalization)]
    reader = _only_reader(last, readers)
    follows = reader.activation if isinstance(reader, tf_keras.layers.Activation) else tf.identity
    return Operator(
        first.layer,
        tuple(first.flat_input_ids),
        last.flat_output_ids[0],
        tuple(_points(first, last, readers)),
        norms[0] if norms else None,
        layers[-1].activation if len(parts) > 1 + len(norms) else tf.identity,
        SATURATED.get(follows, ALL),
    )


def _points(first: Any, last: Any, readers: Readers) -> Iterator[str]:
    """Names of an operator's points, from its last layer's name."""
    compute, name = COMPUTED[_kind(first.layer)], last.layer.name
    if len(last.layer.inbound_nodes) > 1:  # a layer that several maps share
        name = f"{name}/{last.layer.inbound_nodes.index(last)}"
    if compute is _separable:
        yield f"{name}/depthwise"
    if compute is _add:
        yield from (f"{name}/{number}" for number in range(len(first.flat_input_ids) - 2))
    fixed = compute is _activated and first.layer.activation in (hard_sigmoid, tf.sigmoid)
    if not fixed and compute not in WITHOUT_POINTS and not _is_joined(last, readers):
        yield name


def _is_joined(node: Any, readers: Readers) -> bool:
    """Whether all that happens to what a node gives is that it is joined to others."""
    reader = _only_reader(node, readers)
    if isinstance(reader, tf_keras.layers.Reshape):
        return _is_joined(readers[node.flat_output_ids[0]][0], readers)
    return isinstance(reader, tf_keras.layers.Concatenate)
