"""How people name runs: first letters of an id, a name, `latest`; what is said where that is not one run."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from odtrain.config.schema import Runs, TrackingConfig
from odtrain.errors import TrackingError
from odtrain.tracking.store import open_client
from odtrain.tracking.tracker import Tracker
from odtrain.tracking.which_run import run_called, which_run


@pytest.fixture
def runs(store: TrackingConfig, tmp_path) -> Runs:
    return Runs(replace(store, experiment="Default"), str(tmp_path / "outputs"))


@pytest.fixture
def made(runs):
    """Makes a run of a name, begun at a minute, in an experiment; its id."""
    client = open_client(str(runs.tracking.uri))

    def made(name, minute, experiment="Default", stage="train", status="FINISHED", **tags):
        found = client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else client.create_experiment(experiment)
        tags = {"odtrain.stage": stage, **tags}
        run = client.create_run(number, minute * 60_000, tags, run_name=name)
        client.set_terminated(run.info.run_id, status)
        return run.info.run_id

    return made


def refused(name, runs):
    with pytest.raises(TrackingError) as caught:
        which_run(name, runs)
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "WHEN", str(caught.value))


@pytest.mark.parametrize("letters", [4, 8, 31, 32])
@pytest.mark.parametrize("before", ["", "runs:/"])
def test_the_first_letters_of_an_id_name_a_run(runs, made, letters, before):
    run_id = made("panels small", 1)
    assert which_run(before + run_id[:letters], runs) == run_id


def test_three_letters_are_no_id(runs, made):
    run_id = made("panels small", 1)
    assert refused(run_id[:3], runs) == (
        f'run "{run_id[:3]}": there is none in {runs.tracking.uri}.\n'
        f"  There are:\n  {run_id[:8]}  WHEN  panels small"
    )


@pytest.mark.parametrize("name", ["panels small 96x96 rate 0.01", "don't", '사진 "small"'])
def test_a_name_names_a_run_in_any_experiment(runs, made, name):
    run_id = made(name, 1, experiment="theirs")
    made("another", 2)
    assert which_run(name, runs) == run_id


def test_the_latest_is_the_newest_training_that_ended_well_and_stands_alone(runs, made):
    older = made("older version's", 1, experiment="odtrain")
    assert which_run("latest", runs) == older
    newest = made("a", 2)
    made("of a sweep", 3, **{"mlflow.parentRunId": newest})
    made("evaluate a", 4, stage="evaluate")
    made("elsewhere", 5, experiment="theirs")
    killed = made("killed", 6, status="KILLED")
    assert which_run("latest", runs) == newest
    assert which_run("latest", runs, finished=False) == killed


def test_a_name_of_several_runs_lists_them(runs, made):
    first, second = made("panels small", 1), made("panels small", 2)
    assert refused("panels small", runs) == (
        'run "panels small": means 2 runs.\n  Give more letters of the id:\n'
        f"  {second[:8]}  WHEN  panels small\n  {first[:8]}  WHEN  panels small"
    )


def test_an_unknown_run_is_told_with_those_that_come_near(runs, made):
    near = made("panels ssd_mobilenet_v1 rate 0.01", 1)
    made("raccoon", 2)
    assert refused("panels ssd_mobilenet_v1 rate 0.02", runs).splitlines()[1:] == [
        "  There are:",
        f"  {near[:8]}  WHEN  panels ssd_mobilenet_v1 rate 0.01",
    ]


def test_hundreds_of_runs_fit_on_a_screen(runs, made):
    for minute in range(30):
        made("panels small", minute)
    said = refused("panels small", runs)
    assert said.splitlines()[-1] == "  and 22 more"
    assert len(said.splitlines()) == 11


def test_where_no_database_is_none_is_made(runs, tmp_path):
    nowhere = replace(runs.tracking, uri=f"sqlite:///{tmp_path}/none.db")
    assert run_called("latest", Runs(nowhere, runs.outputs)) is None
    assert not (tmp_path / "none.db").exists()


def test_while_the_server_is_away_the_runs_of_this_machine_are_known(runs):
    away = replace(runs.tracking, uri="http://127.0.0.1:9")
    with Tracker(away, Path(runs.outputs)).start("train", "alone") as tracker:
        pass
    here = Runs(away, runs.outputs)
    assert {which_run(name, here) for name in ("latest", "alone", tracker.name[:14])} == {
        tracker.name
    }
