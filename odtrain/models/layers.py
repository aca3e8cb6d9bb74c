"""Layers named as slim named them, so that a TF1 checkpoint finds every variable of the network.

`Layers` makes tf_keras layers and writes each weight into a `Record` under its checkpoint name. It
is immutable: a backbone, its extra maps and its predictors get variants of it by `replace`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
import tensorflow as tf
import tf_keras

from odtrain.config.schema import ModelConfig
from odtrain.errors import choose
from odtrain.models import bfloat16
from odtrain.models.form import Form, form
from odtrain.models.replicas import replicas_in_sync, summed

Made = TypeVar("Made", bound="Layers")
Scale: TypeAlias = Callable[[], tf.Tensor]
POLICIES = {"fp32": "float32", "bf16": "mixed_bfloat16"}


@dataclass
class Record:
    """What a network is made of.

    Attributes:
        variables: by slim's name, the moving statistics of batch norm included.
        decayed: by name, how strongly the L2 regulariser holds a variable small, in creation order.
    """

    variables: dict[str, tf.Variable] = field(default_factory=dict)
    decayed: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, variable: tf.Variable, decayed: float = 0.0) -> None:
        """Remember `variable` under its checkpoint `name`; `decayed` is times `model.l2`."""
        self.variables[name] = variable
        if decayed:
            self.decayed[name] = float(decayed)


@dataclass(frozen=True)
class Layers:
    """Makes layers of one style; every method takes and returns (B, H, W, C) tensors.

    Attributes:
        policy: name of the tf_keras dtype policy of the layers.
        seed: with a layer's name it decides that layer's first weights.
        initializer: a key of `INITIALIZERS`.
        stddev: of the kernels where the initializer is a normal distribution.
        decay: of batch norm's moving statistics, per step.
        epsilon: added to batch norm's variance.
        batch_norm_trained: whether batch norm uses and follows the batches' statistics in training.
        synchronized: whether replicas share the batch, and the statistics are to be those of all of it.
        decayed: how strongly the L2 regulariser holds kernels, times `model.l2`; 0 for not at all.
        depthwise_decayed: whether it holds depthwise kernels too.
        frozen_stages: how many stages of the backbone, counted from the picture, do not learn.
        trainable: whether the layers learn.
        activation: what follows each batch norm; None for nothing.
    """

    record: Record
    policy: str
    seed: int
    initializer: str
    stddev: float
    decay: float
    epsilon: float
    batch_norm_trained: bool = True
    synchronized: bool = False
    decayed: float = 1.0
    depthwise_decayed: bool = True
    frozen_stages: int = 0
    trainable: bool = True
    activation: Callable[[tf.Tensor], tf.Tensor] | None = tf.nn.relu6

    def stage(self: Made, number: int) -> Made:
        """Layers for a stage of the backbone, 1 nearest the picture, frozen if that stage is."""
        return replace(self, trainable=number > self.frozen_stages)

    def end_stage(self, x: tf.Tensor, name: str) -> tf.Tensor:
        """The stage's output; where the stage is frozen no gradient passes back through it."""
        return StageEnd(frozen=not self.trainable, name=name)(x)

    def conv(
        self,
        x: tf.Tensor,
        name: str,
        filters: int,
        kernel: int,
        stride: int = 1,
        padding: str = "same",
    ) -> tf.Tensor:
        """Convolution without bias, batch norm, activation: `name/weights`, `name/BatchNorm/*`."""
        batch_norm = self._batch_norm(name, channels=filters)
        layer = Conv2D(
            filters,
            kernel,
            _strides(x, stride),
            padding=padding,
            use_bias=False,
            kernel_initializer=self._kernel(name),
            scale=_scale_of(batch_norm),
            **self._common(name),
        )
        x = layer(x)
        self.record.add(f"{name}/weights", layer.kernel, self.decayed)
        return self._normalised(x, batch_norm, name)

    def shared_conv(
        self,
        maps: Sequence[tf.Tensor],
        name: str,
        filters: int,
        kernel: int,
        separable: bool = False,
    ) -> list[tf.Tensor]:
        """One convolution for all maps, each with batch norm of its own, `name/BatchNorm/feature_i/*`.

        The maps have the same number of channels. `separable` splits the convolution into a depthwise
        and a pointwise one.
        """
        shared = self._split if separable else self._dense
        outputs, _ = shared(maps, name, filters, kernel, use_bias=False)
        scopes = [f"BatchNorm/feature_{i}" for i in range(len(maps))]
        return [
            self._normalised(x, self._batch_norm(name, scope, of_level=True), name, scope)
            for x, scope in zip(outputs, scopes, strict=True)
        ]

    def separable(
        self,
        x: tf.Tensor,
        name: str,
        filters: int,
        kernel: int,
        stride: int = 1,
        multiplier: int = 1,
    ) -> tf.Tensor:
        """Depthwise with `multiplier` outputs a channel, pointwise, then one batch norm, activation.

        `name/{depthwise_weights,pointwise_weights,BatchNorm/*}`.
        """
        (x,), _ = self._split(
            [x],
            name,
            filters,
            kernel,
            strides=max(_strides(x, stride)),
            depth_multiplier=multiplier,
            use_bias=False,
        )
        return self._normalised(x, self._batch_norm(name), name)

    def depthwise(self, x: tf.Tensor, name: str, kernel: int = 3, stride: int = 1) -> tf.Tensor:
        """Depthwise convolution, batch norm, activation: `name/{depthwise_weights,BatchNorm/*}`."""
        batch_norm = self._batch_norm(name, channels=x.shape[-1])
        layer = DepthwiseConv2D(
            kernel,
            max(_strides(x, stride)),
            padding="same",
            use_bias=False,
            depthwise_initializer=self._kernel(name, fan_in=kernel * kernel),
            scale=_scale_of(batch_norm),
            **self._common(name),
        )
        x = layer(x)
        self.record.add(f"{name}/depthwise_weights", layer.depthwise_kernel, self._depthwise_decay)
        return self._normalised(x, batch_norm, name)

    def plain_conv(
        self, x: tf.Tensor, name: str, filters: int, kernel: int, biases: np.ndarray[Any, Any]
    ) -> tf.Tensor:
        """Convolution that begins with (filters,) `biases`: `name/weights`, `name/biases`."""
        return self.shared_plain_conv([x], name, filters, kernel, biases)[0]

    def shared_plain_conv(
        self,
        maps: Sequence[tf.Tensor],
        name: str,
        filters: int,
        kernel: int,
        biases: np.ndarray[Any, Any],
        separable: bool = False,
    ) -> list[tf.Tensor]:
        """The same one for all maps, which have the same number of channels; split where `separable`."""
        shared = self._split if separable else self._dense
        first = tf_keras.initializers.Constant(biases)
        outputs, layer = shared(maps, name, filters, kernel, bias_initializer=first)
        self.record.add(f"{name}/biases", layer.bias)
        return outputs

    def _dense(
        self, maps: Sequence[tf.Tensor], name: str, filters: int, kernel: int, **more: Any
    ) -> tuple[list[tf.Tensor], Any]:
        """A convolution of all maps, and its layer: `name/weights`."""
        layer = tf_keras.layers.Conv2D(
            filters,
            kernel,
            padding="same",
            kernel_initializer=self._kernel(name),
            **self._common(name),
            **more,
        )
        outputs = [layer(x) for x in maps]
        self.record.add(f"{name}/weights", layer.kernel, self.decayed)
        return outputs, layer

    def _split(
        self, maps: Sequence[tf.Tensor], name: str, filters: int, kernel: int, **more: Any
    ) -> tuple[list[tf.Tensor], Any]:
        """A depthwise and a pointwise one, and their layer: `name/{depthwise_weights,pointwise_weights}`."""
        layer = tf_keras.layers.SeparableConv2D(
            filters,
            kernel,
            padding="same",
            depthwise_initializer=self._kernel(f"{name}/depthwise", fan_in=kernel * kernel),
            pointwise_initializer=self._kernel(name),
            **self._common(name),
            **more,
        )
        outputs = [layer(x) for x in maps]
        self.record.add(f"{name}/depthwise_weights", layer.depthwise_kernel, self._depthwise_decay)
        self.record.add(f"{name}/pointwise_weights", layer.pointwise_kernel, self.decayed)
        return outputs, layer

    @property
    def _depthwise_decay(self) -> float:
        return self.decayed if self.depthwise_decayed else 0.0

    def with_activation(self, activation: Callable[[tf.Tensor], tf.Tensor] | None) -> Layers:
        """The same layers with another activation, or with none."""
        return replace(self, activation=activation)

    def added(self, x: tf.Tensor, shortcut: tf.Tensor, name: str) -> tf.Tensor:
        """The sum of two maps of one shape."""
        return tf_keras.layers.Add(name=name, dtype=self.dtype)([x, shortcut])

    def _batch_norm(
        self,
        name: str,
        scope: str = "BatchNorm",
        channels: int | None = None,
        of_level: bool = False,
    ) -> Any:
        """Batch norm; folded into the convolution of so many `channels` before it where its statistics stay.

        `of_level`: the convolution before it is shared with other maps, which have batch norms of their own.
        """
        learns = self.trainable and self.batch_norm_trained
        folded = channels is not None and not learns
        shared = learns and self.synchronized
        alone = LevelBatchNorm if of_level else tf_keras.layers.BatchNormalization
        plain = SynchronizedBatchNorm if shared else alone
        kind = FoldedBatchNorm if folded else plain
        layer = kind(momentum=self.decay, epsilon=self.epsilon, **self._common(f"{name}/{scope}"))
        if folded:
            with tf.name_scope(layer.name):
                layer.build((None, None, None, channels))
        return layer

    def _normalised(
        self, x: tf.Tensor, layer: Any, name: str, scope: str = "BatchNorm"
    ) -> tf.Tensor:
        x = layer(x) if self.batch_norm_trained else layer(x, training=False)
        for weight in ("gamma", "beta", "moving_mean", "moving_variance"):
            self.record.add(f"{name}/{scope}/{weight}", getattr(layer, weight))
        return self.activated(x, f"{name}{scope.removeprefix('BatchNorm')}")

    def activated(self, x: tf.Tensor, name: str) -> tf.Tensor:
        """`x` after the activation; `name` is that of the layer before it."""
        if self.activation is None:
            return x
        return tf_keras.layers.Activation(
            self.activation, name=f"{name}/activation", dtype=self.dtype
        )(x)

    def _kernel(self, name: str, fan_in: int | None = None) -> Any:
        return INITIALIZERS[self.initializer](self, self._seed(name), fan_in)

    def _seed(self, name: str) -> int:
        return zlib.crc32(f"{self.seed}/{name}".encode())

    def _common(self, name: str) -> dict[str, Any]:
        return {"name": name, "dtype": self.dtype, "trainable": self.trainable}

    @property
    def dtype(self) -> Any:
        """The tf_keras policy that layers made outside this class are to have too."""
        return tf_keras.mixed_precision.Policy(self.policy)


