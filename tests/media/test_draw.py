from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib.ft2font import FT2Font

from odtrain.media import draw as drawing
from odtrain.media.draw import (
    WHITE,
    draw,
    draw_truth,
    fit,
    font_file,
    printable_label,
    side_by_side,
)
from odtrain.media.palette import Colour, class_colour
from odtrain.structures import Detections, GroundTruth, UInt8Image, class_label

NAMES = ("raccoon", "squirrel")
MIDDLE = (0.25, 0.25, 0.75, 0.75)
NO_FONT_HAS_THIS = "\u0378\u0379"
"""Two code points that Unicode has not assigned."""


@pytest.fixture
def fresh_fonts() -> Iterator[None]:
    """Forget which fonts were found, before and after."""
    caches = (drawing._opened_font, drawing.font_file, drawing._font_files, drawing._letters)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def grey(height: int = 240, width: int = 320) -> UInt8Image:
    return np.full((height, width, 3), 90, np.uint8)


def detections(*found: tuple[tuple[float, float, float, float], float, int]) -> Detections:
    return Detections(
        np.array([box for box, _, _ in found], np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in found], np.float32),
        np.array([class_id for _, _, class_id in found], np.int64),
    )


def count(image: UInt8Image, colour: Colour) -> int:
    return int(np.all(image == colour, axis=-1).sum())


def test_a_detection_is_framed_in_the_colour_of_its_class():
    drawn = draw(grey(), detections((MIDDLE, 0.9, 2)), NAMES, 0.5)
    assert tuple(drawn[179, 200]) == class_colour(2)  # bottom edge: 0.75 of the last row, 239
    assert tuple(drawn[120, 239]) == class_colour(2)  # right edge: 0.75 of the last column, 319
    assert tuple(drawn[120, 160]) == (90, 90, 90)  # inside


def test_the_given_picture_is_not_changed():
    image = grey()
    drawn = draw(image, detections((MIDDLE, 0.9, 1)), NAMES, 0.5)
    assert np.array_equal(image, grey())
    assert (drawn.shape, drawn.dtype) == (image.shape, image.dtype)


def test_detections_below_the_threshold_are_left_out():
    both = detections((MIDDLE, 0.9, 1), ((0.1, 0.1, 0.2, 0.2), 0.49, 2))
    one = detections((MIDDLE, 0.9, 1))
    assert np.array_equal(draw(grey(), both, NAMES, 0.5), draw(grey(), one, NAMES, 0.5))


def test_a_picture_without_detections_stays_as_it_is():
    assert np.array_equal(draw(grey(), detections(), NAMES, 0.5), grey())


def test_name_and_score_are_both_in_the_tag():
    drawn = draw(grey(), detections((MIDDLE, 0.9, 1)), NAMES, 0.5)
    other_name = draw(grey(), detections((MIDDLE, 0.9, 1)), ("squirrel",), 0.5)
    other_score = draw(grey(), detections((MIDDLE, 0.8, 1)), NAMES, 0.5)
    assert not np.array_equal(drawn, other_name)
    assert not np.array_equal(drawn, other_score)


@pytest.mark.parametrize(
    ("y", "x"),
    [
        pytest.param(0.0, 0.0, id="top left"),
        pytest.param(0.0, 1.0, id="top right"),
        pytest.param(1.0, 0.0, id="bottom left"),
        pytest.param(1.0, 1.0, id="bottom right"),
    ],
)
def test_the_whole_tag_is_in_the_picture_wherever_the_box_is(y, x):
    in_the_middle = draw(grey(), detections(((0.5, 0.5, 0.5, 0.5), 0.9, 1)), NAMES, 0.5)
    drawn = draw(grey(), detections(((y, x, y, x), 0.9, 1)), NAMES, 0.5)
    point = 2  # pixels of the box itself, which the tag may hide
    tag = count(in_the_middle, class_colour(1)) - point
    assert tag > 500
    assert tag <= count(drawn, class_colour(1)) <= tag + point


def test_a_tag_in_a_picture_that_is_too_low_for_it_starts_at_the_top():
    drawn = draw(grey(8, 320), detections(((1, 0.5, 1, 0.5), 0.9, 1)), NAMES, 0.5)
    (filled,) = np.nonzero(np.all(drawn[0] == class_colour(1), axis=-1))
    assert len(filled) > 50
    assert np.all(np.diff(filled) == 1)  # the tag's upper edge, above its letters


def test_the_tags_of_two_detections_in_one_place_do_not_hide_each_other():
    alone = [
        count(draw(grey(), detections((MIDDLE, 0.9, k)), NAMES, 0.5), class_colour(k))
        for k in (1, 2)
    ]
    together = draw(grey(), detections((MIDDLE, 0.9, 1), (MIDDLE, 0.8, 2)), NAMES, 0.5)
    frame = 2 * (160 + 120)
    assert count(together, class_colour(1)) == alone[0]  # the better one is on top
    assert count(together, class_colour(2)) > alone[1] - 2 * frame > 0  # its tag is all there


