from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from odtrain.labelling.ranking import order, rarity, uncertainty
from odtrain.media.phash import difference_hash
from odtrain.structures import Detections


def found(*pairs: tuple[float, int]) -> Detections:
    scores, classes = zip(*pairs, strict=True) if pairs else ((), ())
    boxes = np.tile(np.array([0.1, 0.1, 0.5, 0.5], np.float32), (len(scores), 1))
    return Detections(boxes, np.array(scores, np.float32), np.array(classes, np.int64))


def noise(seed: int) -> str:
    pixels = np.random.default_rng(seed).integers(0, 255, (64, 64), np.uint8)
    return difference_hash(Image.fromarray(pixels))


@pytest.mark.parametrize(("score", "expected"), [(1.0, 0.0), (0.5, 1.0), (0.9, 0.36), (0.05, 0.0)])
def test_uncertainty_is_largest_at_one_half_and_faint_detections_say_nothing(score, expected):
    assert uncertainty(found((score, 1))) == pytest.approx(expected)


def test_nothing_found_is_nothing_uncertain():
    assert uncertainty(found()) == 0


def test_the_class_with_the_fewest_boxes_is_the_rarest():
    known = {1: 90, 2: 9}
    assert rarity(found((0.8, 1)), known) == 0
    assert rarity(found((0.8, 2)), known) == pytest.approx(0.8 * 0.9)
    assert rarity(found((0.8, 2)), {}) == 0


def test_uncertain_pictures_come_before_sure_ones():
    ordered = order(
        [found((0.99, 1)), found((0.5, 1)), found((0.8, 1))], [noise(i) for i in range(3)]
    )
    assert [place for place, _ in ordered] == [1, 2, 0]


def test_of_two_pictures_of_one_scene_the_second_comes_last():
    hashes = [noise(0), noise(0), noise(1)]
    ordered = order([found((0.5, 1)), found((0.5, 1)), found((0.9, 1))], hashes)
    assert [place for place, _ in ordered] == [0, 2, 1]
    assert ordered[-1][1].novelty == 0


def test_a_picture_like_a_labelled_one_comes_last():
    sight = [found((0.5, 1)), found((0.9, 1))]
    ordered = order(sight, [noise(0), noise(1)], known_hashes=[noise(0)])
    assert [place for place, _ in ordered] == [1, 0]


def test_rare_classes_come_first():
    sight = [found((0.9, 1)), found((0.9, 2))]
    ordered = order(sight, [noise(0), noise(1)], known_boxes={1: 50, 2: 2})
    assert [place for place, _ in ordered] == [1, 0]