def _strides(x: tf.Tensor, stride: int) -> tuple[int, int]:
    """The stride down and across the map `x`; 1 where it has one cell, which comes to the same.

    TensorFlow 2.20's bfloat16 gradient of a kernel that strides over a single cell reads memory
    which nothing has written, on Intel processors.
    """
    rows, columns = (1 if side == 1 else stride for side in x.shape[1:3])
    return rows, columns


def kept_scale(norm: Any) -> tf.Tensor:
    """(C,) factors of a batch norm that keeps its statistics: gamma / sqrt(moving_variance + epsilon)."""
    return norm.gamma * tf.math.rsqrt(norm.moving_variance + norm.epsilon)


class FoldedBatchNorm(tf_keras.layers.BatchNormalization):  # type: ignore[misc]
    """Batch norm whose statistics stay as they are, the scale of which the convolution before it has.

    So no pass over the map is left: the offset and the activation are added while it is computed (Jacob et
    al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", section 3.2).
    """

    def scale_of_kernel(self) -> tf.Tensor:
        """(C,) factors of the kernels before it."""
        return kept_scale(self)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """(B, H, W, C) plus the offset, beta - moving_mean * scale."""
        offset = self.beta - self.moving_mean * kept_scale(self)
        return tf.nn.bias_add(inputs, tf.cast(offset, inputs.dtype))


