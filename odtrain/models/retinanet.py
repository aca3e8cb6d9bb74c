"""RetinaNet as Model Garden builds, labels and trains it: its own code, under this package's seams.

Lin et al. 2017, "Focal Loss for Dense Object Detection". Everything that makes the detector Model
Garden's comes from `official.vision`: the experiment's configuration, the network, the anchors. It
is imported only where such a model is built, since it loads Model Garden's text models too.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from odtrain.config.schema import ModelConfig
from odtrain.errors import ConfigError
from odtrain.models.layers import Layers
from odtrain.models.ssd import Parts
from odtrain.structures import FloatArray

SPINENET_MOBILE = "retinanet_spinenet_mobile"
RESNET50_FPN = "retinanet_resnet50_fpn"

EXPERIMENTS = {
    SPINENET_MOBILE: "retinanet_mobile_coco",
    RESNET50_FPN: "retinanet_resnetfpn_coco",
}
"""Architectures here, and what Model Garden's experiment factory calls them."""

STAGE_ENDS = {
    SPINENET_MOBILE: ("stem_block_1", "stem_block_2"),
    RESNET50_FPN: (r"max_pooling2d.*", *(f"block_group_l{level}" for level in range(2, 6))),
}
"""Names of the layers that end a backbone's stages. Behind SpineNet's stem the blocks are not in order
of scale: they are one more stage."""

DECAYED = (
    ("kernel", "kernel_regularizer"),
    ("depthwise_kernel", "depthwise_regularizer"),
    ("pointwise_kernel", "pointwise_regularizer"),
)
"""Attributes of a layer that hold a variable, and what says whether the regulariser holds it small."""


def build(config: ModelConfig, num_classes: int, make: Layers, images: tf.Tensor) -> Parts:
    """The network behind `images`, (B, H, W, 3) float32 from -1 to 1.

    Raises:
        ConfigError: a depth multiplier that the backbone does not have.
    """
    tf_keras.utils.set_random_seed(make.seed)  # Model Garden's initializers have no seeds
    with _policy(make.dtype):
        model = task(config, num_classes, synchronized=make.synchronized).build_model()
        _freeze(model.backbone, config.architecture, make.frozen_stages)
        network = _flat(model, num_classes)
    objects = {key: item for key, item in model.checkpoint_items.items() if item is not None}
    decayed = {id(variable) for variable in _decayed(model)}
    for name, variable in variables_by_path(objects):
        make.record.add(name, variable, decayed=id(variable) in decayed)
    pictures = Normalised(name="model_garden_colours", dtype="float32")(images)
    encodings, logits = (
        network(pictures) if make.batch_norm_trained else network(pictures, training=False)
    )
    return Parts(encodings, logits, _fractions(config), (), objects)


def task(config: ModelConfig, num_classes: int, *, synchronized: bool = False) -> Any:
    """Model Garden's `RetinaNetTask` of the experiment, with what `config` says of it.

    Its classes count the background in, under index 0, which no anchor is ever asked for.

    Raises:
        ConfigError: a depth multiplier that the backbone does not have.
    """
    from official.core import exp_factory
    from official.vision.tasks.retinanet import RetinaNetTask

    if config.depth_multiplier != 1:
        raise ConfigError(
            f"model.depth_multiplier={config.depth_multiplier:g}",
            f"{config.name} has one width.",
            "Leave it out; model.input_size makes the network quicker.",
        )
    params = exp_factory.get_exp_config(EXPERIMENTS[config.architecture]).task
    params.override(
        {
            "model": {
                "num_classes": num_classes + 1,
                "input_size": [*config.size, 3],
                "min_level": config.pyramid.min_level,
                "max_level": config.pyramid.max_level,
                "anchor": {
                    "num_scales": config.pyramid.scales_per_octave,
                    "aspect_ratios": list(config.pyramid.aspect_ratios),
                    "anchor_size": config.pyramid.anchor_scale,
                },
                "head": {
                    "num_convs": config.shared_predictor.layers,
                    "num_filters": config.shared_predictor.depth,
                },
                "norm_activation": {
                    "use_sync_bn": synchronized,  # the same on one device, by a slower kernel
                    "norm_momentum": config.batch_norm_decay,
                    "norm_epsilon": config.batch_norm_epsilon,
                },
                "detection_generator": {"box_coder_weights": list(config.box_scales)},
            },
            "losses": {
                "focal_loss_alpha": config.focal_alpha,
                "focal_loss_gamma": config.focal_gamma,
                "huber_loss_delta": config.huber_delta,
                "l2_weight_decay": config.l2,
            },
        },
        is_strict=True,
    )
    return RetinaNetTask(params)


