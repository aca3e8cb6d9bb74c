"""SIGKILL at every boundary between stages and at random moments: nothing is lost, nothing is twice."""

from __future__ import annotations

import random
import time

import pytest
from support.faults import WHOLE, note

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

STAGES = {
    "train.record_inputs": "the run has begun",
    "train.record_pictures": "configuration and data are logged",
    "train.train_detector": "pictures of the data are logged",
    "train.evaluate_split": "training is done",
    "train.export_and_prove": "the test split is evaluated",
    "train.description": "files are proven",
    "train.register_files": "the description is written",
    "steps.register": "registration begins",
    "steps.promote_trained": "the version is registered",
}
"""A function of odtrain.jobs before which the process is killed, and what has happened by then."""


@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_between_stages(training, stage):
    done = training.killed_at(f"stage:{stage}")
    assert done.rc == -9, done.said
    training.check_whole(f"killed when {STAGES[stage]}", done)


REGISTERING = {
    "create_logged_model": "the model is about to be made",
    "log_model_artifacts": "its files are about to be sent",
    "finalize_logged_model": "its files are sent",
    "create_model_version": "the model is READY",
    "set_logged_model_tags": "the version is made",
}
"""A call of MLflow's client before which the process is killed."""


@pytest.mark.parametrize("call", REGISTERING)
def test_a_kill_in_the_middle_of_registering(training, call):
    done = training.killed_at(f"client:{call}")
    assert done.rc == -9, done.said
    training.check_whole(f"killed in registering, when {REGISTERING[call]}", done)


@pytest.mark.parametrize("seed", range(4))
def test_kills_at_random_moments(training, seed):
    moments = random.Random(seed)
    kills = 0
    while kills < 4:
        command = training.begin("train.resume=auto")
        time.sleep(moments.uniform(4, 25))
        if command.process.poll() is not None:
            break
        done = command.kill()
        kills += 1
    again = training.go_on() if kills == 4 else command.wait()
    assert again.rc == 0, again.said
    state = training.state()
    note(f"killed {kills} times at random moments (seed {seed})", done if kills else again, state)
    assert state == WHOLE
