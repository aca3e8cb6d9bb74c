import math

import pytest

from odtrain.config.compose import section
from odtrain.config.schema import TrainConfig
from odtrain.training.schedules import learning_rate


def rates(steps_wanted, **settings):
    defaults = {"steps": 1000, "batch_size": 1, "learning_rate": 0.1, "warmup_steps": 0}
    schedule = learning_rate(section(TrainConfig, **{**defaults, **settings}))
    return [float(schedule(step)) for step in steps_wanted]


def test_constant_never_changes():
    assert rates([0, 1, 999, 5000], schedule="constant") == pytest.approx([0.1] * 4)


def test_cosine_goes_from_the_learning_rate_to_zero():
    assert rates([0, 250, 500, 750, 1000], schedule="cosine") == pytest.approx(
        [0.1, 0.05 * (1 + math.sqrt(0.5)), 0.05, 0.05 * (1 - math.sqrt(0.5)), 0.0], abs=1e-8
    )


def test_cosine_can_end_before_the_training():
    assert rates([200, 400, 1000], schedule="cosine", decay_steps=400) == pytest.approx(
        [0.05, 0.0, 0.0], abs=1e-8
    )


def test_step_decays_at_once():
    found = rates([0, 99, 100, 199, 200], schedule="step", decay_steps=100, decay_factor=0.5)
    assert found == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025])


def test_exponential_decays_smoothly():
    found = rates([0, 50, 100, 200], schedule="exponential", decay_steps=100, decay_factor=0.25)
    assert found == pytest.approx([0.1, 0.05, 0.025, 0.00625])


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step", "exponential"])
def test_warmup_rises_from_zero_and_meets_the_schedule(schedule):
    settings = {"schedule": schedule, "decay_steps": 100}
    (target,) = rates([10], **settings)
    found = rates([0, 5, 10, 40], warmup_steps=10, **settings)
    assert found[:3] == pytest.approx([0.0, target / 2, target])
    assert found[3:] == pytest.approx(rates([40], **settings))


def test_warmup_takes_a_fifth_of_the_steps_at_most():
    found = rates([0, 10, 20, 21], steps=100, warmup_steps=500, schedule="constant")
    assert found == pytest.approx([0.0, 0.05, 0.1, 0.1])


def test_a_training_too_short_to_warm_up_begins_at_the_full_rate():
    assert rates([0], steps=4, warmup_steps=30, schedule="constant") == pytest.approx([0.1])


def test_published_warmup_and_decay_are_scaled_to_the_steps():
    published = {"schedule": "step", "schedule_steps": 20000, "warmup_steps": 1000}
    found = rates([0, 25, 50, 99, 100, 200], decay_steps=2000, decay_factor=0.5, **published)
    assert found == pytest.approx([0.0, 0.05, 0.1, 0.1, 0.05, 0.025])


def test_a_decay_published_beyond_the_training_never_happens():
    # As in the tutorial's models: every 800,720 steps of 200,000.
    found = rates(
        [0, 999], schedule="step", schedule_steps=200000, decay_steps=800720, decay_factor=0.95
    )
    assert found == pytest.approx([0.1, 0.1])


def test_cosine_published_for_more_steps_still_ends_with_the_training():
    assert rates([500, 1000], schedule="cosine", schedule_steps=10000) == pytest.approx(
        [0.05, 0.0], abs=1e-8
    )


def test_manual_rates_hold_from_their_steps_on():
    settings = {"schedule": "manual", "manual_steps": [100, 200], "manual_rates": [0.01, 0.001]}
    assert rates([0, 99, 100, 199, 200, 999], **settings) == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )


def test_manual_steps_are_scaled_to_the_steps():
    settings = {"schedule": "manual", "manual_steps": [10000], "manual_rates": [0.01]}
    found = rates([499, 500], schedule_steps=20000, **settings)
    assert found == pytest.approx([0.1, 0.01])


def test_the_reference_s_cosine_begins_behind_its_warm_up():
    settings = {"schedule": "cosine_after_warmup", "warmup_steps": 200, "decay_steps": 1000}
    found = rates([0, 100, 200, 600, 1000], warmup_learning_rate=0.02, **settings)
    assert found == pytest.approx([0.02, 0.06, 0.1, 0.05, 0.0], abs=1e-8)
    (without,) = rates([500], schedule="cosine_after_warmup")
    assert without == pytest.approx(0.05)


def test_warmup_can_rise_from_more_than_zero():
    found = rates([0, 5, 10], schedule="constant", warmup_steps=10, warmup_learning_rate=0.05)
    assert found == pytest.approx([0.05, 0.075, 0.1])
