"""What other projects' outputs mean, head by head, by hand and by what LibreYOLO's own programs say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from odtrain_runtime.others import heads
from odtrain_runtime.others.reading import Reading
from odtrain_runtime.structures import areas

DATA = Path(__file__).with_name("data")
HOW = Reading("yolo", num_classes=2, size=(100, 200))
YOLO_ROWS = np.array([[100, 50, 40, 20, 0.9, 0.1], [20, 20, 10, 10, 0.2, 0.7]], np.float32)
FIRST, SECOND = [0.4, 0.4, 0.6, 0.6], [0.15, 0.075, 0.25, 0.125]


def test_yolo_has_a_row_a_value_and_each_box_all_its_classes():
    found = heads.decode_yolo({"output0": YOLO_ROWS.T}, HOW)
    assert found.boxes == pytest.approx(np.array([FIRST, SECOND, SECOND, FIRST]))
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.2, 0.1])
    assert found.classes.tolist() == [1, 2, 1, 2]


def test_yolo_turned_means_the_same():
    turned = heads.decode_yolo({"output0": YOLO_ROWS}, HOW)
    assert turned.boxes == pytest.approx(heads.decode_yolo({"o": YOLO_ROWS.T}, HOW).boxes)


def test_yolo_in_fractions_with_corners():
    how = replace(HOW, boxes="xyxy", unit="fractions")
    row = np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.0]], np.float32)
    found = heads.decode_yolo({"o": row.T}, how)
    assert found.boxes[0] == pytest.approx([0.2, 0.1, 0.4, 0.3])


def test_yolov5_multiplies_by_whether_there_is_an_object():
    row = np.array([[100, 50, 40, 20, 0.5, 0.8, 0.2]], np.float32)
    found = heads.decode_yolov5({"o": row}, HOW)
    assert found.scores.tolist() == pytest.approx([0.4, 0.1])
    assert found.boxes[1] == pytest.approx(FIRST)


def test_yolox_keeps_each_boxs_best_class():
    row = np.array([[100, 50, 40, 20, 0.5, 0.2, 0.8]], np.float32)
    found = heads.decode_yolox({"o": row}, HOW)
    assert (found.scores.tolist(), found.classes.tolist()) == (pytest.approx([0.4]), [2])


def test_yolox_raw_places_boxes_by_cell_and_stride():
    how = replace(HOW, head="yolox_raw", size=(32, 32), strides=(16, 32))
    rows = np.zeros((5, 7), np.float32)
    rows[:, 4:6] = 0.1
    rows[3] = [0.5, 0.25, np.log(0.5), 0, 1, 1, 0]  # the grid's last cell, at (16, 16)
    found = heads.decode_yolox_raw({"o": rows}, how)
    # centre (24, 20), 8 wide and 16 high, of 32
    assert found.boxes[0] == pytest.approx([12 / 32, 20 / 32, 28 / 32, 28 / 32])


def test_end_to_end_is_ordered_by_score_and_counts_classes_from_0():
    rows = np.array([[20, 10, 60, 30, 0.3, 1], [0, 0, 200, 100, 0.8, 0]], np.float32)
    found = heads.decode_end_to_end({"o": rows}, HOW)
    assert found.boxes == pytest.approx(np.array([[0, 0, 1, 1], [0.1, 0.1, 0.3, 0.3]]))
    assert found.classes.tolist() == [1, 2]


def test_detr_by_sigmoid_takes_the_best_pairs():
    how = replace(HOW, head="detr", unit="fractions", activation="sigmoid")
    outputs = {
        "pred_logits": np.array([[0, -1], [2, 1]], np.float32),
        "pred_boxes": np.array([[0.5, 0.5, 0.2, 0.2], [0.2, 0.4, 0.2, 0.4]], np.float32),
    }
    found = heads.decode_detr(outputs, how)
    assert found.scores.tolist() == pytest.approx([0.8808, 0.7311, 0.5, 0.2689], abs=1e-4)
    assert found.classes.tolist() == [1, 2, 1, 2]
    assert found.boxes[0] == pytest.approx([0.2, 0.1, 0.6, 0.3])


def test_detr_by_softmax_leaves_out_no_object():
    how = replace(HOW, head="detr", unit="fractions", activation="softmax")
    outputs = {
        "logits": np.log(np.array([[0.2, 0.5, 0.3]], np.float32)),
        "boxes": np.array([[0.5, 0.5, 0.2, 0.2]], np.float32),
    }
    found = heads.decode_detr(outputs, how)
    assert (found.scores.tolist(), found.classes.tolist()) == (pytest.approx([0.5]), [2])


def test_ssd_moves_anchors_and_drops_the_background():
    anchors = ((0.4, 0.4, 0.6, 0.6),)
    how = replace(HOW, head="ssd", background=True, anchors=anchors)
    outputs = {
        "encodings": np.array([[10, 0, 5 * np.log(2), 0]], np.float32),
        "scores": np.array([[0.9, 0.1, 0.6]], np.float32),
    }
    found = heads.decode_ssd(outputs, how)
    # one side down, twice as high
    assert found.boxes[0] == pytest.approx([0.5, 0.4, 0.9, 0.6])
    assert (found.scores.tolist(), found.classes.tolist()) == (pytest.approx([0.6, 0.1]), [2, 1])


def nanodet_tables() -> tuple[np.ndarray, np.ndarray]:
    """Of four cells and one; the cell at (0, 16) reaches 0, 1, 2 and 3 strides."""
    scores = np.full((5, 2), 0.01, np.float32)
    scores[1] = [0.1, 0.9]
    sides = np.zeros((5, 4, 8), np.float32)
    for side, place in enumerate((0, 1, 2, 3)):
        sides[1, side, place] = 50
    return scores, sides.reshape(5, 32)


@pytest.mark.parametrize("together", [True, False])
def test_nanodet_reaches_from_a_cells_point_to_four_sides(together):
    how = replace(HOW, head="nanodet", size=(32, 32), strides=(16, 32))
    scores, sides = nanodet_tables()
    outputs = {"o": np.concatenate([scores, sides], axis=1)}
    if not together:
        outputs = {"a": scores[4:], "b": sides[:4], "c": scores[:4], "d": sides[4:]}
    found = heads.decode_nanodet(outputs, how)
    # x 16 - 0 and 16 + 32, y 0 - 16 and 0 + 48, of 32
    assert found.boxes[0] == pytest.approx([-0.5, 0.5, 1.5, 1.5])
    assert found.classes[0] == 2


def test_detections_are_taken_by_name_and_count():
    outputs = {
        "detection_boxes": np.array([[0, 0, 1, 1], [0, 0, 0, 0]], np.float32),
        "detection_scores": np.array([0.9, 0], np.float32),
        "detection_classes": np.array([1, 0], np.float32),
        "num_detections": np.array(1, np.float32),
    }
    found = heads.decode_detections(outputs, HOW)
    assert (found.scores.tolist(), found.classes.tolist()) == (pytest.approx([0.9]), [2])


def test_suppression_is_class_by_class():
    boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 0.9], [0, 0, 1, 0.9], [0, 0, 1, 0.4]], np.float32)
    found = heads.Candidates(
        boxes, np.array([0.9, 0.8, 0.7, 0.6], np.float32), np.array([1, 1, 2, 1])
    )
    assert heads.suppressed(found, 0.5).scores.tolist() == pytest.approx([0.9, 0.7, 0.6])


def test_scores_that_are_no_numbers_come_last():
    rows = YOLO_ROWS.copy()
    rows[0, 4] = np.nan
    found = heads.decode_yolo({"o": rows.T}, HOW)
    assert found.scores.tolist() == pytest.approx([0.7, 0.2, 0.1, 0])


@pytest.mark.parametrize("name", ["yolox", "yolo9", "dfine", "rtdetr", "rfdetr"])
def test_a_head_says_what_libreyolo_says_of_the_same_outputs(name):
    kept = np.load(DATA / f"libreyolo_{name}.npz")
    how = Reading.from_json(str(kept["reading"]))
    outputs = {key[7:]: kept[key] for key in kept.files if key.startswith("output_")}
    found = heads.detections(outputs, how)
    wanted = json.loads(str(kept["found"]))
    boxes = np.clip((found.boxes - kept["origin"]) / kept["extent"], 0, 1)
    seen = np.flatnonzero(areas(boxes) > 0)[: len(wanted["scores"])]
    assert len(seen) >= 14
    assert found.scores[seen] == pytest.approx(wanted["scores"], abs=1e-4)
    assert found.classes[seen].tolist() == wanted["classes"]
    assert boxes[seen] == pytest.approx(np.array(wanted["boxes"]), abs=1e-3)
