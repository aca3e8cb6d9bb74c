"""What the models are for: the groups in which `odtrain zoo` lists them, each with its advice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Purpose(NamedTuple):
    """What a group of models is for.

    Attributes:
        name: of the group.
        advice: which of them to take, in a line.
        models: names of conf/model.
    """

    name: str
    advice: str
    models: tuple[str, ...]


PURPOSES = (
    Purpose(
        "A phone or a Raspberry Pi",
        "With COCO weights ssd_mobilenet_v3_small_coco is lightest, efficientdet_lite2_coco most accurate.",
        (
            "efficientdet_lite0_coco",
            "efficientdet_lite1_coco",
            "efficientdet_lite2_coco",
            "panels_ssd_mobilenet_v1",
            "panels_ssdlite_mobilenet_v2",
            "ssd_mobiledet_cpu_coco",
            "ssd_mobilenet_v1_0.25_depth_192",
            "ssd_mobilenet_v1_0.75_depth_coco",
            "ssd_mobilenet_v1_0.75_depth_quantized_coco",
            "ssd_mobilenet_v1_coco",
            "ssd_mobilenet_v1_ppn_coco",
            "ssd_mobilenet_v1_quantized_coco",
            "ssd_mobilenet_v2_fpnlite_320_coco",
            "ssd_mobilenet_v2_fpnlite_320_hands",
            "ssd_mobilenet_v2_mnasfpn_coco",
            "ssd_mobilenet_v2_quantized_coco",
            "ssd_mobilenet_v3_large_coco",
            "ssd_mobilenet_v3_small_coco",
            "ssdlite_mobilenet_v2_0.35_depth_224",
            "ssdlite_mobilenet_v2_coco",
            "ssdlite_mobilenet_v2_pedestrian",
            "ssdlite_mobilenet_v3_small_0.5_depth_256",
        ),
    ),
    Purpose(
        "A Coral, a DSP, a phone's accelerator",
        "ssd_mobiledet_edgetpu_coco is for a Coral, ssd_mobiledet_dsp_coco for a DSP; all of them is int8.",
        (
            "ssd_mobiledet_dsp_coco",
            "ssd_mobiledet_edgetpu_coco",
            "ssd_mobiledet_gpu",
            "ssd_mobilenet_edgetpu_coco",
        ),
    ),
    Purpose(
        "A server",
        "efficientdet_lite4_coco has the highest published mAP, for a third of the MACs of the FPNs or less.",
        (
            "efficientdet_lite3_coco",
            "efficientdet_lite4_coco",
            "retinanet_mobile_coco",
            "retinanet_resnetfpn_coco",
            "ssd_inception_v2_coco",
            "ssd_mobilenet_v1_fpn_coco",
            "ssd_mobilenet_v2_coco",
            "ssd_mobilenet_v2_fpnlite_640_coco",
            "ssd_mobilenet_v2_fpnlite_640_hands",
            "ssd_resnet_50_fpn_coco",
        ),
    ),
)


def purposes(names: Sequence[str]) -> list[Purpose]:
    """The groups of these models, in order of their names; last, those of no group: the user's own."""
    groups = [each._replace(models=tuple(sorted({*each.models} & {*names}))) for each in PURPOSES]
    known = {name for each in groups for name in each.models}
    own = Purpose("Your own", "", tuple(name for name in names if name not in known))
    return [each for each in [*groups, own] if each.models]
