"""A single-shot detector: the network, its anchors, and what turns pictures into detections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from odtrain.config.schema import ModelConfig
from odtrain.models.anchors import Level, anchors_per_cell, levels_of, ssd_anchors
from odtrain.models.heads import convolutional_predictors, extra_maps
from odtrain.models.int8.quantized import Quantized
from odtrain.models.layers import Layers, Record
from odtrain.structures import Detect, Detections, FloatArray, UInt8Image
from odtrain_runtime import resizing

SCORE_THRESHOLD = 1e-8
"""A detection must score more; as in the reference's sample configurations."""

BOX_SCALES = (10.0, 10.0, 5.0, 5.0)
"""The reference's `faster_rcnn_box_coder` multiplies y, x, height and width by these, where a model does
not give `box_scales` of its own."""


@dataclass(frozen=True)
class Parts:
    """What an architecture's builder returns.

    Attributes:
        encodings: (B, A, 4) float32, symbolic.
        logits: (B, A, K + 1) float32, symbolic, background first; (B, A, K) of a network without one.
        anchors: (A, 4) yxyx, fractions.
        maps: (B, H, W, C) feature maps that the predictors read, finest first; none where they are
            inside a network of another program.
        objects: parts of the network under the names that its publisher's object-based checkpoints
            give them; none where those are TF1's, which name variables.
    """

    encodings: tf.Tensor
    logits: tf.Tensor
    anchors: FloatArray
    maps: tuple[tf.Tensor, ...]
    objects: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ends:
    """What an SSD with maps of its own puts behind its backbone.

    Attributes:
        finest: (B, H, W, C), the first map that the predictors read.
        last: (B, H, W, C), the second, which the extra maps follow.
        prefix: slim's name of the layer that made `last`.
        separable_extras: whether the extra maps' convolutions are split.
        kernel: side of the predictors' convolutions, in cells.
        separable_predictors: whether those are split, as SSDLite's are.
    """

    finest: tf.Tensor
    last: tf.Tensor
    prefix: str
    separable_extras: bool
    kernel: int = 1
    separable_predictors: bool = False


def with_extra_maps(ends: Ends, config: ModelConfig, num_classes: int, make: Layers) -> Parts:
    """Extra maps behind a backbone's, a predictor for each map, and their anchors."""
    width = depth_scaler(config.depth_multiplier, config.min_depth)
    count = config.anchors.num_layers - 2
    more = extra_maps(make, ends.last, ends.prefix, width, count, ends.separable_extras)
    maps = (ends.finest, ends.last, *more)
    encodings, logits = convolutional_predictors(
        make,
        maps,
        anchors_per_cell(config.anchors),
        num_classes,
        config.class_bias,
        ends.kernel,
        ends.separable_predictors,
    )
    return Parts(
        encodings, logits, ssd_anchors(config.anchors, map_shapes(maps), config.size), maps
    )


def resize(image: tf.Tensor, config: ModelConfig) -> tf.Tensor:
    """As `SSD.resize`, without a network."""
    image = tf.cast(image, tf.float32)
    if config.resize == resizing.STRETCH:
        return tf.compat.v1.image.resize(image, config.size)
    sides, fill = tf.cast(tf.shape(image)[-3:-1], tf.float32), resizing.FILLS[config.resize]
    scaled = tf.image.resize(image, tf.cast(_fitted(sides, config), tf.int32)) - fill
    return tf.image.pad_to_bounding_box(scaled, 0, 0, *config.size) + fill


def extent(image: tf.Tensor, config: ModelConfig) -> tf.Tensor:
    """As `SSD.extent`, without a network."""
    if config.resize == resizing.STRETCH:
        return tf.constant((1.0,) * 4)
    sides = tf.cast(tf.shape(image)[-3:-1], tf.float32)
    return tf.tile(_fitted(sides, config) / config.size, [2])


def _fitted(sides: tf.Tensor, config: ModelConfig) -> tf.Tensor:
    """`resizing.fitted` of (2,) float32 sides, as float32."""
    scaled = sides * tf.reduce_min(tf.constant(config.size, tf.float32) / sides)
    return tf.round(scaled) if config.resize == resizing.PAD else tf.floor(tf.maximum(scaled, 1.0))


