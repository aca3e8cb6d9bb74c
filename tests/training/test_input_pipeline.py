import csv
import hashlib
import itertools

import numpy as np
import pytest
import tensorflow as tf
from support.made_up_model import made_up_model

from odtrain.config.compose import section
from odtrain.config.schema import AugmentConfig
from odtrain.dataset.read import read_examples
from odtrain.io.tfrecord import index_records
from odtrain.models.ssd import resize as network_resize
from odtrain.training.input_pipeline import DecodedPictures, Pictures, training_batches
from odtrain.training.team import Team

EVERYTHING = section(AugmentConfig, brightness=0.2, contrast=0.2, saturation=0.2)
NOTHING = section(AugmentConfig, flip=False, crop=False)
TRAINING_PICTURES = 14


@pytest.fixture(scope="module")
def index(prepared_shapes):
    return index_records(prepared_shapes.records("train"))


def resize(image):
    return tf.image.resize(image, (48, 64))


def batches(index, config=EVERYTHING, **options):
    values = {"batch_size": 4, "seed": 0, "first_step": 0} | options
    return training_batches(index, resize, config, **values).as_numpy_iterator()


def take(count, *arguments, **options):
    return list(itertools.islice(batches(*arguments, **options), count))


def digest(batch):
    content = b"".join(np.ascontiguousarray(batch[key]).tobytes() for key in sorted(batch))
    return hashlib.sha256(content).hexdigest()


def same_picture(*shown):
    """Whether two epochs, each a batch, show the picture that comes first in the first alike."""
    source_id = shown[0]["source_ids"][0]
    one, other = (batch["images"][list(batch["source_ids"]).index(source_id)] for batch in shown)
    return np.array_equal(one, other)


@pytest.mark.parametrize("first_step", [1, 3, 5])
def test_starting_at_a_step_gives_the_batches_that_follow_it(index, first_step):
    # 14 pictures in batches of 4: the fourth batch straddles two epochs.
    whole = [digest(batch) for batch in take(8, index)]
    later = [digest(batch) for batch in take(8 - first_step, index, first_step=first_step)]
    assert later == whole[first_step:]


@pytest.mark.parametrize("megabytes", [0.1, 100])
def test_batches_are_the_same_with_pictures_kept_decoded(index, megabytes):
    without = [digest(batch) for batch in take(12, index)]
    assert [digest(batch) for batch in take(12, index, cache_mb=megabytes)] == without
    resumed = [digest(batch) for batch in take(7, index, cache_mb=megabytes, first_step=5)]
    assert resumed == without[5:]


def test_pictures_are_kept_up_to_the_bound_and_the_first_ones_stay():
    one, two, three = (np.full((10, 100, 3), value, np.uint8) for value in (1, 2, 3))
    pictures = DecodedPictures(0.006)
    for number, image in enumerate((one, two, three)):
        assert pictures.keep(number, image) is image
    one[:] = 9  # its memory is TensorFlow's
    kept = [pictures.get(number) for number in range(3)]
    assert [image.shape for image in kept] == [(10, 100, 3), (10, 100, 3), (0, 0, 3)]
    assert [int(image.max()) for image in kept[:2]] == [1, 2]


def test_kept_pictures_are_not_decoded_again(index, monkeypatch):
    reads = []

    class Counted(DecodedPictures):
        def keep(self, number, image):
            reads.append(int(number))
            return super().keep(number, image)

    monkeypatch.setattr("odtrain.training.input_pipeline.DecodedPictures", Counted)
    take(12, index, cache_mb=100)
    assert sorted(set(reads)) == list(range(TRAINING_PICTURES))
    assert len(reads) < 2 * TRAINING_PICTURES  # some were under way twice at once
    reads.clear()
    take(12, index, cache_mb=0)
    assert len(reads) >= 48


