import functools
import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from support.often import long_but

from odtrain.config.compose import section
from odtrain.config.schema import AugmentConfig, ModelConfig, TrainConfig
from odtrain.errors import TrainingError
from odtrain.io.tfrecord import index_records
from odtrain.models.build import build_detector
from odtrain.training.input_pipeline import pictures_of_step, training_batches
from odtrain.training.loop import CHANCE, Fit, Listener

pytestmark = [
    pytest.mark.slow,
    # Step by step most of these take a tenth of the time that building the graph would.
    pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eage"),
]

MODEL = section(
    ModelConfig,
    name="small",
    architecture="ssd_mobilenet_v1",
    input_size=64,
    depth_multiplier=0.25,
    min_depth=8,
)
FROZEN_BLOCKS = ("Conv2d_0/", "Conv2d_1_", "Conv2d_2_", "Conv2d_3_")
"""The backbone's first two stages."""


@pytest.fixture(autouse=True)
def eager():
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@functools.cache
def built(freeze, batch_norm_trained, precision, quantized=False):
    """A detector, and its first weights."""
    detector = build_detector(
        MODEL,
        2,
        frozen_stages=freeze,
        batch_norm_trained=batch_norm_trained,
        precision=precision,
        quantized=quantized,
    )
    return detector, values_of(detector.state_by_name().values())


def detector_for(config=None):
    """The one detector of that kind, at its first weights: building another takes a second."""
    config = config or settings()
    quantized = [True] if config.quantize_from is not None else []
    detector, first = built(
        config.freeze, config.batch_norm == "trained", config.precision, *quantized
    )
    for variable, value in zip(detector.state_by_name().values(), first, strict=True):
        variable.assign(value)
    return detector


@pytest.fixture(scope="module")
def batches(prepared_shapes):
    """The batches of a size from the first step on, as a training gets them."""

    index = index_records(prepared_shapes.records("train"))

    @functools.cache
    def of_size(batch_size):
        resize = built(0, True, "fp32")[0].resize
        options = {"batch_size": batch_size, "seed": 0, "first_step": 0}
        return training_batches(index, resize, section(AugmentConfig), **options)

    of_size.ids = lambda config, step: pictures_of_step(index, config.batch_size, 0, step)
    return of_size


def settings(**changes):
    values = {"steps": 6, "batch_size": 2, "learning_rate": 0.01, "schedule": "constant"}
    values |= {"warmup_steps": 0, "log_every": 1, "checkpoint_every": 2}
    return section(TrainConfig, **{"precision": "fp32", **values, **changes})


@dataclass
class Told:
    """What a training told its listener, and what may go wrong while it does."""

    metrics: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    at_step: dict[int, object] = field(default_factory=dict)

    def listener(self):
        return Listener(
            self._metrics,
            lambda: self.events.append("flush"),
            lambda step: self.events.append(f"evaluated {step}"),
        )

    def _metrics(self, values, step):
        self.metrics.append((step, values))
        if "train/loss" in values and step in self.at_step:
            self.at_step[step]()

    def steps(self, name="train/loss"):
        return [step for step, values in self.metrics if name in values]

    def values(self, name="train/loss"):
        return [values[name] for _, values in self.metrics if name in values]


def scripted(scores):
    """A validation that gives these mAPs one after the other."""
    left = iter(scores)
    return lambda: {"mAP": next(left)}


def run(fit, batches, told=None, validate=None, every=0, change=lambda batches: batches):
    def from_step(step):
        return change(batches(fit.config.batch_size).skip(step))

    names = lambda step: [f"img{number}.jpg" for number in batches.ids(fit.config, step)]  # noqa: E731
    return fit.run(from_step, names, validate, every, (told or Told()).listener())


def values_of(variables):
    return [variable.numpy() for variable in variables]


def tensors(prefix):
    """Everything in a checkpoint by key; not how often it was saved, nor the graph of its objects."""
    reader = tf.train.load_checkpoint(str(prefix))
    keys = reader.get_variable_to_shape_map().keys() - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    return {key: reader.get_tensor(key) for key in keys if not key.startswith("save_counter")}


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert np.asarray(found[key]).tobytes() == np.asarray(value).tobytes(), key


