from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from support import slow_assigners

from odtrain.config.compose import section
from odtrain.config.schema import ModelConfig, TrainConfig
from odtrain.errors import ConfigError
from odtrain.models.build import build_detector, copy_weights
from odtrain.training.box_overlap_losses import OVERLAP_LOSSES, within_reach
from odtrain.training.loss_parts import AS_PUBLISHED, Way
from odtrain.training.losses import loss_sums, training_loss
from odtrain.training.quality_losses import QUALITY_LOSSES, smoothed
from odtrain.training.task import DetectionTask

WITH_BACKGROUND, WITHOUT = "ssd_mobilenet_v1", "efficientdet_lite"


def pairs(count=60):
    draw = np.random.default_rng(0)
    corners = np.sort(draw.uniform(0, 100, (2, count, 2, 2)), axis=2).reshape(2, count, 4)
    corners[1, :20] = corners[0, :20] + draw.normal(0, 1, (20, 4))
    corners[1, 20] = corners[0, 20]
    return corners.astype(np.float32)


@pytest.mark.parametrize("kind", OVERLAP_LOSSES)
def test_the_losses_of_boxes_are_their_papers(kind):
    ours, wanted = pairs()
    found = OVERLAP_LOSSES[kind](tf.constant(ours), tf.constant(wanted))
    expected = [
        slow_assigners.box_loss(kind, *map(np.float64, pair))
        for pair in zip(ours, wanted, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", OVERLAP_LOSSES)
def test_the_losses_of_boxes_fall_along_their_gradients(kind):
    ours, wanted = map(tf.constant, pairs())
    with tf.GradientTape() as tape:
        tape.watch(ours)
        before = OVERLAP_LOSSES[kind](ours, wanted)
    gradients = tape.gradient(before, ours)
    assert np.isfinite(gradients).all()
    after = OVERLAP_LOSSES[kind](ours - 0.01 * gradients, wanted)
    assert float(tf.reduce_sum(after)) < float(tf.reduce_sum(before))


def test_boxes_of_an_untrained_network_stay_finite():
    wild = tf.constant([[3.0, -4.0, 900.0, -900.0]])
    np.testing.assert_allclose(
        within_reach(wild, (10.0, 10.0, 5.0, 5.0))[0], [3, -4, 5 * np.log(62.5), -900], rtol=1e-6
    )


@pytest.mark.parametrize("kind", QUALITY_LOSSES)
def test_the_losses_of_classes_are_their_papers(kind):
    draw = np.random.default_rng(1)
    targets = np.where(draw.random(50) < 0.4, draw.random(50), 0).astype(np.float32)
    logits = draw.normal(0, 3, 50).astype(np.float32)
    found = QUALITY_LOSSES[kind](tf.constant(targets), tf.constant(logits))
    expected = [
        slow_assigners.class_loss(kind, *pair) for pair in zip(targets, logits, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_labels_are_smoothed_where_an_object_is():
    targets = np.float32([[[0, 1, 0], [1, 0, 0]]])
    found = smoothed(tf.constant(targets), tf.constant([[True, False]]), 0.2)
    np.testing.assert_allclose(found, [[[0.1, 0.9, 0.1], [1, 0, 0]]], rtol=1e-6)


@pytest.fixture(scope="module")
def detectors():
    """A small network with a background's column and one without."""
    small = {"input_size": 64, "depth_multiplier": 0.25, "min_depth": 8, "initializer": "he"}
    pyramid = {"input_size": 128, "resize": "pad_grey", "box_scales": [1.0] * 4}
    return {
        name: build_detector(section(ModelConfig, name="s", architecture=name, **values), 2)
        for name, values in ((WITH_BACKGROUND, small), (WITHOUT, pyramid))
    }


def batch_of(detector, pictures=4):
    draw = np.random.default_rng(2)
    corners = np.sort(draw.uniform(0, 1, (pictures, 3, 2, 2)), axis=2).reshape(pictures, 3, 4)
    return {
        "images": tf.constant(
            draw.uniform(0, 255, (pictures, *detector.config.size, 3)), tf.float32
        ),
        "boxes": tf.constant(corners, tf.float32),
        "classes": tf.constant(draw.integers(1, 3, (pictures, 3))),
        "counts": tf.constant([3, 0, 1, 2][:pictures]),
    }


def said(detector, seed=3, pictures=4):
    draw = np.random.default_rng(seed)
    anchors, columns = len(detector.anchors), detector.num_classes + detector.background
    shapes = ((pictures, anchors, 4), (pictures, anchors, columns))
    return [tf.constant(draw.normal(0, 1, shape), tf.float32) for shape in shapes]


@pytest.mark.parametrize("architecture", [WITH_BACKGROUND, WITHOUT])
@pytest.mark.parametrize("kind", QUALITY_LOSSES)
@pytest.mark.parametrize("assigner", ["iou", "atss", "simota", "tal"])
def test_shares_of_a_batch_add_up_to_it(detectors, architecture, kind, assigner):
    """What each picture is asked for follows from it alone, so that replicas and passes may divide a batch."""
    detector = detectors[architecture]
    way, batch, outputs = Way("giou", 2.0, assigner, 0.0), batch_of(detector), said(detector)
    whole = loss_sums(detector, batch, *outputs, kind, way)
    assert all(np.isfinite(float(each)) for each in whole)
    assert float(whole.positives) > 0
    parts = []
    for rows in (slice(0, 1), slice(1, 4)):
        share = {key: value[rows] for key, value in batch.items()}
        parts.append(loss_sums(detector, share, *(each[rows] for each in outputs), kind, way))
    np.testing.assert_allclose(whole, np.sum(parts, axis=0), rtol=1e-4)


def test_the_quality_of_a_box_is_what_its_class_is_to_say(detectors):
    """By hand: of every anchor the IoU of what the network says with its object, of no other class."""
    detector = detectors[WITH_BACKGROUND]
    batch, (encodings, logits) = batch_of(detector), said(detector)
    found = loss_sums(detector, batch, encodings, logits, "varifocal", AS_PUBLISHED)
    boxes, expected, positives = detector.decode(encodings).numpy(), 0.0, 0
    matches = slow_matches(detector, batch)
    for picture, owners in enumerate(matches):
        for anchor, row in enumerate(owners):
            targets = [0.0, 0.0]
            if row >= 0:
                object_ = batch["boxes"][picture, row].numpy()
                quality = slow_assigners.iou(boxes[picture, anchor], object_)
                targets[int(batch["classes"][picture, row]) - 1] = quality
            own = logits[picture, anchor, 1:].numpy().tolist()
            pairs = zip(targets, own, strict=True)
            expected += sum(slow_assigners.class_loss("varifocal", *pair) for pair in pairs)
            positives += row >= 0
    assert float(found.positives) == positives
    assert float(found.classification) == pytest.approx(expected, rel=1e-4)


def slow_matches(detector, batch):
    from odtrain.training.target_assigner import match

    return match(
        detector.anchors, batch["boxes"], batch["counts"], detector.config.matched_iou
    ).numpy()


def test_the_published_way_is_what_was_computed_before(detectors):
    detector = detectors[WITH_BACKGROUND]
    batch, outputs = batch_of(detector), said(detector)
    default = Way.of(section(TrainConfig))
    assert default._replace(overlap_weight=1.0) == AS_PUBLISHED
    for kind in ("hard_mining", "focal"):
        ours = training_loss(detector, batch, *outputs, kind, default)
        theirs = training_loss(detector, batch, *outputs, kind)
        assert [float(each) for each in ours] == [float(each) for each in theirs]


class Taken:
    """An optimizer that keeps the gradients that it is given."""

    iterations = tf.constant(0, tf.int64)

    def apply_gradients(self, pairs):
        self.gradients = [gradient for gradient, _ in pairs]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ("hard_mining", {"accumulate": 2}),
        pytest.param("varifocal", {"accumulate": 2}, marks=pytest.mark.long),
        *(
            pytest.param("hard_mining", {"jit": True} | more, marks=pytest.mark.long)
            for more in ({}, {"accumulate": 2}, {"assigner": "atss", "box_loss": "ciou"})
        ),
        *(
            pytest.param(kind, {"jit": True} | more, marks=pytest.mark.long)
            for kind, more in (
                ("focal", {}),
                ("varifocal", {"assigner": "tal", "box_loss": "giou"}),
                ("quality_focal", {"assigner": "simota", "box_loss": "diou"}),
            )
        ),
    ],
    ids=str,
)
def test_a_step_in_passes_or_compiled_has_the_loss_and_gradients_of_one_at_once(kind, other):
    small = {"input_size": 64, "depth_multiplier": 0.25, "min_depth": 8, "initializer": "he"}
    model = section(ModelConfig, name="s", architecture=WITH_BACKGROUND, **small)
    detector = build_detector(model, 2, batch_norm_trained=False)
    losses, gradients = [], []
    alike = {key: value for key, value in other.items() if key not in ("jit", "accumulate")}
    for options in (alike, other):
        train = section(TrainConfig, batch_size=4, loss=kind, **options)
        values, found = step_of(DetectionTask(detector, train, None), batch_of(detector))
        losses.append(values)
        gradients.append(found)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    apart = np.linalg.norm(gradients[1] - gradients[0]) / np.linalg.norm(gradients[0])
    assert apart < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_step_of_several_sizes_is_that_of_a_network_of_the_size_that_was_drawn(number):
    small = {"depth_multiplier": 0.25, "min_depth": 8, "initializer": "he"}
    model = section(
        ModelConfig,
        name="s",
        architecture=WITH_BACKGROUND,
        input_size=64,
        batch_norm_decay=0.5,
        **small,
    )
    train = section(TrainConfig, batch_size=4)
    detector = build_detector(model, 2)
    others = [detector.at_size((96, 96))]
    alone = build_detector(replace(model, input_size=(64, 96)[number]), 2)
    copy_weights(detector, alone)
    batch = batch_of(detector)
    found = step_of(
        DetectionTask(detector, train, None, others), batch | {"sizes": tf.fill([4], number)}
    )
    images = tf.image.resize(batch["images"], alone.config.size)
    expected = step_of(DetectionTask(alone, train, None), batch | {"images": images})

    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    assert np.linalg.norm(found[1] - expected[1]) / np.linalg.norm(expected[1]) < 1e-4
    moving, wanted = (
        np.concatenate([x.numpy().ravel() for x in each.network.non_trainable_variables])
        for each in (detector, alone)
    )
    np.testing.assert_allclose(moving, wanted, rtol=1e-4, atol=1e-6)


def step_of(task, batch):
    """The losses of a traced step, and its gradients in a row."""
    taken = Taken()

    @tf.function(autograph=False)
    def step(batch):
        values = task.train_step(batch, task.build_model(), taken)
        return list(values.values()), taken.gradients

    values, gradients = step(batch)
    return [float(each) for each in values], np.concatenate([x.numpy().ravel() for x in gradients])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"loss": "efficientdet", "box_loss": "ciou"},
            "train.box_loss=ciou: train.loss=efficientdet is the publisher's own, with train.box_loss=huber.\n"
            "  Give train.loss=quality_focal or train.loss=varifocal too, or leave it out.",
        ),
        (
            {"loss": "varifocal", "label_smoothing": 0.1},
            "train.label_smoothing=0.1: train.loss=varifocal asks for how well each box fits already.\n"
            "  Leave one of the two out.",
        ),
        (
            {"jit": True, "batch_norm": "synchronized"},
            "train.jit=true: what XLA compiles does not speak with other devices, as "
            "train.batch_norm=synchronized does.\n  Leave one of the two out.",
        ),
        (
            {"multi_scale": 0.2, "quantize_from": 100},
            "train.multi_scale=0.2: steps of several sizes do not go together with train.quantize_from.\n"
            "  Leave one of the two out.",
        ),
        (
            {"batch_size": 10, "accumulate": 4},
            "train.accumulate=4: does not divide train.batch_size=10.\n"
            "  Give train.batch_size=12, for example.",
        ),
    ],
    ids=["publisher's", "smoothed twice", "two ways", "sizes", "uneven"],
)
def test_what_does_not_go_together_is_refused(values, message):
    with pytest.raises(ConfigError) as caught:
        section(TrainConfig, **values)
    assert str(caught.value) == message