def test_every_epoch_shows_every_picture_once_in_another_order(index):
    seen = np.concatenate([batch["source_ids"] for batch in take(6, index, NOTHING, batch_size=7)])
    epochs = seen.reshape(3, TRAINING_PICTURES)
    assert [len(set(epoch)) for epoch in epochs.tolist()] == [TRAINING_PICTURES] * 3
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3


def test_another_seed_gives_another_order(index):
    orders = [
        take(1, index, NOTHING, batch_size=14, seed=seed)[0]["source_ids"].tolist()
        for seed in (0, 1)
    ]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_another_seed_gives_another_augmentation(index):
    shown = [take(1, index, batch_size=14, seed=seed)[0] for seed in (0, 1)]
    assert not same_picture(*shown)


def test_a_picture_is_augmented_otherwise_each_time_it_is_shown(index):
    assert not same_picture(*take(2, index, batch_size=14))
    assert same_picture(*take(2, index, NOTHING, batch_size=14))


def test_what_is_in_a_batch_is_what_was_labelled(index, prepared_shapes):
    truths = {one.source_id: one for one in read_examples(prepared_shapes, "train")}
    (batch,) = take(1, index, NOTHING, batch_size=14)
    assert {key: (value.shape, value.dtype) for key, value in batch.items()} == {
        "images": ((14, 48, 64, 3), np.float32),
        "boxes": ((14, 2, 4), np.float32),
        "classes": ((14, 2), np.int64),
        "counts": ((14,), np.int32),
        "source_ids": ((14,), np.int64),
    }
    for i, source_id in enumerate(batch["source_ids"].tolist()):
        truth, count = truths[source_id].truth, batch["counts"][i]
        assert count == len(truth.boxes)
        np.testing.assert_array_equal(batch["boxes"][i, :count], truth.boxes)
        np.testing.assert_array_equal(batch["classes"][i, :count], truth.classes)
        np.testing.assert_array_equal(batch["images"][i], resize(truths[source_id].image))


def test_missing_boxes_are_padded_with_zeros(index):
    (batch,) = take(1, index, NOTHING, batch_size=14)
    assert set(batch["counts"].tolist()) == {1, 2}
    for i in np.flatnonzero(batch["counts"] == 1):
        assert not batch["boxes"][i, 1].any()
        assert batch["classes"][i, 1] == 0


def test_a_batch_may_hold_more_than_one_epoch(index):
    (batch,) = take(1, index, NOTHING, batch_size=2 * TRAINING_PICTURES)
    assert np.unique(batch["source_ids"], return_counts=True)[1].tolist() == [2] * TRAINING_PICTURES


def test_the_trace_names_every_batch_by_step_hash_and_pictures(index, tmp_path):
    traces = [tmp_path / "whole.csv", tmp_path / "resumed.csv"]
    read = take(4, index, trace=traces[0])
    take(2, index, trace=traces[1])
    take(2, index, trace=traces[1], first_step=2)
    rows = [list(csv.reader(trace.read_text().splitlines())) for trace in traces]
    assert [row[0] for row in rows[0][:4]] == ["1", "2", "3", "4"]
    assert [row[2] for row in rows[0][:4]] == [
        " ".join(map(str, batch["source_ids"])) for batch in read
    ]
    assert len({row[1] for row in rows[0][:4]}) == 4
    by_step = [{row[0]: row for row in some} for some in rows]
    for step in ("1", "2", "3", "4"):
        assert by_step[0][step] == by_step[1][step]


SIZED = {"sizes": 3, "steps": 16}


def test_sizes_are_drawn_by_seed_and_step_one_for_a_batch(index):
    whole = [batch["sizes"].tolist() for batch in take(16, index, NOTHING, **SIZED)]
    resumed = take(13, index, NOTHING, first_step=3, **SIZED)
    assert [batch["sizes"].tolist() for batch in resumed] == whole[3:]
    assert all(sizes == sizes[:1] * 4 for sizes in whole)
    assert {sizes[0] for sizes in whole} == {0, 1, 2}
    other = [batch["sizes"].tolist() for batch in take(16, index, NOTHING, seed=1, **SIZED)]
    assert other != whole