class LevelBatchNorm(tf_keras.layers.BatchNormalization):  # type: ignore[misc]
    """Batch norm of one of the maps that share a convolution."""

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """(B, H, W, C) of the same.

        For a .tflite in float, the scale is a depthwise 1x1 convolution: as a product the converter would
        merge it with the shared kernel, which each map would get a copy of.
        """
        if form() is not Form.LITE_FLOAT:
            return super().call(inputs, training=training)
        scale = kept_scale(self)
        scaled = tf.nn.depthwise_conv2d(inputs, scale[None, None, :, None], [1, 1, 1, 1], "VALID")
        return tf.nn.bias_add(scaled, self.beta - self.moving_mean * scale)


class SynchronizedBatchNorm(tf_keras.layers.BatchNormalization):  # type: ignore[misc]
    """Batch norm by the statistics of the whole batch, of which each replica has a share.

    They are what TensorFlow's fused kernel computes of a batch on one device: the variance about the mean,
    and for the moving one that divided by one less than the number of cells.
    """

    def __init__(self, **options: Any) -> None:
        """Make one; the fused kernel sees the share alone."""
        super().__init__(fused=False, **options)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """(B, H, W, C) of the same."""
        if not self._get_training_value(training):
            return super().call(inputs, training=False)
        x = tf.cast(inputs, tf.float32)
        cells = summed(tf.cast(tf.size(x) / tf.shape(x)[-1], tf.float32))
        mean = summed(tf.reduce_sum(x, [0, 1, 2])) / cells
        centred = x - mean
        variance = summed(tf.reduce_sum(tf.square(centred), [0, 1, 2])) / cells
        seen = variance * cells / tf.maximum(cells - 1, 1)
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, seen)):
            moving.assign_sub((moving - value) * (1 - self.momentum))
        scale = self.gamma * tf.math.rsqrt(variance + self.epsilon)
        return tf.cast(centred * scale + self.beta, inputs.dtype)


