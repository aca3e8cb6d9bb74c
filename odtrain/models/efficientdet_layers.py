"""EfficientDet-Lite's layers, named as automl named them, so that its checkpoints find every variable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import tensorflow as tf
import tf_keras

from odtrain.models.layers import Conv2D, DepthwiseConv2D, FoldedBatchNorm, Layers, Scale

BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


@dataclass(frozen=True)
class Place:
    """Where checkpoints have a layer.

    Attributes:
        name: of the layer in checkpoints that name variables, automl's of TensorFlow 1.
        path: to it in those that name objects, automl's of TensorFlow 2.
    """

    name: str
    path: str


@dataclass(frozen=True)
class EfficientDetLayers(Layers):
    """Makes automl's layers; every method takes and returns (B, H, W, C) tensors.

    First weights are drawn as automl draws them, whatever `initializer` says.

    Attributes:
        paths: the variables by their paths in object-based checkpoints.
    """

    paths: dict[str, tf.Variable] = field(default_factory=dict)

    @classmethod
    def like(cls, make: Layers) -> EfficientDetLayers:
        """Layers of the same style and record as `make`."""
        return cls(**{each.name: getattr(make, each.name) for each in fields(Layers)})

    def filtered(
        self, x: tf.Tensor, place: Place, norm: Place, filters: int, kernel: int, stride: int = 1
    ) -> tf.Tensor:
        """Convolution without bias, batch norm, activation: the backbone's."""
        batch_norm = self._norm(norm, filters)
        layer = Conv2D(
            filters,
            kernel,
            stride,
            padding="same",
            use_bias=False,
            kernel_initializer=self._normal(place, kernel * kernel * filters),
            scale=_scale(batch_norm),
            **self._common(place.name),
        )
        x = layer(x)
        self._keep(place, {"kernel": layer.kernel}, decayed=True)
        return self._after(x, batch_norm, norm)

    def filtered_by_channel(
        self, x: tf.Tensor, place: Place, norm: Place, kernel: int, stride: int
    ) -> tf.Tensor:
        """Depthwise convolution, batch norm, activation: the backbone's."""
        batch_norm = self._norm(norm, int(x.shape[-1]))
        layer = DepthwiseConv2D(
            kernel,
            stride,
            padding="same",
            use_bias=False,
            depthwise_initializer=self._normal(place, kernel * kernel),
            scale=_scale(batch_norm),
            **self._common(place.name),
        )
        x = layer(x)
        self._keep(place, {"depthwise_kernel": layer.depthwise_kernel}, decayed=True)
        return self._after(x, batch_norm, norm)

    def projected(self, x: tf.Tensor, place: Place, norm: Place, filters: int) -> tf.Tensor:
        """1x1 convolution with bias and batch norm: where a map of another width joins the pyramid."""
        layer = tf_keras.layers.Conv2D(
            filters, 1, kernel_initializer=self._glorot(place.name), **self._common(place.name)
        )
        x = layer(x)
        self._keep(place, {"kernel": layer.kernel}, decayed=True)
        self._keep(place, {"bias": layer.bias})
        return self.normalised(x, norm)

    def separated(
        self, maps: Sequence[tf.Tensor], place: Place, filters: int, bias: float | None = None
    ) -> list[tf.Tensor]:
        """One separable 3x3 convolution with bias for all maps, of one number of channels.

        `bias`: its first value, of layers of the heads, whose kernels have first values of their own too.
        """
        draw = self._glorot if bias is None else self._scaled
        layer = tf_keras.layers.SeparableConv2D(
            filters,
            3,
            padding="same",
            depthwise_initializer=draw(f"{place.name}/depthwise"),
            pointwise_initializer=draw(place.name),
            bias_initializer=tf_keras.initializers.Constant(bias or 0.0),
            **self._common(place.name),
        )
        outputs = [layer(x) for x in maps]
        kernels = {
            "depthwise_kernel": layer.depthwise_kernel,
            "pointwise_kernel": layer.pointwise_kernel,
        }
        self._keep(place, kernels, decayed=True)
        self._keep(place, {"bias": layer.bias})
        return outputs

    def normalised(self, x: tf.Tensor, norm: Place, of_level: bool = False) -> tf.Tensor:
        """`x` after batch norm and the activation; `of_level`: of a convolution that several maps share."""
        return self._after(x, self._norm(norm, None, of_level), norm)

    def resized(self, x: tf.Tensor, size: tuple[int, int], name: str) -> tf.Tensor:
        """`x` at (height, width): the largest of neighbouring cells, or each cell repeated."""
        height, width = x.shape[1:3]
        if height > size[0] or width > size[1]:
            strides = tuple(
                (old - 1) // new + 1 for old, new in zip((height, width), size, strict=True)
            )
            return tf_keras.layers.MaxPool2D(
                [stride + 1 for stride in strides], strides, "same", name=name, dtype=self.dtype
            )(x)
        if (height, width) != tuple(size):
            return Nearest(size, name=name, dtype=self.dtype)(x)
        return x

    def surviving(self, x: tf.Tensor, probability: float, name: str) -> tf.Tensor:
        """`x`, which in training only some pictures keep; all of them where the stage is frozen."""
        if probability == 1 or not self.trainable:
            return x
        return Survival(probability, name=name, dtype=self.dtype)(x)

    def _norm(self, norm: Place, channels: int | None, of_level: bool = False) -> Any:
        owner, _, scope = norm.name.rpartition("/")
        return self._batch_norm(owner, scope, channels, of_level)

    def _after(self, x: tf.Tensor, layer: Any, norm: Place) -> tf.Tensor:
        x = layer(x) if self.batch_norm_trained else layer(x, training=False)
        self._keep(norm, {part: getattr(layer, part) for part in BATCH_NORM})
        return self.activated(x, norm.name)

    def _keep(self, place: Place, parts: Mapping[str, tf.Variable], decayed: bool = False) -> None:
        for part, variable in parts.items():
            self.record.add(f"{place.name}/{part}", variable, decayed)
            self.paths[f"{place.path}/{part}"] = variable

    def _normal(self, place: Place, fan_out: int) -> Any:
        stddev = (2 / fan_out) ** 0.5
        return tf_keras.initializers.RandomNormal(stddev=stddev, seed=self._seed(place.name))

    def _glorot(self, name: str) -> Any:
        return tf_keras.initializers.GlorotUniform(seed=self._seed(name))

    def _scaled(self, name: str) -> Any:
        return tf_keras.initializers.VarianceScaling(seed=self._seed(name))


