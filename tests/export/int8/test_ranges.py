"""Which ranges 256 levels are laid over."""

import numpy as np
import pytest

from odtrain.export.int8.ranges import HALF, LEVELS, Spread, least_error, most, whole


def spread(*pictures):
    found = Spread()
    for values in pictures:
        found.add(np.float32(values))
    return found


def rounded(values, low, high):
    step = (high - low) / LEVELS
    return np.rint((values.clip(low, high) - low) / step) * step + low


def test_the_whole_range_is_from_the_smallest_to_the_largest_number_of_all_pictures():
    assert whole(spread([[-1.0, 2.0]], [[-3.5, 0.5]])) == (-3.5, 2.0)


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        pytest.param([[2.0, 3.0]], (0.0, 3.0), id="above"),
        pytest.param([[-2.0, -3.0]], (-3.0, 0.0), id="below"),
    ],
)
@pytest.mark.parametrize("choose", [whole, most, least_error])
def test_zero_is_in_every_range(choose, values, ends):
    low, high = choose(spread(values))
    assert low <= 0 <= high
    assert (low, high) == pytest.approx(ends, rel=0.81)


def test_outliers_are_left_out():
    bulk = np.random.default_rng(0).normal(0, 1, 60_000)
    found = spread([[each] for each in (*bulk, 500.0)])
    low, high = most(found)
    assert whole(found)[1] == 500
    # 0.01 % of 60,000 are three numbers an end; bins of the histogram are half a unit wide.
    assert -5 <= low <= -3 and 3 <= high <= 5


def test_the_least_error_is_less_than_that_of_the_whole_range():
    values = np.random.default_rng(0).laplace(0, 1, 60_000).astype(np.float32)
    found = spread(values[:, None])
    ends = least_error(found)
    assert ends[1] < whole(found)[1]
    errors = [np.square(rounded(values, *each) - values).sum() for each in (ends, whole(found))]
    assert errors[0] < 0.95 * errors[1]


def test_a_histogram_that_is_widened_keeps_its_numbers_in_place():
    found = spread([[1.0]] * 10, [[-0.3]], [[7.0]])
    assert (found.reach, len(found.counts)) == (8, 2 * HALF)
    places = np.flatnonzero(found.counts)
    assert found.centres[places] == pytest.approx([-0.3, 1.0, 7.0], abs=8 / HALF)
    assert found.counts[places].tolist() == [1, 10, 1]


def test_channels_far_smaller_than_the_largest_are_lost():
    random = np.random.default_rng(0)
    size = np.float32([1, 1, 1, 1 / 300])
    assert spread(random.normal(0, 1, (50, 50, 4)) * size).lost_channels() == 0.25
    assert spread(random.normal(0, 1, (50, 50, 4))).lost_channels() == 0


def test_a_channel_of_zeros_is_not_lost():
    values = np.random.default_rng(0).normal(0, 1, (50, 50, 2)) * [1, 0]
    assert spread(values).lost_channels() == 0
