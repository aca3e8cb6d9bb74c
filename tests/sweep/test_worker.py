"""Workers of a sweep on one study, with trainings that are made up; nothing is recorded."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace

import optuna
import pytest
from optuna.trial import Trial, TrialState
from support.made_up_training import chosen, made_up

from odtrain.config.compose import compose_config
from odtrain.errors import TrainingError
from odtrain.sweep import queue as sweep_trials
from odtrain.sweep import results as sweep_results
from odtrain.sweep import study as sweep_study
from odtrain.sweep.space import read_space
from odtrain.sweep.trial_process import TrialOutcome, over_budget
from odtrain.sweep.worker import Job, work

FORMATS = ("tflite_fp32", "tflite_int8")


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Settings of a sweep of two keys, of which four trainings are wanted."""
    monkeypatch.chdir(tmp_path)
    chosen = compose_config(["data.name=shapes"]).sweep
    space = {
        "train.learning_rate": {"low": 0.001, "high": 0.01, "log": True},
        "model.input_size": {"choices": [64, 96]},
    }
    return replace(chosen, space=space, n_trials=4, stop_hopeless=False)


@pytest.fixture
def study(settings):
    with sweep_study.quiet():
        yield opened(settings)


def opened(settings):
    return sweep_study.open_study(settings, read_space(settings.space), {})[0]


def sweep(settings, study, train=None):
    """Have one worker do everything; the points that it trained, in order."""
    done = []

    def trained(job, request):
        done.append(point_of(request))
        return train(len(done)) if train else made_up(done[-1])

    work(Job(settings, [], "parent", "", "."), study, trained)
    return done


def point_of(request):
    values = chosen(request.overrides)
    return {
        "train.learning_rate": float(values["train.learning_rate"]),
        "model.input_size": int(values["model.input_size"]),
    }


def test_n_trials_counts_trainings_and_each_gives_a_trial_per_file(settings, study):
    assert len(sweep(settings, study)) == 4
    trials = study.trials
    assert len(trials) == 8
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert sorted(trial.params["export.format"] for trial in trials) == (
        ["tflite_fp32"] * 4 + ["tflite_int8"] * 4
    )
    shared = [trial for trial in trials if "shares" in trial.user_attrs]
    assert sorted(trial.user_attrs["shares"] for trial in shared) == sorted(
        trial.number for trial in trials if "point" in trial.user_attrs
    )


def test_a_training_that_fails_is_tried_once_more_and_does_not_count(settings, study):
    settings = replace(settings, n_trials=2)
    done = sweep(settings, study, lambda n: TrialOutcome("failed", "killed") if n == 1 else both(n))
    assert done[0] == done[1]
    assert len(done) == 3
    assert [trial.state for trial in study.trials].count(TrialState.FAIL) == 1


def file(score, latency, failed=None):
    values = dict.fromkeys(sweep_study.METRICS, 1.0)
    return values | {"mAP": score, "latency_ms_p50": latency, "file": "export/x", "failed": failed}


def done(run_id="run", **files):
    untrained = {name: dict.fromkeys(sweep_study.METRICS, 1.0) for name in FORMATS}
    return TrialOutcome("done", "", run_id, [(0.5, 0.1), (1.0, 0.5)], 0.5, untrained, files)


def both(count):
    return done(f"run{count}", tflite_fp32=file(0.5, 2.0), tflite_int8=file(0.3, 1.0))


def left_running(study, owner):
    """A trial as a process leaves it that is killed while it trains."""
    trial = study.ask()
    point = {
        "model.input_size": trial.suggest_categorical("model.input_size", [64, 96]),
        "train.learning_rate": trial.suggest_float("train.learning_rate", 0.001, 0.01, log=True),
    }
    trial.suggest_categorical("export.format", ["tflite_fp32", "tflite_int8"])
    trial.set_user_attr("point", point)
    trial.set_user_attr("owner", owner)
    return trial.number, point