# ---- what training does


def test_a_batch_is_learned_by_heart(batches, tmp_path):
    tf.config.run_functions_eagerly(False)
    config = settings(steps=40, batch_size=4, learning_rate=0.004, optimizer="adam", log_every=5)
    told = Told()
    fit = Fit(detector_for(), config, tmp_path)
    fitted = run(fit, batches, told, change=lambda batches: batches.take(1).cache().repeat())
    losses = told.values()
    assert told.steps() == [5, 10, 15, 20, 25, 30, 35, 40]
    assert losses[-1] < 0.6 * losses[0]
    assert (fitted.step, fitted.stopped) == (40, None)


def test_every_logged_step_tells_the_parts_of_the_loss_and_the_learning_rate(batches, tmp_path):
    told = Told()
    config = settings(steps=5, log_every=2, schedule="cosine", learning_rate=0.02)
    run(Fit(detector_for(), config, tmp_path), batches, told)
    assert told.steps() == [2, 4, 5]
    parts = ("localization_loss", "classification_loss", "regularization_loss")
    for _, values in told.metrics:
        assert values["train/loss"] == pytest.approx(
            sum(values[f"train/{part}"] for part in parts), rel=1e-5
        )
    expected = [0.01 * (1 + np.cos(np.pi * step / 5)) for step in (1, 3, 4)]
    assert told.values("train/learning_rate") == pytest.approx(expected, abs=1e-8)


def test_speed_is_told_once_the_graph_is_built(batches, tmp_path):
    told = Told()
    run(Fit(detector_for(), settings(steps=3), tmp_path), batches, told)
    assert told.steps("train/images_per_second") == [2, 3]


def test_frozen_stages_and_their_statistics_stay_as_they_are(batches, tmp_path):
    config = settings(steps=2, freeze=2)
    detector = detector_for(config)
    before = {name: v.numpy() for name, v in detector.variables_by_name().items()}
    run(Fit(detector, config, tmp_path), batches)
    changed = {
        name
        for name, v in detector.variables_by_name().items()
        if not np.array_equal(v.numpy(), before[name])
    }
    frozen = {name for name in before if any(f"V1/{block}" in name for block in FROZEN_BLOCKS)}
    assert sum("moving_" in name for name in frozen) == 2 * 7
    assert not changed & frozen
    assert changed >= {name for name in before.keys() - frozen if "moving_" in name}


def test_frozen_batch_norm_keeps_all_its_statistics(batches, tmp_path):
    config = settings(steps=2, batch_norm="frozen")
    detector = detector_for(config)
    before = {name: v.numpy() for name, v in detector.variables_by_name().items()}
    run(Fit(detector, config, tmp_path), batches)
    moved = {
        name
        for name, v in detector.variables_by_name().items()
        if not np.array_equal(v.numpy(), before[name])
    }
    assert not {name for name in moved if "moving_" in name}
    assert "FeatureExtractor/MobilenetV1/Conv2d_3_pointwise/BatchNorm/beta" in moved


def test_bfloat16_computes_nearly_the_same_with_float32_variables(batches, tmp_path):
    losses = {}
    for precision in ("fp32", "bf16"):
        told = Told()
        config = settings(steps=2, precision=precision, learning_rate=0.001)
        detector = detector_for(config)
        run(Fit(detector, config, tmp_path / precision), batches, told)
        losses[precision] = told.values()
        assert {v.dtype for v in detector.variables_by_name().values()} == {tf.float32}
    assert losses["bf16"][0] != losses["fp32"][0]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)


# ---- what validation decides