class SSD(tf.Module):  # type: ignore[misc]
    """A detector of one architecture, size and number of classes.

    Attributes:
        config: what it was built from.
        num_classes: K, without the background.
        background: how many columns of the logits come before the classes': 1, or 0.
        network: tf_keras.Model from (B, H, W, 3) normalised pictures to (B, A, 4) encodings and
            (B, A, K + 1) logits, both float32.
        maps: symbolic feature maps inside `network`, finest first.
        anchors: (A, 4) yxyx, fractions of the picture.
        objects: parts of `network`, and itself, by the names that object-based checkpoints give
            them; none where checkpoints name variables.
        quantized: `network` as its int8 file computes it; None where that is not trained.
        at_size: the same network for an input of another (height, width), on the very same variables;
            raises ConfigError where it would have others. `build_detector` gives it.
    """

    at_size: Callable[[tuple[int, int]], SSD]

    def __init__(
        self,
        config: ModelConfig,
        num_classes: int,
        images: tf.Tensor,
        parts: Parts,
        record: Record,
        quantized: bool = False,
    ) -> None:
        """Join `parts`, built on the symbolic `images`, to a network.

        Raises:
            ConfigError: it is to be `quantized`, and has a layer for which that is not known.
        """
        super().__init__(name="ssd")
        self.config = config
        self.num_classes = num_classes
        self.background = int(parts.logits.shape[-1]) - num_classes
        self.network = tf_keras.Model(
            images, (parts.encodings, parts.logits), name=config.architecture
        )
        self.maps = parts.maps
        self.anchors = parts.anchors
        self.objects = {**parts.objects, "network": self.network} if parts.objects else {}
        self.weights = record.variables
        self.quantized = Quantized(self.network) if quantized else None
        self._decayed = dict(record.decayed)
        self._detect = self._detecting(self.network)
        self._detect_quantized: Any = self._detecting(self.quantized) if quantized else None

    def _detecting(self, network: Any) -> Any:
        return tf.function(
            lambda images: self._detect_graph(network, images),
            input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)],
            autograph=False,
        )

    @property
    def levels(self) -> tuple[Level, ...]:
        """Which map each of the anchors is of, in their order."""
        config, pyramid = self.config, self.config.pyramid
        strides = [2**level for level in range(pyramid.min_level, pyramid.max_level + 1)]
        shapes = map_shapes(self.maps) or [
            (-(-config.size[0] // stride), -(-config.size[1] // stride)) for stride in strides
        ]
        return levels_of(shapes, config.size, len(self.anchors), anchors_per_cell(config.anchors))

    @property
    def trainable_variables(self) -> tuple[tf.Variable, ...]:
        """The variables that learn: not those of frozen stages."""
        return tuple(self.network.trainable_variables)

    def variables_by_name(self) -> dict[str, tf.Variable]:
        """Every variable by its name in its publisher's checkpoints, moving statistics included."""
        return dict(self.weights)

    def state_by_name(self) -> dict[str, tf.Variable]:
        """The same, and the ranges of quantisation where they are trained."""
        return self.weights | (self.quantized.ranges.by_name() if self.quantized else {})

    def learned(self) -> dict[str, Any]:
        """What checkpoints hold of it, by the names that they have for it."""
        ranges = {"ranges": self.quantized.ranges} if self.quantized else {}
        return {"network": self.network, **ranges}

    @property
    def trained_int8(self) -> Quantized | None:
        """`quantized`, once it has been trained."""
        return self.quantized if self.quantized and self.quantized.ranges.trained else None

    def resize(self, image: tf.Tensor) -> tf.Tensor:
        """A picture, or a batch of equally large ones, at the network's size.

        Where the model stretches pictures, by the bilinear interpolation of TensorFlow 1, which takes
        source pixels from `target * scale` without half-pixel centres; where it pads them, by that
        of TensorFlow 2, with them. Other resizers give other pixels.

        Args:
            image: (H, W, 3) or (B, H, W, 3), 0-255, any numeric type.

        Returns:
            (h, w, 3) or (B, h, w, 3) float32, 0-255, not rounded.
        """
        return resize(image, self.config)

    def extent(self, image: tf.Tensor) -> tf.Tensor:
        """(4,) factors that bring yxyx fractions of a picture to fractions of the network's input.

        Args:
            image: (..., H, W, 3), before `resize`.
        """
        return extent(image, self.config)

    def normalize(self, images: tf.Tensor) -> tf.Tensor:
        """What the network reads: `images` of 0-255 in float32, brought to -1 to 1."""
        return (2.0 / 255.0) * tf.cast(images, tf.float32) - 1.0

    def decode(self, encodings: tf.Tensor) -> tf.Tensor:
        """(B, A, 4) encodings as (B, A, 4) boxes, yxyx, fractions, not clipped to the picture."""
        return decode_boxes(encodings, self.anchors, self.config.box_scales)

    def scores(self, logits: tf.Tensor) -> tf.Tensor:
        """(B, A, K) probabilities of (B, A, K + 1) logits; the background is dropped, if there is one."""
        return tf.sigmoid(logits)[:, :, self.background :]

    def postprocess(
        self, encodings: tf.Tensor, logits: tf.Tensor, extent: tf.Tensor | float = 1.0
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """Detections, best first: suppression per class, then clipping to the picture.

        Args:
            encodings: (B, A, 4).
            logits: (B, A, K + 1).
            extent: of the pictures, as `extent` gives it.

        Returns:
            (B, M, 4) yxyx fractions within the picture, (B, M) scores, (B, M) int32 classes,
            1-based, and (B,) int32 numbers of detections. M is `config.max_detections`; rows behind
            the number have box and score 0 and class 1.
        """
        limit = self.config.max_detections
        boxes, scores, classes, _ = tf.image.combined_non_max_suppression(
            (self.decode(encodings) / extent)[:, :, None],
            self.scores(logits),
            max_output_size_per_class=limit,
            max_total_size=min(self._most(), len(self.anchors) * self.num_classes),
            iou_threshold=self.config.nms_iou,
            score_threshold=SCORE_THRESHOLD,
            clip_boxes=False,
        )
        return _clip_and_cut(boxes, scores, classes, limit)

    def _most(self) -> int:
        """How many detections are looked through for those inside the picture.

        Where pictures are padded, no more than are given: a .tflite does not know which part of its
        input is the picture, so what it finds in the rest takes places too.
        """
        limit = self.config.max_detections
        return limit if self.config.resize in resizing.FILLS else limit * self.num_classes

    def detect_batch(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """What `postprocess` returns, for (B, H, W, 3) uint8 pictures of any one size."""
        return self._detect(images)  # type: ignore[no-any-return]

    def before_suppression(self, image: UInt8Image) -> tuple[FloatArray, FloatArray]:
        """(A, 4) boxes as fractions, not clipped, and (A, K) scores, of an (H, W, 3) picture."""
        pictures = tf.constant(image[None])
        said = self.network(self.normalize(self.resize(pictures)), training=False)
        boxes = self.decode(said[0]) / self.extent(pictures)
        return boxes[0].numpy(), self.scores(said[1])[0].numpy()

    def as_detect(self, quantized: bool = False) -> Detect:
        """This detector as a function of one picture; it follows the weights as they change.

        `quantized`: as its int8 file will find things.
        """
        run = self._detect_quantized if quantized else self._detect

        def detect(image: UInt8Image) -> Detections:
            boxes, scores, classes, number = run(tf.constant(image[None]))
            found = int(number[0])
            return Detections(
                boxes[0, :found].numpy(),
                scores[0, :found].numpy(),
                classes[0, :found].numpy().astype(np.int64),
            )

        return detect

    def regularization_terms(self) -> dict[str, tf.Tensor]:
        """Half the sum of squares of each regularised variable, weighed, by checkpoint name.

        The weight is `model.l2`, but for variables that the reference holds more strongly.
        """
        return {
            name: self.config.l2 * share * tf.nn.l2_loss(self.weights[name])
            for name, share in self._decayed.items()
        }

    def regularization(self) -> tf.Tensor:
        """The sum of the L2 terms, a scalar."""
        return tf.add_n(list(self.regularization_terms().values()))

    def _detect_graph(
        self, network: Any, images: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        encodings, logits = network(self.normalize(self.resize(images)), training=False)
        return self.postprocess(encodings, logits, self.extent(images))


def decode_boxes(
    encodings: tf.Tensor, anchors: tf.Tensor, scales: Sequence[float] = BOX_SCALES
) -> tf.Tensor:
    """(..., A, 4) yxyx of (..., A, 4) encodings y, x, height, width relative to (A, 4) anchors."""
    centres, sides = centres_and_sides(tf.convert_to_tensor(anchors))
    scaled = encodings / tuple(scales)
    centres = scaled[..., :2] * sides + centres
    half_sides = tf.exp(scaled[..., 2:]) * sides / 2
    return tf.concat([centres - half_sides, centres + half_sides], axis=-1)


def centres_and_sides(yxyx: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(..., 2) centres (y, x) and (..., 2) sides (height, width) of (..., 4) boxes."""
    sides = yxyx[..., 2:] - yxyx[..., :2]
    return yxyx[..., :2] + sides / 2, sides


def have_area(yxyx: tf.Tensor) -> tf.Tensor:
    """(...,) whether each of (..., 4) boxes has an area."""
    sides = yxyx[..., 2:] - yxyx[..., :2]
    return sides[..., 0] * sides[..., 1] > 0


def depth_scaler(multiplier: float, minimum: int) -> Callable[[int], int]:
    """Channels after the depth multiplier, rounded down, never fewer than `minimum`."""
    return lambda channels: max(int(channels * multiplier), minimum)


def map_shapes(maps: Sequence[tf.Tensor]) -> list[tuple[int, int]]:
    """(height, width) in cells of (B, H, W, C) maps."""
    return [(int(height), int(width)) for _, height, width, _ in (x.shape for x in maps)]


def _clip_and_cut(
    boxes: tf.Tensor, scores: tf.Tensor, classes: tf.Tensor, limit: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """The best `limit` of (B, N) detections that have an area inside the picture."""
    boxes = tf.clip_by_value(boxes, 0.0, 1.0)
    scores = tf.where(have_area(boxes), scores, 0.0)  # padding has no area either
    missing = tf.maximum(limit - tf.shape(scores)[1], 0)
    best, order = tf.nn.top_k(tf.pad(scores, [[0, 0], [0, missing]]), limit)
    kept = best > 0
    boxes = tf.gather(tf.pad(boxes, [[0, 0], [0, missing], [0, 0]]), order, batch_dims=1)
    classes = tf.gather(tf.pad(classes, [[0, 0], [0, missing]]), order, batch_dims=1)
    return (
        tf.where(kept[..., None], boxes, 0.0),
        best,
        tf.where(kept, tf.cast(classes, tf.int32) + 1, 1),
        tf.reduce_sum(tf.cast(kept, tf.int32), axis=1),
    )