def test_workers_draw_the_sizes_of_one(index):
    alone = [batch["sizes"][0] for batch in take(16, index, NOTHING, **SIZED)]
    for rank in (0, 1):
        team = Team(workers=2, rank=rank)
        shares = take(16, index, NOTHING, team=team, **SIZED)
        assert [batch["sizes"].tolist() for batch in shares] == [[size] * 2 for size in alone]


def test_the_last_part_of_the_steps_is_of_the_models_own_size(index):
    config = section(AugmentConfig, off_last=0.5)
    drawn = [batch["sizes"][0] for batch in take(16, index, config, **SIZED)]
    assert drawn[8:] == [0] * 8
    assert any(drawn[:8])


def test_the_trace_tells_batches_of_other_sizes_apart(index, tmp_path):
    traces = [tmp_path / f"{sizes}.csv" for sizes in (1, 2)]
    for sizes, trace in enumerate(traces, start=1):
        take(4, index, trace=trace, sizes=sizes)
    ones, twos = (list(csv.reader(trace.read_text().splitlines()))[:4] for trace in traces)
    assert [row[2] for row in ones] == [row[2] for row in twos]
    assert not {row[1] for row in ones} & {row[1] for row in twos}


def test_pictures_are_those_of_the_records(prepared_shapes):
    pictures = Pictures(prepared_shapes.records("test"))
    expected = [one.image for one in read_examples(prepared_shapes, "test")]
    assert len(pictures) == len(expected) == 4
    for found, image in zip(pictures, expected, strict=True):
        np.testing.assert_array_equal(found, image)
    np.testing.assert_array_equal(pictures[1:3], expected[1:3])


def test_pictures_can_be_gone_through_again_and_again(prepared_shapes):
    pictures = Pictures(prepared_shapes.records("test"))
    assert len(list(pictures)) == len(list(pictures)) == 4
    with pytest.raises(IndexError):
        pictures[4]


@pytest.mark.parametrize(
    ("most", "places"), [(1, [0]), (2, [0, 7]), (5, [0, 2, 5, 8, 11]), (100, range(14))]
)
def test_a_sample_is_spread_over_all_pictures(prepared_shapes, most, places):
    pictures = Pictures(prepared_shapes.records("train"))
    found = list(pictures.spread(most))
    assert len(found) == len(places)
    for image, place in zip(found, places, strict=True):
        np.testing.assert_array_equal(image, pictures[place])


MIXED = section(
    AugmentConfig,
    hue=0.1,
    grey=0.2,
    scale=0.5,
    translate=0.1,
    rotate=10,
    mosaic=0.5,
    mixup=0.3,
    copy_paste=0.3,
    erase=0.3,
    blur=0.2,
    noise=0.05,
    jpeg=0.2,
    off_last=0.25,
)


def test_batches_of_mixed_pictures_follow_from_the_step_alone(index):
    model = made_up_model(input_size=[48, 64])
    options = {"model": model, "steps": 4}
    whole = take(4, index, MIXED, **options)
    resumed = take(3, index, MIXED, first_step=1, cache_mb=100, **options)
    assert [digest(batch) for batch in resumed] == [digest(batch) for batch in whole[1:]]
    own = {"batch_size": 4, "seed": 0, "first_step": 3}
    as_they_are = training_batches(
        index, lambda image: network_resize(image, model), section(AugmentConfig), **own
    )
    plain = next(as_they_are.as_numpy_iterator())
    np.testing.assert_array_equal(whole[3]["boxes"], plain["boxes"])
    np.testing.assert_allclose(whole[3]["images"], plain["images"], atol=1e-2)
    assert whole[2]["counts"].sum() > plain["counts"].sum()