def _scale(batch_norm: Any) -> Scale | None:
    return batch_norm.scale_of_kernel if isinstance(batch_norm, FoldedBatchNorm) else None


class Nearest(tf_keras.layers.Layer):  # type: ignore[misc]
    """Maps enlarged to any size: a cell i of n takes that at floor(i / n) of what there was."""

    def __init__(self, size: tuple[int, int], **options: Any) -> None:
        """`size` is (height, width)."""
        super().__init__(**options)
        self._size = size

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """(B, height, width, C) of (B, H, W, C)."""
        wide = tf.cast(x, tf.float32)
        return tf.cast(tf.compat.v1.image.resize_nearest_neighbor(wide, self._size), x.dtype)


class Survival(tf_keras.layers.Layer):  # type: ignore[misc]
    """Stochastic depth: in training a picture keeps its map with a probability, enlarged to make up for it.

    Huang et al. 2016, "Deep Networks with Stochastic Depth".
    """

    def __init__(self, probability: float, **options: Any) -> None:
        """`probability` that a picture keeps its map."""
        super().__init__(**options)
        self.probability = probability

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """(B, H, W, C)."""
        if not training:
            return x
        kept = tf.floor(self.probability + tf.random.uniform((tf.shape(x)[0], 1, 1, 1)))
        return x * tf.cast(kept / self.probability, x.dtype)


def as_objects(paths: Mapping[str, tf.Variable]) -> dict[str, Any]:
    """Objects that hold the variables at those paths, by the paths' first parts."""
    root: dict[str, Any] = {}
    for path, variable in paths.items():
        first, *between, last = path.split("/")
        owner = root.setdefault(first, tf.Module())
        for part in between:
            if not hasattr(owner, part):
                setattr(owner, part, tf.Module())
            owner = getattr(owner, part)
        setattr(owner, last, variable)
    return root
