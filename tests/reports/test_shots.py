"""Pictures whose boxes a page draws: what it is told of them."""

from __future__ import annotations

import numpy as np
from support.pictures import label_picture

from odtrain.reports.shots import MOST_BOXES, for_script, kept_pictures, shot, write_pictures
from odtrain.structures import Detections, GroundTruth

BOXES = np.array([[0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]], np.float32)


def test_pictures_are_kept_by_their_row(tmp_path):
    write_pictures(tmp_path / "shown", lambda i: np.full((40, 60, 3), i, np.uint8), [7, 2, 7])
    kept = kept_pictures(tmp_path / "shown")
    assert {row: file.name for row, file in kept.items()} == {2: "000002.jpg", 7: "000007.jpg"}


def test_nothing_is_made_for_no_pictures(tmp_path):
    write_pictures(tmp_path / "shown", lambda i: np.zeros((4, 4, 3), np.uint8), [])
    assert (list(tmp_path.iterdir()), kept_pictures(None)) == ([], {})


def test_a_shot_says_which_box_is_right_and_from_which_score_a_label_is_found(tmp_path):
    label_picture(tmp_path / "a.jpg", (64, 48), [])
    truth = GroundTruth("a.jpg", 48, 64, BOXES, np.array([1, 2]))
    found = Detections(
        BOXES[[0, 1, 0]], np.array([0.4, 0.9, 0.01], np.float32), np.array([1, 1, 2])
    )
    made = shot(3, "a", tmp_path / "a.jpg", truth, found, 0.5)
    assert (made["said"], made["width"], made["height"]) == ("0 found, 2 missed, 1 wrong", 64, 48)
    assert made["drawn"] == {
        "boxes": [[0.6, 0.6, 0.9, 0.9], [0.1, 0.1, 0.5, 0.5]],
        "scores": [0.9, 0.4],
        "classes": [1, 1],
        "right": [0, 1],
        "labels": {
            "boxes": [[0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]],
            "classes": [1, 2],
            "scores": [0.4, None],
        },
    }
    assert for_script([made], ("cat", "dog")) == {
        "shots": [made["drawn"]],
        "names": ["cat", "dog"],
        "colours": ["#e69f00", "#56b4e9"],
    }


def test_a_picture_brings_its_best_boxes_alone(tmp_path):
    label_picture(tmp_path / "a.jpg", (64, 48), [])
    many = MOST_BOXES + 5
    scores = np.linspace(0.1, 0.9, many).astype(np.float32)
    found = Detections(np.repeat(BOXES[:1], many, axis=0), scores, np.ones(many, np.int64))
    truth = GroundTruth("a.jpg", 48, 64, BOXES[:0], np.zeros(0, np.int64))
    drawn = shot(0, "a", tmp_path / "a.jpg", truth, found, 0.5)["drawn"]
    assert (len(drawn["scores"]), drawn["scores"][0]) == (MOST_BOXES, 0.9)