def test_the_weights_that_scored_best_are_chosen(batches, tmp_path):
    fit = Fit(detector_for(), settings(), tmp_path)
    seen = []
    scores = scripted([0.1, 0.9, 0.2])

    def validate():
        seen.append(values_of(fit.detector.network.variables))
        return scores()

    told = Told()
    fitted = run(fit, batches, told, validate, every=2)
    assert (fitted.best_step, fitted.best_map) == (4, 0.9)
    assert [m for m in told.metrics if "val/mAP" in m[1]] == [
        (2, {"val/mAP": 0.1}),
        (4, {"val/mAP": 0.9}),
        (6, {"val/mAP": 0.2}),
    ]
    fit.load_best()
    for found, expected in zip(values_of(fit.detector.network.variables), seen[1], strict=True):
        assert np.array_equal(found, expected)


def test_metrics_are_sent_before_a_checkpoint_counts_their_steps_as_done(batches, tmp_path):
    told = Told()
    fit = Fit(detector_for(), settings(steps=4), tmp_path)
    told.at_step = {
        4: lambda: told.events.append(str(sorted(p.name for p in tmp_path.glob("*/*.index"))))
    }
    run(fit, batches, told, scripted([0.5]))
    assert told.events == ["flush", "['ckpt-2.index']", "flush", "evaluated 4"]


def test_training_stops_when_patience_runs_out(batches, tmp_path):
    config = settings(steps=20, patience=2)
    fitted = run(Fit(detector_for(), config, tmp_path), batches, None, scripted([0.5, 0.4, 0.5]), 1)
    assert (fitted.step, fitted.best_step) == (3, 1)
    assert fitted.stopped == "no better mAP in 2 evaluations"


def test_patience_counts_only_evaluations_that_are_probably_worse(batches, tmp_path):
    """An equal score that the pictures leave open neither counts nor begins anew."""
    config, chances = settings(steps=6, patience=2), iter([None, 0.1, 0.4, 0.3, 0.2])

    def validate():
        chance = next(chances)
        return {"mAP": 0.5} if chance is None else {"mAP": 0.4, CHANCE: chance}

    told = Told()
    fitted = run(Fit(detector_for(), config, tmp_path), batches, told, validate, 1)
    assert (fitted.step, fitted.best_step) == (5, 1)
    assert fitted.curve == ((1, 0.5), (2, 0.4), (3, 0.4), (4, 0.4), (5, 0.4))
    assert not any("chance" in name for _, values in told.metrics for name in values)


@pytest.mark.parametrize(("last", "best"), [(0.9, 0.9), (0.3, 0.5)], ids=["better", "worse"])
def test_averaged_weights_are_compared_with_the_last_ones(batches, tmp_path, last, best):
    config = settings(steps=2, ema_decay=0.5)
    fit = Fit(detector_for(), config, tmp_path)
    fitted = run(fit, batches, None, scripted([0.4, 0.5, last]), 1)
    assert (fitted.best_map, fitted.last_map) == (best, last)
    raw = values_of(fit.detector.network.trainable_variables)
    fit.load_best()
    found = values_of(fit.detector.network.trainable_variables)
    same = all(np.array_equal(a, b) for a, b in zip(found, raw, strict=True))
    assert same == (last == 0.9)


def test_the_mean_loss_of_each_part_is_kept_over_an_interruption(batches, tmp_path):
    config = settings(steps=4, log_every=1)
    told = Told()
    fitted = run(Fit(detector_for(), config, tmp_path), batches, told)
    losses = [values["train/loss"] for _, values in told.metrics if "train/loss" in values]
    assert fitted.losses == pytest.approx(losses)
    assert run_again(config, tmp_path, batches).losses == pytest.approx(losses)


def run_again(config, folder, batches):
    fit = Fit(detector_for(), config, folder)
    fit.resume()
    return run(fit, batches)


def test_training_stops_with_a_scored_checkpoint_when_time_runs_out(batches, tmp_path):
    config = settings(steps=20, max_minutes=0.0001, log_every=2)
    fit = Fit(detector_for(), config, tmp_path)
    fitted = run(fit, batches, None, scripted([0.5]))
    assert (fitted.step, fitted.best_step) == (2, 2)
    assert fitted.stopped == "train.max_minutes=0.0001 are over"
    assert [path.name for path in tmp_path.glob("last/*.index")] == ["ckpt-2.index"]


