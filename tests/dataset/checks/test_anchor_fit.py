"""Boxes against the network's input and its anchors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from odtrain.config.compose import section
from odtrain.config.schema import AnchorConfig, ModelConfig, PyramidConfig
from odtrain.dataset.checks.anchor_fit import GRIDS, best_overlaps, fit_findings
from odtrain.labels.annotations import LabelledImage, LabelledObject
from odtrain.structures import pairwise_iou
from odtrain_runtime.tiles import Tiles

SMALL = {"input_size": 96, "depth_multiplier": 0.25, "min_depth": 8}


def model(**values: object) -> ModelConfig:
    return section(
        ModelConfig,
        **{"name": "net", "architecture": "ssd_mobilenet_v1", "input_size": 300, **values},
    )


def picture(*boxes: tuple[float, float, float, float]) -> LabelledImage:
    objects = tuple(LabelledObject("cat", box, False, False) for box in boxes)
    return LabelledImage(Path("a.jpg"), Path("a.xml"), 1000, 1000, objects)


def told(config: ModelConfig, *boxes: tuple[float, float, float, float]) -> list[tuple[str, str]]:
    return [(found.code, found.cause) for found in fit_findings(config, [picture(*boxes)])]


def test_a_box_that_becomes_tiny_is_told_at_this_input_size():
    box = (0.1, 0.1, 0.125, 0.2)
    assert told(model(), box)[0] == (
        "OD116",
        "becomes 30.0 x 7.5 pixels at the network's 300 x 300.",
    )
    assert "OD116" not in dict(told(model(input_size=640), box))


def test_the_input_may_be_wider_than_high():
    box = (0.1, 0.1, 0.13, 0.13)
    assert told(model(input_size=[256, 512]), box)[0] == (
        "OD116",
        "becomes 15.4 x 7.7 pixels at the network's 512 x 256.",
    )


def test_a_box_that_no_anchor_fits_is_told():
    assert told(model(), (0.0, 0.4, 1.0, 0.44), (0.3, 0.3, 0.7, 0.7)) == [
        (
            "OD117",
            "becomes 12.0 x 300.0 pixels at the network's 300 x 300, where the best anchor overlaps it "
            "by an IoU of 0.18 only.",
        ),
        (
            "OD209",
            "50.0% of the 2 boxes have an anchor that overlaps them by an IoU of 0.5 or more at 300 x "
            "300 (anchor recall).",
        ),
    ]


def test_of_an_architecture_whose_anchors_are_unknown_only_sizes_are_told():
    unknown = model(architecture="another")
    assert [code for code, _ in told(unknown, (0.0, 0.4, 1.0, 0.44), (0, 0, 0.01, 0.01))] == [
        "OD116"
    ]
    assert told(model()) == []


USUAL = ("ssd_mobilenet_v1", "ssd_mobilenet_v1_fpn")


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture",
    [pytest.param(name, marks=() if name in USUAL else pytest.mark.long) for name in sorted(GRIDS)],
)
def test_the_best_overlap_is_that_with_the_best_anchor_of_the_network(architecture):
    from odtrain.models.build import build_detector

    values = {**SMALL, "architecture": architecture, "input_size": [100, 150]}
    if architecture == "ssd_mobilenet_v2_mnasfpn":
        values["pyramid"] = section(PyramidConfig, max_level=6)
    if architecture == "ssd_mobilenet_v1_ppn":
        values["anchors"] = section(AnchorConfig, reduce_boxes_in_lowest_layer=False)
    corners = np.sort(np.random.default_rng(3).random((200, 2, 2), np.float32), axis=1)
    boxes = corners.reshape(200, 4)
    detector = build_detector(model(**values), 2)
    expected = pairwise_iou(boxes, detector.anchors).max(axis=1)
    np.testing.assert_allclose(best_overlaps(model(**values), boxes), expected, atol=1e-5)


def test_tiny_boxes_name_the_tiles_in_which_they_are_large_enough():
    boxes = [(0.1, 0.1, 0.12, 0.12)] * 20
    (finding, *_) = fit_findings(model(), [picture(*boxes)])
    assert finding.remedy == (
        "Cut the pictures into tiles: odtrain train data.tiles.size=352; raise model.input_size; or leave "
        "such objects unlabelled."
    )
    tiles = Tiles(352, 352, 0.2, whole=True)
    assert [each.code for each in fit_findings(model(), [picture(*boxes)], tiles)] == ["OD209"]
