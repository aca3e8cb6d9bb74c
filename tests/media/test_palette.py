"""Colours of classes, seen as people see them who lack one kind of cone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from odtrain.media.palette import FIRST_COLOURS, class_colour, css_colours

SEEN = {
    "all cones": np.eye(3),
    "no red cones": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green cones": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}
"""Linear RGB to what is seen: Machado, Oliveira and Fernandes, 2009."""


def oklab(linear: np.ndarray) -> np.ndarray:
    """Ottosson's space, in which distances are as they are seen."""
    cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    axes = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.cbrt(np.clip(linear, 0, 1) @ np.transpose(cones)) @ np.transpose(axes)


@pytest.mark.parametrize("eyes", SEEN)
def test_the_first_seven_are_told_apart_without_one_kind_of_cone(eyes):
    shares = np.array(FIRST_COLOURS) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    seen = oklab(linear @ np.transpose(SEEN[eyes]))
    assert len(seen) == 7
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 0.075


def test_ninety_classes_have_ninety_colours():
    assert len({class_colour(class_id) for class_id in range(1, 91)}) == 90


def test_pages_and_pictures_have_the_same_colours():
    assert css_colours(2) == ["#e69f00", "#56b4e9"]
    assert [tuple(bytes.fromhex(c[1:])) for c in css_colours()] == [
        class_colour(n) for n in range(1, 257)
    ]