def test_time_that_runs_out_at_the_last_step_stopped_nothing(batches, tmp_path):
    config = settings(steps=1, max_minutes=0.0001)
    assert run(Fit(detector_for(), config, tmp_path), batches).stopped is None


# ---- quantised steps


def quantized_from_2(**changes):
    return settings(steps=4, quantize_from=2, **changes)


def test_steps_are_quantised_from_the_one_that_was_asked_for(batches, tmp_path):
    fit = Fit(detector_for(quantized_from_2()), quantized_from_2(), tmp_path)
    seen = []

    def validate():
        seen.append(float(fit.detector.quantized.ranges.seen.numpy().max()))
        return {"mAP": 0.5}

    told = Told()
    run(fit, batches, told, validate, every=1)
    assert seen == [0, 0, 1, 2]
    assert fit.detector.trained_int8 is not None
    assert told.steps("train/images_per_second") == [2, 4]


def test_quantised_steps_begin_at_a_logged_one(batches, tmp_path):
    config = settings(steps=6, quantize_from=3, log_every=2)
    fit = Fit(detector_for(config), config, tmp_path)
    run(fit, batches)
    assert fit.detector.quantized.ranges.seen.numpy().tolist() == [2] * 37


def test_quantised_steps_keep_the_statistics_of_batch_norm_and_learn_the_weights(batches, tmp_path):
    config = quantized_from_2()
    fit = Fit(detector_for(config), config, tmp_path)
    variables = fit.detector.variables_by_name()
    before = {}
    told = Told(at_step={2: lambda: before.update({k: v.numpy() for k, v in variables.items()})})
    run(fit, batches, told)
    moved = {key for key, v in variables.items() if not np.array_equal(v.numpy(), before[key])}
    assert not {key for key in moved if "moving_" in key}
    backbone = {key for key in variables if re.search(r"Conv2d_\d+(_depthwise|_pointwise)?/", key)}
    assert len(backbone) == 27 * 5
    assert moved >= {key for key in backbone if "moving_" not in key}


def test_the_best_weights_are_chosen_among_quantised_ones(batches, tmp_path):
    config = quantized_from_2()
    fit = Fit(detector_for(config), config, tmp_path)
    fitted = run(fit, batches, None, scripted([0.9, 0.8, 0.3, 0.2]), 1)
    assert (fitted.best_step, fitted.best_map) == (3, 0.3)
    fit.load_best()
    assert fit.detector.trained_int8 is not None


def test_patience_waits_for_the_quantised_steps(batches, tmp_path):
    config = settings(steps=20, quantize_from=3, patience=1)
    fit = Fit(detector_for(config), config, tmp_path)
    fitted = run(fit, batches, None, scripted([0.9, 0.8, 0.7, 0.6, 0.5]), 1)
    assert (fitted.step, fitted.best_step) == (5, 4)


def test_without_a_validated_quantised_step_the_last_weights_are_taken(batches, tmp_path):
    config = quantized_from_2(max_minutes=0.001)
    fit = Fit(detector_for(config), config, tmp_path)
    fit.progress.best_step, fit.progress.best_map = 2, 0.9
    fit.step.assign(3)
    fit.load_best()
    assert [path.name for path in tmp_path.glob("best/*.index")] == ["ckpt-3.index"]


@pytest.mark.parametrize("stopped_at", long_but([1, 2, 3], [3]))
def test_a_stopped_quantised_training_comes_to_the_same_weights_and_ranges(
    batches, tmp_path, stopped_at
):
    config = quantized_from_2()
    whole = Fit(detector_for(config), config, tmp_path / "whole")
    run(whole, batches)
    expected = values_of(whole.detector.state_by_name().values())
    first = Fit(detector_for(config), config, tmp_path / "parts")
    told = Told(at_step={stopped_at: lambda: first.ask_to_stop("interrupted")})
    assert run(first, batches, told).step == stopped_at
    second = Fit(detector_for(config), config, tmp_path / "parts")
    assert second.resume() == stopped_at
    run(second, batches)
    found = values_of(second.detector.state_by_name().values())
    for name, one, other in zip(second.detector.state_by_name(), found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4), name


