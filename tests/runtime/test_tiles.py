"""Pictures looked at tile by tile, and what is found there merged."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny_models import model

from odtrain.structures import pairwise_iou
from odtrain_runtime.detector import BATCH
from odtrain_runtime.model_files import load_detector, load_detectors
from odtrain_runtime.structures import Detections
from odtrain_runtime.tiles import (
    TILES,
    Tiles,
    Window,
    look_by_tiles,
    merge,
    read_tiles,
    tiled,
    windows,
    write_tiles,
)

__all__ = ["model"]

KEPT = Path(__file__).parents[1] / "support" / "sahi_merged.json"
"""What sahi made of drawn tile detections: `sahi_merged.py` beside it."""
HUNDREDS = Tiles(100, 100, 0.2, whole=True)


def found(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    """Of ymin, xmin, ymax, xmax, score, class."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def bright(image):
    """What one bright rectangle leaves to be seen of it."""
    rows, columns = np.nonzero(image[..., 0] > 200)
    if not len(rows):
        return found()
    height, width = image.shape[:2]
    share = min(1.0, len(rows) / 4000)
    top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
    return found((top / height, left / width, bottom / height, right / width, share, 1))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 900),
    st.integers(1, 900),
    st.integers(32, 400),
    st.integers(32, 400),
    st.floats(0, 0.9),
)
def test_tiles_cover_the_picture_and_overlap_enough(height, width, tall, wide, overlap):
    views = windows(height, width, Tiles(tall, wide, overlap, whole=False))
    covered = np.zeros((height, width), bool)
    for view in views:
        assert (view.height, view.width) == (min(tall, height), min(wide, width))
        covered[view.top : view.top + view.height, view.left : view.left + view.width] = True
    assert covered.all()
    lefts = sorted({view.left for view in views})
    assert all(
        b - a <= max(1, views[0].width * (1 - overlap)) + 1 for a, b in itertools.pairwise(lefts)
    )


def test_an_object_across_a_seam_is_found_once_and_whole():
    image = np.zeros((100, 180, 3), np.uint8)
    image[40:60, 70:130] = 255
    for whole in (True, False):
        seen = look_by_tiles(
            lambda views: list(map(bright, views)), image, replace(HUNDREDS, whole=whole)
        )
        assert seen.boxes == pytest.approx(np.array([[0.4, 70 / 180, 0.6, 130 / 180]]))


def test_the_box_of_the_view_that_shows_all_of_it_is_taken():
    views = [Window(0, 0, 100, 100), Window(0, 80, 100, 100)]
    cut = found((0.2, 0.85, 0.4, 1.0, 0.9, 1))  # 85 to 100
    whole = found((0.2, 0.04, 0.4, 0.25, 0.7, 1))  # 84 to 105
    seen = merge([cut, whole], views, 100, 180)
    assert seen.scores.tolist() == pytest.approx([0.9])
    assert seen.boxes * 180 == pytest.approx(np.array([[36, 84, 72, 105]]))


def test_a_weak_box_does_not_stretch_a_sure_one():
    views = [Window(0, 0, 100, 100), Window(0, 80, 100, 100)]
    sure = found((0.2, 0.85, 0.4, 1.0, 0.9, 1))
    weak = found((0.0, 0.0, 1.0, 1.0, 0.01, 1))
    seen = merge([sure, weak], views, 100, 180)
    assert seen.boxes * 180 == pytest.approx(np.array([[36, 85, 72, 100]]))


def test_classes_are_merged_apart():
    views = [Window(0, 0, 100, 100), Window(0, 80, 100, 100)]
    seen = merge(
        [found((0.2, 0.85, 0.4, 0.95, 0.9, 1)), found((0.2, 0.05, 0.4, 0.15, 0.8, 2))],
        views,
        100,
        180,
    )
    assert seen.classes.tolist() == [1, 2]


def test_a_picture_no_larger_than_a_tile_is_looked_at_once():
    image = np.full((100, 90, 3), 255, np.uint8)
    shapes = []
    tiled(lambda view: (shapes.append(view.shape), found())[1], HUNDREDS)(image)
    assert shapes == [(100, 90, 3)]


def test_without_tiles_a_detector_is_itself():
    assert tiled(bright, None) is bright


def test_a_passport_gives_the_tiles_back_and_nothing_that_cannot_be():
    assert read_tiles({TILES: write_tiles(HUNDREDS)}) == HUNDREDS
    assert read_tiles({}) is None
    table = json.loads(write_tiles(HUNDREDS))
    for odd in ({"height": 1}, {"overlap": 0.999}, {"overlap": "x"}, {"width": None}):
        assert read_tiles({TILES: json.dumps({**table, **odd})}) is None
    assert read_tiles({TILES: "[" * 9}) is None


def test_a_file_looks_by_the_tiles_it_is_given(model):
    image = np.zeros((100, 180, 3), np.uint8)
    plain = load_detector(model)
    assert len(plain(image)) == 2
    by_tiles = replace(plain, tiles=replace(HUNDREDS, whole=False))
    assert by_tiles(image).boxes[:, 3].max() > plain(image).boxes[:, 3].max() - 1e-6
    assert len(by_tiles(image)) == 4
    several = replace(load_detectors(model, 2), tiles=by_tiles.tiles)
    assert several.lanes == 2
    assert several(image).boxes == pytest.approx(by_tiles(image).boxes)


def test_a_graph_is_given_alike_views_a_few_at_a_time(model):
    sizes = []

    def run_batch(tensors):
        sizes.append(tensors.shape)
        return [plain.run_once(np.zeros((4, 6, 3), np.uint8)) for _ in tensors]

    plain = load_detector(model)
    graph = replace(plain, run_batch=run_batch, prepare=lambda image: image[None], tiles=HUNDREDS)
    graph = replace(graph, run=lambda tensor: plain.run(plain.prepare(tensor[0])))
    graph(np.zeros((180, 260, 3), np.uint8))  # 2 rows of 3 tiles and the whole
    assert sizes == [(BATCH, 100, 100, 3), (2, 100, 100, 3)]


def test_what_is_kept_is_what_sahi_keeps():
    cases = json.loads(KEPT.read_text())
    assert len(cases["scenes"]) == 40
    apart = []
    for scene in cases["scenes"]:
        views = [Window(*view) for view in scene["views"]]
        seen = merge([found(*rows) for rows in scene["found"]], views, *scene["size"])
        ours = sorted(zip(seen.scores.round(5).tolist(), seen.classes.tolist(), strict=True))
        theirs = sorted((round(row[4], 5), row[5]) for row in scene["sahi"])
        assert [c for _, c in ours] == [c for _, c in theirs]
        assert [s for s, _ in ours] == pytest.approx([s for s, _ in theirs], abs=2e-5)
        theirs_boxes = np.array([row[:4] for row in sorted(scene["sahi"], key=lambda r: -r[4])])
        scale = np.array(scene["size"] * 2)
        apart += np.diag(pairwise_iou(seen.boxes * scale, theirs_boxes)).tolist()
    # Theirs is the bounds of all that was merged, also where one view showed the whole object.
    assert np.median(apart) > 0.95
