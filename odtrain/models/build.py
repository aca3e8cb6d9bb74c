"""The networks, each built so that it is its reference: TF1's SSDs, RetinaNets, EfficientDet-Lite."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import tensorflow as tf
import tf_keras

from odtrain.config.schema import ModelConfig
from odtrain.errors import choose
from odtrain.models import (
    efficientdet,
    retinanet,
    ssd_fpn,
    ssd_inception_v2,
    ssd_mnasfpn,
    ssd_mobiledet,
    ssd_mobilenet_v1,
    ssd_mobilenet_v2,
    ssd_mobilenet_v3,
    ssd_ppn,
)
from odtrain.models.layers import Layers, layers_for
from odtrain.models.sharing import Sharing, noted
from odtrain.models.ssd import SSD, Parts
from odtrain.system.progress import doing

Builder = Callable[[ModelConfig, int, Layers, tf.Tensor], Parts]
"""(configuration, number of classes, layers, (B, H, W, 3) normalised pictures) -> the parts."""


@doing("Building the network")
def build_detector(
    config: ModelConfig,
    num_classes: int,
    *,
    frozen_stages: int = 0,
    batch_norm_trained: bool = True,
    synchronized: bool = False,
    precision: str = "fp32",
    seed: int = 0,
    quantized: bool = False,
) -> SSD:
    """A detector with first weights that `seed` decides.

    Args:
        config: the architecture, its size and its constants.
        num_classes: without the background.
        frozen_stages: stages of the backbone, from the picture on, that do not learn; a stage ends
            where the map is halved. Their batch norm keeps its moving statistics and no gradient is
            computed for them.
        batch_norm_trained: False keeps all moving statistics, and uses them in training too.
        synchronized: trained batch norm uses the statistics of the whole batch where replicas share it.
        precision: `fp32`, or `bf16` for computing in bfloat16 with float32 variables and outputs.
        seed: of the random kernels.
        quantized: have it too as its int8 file computes it, with ranges that can be trained.

    Raises:
        ConfigError: an unknown architecture, initializer or precision, or layers that cannot be `quantized`.
    """
    architecture = choose("model.architecture", config.architecture, list(ARCHITECTURES))

    def built(
        config: ModelConfig, scope: AbstractContextManager[None], quantized: bool = False
    ) -> SSD:
        make = layers_for(
            config,
            frozen_stages=frozen_stages,
            batch_norm_trained=batch_norm_trained,
            synchronized=synchronized,
            precision=precision,
            seed=seed,
        )
        images = tf_keras.Input((*config.size, 3), name="images")
        with scope:
            parts = ARCHITECTURES[architecture](config, num_classes, make, images)
        return SSD(config, num_classes, images, parts, make.record, quantized)

    def at_size(size: tuple[int, int]) -> SSD:
        sharing = Sharing(first, made, size)
        other = built(replace(config, input_size=list(size)), sharing.scope())
        sharing.check(other)
        return other

    made: list[tf.Variable] = []
    first = built(config, noted(made), quantized)
    first.at_size = at_size
    return first


def plain_copy(detector: SSD) -> SSD:
    """A detector with the same weights that computes in float32, on one device, with plain layers."""
    quantized = detector.quantized is not None
    copy = build_detector(detector.config, detector.num_classes, quantized=quantized)
    copy_weights(detector, copy)
    return copy


def copy_weights(detector: SSD, copy: SSD) -> None:
    """Give `copy` the weights of a detector; where workers share those, reading them takes all workers."""
    values = detector.state_by_name()
    for name, variable in copy.state_by_name().items():
        variable.assign(values[name].numpy())


ARCHITECTURES: dict[str, Builder] = {
    "ssd_mobilenet_v1": ssd_mobilenet_v1.build,
    "ssd_mobilenet_v2": ssd_mobilenet_v2.build_ssd,
    "ssdlite_mobilenet_v2": ssd_mobilenet_v2.build_ssdlite,
    "ssdlite_mobilenet_v3_large": ssd_mobilenet_v3.build_large,
    "ssdlite_mobilenet_v3_small": ssd_mobilenet_v3.build_small,
    "ssdlite_mobilenet_edgetpu": ssd_mobilenet_v3.build_edgetpu,
    "ssdlite_mobiledet_cpu": ssd_mobiledet.build_cpu,
    "ssdlite_mobiledet_dsp": ssd_mobiledet.build_dsp,
    "ssdlite_mobiledet_edgetpu": ssd_mobiledet.build_edgetpu,
    "ssdlite_mobiledet_gpu": ssd_mobiledet.build_gpu,
    "ssd_mobilenet_v2_fpnlite": ssd_fpn.build_mobilenet_v2_lite,
    "ssd_mobilenet_v2_mnasfpn": ssd_mnasfpn.build,
    "ssd_mobilenet_v1_fpn": ssd_fpn.build_mobilenet_v1,
    "ssd_resnet50_v1_fpn": ssd_fpn.build_resnet50,
    "ssd_mobilenet_v1_ppn": ssd_ppn.build,
    "ssd_inception_v2": ssd_inception_v2.build,
    retinanet.SPINENET_MOBILE: retinanet.build,
    retinanet.RESNET50_FPN: retinanet.build,
    efficientdet.ARCHITECTURE: efficientdet.build,
}
PYRAMIDS = {
    "ssd_mobilenet_v2_fpnlite",
    "ssd_mobilenet_v2_mnasfpn",
    "ssd_mobilenet_v1_fpn",
    "ssd_resnet50_v1_fpn",
    retinanet.SPINENET_MOBILE,
    retinanet.RESNET50_FPN,
    efficientdet.ARCHITECTURE,
}
"""Architectures whose maps are those of a feature pyramid."""
DENSE = {
    "ssd_mobilenet_v1_fpn",
    "ssd_resnet50_v1_fpn",
    "ssd_inception_v2",
    "ssdlite_mobilenet_edgetpu",
    "ssdlite_mobiledet_dsp",
    "ssdlite_mobiledet_edgetpu",
    "ssdlite_mobiledet_gpu",
    retinanet.RESNET50_FPN,
}
"""Architectures whose multiplications are mostly in dense kernels of 3x3 cells and more."""
INVERTED = {
    "ssd_mobilenet_v2",
    "ssdlite_mobilenet_v2",
    "ssdlite_mobilenet_v3_large",
    "ssdlite_mobilenet_v3_small",
    "ssdlite_mobiledet_cpu",
    "ssd_mobilenet_v2_fpnlite",
    "ssd_mobilenet_v2_mnasfpn",
    retinanet.SPINENET_MOBILE,
    efficientdet.ARCHITECTURE,
}
"""Architectures of inverted residuals: many channels inside the blocks, few between them."""