def test_a_quantised_step_of_several_passes_follows_each(batches, tmp_path):
    config = settings(steps=2, quantize_from=1, batch_size=4, accumulate=2)
    fit = Fit(detector_for(config), config, tmp_path)
    run(fit, batches)
    assert fit.detector.quantized.ranges.seen.numpy().tolist() == [2] * 37


# ---- averaged weights


def test_averages_are_validated_and_the_raw_weights_trained_on(batches, tmp_path):
    config = settings(steps=3, ema_decay=0.5)
    fit = Fit(detector_for(), config, tmp_path)
    variables = fit.detector.network.trainable_variables
    raw, validated = [values_of(variables)], []
    told = Told(at_step={step: lambda: raw.append(values_of(variables)) for step in (1, 2, 3)})

    def validate():
        validated.append(values_of(variables))
        return {"mAP": len(validated) / 10}

    run(fit, batches, told, validate, every=1)
    averages = raw[0]
    for step in (1, 2, 3):
        averages = [0.5 * a + 0.5 * w for a, w in zip(averages, raw[step], strict=True)]
        for found, average in zip(validated[step - 1], averages, strict=True):
            np.testing.assert_allclose(found, average, rtol=1e-5, atol=1e-7)
    for found, last in zip(values_of(variables), raw[3], strict=True):
        assert np.array_equal(found, last)


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_without_validation_the_last_or_averaged_weights_are_chosen_and_kept(
    batches, tmp_path, ema_decay
):
    fit = Fit(detector_for(), settings(steps=2, ema_decay=ema_decay), tmp_path)
    run(fit, batches)
    expected = values_of(fit.detector.network.trainable_variables)
    if ema_decay:
        expected = values_of(fit.optimizer._model_variables_moving_average)
    fit.load_best()
    other = build_detector(MODEL, 2, seed=1)
    kept = tf.train.latest_checkpoint(str(tmp_path / "best"))
    tf.train.Checkpoint(network=other.network).restore(kept).expect_partial()
    for found, value in zip(values_of(other.network.trainable_variables), expected, strict=True):
        assert np.array_equal(found, value)


# ---- when the loss leaves the numbers


def spoiled(batches):
    """The batches, but the pictures of the third are not numbers."""

    def spoil(i, batch):
        factor = tf.where(i == 2, np.float32("nan"), np.float32(1))
        return batch | {"images": factor * batch["images"]}

    return batches.enumerate().map(spoil)


@pytest.mark.parametrize(("log_every", "logged"), [(1, [1, 2]), (3, [])])
def test_nan_stops_with_the_files_of_the_batch_and_the_likely_cause(
    batches, tmp_path, log_every, logged
):
    told = Told()
    config = settings(log_every=log_every)
    first, second = list(batches(2).take(3))[2]["source_ids"].numpy()
    with pytest.raises(TrainingError) as caught:
        run(Fit(detector_for(), config, tmp_path), batches, told, change=spoiled)
    assert str(caught.value) == (
        f"step 3: the loss became nan at learning rate 0.01, in the batch of img{first}.jpg, "
        f"img{second}.jpg.\n"
        "  Most often the learning rate is too high: try train.learning_rate=0.001, or "
        "train.clip_norm=10. If it returns with the same pictures, look at their labels: odtrain "
        "check. The last good checkpoint is kept."
    )
    assert told.steps() == logged


def test_an_exploding_loss_stops_too_and_its_checkpoint_is_not_written(batches, tmp_path):
    config = settings(checkpoint_every=1, learning_rate=1e4)
    with pytest.raises(
        TrainingError, match=r"^step 2: the loss became \S+ at learning rate 1e\+04, "
    ):
        run(Fit(detector_for(), config, tmp_path), batches)
    assert Fit(detector_for(), config, tmp_path).resume() == 1


# ---- going on