def test_lines_grow_with_the_picture():
    widths = []
    for side in (180, 1800):
        drawn = draw(grey(side, side), detections((MIDDLE, 0.9, 1)), NAMES, 0.5)
        column = drawn[side // 2 :, side // 2]
        widths.append(int(np.all(column == class_colour(1), axis=-1).sum()))
    assert widths == [1, 10]


def test_ground_truth_is_dashed_below_the_detections():
    truth = GroundTruth("a.jpg", 240, 320, np.array([MIDDLE], np.float32), np.array([1]))
    drawn = draw(grey(), detections(), NAMES, 0.5, truth)
    edge = drawn[179, 80:240]
    assert 60 < count(edge[None], WHITE) < 120  # about half of 160
    covered = draw(grey(), detections((MIDDLE, 0.9, 1)), NAMES, 0.5, truth)
    assert count(covered[120:, :], WHITE) == 0


def test_ground_truth_alone_is_drawn_with_its_names():
    truth = GroundTruth("a.jpg", 240, 320, np.array([MIDDLE], np.float32), np.array([2]))
    drawn = draw_truth(grey(), truth, NAMES)
    assert tuple(drawn[179, 200]) == class_colour(2)
    assert not np.array_equal(drawn, draw_truth(grey(), truth, ("raccoon", "rabbit")))


@pytest.mark.parametrize(
    ("box", "seen"),
    [
        pytest.param((-1.0, -0.5, 0.5, 0.5), (0.0, 0.0, 0.5, 0.5), id="outside"),
        pytest.param((0.5, 0.5, 0.25, 0.25), (0.25, 0.25, 0.5, 0.5), id="inside out"),
        pytest.param((np.nan, 0.0, 0.5, np.inf), (0.0, 0.0, 0.5, 1.0), id="not a number"),
    ],
)
def test_an_impossible_box_is_drawn_where_it_can_be_seen(box, seen):
    drawn = draw(grey(), detections((box, 0.9, 1)), NAMES, 0.5)
    assert np.array_equal(drawn, draw(grey(), detections((seen, 0.9, 1)), NAMES, 0.5))


@pytest.mark.parametrize(
    ("class_id", "label"),
    [
        pytest.param(1, "raccoon", id="first"),
        pytest.param(2, "squirrel", id="last"),
        pytest.param(3, "class 3", id="beyond the names"),
        pytest.param(0, "class 0", id="background"),
    ],
)
def test_label_of_a_class(class_id, label):
    assert class_label(NAMES, class_id) == label


def test_accented_names_are_written_in_the_font_that_comes_with_matplotlib():
    file = font_file("éléphant")
    assert file is not None
    assert file.name == "DejaVuSans.ttf"


def test_letters_that_dejavu_lacks_are_looked_for_in_other_fonts():
    letter = "\u1d81"  # a phonetic d that matplotlib's STIX has
    file = font_file(letter)
    assert file is not None
    assert file.name != "DejaVuSans.ttf"
    assert ord(letter) in FT2Font(str(file)).get_charmap()


def test_a_name_no_font_can_write_is_replaced_by_its_class_number():
    names = ("raccoon", NO_FONT_HAS_THIS)
    assert font_file(NO_FONT_HAS_THIS) is None
    assert printable_label(names, 2) == "class 2"
    assert np.array_equal(
        draw(grey(), detections((MIDDLE, 0.9, 2)), names, 0.5),
        draw(grey(), detections((MIDDLE, 0.9, 2)), ("raccoon", "class 2"), 0.5),
    )


def test_pictures_are_drawn_without_matplotlib(monkeypatch, fresh_fonts):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    drawn = draw(grey(), detections((MIDDLE, 0.9, 1)), ("너구리",), 0.5)
    assert printable_label(("너구리",), 1) == "class 1"
    assert count(drawn, class_colour(1)) > 2 * (160 + 120)


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        pytest.param((120, 160), (480, 640), id="small ones grow"),
        pytest.param((600, 800), (600, 800), id="others stay"),
        pytest.param((3000, 4000), (960, 1280), id="large ones shrink"),
        pytest.param((20, 1000), (26, 1280), id="the longer side decides"),
        pytest.param((1, 4000), (1, 1280), id="never to nothing"),
    ],
)
def test_pictures_are_fitted(size, fitted):
    assert fit(grey(*size), 480, 1280).shape == (*fitted, 3)


def test_two_pictures_stand_side_by_side_below_their_titles():
    left, right = np.full((100, 200, 3), 10, np.uint8), np.full((60, 80, 3), 250, np.uint8)
    sheet = side_by_side(left, right, ("detections " * 50, "ground truth"))
    bar, gap = 20, 5
    assert sheet.shape == (bar + 100, 200 + gap + 80, 3)
    assert np.array_equal(sheet[bar:, :200], left)
    assert np.array_equal(sheet[bar : bar + 60, 200 + gap :], right)
    assert np.all(sheet[:bar, 200 : 200 + gap] == drawing.PAPER)  # no title runs into the other