GONE = {"host": socket.gethostname(), "process": 2**22 + 1, "created": 1.0, "sign": 3}


def test_what_a_killed_process_left_running_is_tried_again(settings, study):
    settings = replace(settings, n_trials=1)
    number, point = left_running(study, GONE)
    assert sweep(settings, study) == [point]
    assert study.trials[number].state == TrialState.FAIL
    assert study.trials[number].user_attrs["reason"] == "its process ended"


def test_what_another_machine_left_running_is_tried_again_after_the_grace(settings, study):
    settings = replace(settings, n_trials=1, grace=1.0)
    number, point = left_running(study, GONE | {"host": "elsewhere"})
    assert sweep(settings, study) == [point]
    assert study.trials[number].state == TrialState.FAIL


def test_what_another_live_process_trains_is_waited_for(settings, study):
    settings = replace(settings, n_trials=2)
    number, _ = left_running(study, sweep_trials.signature())
    trial = Trial(study, study.trials[number]._trial_id)
    result = made_up({"model.input_size": 64, "train.learning_rate": 0.003})
    later = threading.Timer(2, sweep_trials.tell, (study, trial, settings, result))
    later.start()
    assert len(sweep(settings, study)) == 1
    later.join()
    assert len(sweep_results.points(study)) == 4


def test_a_result_that_comes_after_its_trial_was_given_to_another_is_not_taken(settings, study):
    number, point = left_running(study, GONE)
    trial = Trial(study, study.trials[number]._trial_id)
    sweep_trials.reclaim(study, settings, sweep_trials.Watch(60))
    assert not sweep_trials.tell(study, trial, settings, made_up(point))
    states = [(one.state, one.user_attrs.get("retry_of")) for one in study.trials]
    assert states == [(TrialState.FAIL, None), (TrialState.WAITING, number)]


def test_two_who_ask_for_the_last_training_do_not_both_get_it(settings, study):
    first, second = sweep_trials.claim(study, 1), sweep_trials.claim(study, 1)
    assert (first.number, second) == (0, None)
    assert [trial.user_attrs.get("state") for trial in study.trials] == [None, "surplus"]
    assert sweep_results.without_files(study) == [
        {"trial": "0", "state": "running", "reason": "", "chosen": ""}
    ]


def test_the_files_of_a_trial_are_added_once(settings, study):
    number, point = left_running(study, GONE)
    trial = Trial(study, study.trials[number]._trial_id)
    for _ in range(2):
        assert sweep_trials.tell(study, trial, settings, made_up(point))
        sweep_trials.reclaim(study, settings, sweep_trials.Watch(60))
    assert [one.user_attrs.get("shares") for one in study.trials] == [None, number]


def test_a_call_that_goes_on_draws_other_points(settings, study):
    settings = replace(settings, sampler="random")
    done = sweep(settings, study)
    settings = replace(settings, n_trials=8)
    done += sweep(settings, study)
    assert len({one["train.learning_rate"] for one in done}) == 8


def test_workers_and_machines_draw_from_seeds_of_their_own(settings, study):
    settings, drawn = replace(settings, sampler="random"), []
    for worker, host in ((0, ""), (1, ""), (0, "elsewhere")):
        sweep_study.with_sampler(study, settings, worker, host)
        drawn.append(study.sampler._rng.rng.random())
    assert len(set(drawn)) == 3


def test_a_network_over_the_budget_is_recorded_and_not_on_the_front(settings, study):
    untrained = {"tflite_fp32": {"latency_ms_p50": 9.0, "size_mb": 1.0}}
    untrained["tflite_int8"] = untrained["tflite_fp32"]
    result = TrialOutcome("infeasible", "its quickest file takes 9.00 ms", untrained=untrained)
    settings = replace(settings, n_trials=2)
    sweep(settings, study, lambda n: result)
    assert [trial.user_attrs["state"] for trial in study.trials] == ["infeasible"] * 2
    assert [trial.constraints for trial in study.trials] == [{"budget": 1.0}] * 2
    assert sweep_results.points(study) == []


