"""Near duplicates: the difference hash, and the pairs and groups that are near each other."""

import io
from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from odtrain.media.phash import (
    BITS,
    NEAR,
    as_words,
    difference_hash,
    distances,
    near_groups,
    near_pairs,
)


def photograph(seed: int, side: int = 240) -> Image.Image:
    """Smooth random blobs, as a photograph has."""
    rough = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)
    return Image.fromarray(rough).resize((side, side), Image.Resampling.BICUBIC)


def bits_between(a: Image.Image, b: Image.Image) -> int:
    word, other = as_words([difference_hash(a), difference_hash(b)])
    return int(distances(word, other[None])[0])


def flipped(digits: str, bits: list[int]) -> str:
    value = int(digits, 16)
    for bit in bits:
        value ^= 1 << bit
    return f"{value:0{BITS // 4}x}"


def random_hashes(count: int) -> list[str]:
    rng = np.random.default_rng(7)
    return [rng.bytes(BITS // 8).hex() for _ in range(count)]


def test_copies_that_were_scaled_compressed_or_brightened_stay_near():
    original = photograph(1)
    poor = io.BytesIO()
    original.save(poor, "JPEG", quality=20)
    copies = [
        original.resize((97, 131)),
        Image.open(poor),
        ImageEnhance.Brightness(original).enhance(1.15),
        original.convert("L"),
    ]
    assert all(bits_between(original, copy) <= NEAR for copy in copies)


def test_different_pictures_differ_in_about_half_of_the_bits():
    hashes = [photograph(seed) for seed in range(8)]
    between = [bits_between(a, b) for a, b in combinations(hashes, 2)]
    assert min(between) > 3 * NEAR


def test_a_mirrored_picture_is_another_one():
    original = photograph(2)
    assert bits_between(original, original.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) > 3 * NEAR


@pytest.mark.parametrize("at_once", [1, 7, 2**20])
def test_near_pairs_are_those_of_comparing_every_pair(at_once, monkeypatch):
    monkeypatch.setattr("odtrain.media.phash.PAIRS_AT_ONCE", at_once)
    hashes = random_hashes(40)
    rng = np.random.default_rng(3)
    for source in range(10):
        bits = rng.choice(BITS, size=18 + source * 2, replace=False).tolist()
        hashes.append(flipped(hashes[source], bits))
    expected = []
    for (i, a), (j, b) in combinations(enumerate(hashes), 2):
        differ = (int(a, 16) ^ int(b, 16)).bit_count()
        if differ <= NEAR:
            expected.append((i, j, differ))
    assert len(expected) == 5
    assert list(near_pairs(hashes)) == expected


def test_groups_hang_together_by_what_lies_between():
    lone, first, *_ = random_hashes(9)
    second = flipped(first, list(range(20)))
    third = flipped(second, list(range(100, 120)))
    assert near_groups([first, lone, third, lone[::-1], second, first]) == [[0, 2, 4, 5]]


def test_equal_pictures_are_a_group_however_many_there_are():
    a, b = random_hashes(2)
    assert near_groups([a, b] * 3000) == [list(range(0, 6000, 2)), list(range(1, 6000, 2))]


def test_no_pictures_have_no_groups():
    assert near_groups([]) == []
    assert list(near_pairs([])) == []


def test_the_raccoon_photographs_have_eight_near_pairs_of_which_four_are_equal(shared):
    files = sorted((shared / "data/raccoon/images").glob("*.jpg"))
    hashes = [difference_hash(Image.open(file)) for file in files]
    pairs = {(files[i].stem, files[j].stem): bits for i, j, bits in near_pairs(hashes)}
    assert len(files) == 200
    assert {pair for pair, bits in pairs.items() if bits == 0} >= {
        ("raccoon-11", "raccoon-116"),
        ("raccoon-120", "raccoon-83"),
        ("raccoon-52", "raccoon-74"),
        ("raccoon-65", "raccoon-98"),
    }
    assert set(pairs) == {
        ("raccoon-11", "raccoon-116"),
        ("raccoon-120", "raccoon-83"),
        ("raccoon-21", "raccoon-45"),
        ("raccoon-50", "raccoon-52"),
        ("raccoon-50", "raccoon-74"),
        ("raccoon-51", "raccoon-85"),
        ("raccoon-52", "raccoon-74"),
        ("raccoon-65", "raccoon-98"),
    }
