import signal
import subprocess
import sys

import pytest
from support.commands import TINY_RUN
from support.stores import artifacts, only_run

from odtrain.cli.main import main
from odtrain.config.compose import compose_config
from odtrain.errors import ConfigError
from odtrain.jobs import fitting

pytestmark = pytest.mark.slow


SIGNALLED = """
import logging, os, signal
from odtrain.jobs.fitting import stop_on_signals

class Asked:
    def ask_to_stop(self, reason):
        print(reason)

logging.basicConfig(level=logging.INFO, format="%(message)s")
for number in (signal.SIGINT, signal.SIGTERM):
    before = signal.getsignal(number)
    with stop_on_signals(Asked()):
        os.kill(os.getpid(), number)
    print(signal.getsignal(number) == before)
try:
    with stop_on_signals(Asked()):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("at once")
"""


def test_a_signal_asks_training_to_stop_and_a_second_ctrl_c_stops_at_once():
    done = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        *("interrupted", "True"),
        *("terminated", "True"),
        *("interrupted", "at once"),
    ]
    said = "Stopping behind a checkpoint; Ctrl-C again stops at once."
    assert done.stderr.splitlines().count(said) == 3


@pytest.mark.parametrize(("steps", "apart"), [(1_500, 150), (330, 50), (20, 50)])
def test_a_training_is_validated_ten_times_but_not_more_often_than_every_50_steps(steps, apart):
    given = ["model=ssd_mobilenet_v1_coco", f"train.steps={steps}"]
    assert fitting.validated_every(compose_config(given)) == apart


def test_steps_between_validations_that_are_asked_for_are_taken():
    assert fitting.validated_every(compose_config(["evaluate.every=7"])) == 7


def test_a_network_that_cannot_be_quantised_is_refused_before_anything_is_begun():
    given = ["model=retinanet_mobile_coco", "train.quantize_from=5"]
    with pytest.raises(ConfigError) as caught:
        fitting.data_to_train_on(compose_config(given))
    assert str(caught.value) == (
        "train.quantize_from=5: retinanet_mobile_coco has Model Garden's own layers, whose int8 arithmetic is "
        "not simulated.\n  Leave it out, or choose an SSD or an EfficientDet-Lite."
    )


@pytest.mark.parametrize("every", [0, 14])
def test_validation_after_the_last_step_alone_is_a_finding(new, shapes, every):
    given = [f"data.images={shapes}", *TINY_RUN, f"evaluate.every={every}"]
    _, findings = fitting.data_to_train_on(compose_config(given))
    (found,) = [finding for finding in findings if finding.code == "OD123"]
    assert str(found) == (
        f"warning OD123 evaluate.every={every}: of 14 steps only the last is validated: no other step's "
        "weights can be chosen. Set evaluate.every=1"
    )
    _, findings = fitting.data_to_train_on(compose_config([*given, "evaluate.every=13"]))
    assert "OD123" not in {finding.code for finding in findings}


def test_a_terminated_training_leaves_a_killed_run_with_a_checkpoint(
    new, shapes, monkeypatch, capsys
):
    score = fitting.quick_map

    def terminated(*arguments):
        signal.raise_signal(signal.SIGTERM)
        return score(*arguments)

    monkeypatch.setattr(fitting, "quick_map", terminated)
    given = ["train", f"data.images={shapes}", *TINY_RUN, "train.checkpoint_every=1"]
    with pytest.raises(SystemExit) as caught:
        main([*given, "evaluate.every=2"])
    run = only_run(new)
    assert caught.value.code == 128 + signal.SIGTERM
    assert run.info.status == "KILLED"
    assert capsys.readouterr().err.endswith(
        f"Stopped after step 2. Go on: odtrain train train.resume={run.info.run_id}\n"
    )
    logged = set(artifacts(new, run.info.run_id, "checkpoints"))
    assert logged >= {"checkpoints/last/ckpt-2.index", "checkpoints/best/ckpt-2.index"}
    assert [point.step for point in new.get_metric_history(run.info.run_id, "train/loss")] == [1, 2]