def _scale_of(batch_norm: Any) -> Scale | None:
    return batch_norm.scale_of_kernel if isinstance(batch_norm, FoldedBatchNorm) else None


class Conv2D(tf_keras.layers.Conv2D):  # type: ignore[misc]
    """A convolution that may have the scale of the batch norm behind it in its kernel."""

    def __init__(self, *arguments: Any, scale: Scale | None, **more: Any) -> None:
        """`scale` gives (C,) factors of the output's channels."""
        super().__init__(*arguments, **more)
        self._scale = scale

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Variable) -> tf.Tensor:
        """(B, H, W, C)."""
        if self._scale is not None:
            kernel = kernel * tf.cast(self._scale(), kernel.dtype)
        if inputs.dtype == tf.bfloat16 and (*self.kernel_size, *self.strides) == (1, 1, 1, 1):
            return bfloat16.pointwise_conv2d(inputs, tf.convert_to_tensor(kernel))
        return super().convolution_op(inputs, kernel)


class DepthwiseConv2D(tf_keras.layers.DepthwiseConv2D):  # type: ignore[misc]
    """A depthwise convolution that may have the scale of the batch norm behind it in its kernel."""

    def __init__(self, *arguments: Any, scale: Scale | None, **more: Any) -> None:
        """`scale` gives (C,) factors of the channels."""
        super().__init__(*arguments, **more)
        self._scale = scale

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """(B, H, W, C)."""
        kernel = tf.convert_to_tensor(self.depthwise_kernel)
        if self._scale is not None:
            kernel = kernel * tf.cast(self._scale(), kernel.dtype)[:, tf.newaxis]
        strided = inputs.dtype == tf.bfloat16 and self.strides != (1, 1)
        conv = bfloat16.depthwise_conv2d if strided else tf.nn.depthwise_conv2d
        return conv(inputs, kernel, (1, *self.strides, 1), self.padding.upper())


class StageEnd(tf_keras.layers.Layer):  # type: ignore[misc]
    """Passes its input on; if frozen, it stops the gradient.

    It is there, frozen or not, so that networks frozen differently have one structure and share
    checkpoints.
    """

    def __init__(self, frozen: bool, name: str) -> None:
        """Make a boundary that is frozen or not for good."""
        super().__init__(name=name, autocast=False)
        self.frozen = frozen

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """The same (B, H, W, C)."""
        return tf.stop_gradient(x) if self.frozen else tf.identity(x)


class Beside(tf_keras.layers.Layer):  # type: ignore[misc]
    """Passes the first of two maps on, and keeps the layers behind the second in the network.

    The reference builds the backbone to its end and reads a map before it. The layers behind that
    map are in its checkpoints, its regulariser holds them small, and their moving statistics follow.
    """

    def __init__(self, name: str) -> None:
        """Make a layer without weights."""
        super().__init__(name=name, autocast=False)

    def call(self, maps: list[tf.Tensor]) -> tf.Tensor:
        """The first of the (B, H, W, C) maps."""
        return tf.identity(maps[0])


def layers_for(
    config: ModelConfig,
    *,
    frozen_stages: int,
    batch_norm_trained: bool,
    precision: str,
    seed: int,
    synchronized: bool = False,
) -> Layers:
    """The layers that a model's configuration asks for, with an empty record.

    Raises:
        ConfigError: `config.initializer` or `precision` is not a known name.
    """
    return Layers(
        record=Record(),
        policy=POLICIES[choose("train.precision", precision, list(POLICIES))],
        seed=seed,
        initializer=choose("model.initializer", config.initializer, list(INITIALIZERS)),
        stddev=config.initializer_stddev,
        decay=config.batch_norm_decay,
        epsilon=config.batch_norm_epsilon,
        batch_norm_trained=batch_norm_trained,
        synchronized=synchronized and replicas_in_sync() > 1,
        frozen_stages=frozen_stages,
    )


def _truncated_normal(layers: Layers, seed: int, fan_in: int | None) -> Any:
    return tf_keras.initializers.TruncatedNormal(stddev=layers.stddev, seed=seed)


def _random_normal(layers: Layers, seed: int, fan_in: int | None) -> Any:
    return tf_keras.initializers.RandomNormal(stddev=layers.stddev, seed=seed)


def _he(layers: Layers, seed: int, fan_in: int | None) -> Any:
    """He's normal; `fan_in` is given for depthwise kernels, whose inputs tf_keras miscounts."""
    if fan_in is None:
        return tf_keras.initializers.HeNormal(seed=seed)
    return tf_keras.initializers.TruncatedNormal(stddev=(2 / fan_in) ** 0.5, seed=seed)


INITIALIZERS: dict[str, Callable[[Layers, int, int | None], Any]] = {
    "truncated_normal": _truncated_normal,
    "random_normal": _random_normal,
    "he": _he,
}