def test_a_sweep_whose_trainings_all_fail_ends(settings, study):
    with pytest.raises(TrainingError) as error:
        sweep(settings, study, lambda count: TrialOutcome("failed", f"disk full ({count})"))
    assert str(error.value) == (
        "sweep shapes: 4 trainings failed one after the other, the last: disk full (4)\n"
        "  Put that right and give the command again: what is finished is kept."
    )


def test_single_failures_do_not_end_a_sweep(settings, study):
    fails, settings = (1, 2, 4, 5, 7, 8), replace(settings, n_trials=3)
    sweep(settings, study, lambda n: TrialOutcome("failed", "killed") if n in fails else both(n))
    assert len(sweep_results.points(study)) == 6


def test_files_are_kept_and_added_where_a_worker_was_killed_before_it_added_their_trials(
    settings, study, monkeypatch
):
    settings = replace(settings, n_trials=1)

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(optuna.Study, "add_trial", killed)
        sweep(settings, study, both)
    assert [point.format for point in sweep_results.points(study)] == list(FORMATS)
    monkeypatch.setattr(sweep_trials, "is_gone", lambda owner: True)
    sweep(settings, study)
    assert [trial.user_attrs.get("shares") for trial in study.trials] == [None, 0]


def test_what_is_to_be_beaten_has_the_score_and_the_speed_of_one_file(settings, study):
    results = {
        1: both(1),
        2: done("run2", tflite_fp32=file(0.6, 3.0), tflite_int8=file(0.0, 0.1, "loses 0.6 mAP")),
    }
    settings = replace(settings, n_trials=2)
    sweep(settings, study, results.get)
    to_beat = [(one.best, one.latency_ms) for one in sweep_results.to_beat(study)]
    assert to_beat == [(0.5, 2.0), (0.3, 1.0), (0.6, 3.0)]


def test_a_worker_waits_for_a_database_that_is_away(settings, study, monkeypatch):
    away = [optuna.exceptions.StorageInternalError("away")] * 3
    ask = optuna.Study.ask

    def sometimes(self):
        if away:
            raise away.pop()
        return ask(self)

    monkeypatch.setattr(optuna.Study, "ask", sometimes)
    monkeypatch.setattr(sweep_study.time, "sleep", lambda seconds: None)
    settings = replace(settings, n_trials=1)
    assert len(sweep(settings, study)) == 1


def test_networks_that_were_timed_here_need_not_be_again(settings, study):
    from dataclasses import replace

    known, settings = [], replace(settings, n_trials=2)

    def trained(job, request):
        known.append(request.known)
        return replace(made_up(point_of(request)), network="n1")

    work(Job(settings, [], "parent", "", "."), study, trained)
    assert known == [{}, {"n1": known[1]["n1"]}]
    assert set(known[1]["n1"]) == set(FORMATS)


@pytest.mark.parametrize(
    ("latency", "size", "expected"),
    [
        pytest.param(None, None, None, id="no budget"),
        pytest.param(5.0, 3.0, None, id="within"),
        pytest.param(
            3.0, None, "its quickest file takes 4.00 ms; sweep.max_latency_ms=3", id="too slow"
        ),
        pytest.param(
            None, 1.5, "its smallest file has 2.00 MB; sweep.max_size_mb=1.5", id="too large"
        ),
    ],
)
def test_a_network_is_over_the_budget_if_none_of_its_files_is_within(latency, size, expected):
    files = {
        "tflite_fp32": {"latency_ms_p50": 8.0, "size_mb": 8.0},
        "tflite_int8": {"latency_ms_p50": 4.0, "size_mb": 2.0},
    }
    assert over_budget(files, latency, size) == expected