@pytest.fixture(scope="module")
def interrupted(batches, tmp_path_factory):
    """Folder of a training with averages that was stopped at step 5 of 6, and its metrics."""
    folder = tmp_path_factory.mktemp("interrupted")
    tf.config.run_functions_eagerly(True)
    fit = Fit(detector_for(), settings(ema_decay=0.9), folder)
    told = Told(at_step={5: lambda: fit.ask_to_stop("interrupted")})
    fitted = run(fit, batches, told, scripted([0.25, 0.125]), 2)
    assert (fitted.step, fitted.stopped) == (5, "interrupted")
    return folder, told


@pytest.mark.parametrize("optimizer", long_but(["rmsprop", "momentum", "adam"], ["rmsprop"]))
def test_everything_is_restored_bit_for_bit(batches, tmp_path, optimizer):
    config = settings(steps=9, optimizer=optimizer, ema_decay=0.9, patience=5)
    fit = Fit(detector_for(), config, tmp_path)
    told = Told(at_step={3: lambda: fit.ask_to_stop("interrupted")})
    run(fit, batches, told, scripted([0.125, 0.0625]), every=1)
    saved = tensors(tmp_path / "last/ckpt-3")

    variables = {name: v.numpy() for name, v in fit.detector.variables_by_name().items()}
    other = Fit(detector_for(), config, tmp_path)
    for variable in [*other.detector.network.variables, *other.optimizer.variables]:
        variable.assign(tf.ones_like(variable) * 7)
    assert other.resume() == 3
    other._last.checkpoint.write(str(tmp_path / "again"))
    assert_same_bits(tensors(tmp_path / "again"), saved)
    restored = {name: v.numpy() for name, v in other.detector.variables_by_name().items()}
    assert_same_bits(restored, variables)
    slots = [values_of(some.optimizer.variables) for some in (other, fit)]
    assert_same_bits(dict(enumerate(slots[0])), dict(enumerate(slots[1])))
    assert int(other.optimizer.iterations) == 3
    progress = json.loads(other.progress.serialize())
    assert progress == json.loads(fit.progress.serialize())
    assert progress["best_map"] == 0.125
    assert progress["evaluations_without_gain"] == 1


def test_a_resumed_training_repeats_no_step_and_follows_the_uninterrupted_one(
    batches, interrupted, tmp_path
):
    folder, before = interrupted
    shutil.copytree(folder, tmp_path / "moved")
    after, whole = Told(), Told()
    fit = Fit(detector_for(), settings(ema_decay=0.9), tmp_path / "moved")
    assert fit.resume() == 5
    run(fit, batches, after, scripted([0.5, 0.4]), 2)  # the second is of the last weights
    uninterrupted = Fit(detector_for(), settings(ema_decay=0.9), tmp_path / "whole")
    run(uninterrupted, batches, whole, scripted([0.25, 0.125, 0.5, 0.4]), 2)
    assert before.steps() + after.steps() == whole.steps() == [1, 2, 3, 4, 5, 6]
    assert before.steps("val/mAP") + after.steps("val/mAP") == [2, 4, 6]
    assert before.values() + after.values() == pytest.approx(whole.values(), rel=1e-3)


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def overwrite(file):
    file.write_bytes(bytes(file.stat().st_size))


DATA, INDEX = "ckpt-5.data-00000-of-00001", "ckpt-5.index"


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        pytest.param(DATA, truncate, id="half the data"),
        pytest.param(DATA, Path.unlink, id="no data"),
        pytest.param(DATA, overwrite, id="data all zero"),
        pytest.param(INDEX, truncate, id="half the index"),
        pytest.param(INDEX, Path.unlink, id="no index"),
        pytest.param(INDEX, overwrite, id="index all zero"),
        pytest.param(INDEX, lambda file: file.write_bytes(b""), id="empty index"),
    ],
)
def test_a_damaged_newest_checkpoint_is_passed_over(interrupted, tmp_path, name, damage):
    shutil.copytree(interrupted[0], tmp_path / "run")
    damage(tmp_path / "run/last" / name)
    fit = Fit(detector_for(), settings(ema_decay=0.9), tmp_path / "run")
    assert fit.resume() == 4
    fit._last.checkpoint.write(str(tmp_path / "again"))
    assert_same_bits(tensors(tmp_path / "again"), tensors(tmp_path / "run/last/ckpt-4"))