def reference(
    config: ModelConfig, num_classes: int, prefix: Path
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Model Garden's own model, given a checkpoint by its own task: what `build`'s network is to equal.

    Returns:
        A function from (B, H, W, 3) pictures of -1 to 1 to (B, A, 4) encodings and (B, A, K + 1) logits.

    Raises:
        AssertionError: the checkpoint does not hold all of the model.
    """
    theirs = task(config, num_classes)
    theirs.task_config.init_checkpoint = str(prefix)
    theirs.task_config.init_checkpoint_modules = "all"  # its own says backbone, for one of ImageNet
    model, colours = theirs.build_model(), Normalised()
    model(tf.zeros((1, *config.size, 3)), training=False)  # makes the head's variables
    theirs.initialize(model)

    def run(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        said = model(colours(images), training=False)
        boxes, scores = (
            [tf.reshape(levels[key], (len(images), -1, width)) for key in sorted(levels, key=int)]
            for levels, width in ((said["box_outputs"], 4), (said["cls_outputs"], num_classes + 1))
        )
        return tf.concat(boxes, axis=1), tf.concat(scores, axis=1)

    return run


def pixel_anchors(config: ModelConfig) -> dict[str, tf.Tensor]:
    """Model Garden's anchors by level, (h, w, 4 A) yxyx in pixels of the network's input."""
    from official.vision.ops import anchor

    generator = anchor.build_anchor_generator(
        min_level=config.pyramid.min_level,
        max_level=config.pyramid.max_level,
        num_scales=config.pyramid.scales_per_octave,
        aspect_ratios=list(config.pyramid.aspect_ratios),
        anchor_size=config.pyramid.anchor_scale,
    )
    return dict(generator(image_size=config.size))


def variables_by_path(objects: Mapping[str, Any]) -> Iterator[tuple[str, tf.Variable]]:
    """Every variable of `objects` by its shortest path, as Model Garden's checkpoints name them.

    `backbone/layer_with_weights-0/kernel` is kept there as `.../kernel/.ATTRIBUTES/VARIABLE_VALUE`.
    """
    root = tf.train.Checkpoint(**objects)
    view = tf.train.TrackableView(root)
    seen, waiting = {id(root)}, deque([("", root)])
    while waiting:
        path, owner = waiting.popleft()
        for name, child in view.children(owner).items():
            if id(child) in seen:
                continue
            seen.add(id(child))
            if isinstance(child, tf.Variable):
                yield f"{path}{name}", child
            waiting.append((f"{path}{name}/", child))


class Normalised(tf_keras.layers.Layer):  # type: ignore[misc]
    """From -1 to 1, which every network here reads, to the colours that Model Garden's weights know."""

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """(B, H, W, 3) less the mean colour of ImageNet's pictures, in their standard deviations."""
        from official.vision.ops.preprocess_ops import MEAN_RGB, STDDEV_RGB

        mean, deviation = np.array(MEAN_RGB), np.array(STDDEV_RGB)
        scale, offset = 127.5 / deviation, (127.5 - mean) / deviation
        return images * scale.astype(np.float32) + offset.astype(np.float32)


def _flat(model: Any, num_classes: int) -> tf_keras.Model:
    """Backbone, decoder and head of a RetinaNet in a row, to (B, A, 4) and (B, A, K + 1) float32."""
    images = tf_keras.Input(model.backbone.input_shape[1:])
    maps = model.backbone(images)
    scores, boxes, _ = model.head(model.decoder(maps) if model.decoder else maps)
    encodings = _joined(boxes, 4, "encodings")
    return tf_keras.Model(images, (encodings, _joined(scores, num_classes + 1, "logits")))


def _joined(levels: Mapping[str, tf.Tensor], width: int, name: str) -> tf.Tensor:
    """(B, A, `width`) float32 of the (B, h, w, a * width) maps, finest level first."""
    rows = [tf_keras.layers.Reshape((-1, width))(levels[key]) for key in sorted(levels, key=int)]
    return tf_keras.layers.Activation("linear", dtype="float32", name=name)(
        tf_keras.layers.Concatenate(axis=1)(rows)
    )


def _fractions(config: ModelConfig) -> FloatArray:
    """(A, 4) yxyx, fractions of the network's input, in the order of the network's outputs."""
    levels = pixel_anchors(config)
    pixels = [levels[key].numpy().reshape(-1, 4) for key in sorted(levels, key=int)]
    sides = np.array([*config.size, *config.size], np.float32)
    fractions: FloatArray = (np.concatenate(pixels) / sides).astype(np.float32)
    return fractions


def _freeze(backbone: tf_keras.Model, architecture: str, stages: int) -> None:
    """Keep the first `stages` of a backbone as they are; all of it if there are fewer."""
    ends = STAGE_ENDS[architecture]
    if stages > len(ends):
        backbone.trainable = False
    elif stages:
        (end, *_) = [x for x in backbone.layers if re.fullmatch(ends[stages - 1], x.name)]
        for layer in tf_keras.Model(backbone.inputs, end.output).layers:
            layer.trainable = False


def _decayed(model: tf_keras.Model) -> Iterator[tf.Variable]:
    for layer in model.submodules:
        for attribute, regularizer in DECAYED:
            if getattr(layer, regularizer, None) and getattr(layer, attribute, None) is not None:
                yield getattr(layer, attribute)


@contextmanager
def _policy(policy: Any) -> Iterator[None]:
    """Inside, layers that are given no tf_keras policy have this one."""
    before = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        yield
    finally:
        tf_keras.mixed_precision.set_global_policy(before)