def test_when_no_checkpoint_can_be_read_nothing_begins_anew_by_itself(interrupted, tmp_path):
    shutil.copytree(interrupted[0], tmp_path / "run")
    for file in tmp_path.glob("run/last/*.index"):
        overwrite(file)
    with pytest.raises(TrainingError) as caught:
        Fit(detector_for(), settings(ema_decay=0.9), tmp_path / "run").resume()
    assert str(caught.value) == (
        f"{tmp_path / 'run/last'}: none of its checkpoints can be read.\n"
        "  Begin a new run without train.resume."
    )


def test_an_evaluation_that_was_cut_off_is_made_first_thing(batches, tmp_path):
    def killed():
        raise SystemExit

    with pytest.raises(SystemExit):
        run(Fit(detector_for(), settings(), tmp_path), batches, None, killed, every=3)
    fit = Fit(detector_for(), settings(), tmp_path)
    assert fit.resume() == 3
    told = Told()
    fitted = run(fit, batches, told, scripted([0.5, 0.25]), every=3)
    assert [(step, *values) for step, values in told.metrics if "val/mAP" in values] == [
        (3, "val/mAP"),
        (6, "val/mAP"),
    ]
    assert told.metrics[0] == (3, {"val/mAP": 0.5})
    assert fitted.best_step == 3


def test_an_evaluation_that_was_made_is_not_made_again(batches, interrupted, tmp_path):
    shutil.copytree(interrupted[0], tmp_path / "run")
    fit = Fit(detector_for(), settings(ema_decay=0.9), tmp_path / "run")
    fit.resume()
    told = Told()
    run(fit, batches, told, scripted([0.5, 0.4]), every=2)
    assert told.steps("val/mAP") == [6]


@pytest.mark.parametrize(
    ("changes", "scores", "reason"),
    [
        pytest.param({"patience": 1}, [0.5, 0.5], "no better mAP in 1 evaluations", id="patience"),
        pytest.param(
            {"max_minutes": 0.0001}, [0.5], "train.max_minutes=0.0001 are over", id="time"
        ),
    ],
)
def test_a_training_that_had_ended_takes_no_further_step(
    batches, tmp_path, changes, scores, reason
):
    config = settings(steps=20, **changes)
    first = run(Fit(detector_for(), config, tmp_path), batches, None, scripted(scores), every=1)
    fit = Fit(detector_for(), config, tmp_path)
    assert fit.resume() == first.step
    told = Told()
    again = run(fit, batches, told, scripted(scores[-1:]), every=1)
    assert (again.step, again.stopped) == (first.step, reason)
    assert told.steps() == []


def test_a_signal_during_an_evaluation_stops_behind_it(batches, tmp_path):
    fit = Fit(detector_for(), settings(), tmp_path)

    def validate():
        fit.ask_to_stop("interrupted")
        return {"mAP": 0.5}

    fitted = run(fit, batches, None, validate, every=2)
    assert (fitted.step, fitted.best_step, fitted.stopped) == (2, 2, "interrupted")


def test_a_signal_at_the_last_step_is_not_forgotten(batches, tmp_path):
    fit = Fit(detector_for(), settings(steps=2), tmp_path)
    told = Told(at_step={2: lambda: fit.ask_to_stop("terminated")})
    assert run(fit, batches, told).stopped == "terminated"


def test_a_full_disk_is_told_where_and_at_which_step(batches, small_disk):
    fit = Fit(detector_for(), settings(), small_disk)
    with pytest.raises(TrainingError) as caught:
        run(fit, batches)
    assert str(caught.value) == (
        f"{small_disk / 'last'}: the checkpoint of step 2 cannot be written: No space left on "
        "device.\n"
        "  Free space there or make it writable, then go on from the one before it: "
        "train.resume=auto."
    )
