from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import requests
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from support.stores import QUIET, Server, free_port, logged_settings, store_at

from odtrain import __version__
from odtrain.config.compose import as_dict, compose_config, flattened, section
from odtrain.config.schema import TrackingConfig
from odtrain.errors import TrackingError
from odtrain.tracking.names import as_text
from odtrain.tracking.runs import config_digest, find_resumable, is_begun, sync
from odtrain.tracking.store import open_client
from odtrain.tracking.tracker import Tracker

pytestmark = pytest.mark.usefixtures("own_environment")

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    store_at(folder, database)
    server = Server(folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def tracker_of(tmp_path: Path, said: list[str]) -> Callable[[TrackingConfig], Tracker]:
    return lambda config: Tracker(config, tmp_path / "outputs")


def run_of(config: TrackingConfig, run_id: str | None) -> Run:
    return open_client(str(config.uri)).get_run(str(run_id))


def history(config: TrackingConfig, run_id: str | None, key: str) -> list[tuple[int, float]]:
    client = open_client(str(config.uri))
    points = [(m.step, m.value) for m in client.get_metric_history(str(run_id), key)]
    return sorted(points)


def artifacts(client: MlflowClient, run_id: str | None, folder: str | None = None) -> list[str]:
    files = []
    for item in client.list_artifacts(str(run_id), folder):
        files += artifacts(client, run_id, item.path) if item.is_dir else [item.path]
    return sorted(files)


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def python(code: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(PROJECT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# The store in reach


def test_a_run_has_its_tags_metrics_and_status(store, tracker_of):
    with tracker_of(store).start("train", "first", tags={"odtrain.note": "hello"}) as tracker:
        tracker.log({"train/loss": 2.5, "val/mAP": 0.25}, 10)
        tracker.log({"train/loss": 1.5}, 20)
        tracker.describe("**what** it is")
    run = run_of(store, tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "first"
    assert run.data.metrics == {"train/loss": 1.5, "val/mAP": 0.25}
    assert history(store, tracker.run_id, "train/loss") == [(10, 2.5), (20, 1.5)]
    expected = {
        "odtrain.version": __version__,
        "odtrain.stage": "train",
        "odtrain.note": "hello",
        "mlflow.note.content": "**what** it is",
    }
    assert expected.items() <= run.data.tags.items()


def test_the_folder_is_named_by_experiment_and_run_and_holds_no_spool_at_the_end(
    store, tracker_of, tmp_path
):
    with tracker_of(store).start("train") as tracker:
        tracker.log({"train/loss": 1.0}, 1)
    assert tracker.folder == tmp_path / "outputs" / "tests" / str(tracker.run_id)
    assert not (tracker.folder / "spool").exists()


def test_metrics_arrive_in_the_background(store, tracker_of):
    with tracker_of(store).start("train") as tracker:
        tracker.log({"train/loss": 1.0}, 1)
        wait_for(lambda: history(store, tracker.run_id, "train/loss") == [(1, 1.0)], 10)


def test_flush_sends_at_once(store, tracker_of):
    slow = replace(store, flush_seconds=3600.0)
    with tracker_of(slow).start("train") as tracker:
        tracker.log({"train/loss": 1.0}, 1)
        assert history(store, tracker.run_id, "train/loss") == []
        assert tracker.flush()
        assert history(store, tracker.run_id, "train/loss") == [(1, 1.0)]


def test_more_metrics_than_one_request_takes_all_arrive(store, tracker_of):
    with tracker_of(replace(store, flush_seconds=3600.0)).start("train") as tracker:
        for step in range(70):
            tracker.log({f"m/{index}": index + step for index in range(40)}, step)
        tracker.log({f"wide/{index}": index for index in range(1700)}, 0)
    run = run_of(store, tracker.run_id)
    assert len(run.data.metrics) == 1740
    assert [step for step, _ in history(store, tracker.run_id, "m/39")] == list(range(70))


def test_numbers_that_are_not_finite_become_a_tag(store, tracker_of):
    with tracker_of(store).start("train") as tracker:
        tracker.log({"train/loss": float("nan"), "train/learning_rate": 0.1}, 7)
        tracker.log({"train/loss": float("inf")}, 8)
    run = run_of(store, tracker.run_id)
    assert run.data.metrics == {"train/learning_rate": 0.1}
    assert json.loads(run.data.tags["odtrain.not_finite"]) == {"train/loss": "nan at step 7"}


def test_the_configuration_is_logged_whole(store, tracker_of):
    config = compose_config(
        [
            "outputs=out",
            "data.name=raccoon",
            "train.learning_rate=1e-4",
            "export.formats=[pb,tflite_fp32]",
            f"predict.label_map={'x' * 7000}",
        ]
    )
    with tracker_of(store).start("train") as tracker:
        tracker.log_config(config, ["data=raccoon", "train.learning_rate=1e-4"])
    run = run_of(store, tracker.run_id)
    params, settings = run.data.params, logged_settings(tracker.client, str(tracker.run_id))
    assert params["data.name"] == "raccoon"
    assert params["train.learning_rate"] == "0.0001"
    assert params["export.formats"] == "[pb,tflite_fp32]"
    assert settings["train.resume"] == "null"
    assert settings["augment.flip"] == "true"
    assert params["predict.label_map"] == "x" * 6000
    assert params["train.steps"] == "800"
    assert not [key for key in params if key.startswith("sweep.")]
    assert (
        settings.items()
        >= {key: as_text(v) for key, v in flattened(as_dict(config)).items()}.items()
    )
    assert run.data.tags["odtrain.config_digest"] == config_digest(config)
    found = artifacts(tracker.client, tracker.run_id)
    assert found == ["config/config.yaml", "config/overrides.yaml", "run.log"]
    text = (tracker.folder / "config" / "overrides.yaml").read_text()
    assert text == "- data=raccoon\n- train.learning_rate=1e-4\n"


def test_a_dataset_is_an_input_of_the_run(store, tracker_of, tmp_path):
    with tracker_of(store).start("train") as tracker:
        tracker.log_dataset("raccoon", "ab" * 32, tmp_path / "a b", profile={"boxes": 217})
    run = run_of(store, tracker.run_id)
    (given,) = run.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("raccoon", "ab" * 18)
    assert json.loads(given.dataset.profile) == {"boxes": 217}
    assert json.loads(given.dataset.source) == {"uri": (tmp_path / "a b").as_uri()}
    assert [(tag.key, tag.value) for tag in given.tags] == [("mlflow.data.context", "training")]
    assert run.data.tags["odtrain.data_digest"] == "ab" * 32


@pytest.mark.parametrize("refusal", ["UniqueViolation", "UNIQUE constraint failed"])
def test_a_dataset_that_another_run_names_at_the_same_moment_is_named_again(
    store, tracker_of, tmp_path, monkeypatch, refusal
):
    with tracker_of(store).start("train") as tracker:
        log_inputs = tracker.client.log_inputs
        answers = iter([MlflowException(f"({refusal}) dataset_pk", error_code=BAD_REQUEST)])

        def first_refused(*arguments):
            for answer in answers:
                raise answer
            return log_inputs(*arguments)

        monkeypatch.setattr(tracker.client, "log_inputs", first_refused)
        tracker.log_dataset("raccoon", "ab" * 32, tmp_path)
        tracker.flush()
    assert len(run_of(store, tracker.run_id).inputs.dataset_inputs) == 1
    assert not (tracker.folder / "refused.jsonl").exists()


def test_files_folders_pictures_and_tables_are_artifacts(store, tracker_of, tmp_path):
    (tmp_path / "f" / "sub").mkdir(parents=True)
    (tmp_path / "f" / "one.txt").write_text("1")
    (tmp_path / "f" / "sub" / "two.txt").write_text("2")
    with tracker_of(store).start("train") as tracker:
        tracker.log_file(tmp_path / "f" / "one.txt")
        tracker.log_folder(tmp_path / "f", "export")
        tracker.log_table(["class", "AP"], [["raccoon", 0.5]], "eval/per_class.json")
        tracker.log_image(np.full((40, 600, 3), 200, np.uint8), "val/raccoon 1", 30)
    found = artifacts(tracker.client, tracker.run_id)
    pictures = [path for path in found if path.startswith("images/")]
    assert [path for path in found if path not in pictures] == [
        "eval/per_class.json",
        "export/one.txt",
        "export/sub/two.txt",
        "one.txt",
        "run.log",
    ]
    assert [path.split("+timestamp")[0] for path in pictures] == [
        "images/val~raccoon 1+step+30"
    ] * 2
    tags = run_of(store, tracker.run_id).data.tags
    assert json.loads(tags["mlflow.loggedArtifacts"]) == [
        {"path": "eval/per_class.json", "type": "table"}
    ]
    local = tracker.client.download_artifacts(str(tracker.run_id), "eval/per_class.json")
    assert json.loads(Path(local).read_text()) == {
        "columns": ["class", "AP"],
        "data": [["raccoon", 0.5]],
    }


def test_artifacts_go_beside_the_database(store, tracker_of, tmp_path):
    with tracker_of(store).start("train") as tracker:
        tracker.log_text("hello", "note.txt")
    run = str(tracker.run_id)
    kept = tmp_path / "store" / "mlartifacts" / run / "artifacts" / "note.txt"
    assert kept.read_text() == "hello"


def test_machine_metrics_are_logged_under_the_names_of_the_ui(store, tracker_of, monkeypatch):
    monkeypatch.setattr("odtrain.tracking.tracker.EVERY_SECONDS", 0.3)
    with tracker_of(replace(store, system_metrics=True)).start("train") as tracker:
        time.sleep(0.8)
    metrics = run_of(store, tracker.run_id).data.metrics
    assert metrics["system/system_memory_usage_percentage"] > 0
    assert {"system/cpu_utilization_percentage", "system/network_receive_megabytes"} <= set(metrics)


def test_an_exception_marks_the_run_failed(store, tracker_of):
    tracker = tracker_of(store)
    with pytest.raises(ValueError, match="boom"), tracker.start("train"):
        tracker.log({"train/loss": 1.0}, 3)
        raise ValueError("boom")
    assert run_of(store, tracker.run_id).info.status == "FAILED"
    assert history(store, tracker.run_id, "train/loss") == [(3, 1.0)]


WAIT_TO_BE_KILLED = """
import sys, time
from pathlib import Path
from odtrain.config.compose import section
from odtrain.config.schema import TrackingConfig
from odtrain.tracking.tracker import Tracker
config = section(TrackingConfig, uri=URI, experiment="tests", system_metrics=False, flush_seconds=3600.0)
with Tracker(config, Path("outputs")).start("train") as tracker:
    tracker.log({"train/loss": 1.0}, 5)
    tracker.log({"train/loss": 0.5}, 6)
    print(tracker.run_id, flush=True)
    time.sleep(60)
"""


def child_that_waits(store: TrackingConfig, cwd: Path) -> tuple[subprocess.Popen[str], str]:
    code = WAIT_TO_BE_KILLED.replace("URI", repr(store.uri))
    child = python(code, cwd)
    assert child.stdout is not None
    return child, child.stdout.readline().strip()


def test_sigterm_marks_the_run_killed_and_loses_nothing(store, tmp_path):
    child, run_id = child_that_waits(store, tmp_path)
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=30)
    assert (child.returncode, errors) == (143, "")
    assert run_of(store, run_id).info.status == "KILLED"
    assert history(store, run_id, "train/loss") == [(5, 1.0), (6, 0.5)]


# Resuming


def test_what_sigkill_left_in_the_spool_is_sent_on_resume_and_no_step_twice(store, tmp_path, said):
    child, run_id = child_that_waits(store, tmp_path)
    child.kill()
    child.communicate()
    assert run_of(store, run_id).info.status == "RUNNING"
    with Tracker(store, tmp_path / "outputs").start("train", resume=run_id) as tracker:
        assert tracker.run_id == run_id
        assert tracker.resumed
        assert tracker.logged_steps("train/loss") == {5, 6}
        for step in (5, 6, 7):
            tracker.log({"train/loss": 9.0}, step)
    assert history(store, run_id, "train/loss") == [(5, 1.0), (6, 0.5), (7, 9.0)]
    assert run_of(store, run_id).info.status == "FINISHED"


def test_replace_logs_a_step_again(store, tracker_of):
    with tracker_of(store).start("export") as tracker:
        tracker.log({"export/pb/mAP": 0.5}, 100)
        tracker.flush()
        time.sleep(0.01)
        tracker.log({"export/pb/mAP": 0.75}, 100)
        tracker.log({"export/pb/mAP": 0.6}, 100, replace=True)
    assert run_of(store, tracker.run_id).data.metrics == {"export/pb/mAP": 0.6}


def test_what_is_found_again_is_logged_once(store, tracker_of):
    with tracker_of(store).start("evaluate") as tracker:
        tracker.log({"eval/mAP": 0.5, "eval/mAP_50": 0.7}, 100, replace=True)
    with tracker_of(store).start("evaluate", resume=tracker.run_id) as again:
        again.log({"eval/mAP": 0.5, "eval/mAP_50": 0.8}, 100, replace=True)
    values = {
        key: [one.value for one in open_client(store.uri).get_metric_history(tracker.run_id, key)]
        for key in ("eval/mAP", "eval/mAP_50")
    }
    assert values == {"eval/mAP": [0.5], "eval/mAP_50": [0.7, 0.8]}


def test_a_run_is_resumed_on_a_machine_that_never_saw_it(store, tmp_path, said):
    with Tracker(store, tmp_path / "here").start("train") as tracker:
        tracker.log({"train/loss": 1.0}, 1)
    with Tracker(store, tmp_path / "there").start("train", resume=tracker.run_id) as again:
        assert again.resumed
        again.log({"train/loss": 2.0}, 1)
        again.log({"train/loss": 2.0}, 2)
    assert history(store, tracker.run_id, "train/loss") == [(1, 1.0), (2, 2.0)]


def test_a_deleted_run_is_not_gone_on_with(store, tracker_of):
    with tracker_of(store).start("train") as first:
        run_id = str(first.run_id)
    MlflowClient(store.uri).delete_run(run_id)
    with pytest.raises(TrackingError) as caught:
        tracker_of(store).start("train", resume=run_id)
    assert str(caught.value) == (
        f"run {run_id}: it has been deleted, and MLflow takes nothing for it.\n"
        f"  Restore it (mlflow runs restore --run-id {run_id}), or begin a new run."
    )


def test_a_run_of_a_deleted_experiment_is_not_gone_on_with(store, tracker_of):
    with tracker_of(store).start("train") as first:
        run = run_of(store, first.run_id)
    MlflowClient(store.uri).delete_experiment(run.info.experiment_id)
    with pytest.raises(TrackingError) as caught:
        tracker_of(store).start("train", resume=run.info.run_id)
    assert str(caught.value) == (
        "experiment tests: it has been deleted.\n"
        f"  Restore it (mlflow experiments restore --experiment-id {run.info.experiment_id}), "
        "or choose another with tracking.experiment=NAME."
    )


def test_a_run_that_was_begun_without_a_server_is_not_gone_on_with_in_a_deleted_experiment(
    store, tracker_of, tmp_path
):
    nobody = replace(store, uri=f"http://127.0.0.1:{free_port()}")
    with tracker_of(nobody).start("train") as first:
        name = first.name
    client = MlflowClient(store.uri)
    client.delete_experiment(client.create_experiment("tests"))
    with pytest.raises(TrackingError, match=r"^experiment tests: it has been deleted\.\n"):
        tracker_of(store).start("train", resume=name)


def test_a_store_that_can_only_be_read_is_told_before_a_run_goes_on_in_it(
    store, tracker_of, tmp_path
):
    with tracker_of(store).start("train") as first:
        run_id = first.run_id
    with sqlite3.connect(str(store.uri).removeprefix("sqlite:///")) as database:
        refuse = "BEGIN SELECT RAISE(ABORT, 'attempt to write a readonly database'); END"
        database.execute(f"CREATE TRIGGER i BEFORE INSERT ON tags {refuse}")
        database.execute(f"CREATE TRIGGER u BEFORE UPDATE ON tags {refuse}")
    with pytest.raises(TrackingError) as caught:
        tracker_of(store).start("train", resume=run_id)
    assert str(caught.value).splitlines() == [
        f"{store.uri}: MLflow cannot use it: (sqlite3.IntegrityError) attempt to write a readonly "
        "database",
        "  Have it made writable, or choose another: tracking.uri=sqlite:///runs.db",
    ]


def test_a_deleted_run_is_not_found_to_be_gone_on_with(store, tracker_of, tmp_path):
    with tracker_of(store).start("train") as first:
        first.log_config(config := compose_config(["outputs=out"]))
        first.finish("KILLED")
    digest = config_digest(config)
    assert find_resumable(store, tmp_path / "outputs", digest) == first.run_id
    MlflowClient(store.uri).delete_run(str(first.run_id))
    assert find_resumable(store, tmp_path / "outputs", digest) is None


def test_tables_of_a_run_are_kept_where_the_server_fails_while_it_is_taken_up(
    server, tracker_of, monkeypatch
):
    config = replace(QUIET, uri=server.uri)
    with tracker_of(config).start("train") as first:
        first.log_table(["a"], [[1]], "first.json")

    def away(*_: object) -> None:
        raise requests.ConnectionError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "get_experiment", away)
        again = tracker_of(config).start("train", resume=first.run_id)
    with again:
        again.log_table(["a"], [[2]], "second.json")
    tags = MlflowClient(server.uri).get_run(str(first.run_id)).data.tags
    held = json.loads(tags["mlflow.loggedArtifacts"])
    assert [table["path"] for table in held] == ["first.json", "second.json"]


def test_a_resumed_run_notes_changed_parameters(store, tracker_of):
    with tracker_of(store).start("train") as first:
        first.log_params({"train.steps": 100, "train.learning_rate": "1e-4", "train.seed": 0})
    with tracker_of(store).start("train", resume=first.run_id) as again:
        again.log_params({"train.steps": 200, "train.learning_rate": 0.0001, "train.seed": 0})
    run = run_of(store, first.run_id)
    assert run.data.params["train.steps"] == "100"
    changed = {key: text for key, text in run.data.tags.items() if "changed" in key}
    assert changed == {"odtrain.changed.train.steps": "200"}


def test_a_resumed_run_overwrites_its_pictures(store, tracker_of):
    picture = np.zeros((4, 4, 3), np.uint8)
    with tracker_of(store).start("train") as first:
        first.log_image(picture, "val/a", 3)
    with tracker_of(store).start("train", resume=first.run_id) as again:
        again.log_image(picture, "val/a", 3)
    assert len(artifacts(again.client, again.run_id, "images")) == 2  # the picture, its thumbnail


def test_a_run_that_another_process_works_on_cannot_be_resumed(store, tracker_of):
    with tracker_of(store).start("train") as first:
        with pytest.raises(TrackingError) as caught:
            tracker_of(store).start("train", resume=first.run_id)
        assert str(caught.value) == (
            f"run {first.run_id}: another process is working on it.\n"
            "  Wait until it is done, or stop it."
        )


def test_resuming_a_run_that_is_not_there_names_the_newest(store, tracker_of):
    with tracker_of(store).start("train", "only one") as tracker:
        pass
    with pytest.raises(TrackingError) as caught:
        tracker_of(store).start("train", resume="nothing")
    assert str(caught.value) == (
        f"run nothing: there is none in {store.uri}.\n"
        f"  The newest are: {tracker.run_id} (only one)."
    )


def test_the_newest_unfinished_run_of_the_configuration_is_found(store, tracker_of, tmp_path):
    config, other = compose_config([]), compose_config(["train.batch_size=3"])
    names = {}
    for name, its_config, status in (
        ("finished", config, "FINISHED"),
        ("failed", config, "FAILED"),
        ("killed", config, "KILLED"),
        ("done later", config, "FINISHED"),
        ("other", other, "KILLED"),
    ):
        time.sleep(0.01)
        tracker = tracker_of(store).start("train", name)
        tracker.log_config(its_config)
        tracker.finish(status)
        names[tracker.run_id] = name
    digest = config_digest(config)
    for outputs in (tmp_path / "outputs", tmp_path / "elsewhere"):
        assert names[find_resumable(store, outputs, [digest])] == "killed"
    assert find_resumable(store, tmp_path / "outputs", [digest], stage="sweep") is None
    assert find_resumable(store, tmp_path / "outputs", ["0" * 16]) is None


def test_a_run_that_another_process_works_on_is_no_reason_to_begin_another(
    store, tracker_of, tmp_path
):
    config = compose_config([])
    with tracker_of(store).start("train") as tracker:
        tracker.log_config(config)
        tracker.flush()
        with pytest.raises(TrackingError) as caught:
            find_resumable(store, tmp_path / "outputs", [config_digest(config)])
    assert str(caught.value) == (
        f"run {tracker.name}: another process is working on it.\n"
        "  Wait until it is done, or stop it."
    )


def test_what_may_differ_when_resuming_does_not_change_the_digest():
    config, other = compose_config([]), compose_config(["train.seed=1"])
    again = compose_config(["train.resume=auto", "tracking.uri=http://elsewhere", "outputs=there"])
    assert config_digest(again) == config_digest(config)
    assert config_digest(other) != config_digest(config)


def test_a_visit_leaves_stage_and_status_of_the_run_alone(store, tracker_of, tmp_path):
    config = compose_config([])
    tracker = tracker_of(store).start("train")
    tracker.log_config(config)
    tracker.finish("KILLED")
    with tracker_of(store).start("evaluate", resume=tracker.run_id) as visitor:
        visitor.log({"eval/mAP": 0.5}, 100)
    run = run_of(store, tracker.run_id)
    assert (run.info.status, run.data.tags["odtrain.stage"]) == ("KILLED", "train")
    assert run.data.metrics == {"eval/mAP": 0.5}
    found = find_resumable(store, tmp_path / "outputs", [config_digest(config)])
    assert found == tracker.run_id


def test_what_is_said_and_what_ended_the_run_are_in_its_log(store, tracker_of):
    logger = logging.getLogger("odtrain.somewhere")
    tracker = tracker_of(store).start("train")
    with pytest.raises(ZeroDivisionError), tracker:
        logger.info("a line for people")
        print(1 // 0)
    logger.info("afterwards")
    logged = Path(tracker.client.download_artifacts(str(tracker.run_id), "run.log")).read_text()
    assert logged == (tracker.folder / "run.log").read_text()
    lines = [line.partition(" ")[2].partition(" ")[2] for line in logged.splitlines()]
    assert lines[0].startswith(
        f"DEBUG odtrain.tracking.tracker: odtrain {__version__}: train in run"
    )
    assert lines[1:3] == [
        "INFO odtrain.somewhere: a line for people",
        "DEBUG odtrain.tracking.tracker: ended by ZeroDivisionError: integer division or modulo by zero",
    ]
    assert "print(1 // 0)" in logged
    assert "afterwards" not in logged


def test_the_log_of_a_run_resumed_on_another_machine_goes_on(store, tmp_path):
    with Tracker(store, tmp_path / "here").start("train") as tracker:
        logging.getLogger("odtrain.somewhere").info("said here")
    with Tracker(store, tmp_path / "there").start("train", resume=tracker.run_id) as again:
        logging.getLogger("odtrain.somewhere").info("said there")
    logged = Path(again.client.download_artifacts(str(again.run_id), "run.log")).read_text()
    assert [word for word in ("said here", "said there") if word in logged] == [
        "said here",
        "said there",
    ]


def test_a_mirrored_folder_loses_what_is_no_longer_in_it(store, tracker_of, tmp_path):
    last = tmp_path / "checkpoints" / "last"
    last.mkdir(parents=True)
    with tracker_of(store).start("train") as tracker:
        tracker.log_text("kept", "notes.txt")
        (last / "ckpt-100.index").write_text("older")
        tracker.log_folder(tmp_path / "checkpoints", "checkpoints", mirror=True)
        (last / "ckpt-100.index").rename(last / "ckpt-200.index")
        tracker.log_folder(tmp_path / "checkpoints", "checkpoints", mirror=True)
    found = artifacts(tracker.client, tracker.run_id)
    assert found == ["checkpoints/last/ckpt-200.index", "notes.txt", "run.log"]


DIE_WITH_TWO_MIRRORS = """
import os
from pathlib import Path
from odtrain.config.compose import section
from odtrain.config.schema import TrackingConfig
from odtrain.tracking.tracker import Tracker
config = section(TrackingConfig, uri=URI, experiment="tests", system_metrics=False, flush_seconds=3600.0)
tracker = Tracker(config, Path("outputs")).start("train")
folder = Path("last")
folder.mkdir()
for step in (100, 200):
    (folder / f"ckpt-{step}.index").write_text("")
    (folder / f"ckpt-{step - 100}.index").unlink(missing_ok=True)
    tracker.log_folder(folder, "checkpoints", mirror=True)
os._exit(9)
"""


def test_a_mirror_sent_late_spares_what_was_logged_since(store, tmp_path, said):
    child = python(DIE_WITH_TWO_MIRRORS.replace("URI", repr(store.uri)), tmp_path)
    _, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (9, "")
    (run_id,) = sync(tmp_path / "outputs")
    found = artifacts(open_client(str(store.uri)), run_id)
    assert found == ["checkpoints/ckpt-200.index"]


def test_a_mirror_sent_while_the_next_is_logged_spares_its_files(store, tracker_of, tmp_path):
    folder = tmp_path / "last"
    folder.mkdir()
    with tracker_of(replace(store, flush_seconds=3600.0)).start("train") as tracker:
        (folder / "ckpt-100.index").write_text("")
        tracker.log_folder(folder, "checkpoints", mirror=True)
        tracker._delivery.will_hold("checkpoints", ["ckpt-200.index"])
        tracker.log_text("", "checkpoints/ckpt-200.index")
        tracker.flush()
        found = artifacts(tracker.client, tracker.run_id)
    assert found == ["checkpoints/ckpt-100.index", "checkpoints/ckpt-200.index"]


def test_a_mirrored_folder_of_an_outage_holds_the_newest_alone(server, tracker_of, tmp_path):
    away = section(
        TrackingConfig,
        uri=f"http://127.0.0.1:{free_port()}",
        experiment="mirror",
        system_metrics=False,
    )
    folder = tmp_path / "last"
    folder.mkdir()
    with tracker_of(away).start("train") as tracker:
        for step in (100, 200, 300):
            (folder / f"ckpt-{step}.index").write_text("")
            (folder / f"ckpt-{step - 100}.index").unlink(missing_ok=True)
            tracker.log_folder(folder, "checkpoints", mirror=True)
    (run_id,) = sync(tracker.folder, uri=server.uri)
    assert artifacts(open_client(server.uri), run_id) == ["checkpoints/ckpt-300.index", "run.log"]


def test_a_folder_of_the_run_is_fetched_on_another_machine(store, tmp_path, said):
    (tmp_path / "checkpoints" / "last").mkdir(parents=True)
    (tmp_path / "checkpoints" / "last" / "ckpt-100.index").write_text("weights")
    with Tracker(store, tmp_path / "here").start("train") as tracker:
        tracker.log_folder(tmp_path / "checkpoints", "checkpoints")
    again = Tracker(store, tmp_path / "there").start("train", resume=tracker.run_id)
    with again:
        got = again.fetch_folder("checkpoints", again.folder / "checkpoints")
        assert (got / "last" / "ckpt-100.index").read_text() == "weights"
        with pytest.raises(TrackingError, match=r"^runs:/\w+/nothing: cannot be downloaded: "):
            again.fetch_folder("nothing", tmp_path / "nothing")


def test_a_full_disk_does_not_stop_a_run(store, tracker_of, said):
    with tracker_of(replace(store, flush_seconds=3600.0)).start("train") as tracker:
        spool = tracker._delivery.spool
        spool._stream.close()
        spool._stream = Path("/dev/full").open("ab", buffering=0)
        tracker.log({"train/loss": 1.0}, 1)
        tracker.log({"train/loss": 0.5}, 2)
        assert said == [
            f"tracking: {spool.folder} cannot be written ([Errno 28] No space left on device); "
            "what is logged is kept in memory alone until it is sent."
        ]
    assert history(store, tracker.run_id, "train/loss") == [(1, 1.0), (2, 0.5)]


def test_pictures_of_names_that_mlflow_does_not_take_stay_apart(store, tracker_of):
    picture = np.zeros((4, 4, 3), np.uint8)
    with tracker_of(store).start("train") as tracker:
        tracker.log_image(picture, "val/너구리.jpg", 3)
        tracker.log_image(picture, "val/강아지.jpg", 3)
        tracker.log_image(picture, f"val/{'x' * 300}.jpg", 3)
    assert len(artifacts(tracker.client, tracker.run_id, "images")) == 6


def test_the_experiment_is_the_configured_else_the_environments(monkeypatch):
    assert compose_config([]).tracking.experiment == "Default"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "")
    assert compose_config([]).tracking.experiment == "Default"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    assert compose_config([]).tracking.experiment == "theirs"
    assert section(TrackingConfig).experiment == "theirs"
    assert compose_config(["tracking.experiment=ours"]).tracking.experiment == "ours"


def test_the_number_of_an_experiment_is_passed_over_with_a_word(
    store, tracker_of, monkeypatch, said
):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    with tracker_of(store).start("sweep") as first:
        assert said == [
            "tracking: MLFLOW_EXPERIMENT_ID=7 is passed over: the run goes into the experiment tests. "
            "Name another: tracking.experiment=NAME or MLFLOW_EXPERIMENT_NAME."
        ]
        tracker_of(store).start("train", parent=first.run_id).finish()
    tracker_of(store).start("sweep", resume=first.run_id).finish()
    assert len(said) == 1


def test_a_run_that_an_older_version_left_in_its_experiment_is_found(store, tmp_path):
    default = replace(store, experiment="Default")
    with pytest.raises(KeyboardInterrupt):
        older = Tracker(replace(store, experiment="odtrain"), tmp_path / "there")
        with older.start("train", digest="d"):
            raise KeyboardInterrupt
    assert find_resumable(default, tmp_path / "outputs", ["d"]) == older.run_id
    theirs = replace(store, experiment="theirs")
    assert find_resumable(theirs, tmp_path / "outputs", ["d"]) is None


def test_a_run_is_called_as_its_user_wishes(store, tracker_of):
    named = replace(store, run_name="my own")
    with tracker_of(named).start("sweep", "sweep quick") as parent:
        tracker_of(named).start("train", "panels rate 1", parent=parent.run_id).finish()
    client = open_client(str(store.uri))
    found = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert {run.info.run_name for run in found} == {"my own", "panels rate 1"}


# Under `mlflow run`


def test_the_run_of_mlflow_run_is_taken_over(store, tracker_of, monkeypatch):
    client = open_client(str(store.uri))
    experiment = client.create_experiment("theirs")
    made = client.create_run(experiment)
    client.log_param(made.info.run_id, "data.name", "'rac coon'")
    monkeypatch.setenv("MLFLOW_RUN_ID", made.info.run_id)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(store.uri))
    config = compose_config(["data.name=rac coon", "train.optimizer=rmsprop"])
    with tracker_of(replace(store, uri=None)).start("train") as tracker:
        assert tracker.run_id == made.info.run_id
        assert tracker.experiment == "theirs"
        assert not tracker.resumed
        assert "MLFLOW_RUN_ID" not in os.environ
        tracker.log_config(config)
    run = run_of(store, tracker.run_id)
    assert run.data.params["data.name"] == "'rac coon'"
    assert run.data.params["train.optimizer"] == "rmsprop"
    assert not [key for key in run.data.tags if key.startswith("odtrain.changed")]
    assert len(client.search_runs([experiment])) == 1
    assert client.get_experiment_by_name("tests") is None


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        pytest.param(None, "panels small 96x96", id="none was given"),
        pytest.param("my own name", "my own name", id="one was given"),
    ],
)
def test_a_run_of_mlflow_run_gets_a_name_that_says_something(
    given, shown, store, tracker_of, monkeypatch
):
    client = open_client(str(store.uri))
    made = client.create_run(client.create_experiment("theirs"), run_name=given)
    monkeypatch.setenv("MLFLOW_RUN_ID", made.info.run_id)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(store.uri))
    with tracker_of(replace(store, uri=None)).start("train", "panels small 96x96"):
        pass
    assert client.get_run(made.info.run_id).info.run_name == shown


def test_only_a_run_that_odtrain_has_worked_on_is_begun(store, tracker_of):
    client = open_client(str(store.uri))
    made = client.create_run(client.create_experiment("theirs")).info.run_id
    with tracker_of(store).start("train") as tracker:
        pass
    assert not is_begun(store, None)
    assert not is_begun(store, made)
    assert not is_begun(store, "nothing")
    assert is_begun(store, tracker.run_id)


def test_a_store_other_than_that_of_mlflow_run_gets_a_run_of_its_own(
    store, tracker_of, monkeypatch, said
):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")
    with tracker_of(store).start("train") as tracker:
        assert tracker.run_id != "0" * 32
    assert said == [
        "tracking: `mlflow run` made its run in http://elsewhere:5000, not in tracking.uri."
    ]


def test_a_nested_run_is_folded_under_its_parent(store, tracker_of):
    with tracker_of(store).start("sweep") as parent:
        with tracker_of(store).start("train", parent=parent.run_id) as child:
            pass
    assert run_of(store, child.run_id).data.tags["mlflow.parentRunId"] == parent.run_id


# Several processes

RACE = """
import sys
from pathlib import Path
from odtrain.config.compose import section
from odtrain.config.schema import TrackingConfig
from odtrain.tracking.tracker import Tracker
config = section(TrackingConfig, uri="sqlite:///new.db", experiment="race", system_metrics=False)
with Tracker(config, Path("outputs")).start("train") as tracker:
    tracker.log({"train/loss": 1.0}, 1)
"""


@pytest.mark.long
def test_four_processes_on_a_new_database_all_succeed(tmp_path):
    children = [python(RACE, tmp_path) for _ in range(4)]
    ends = [child.communicate(timeout=120) for child in children]
    assert [(child.returncode, end[1]) for child, end in zip(children, ends, strict=True)] == [
        (0, "")
    ] * 4
    client = open_client(f"sqlite:///{tmp_path}/new.db")
    experiment = client.get_experiment_by_name("race")
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 4


# The server out of reach


def test_a_run_begun_without_a_server_is_made_on_sync(server, tracker_of, said, tmp_path):
    config = compose_config(["train.optimizer=momentum"])
    away = section(
        TrackingConfig,
        uri=f"http://127.0.0.1:{free_port()}",
        experiment="offline",
        system_metrics=False,
        flush_seconds=0.2,
    )
    started = time.monotonic()
    with tracker_of(away).start("train", "from afar") as tracker:
        assert not tracker.online
        assert tracker.run_id is None
        assert tracker.name.startswith("offline-")
        tracker.log_config(config)
        for step in range(5):
            tracker.log({"train/loss": 5.0 - step}, step)
        tracker.log_image(np.zeros((4, 4, 3), np.uint8), "val/a", 3)
        tracker.log_dataset("raccoon", "ab" * 32, tmp_path)
    assert time.monotonic() - started < 20
    assert said == [
        f"tracking: {away.uri} cannot be reached ([Errno 111] Connection refused). The run goes "
        f"on; everything is kept in {tracker.folder}/spool and sent when it is back.",
        f"tracking: what could not be sent waits. Later: odtrain track sync {tracker.folder}",
    ]
    assert find_resumable(away, tmp_path / "outputs", [config_digest(config)]) is None

    (run_id,) = sync(tracker.folder, uri=server.uri)

    here = replace(away, uri=server.uri)
    run = run_of(here, run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "from afar")
    assert history(here, run_id, "train/loss") == [(step, 5.0 - step) for step in range(5)]
    assert logged_settings(open_client(server.uri), run_id)["train.optimizer"] == "momentum"
    assert run.data.tags["odtrain.stage"] == "train"
    assert len(run.inputs.dataset_inputs) == 1
    assert len(artifacts(open_client(server.uri), run_id)) == 5
    assert not (tracker.folder / "spool").exists()
    assert sync(tmp_path / "outputs", uri=server.uri) == []


@pytest.mark.slow
def test_a_server_that_stops_and_comes_back_gets_everything_once(
    server, tracker_of, said, tmp_path
):
    config = section(
        TrackingConfig, uri=server.uri, experiment="outage", system_metrics=False, flush_seconds=0.2
    )
    file = tmp_path / "last.txt"
    longest = 0.0

    def log(step: int) -> None:
        nonlocal longest
        before = time.monotonic()
        tracker.log({"train/loss": float(step), "train/learning_rate": 0.1}, step)
        longest = max(longest, time.monotonic() - before)

    with tracker_of(config).start("train") as tracker:
        for step in range(20):
            log(step)
        tracker.flush()
        server.stop()
        for step in range(20, 40):
            log(step)
            time.sleep(0.05)
        for content in ("older", "newer"):
            file.write_text(content)
            tracker.log_file(file, "checkpoints")
        tracker.set_tags({"odtrain.note": "written while it was away"})
        assert not tracker.flush()
        assert not tracker.online
        file.write_text("not this")
        server.start()
        wait_for(lambda: tracker.online, 60)
        for step in range(40, 60):
            log(step)
    assert history(config, tracker.run_id, "train/loss") == [(s, float(s)) for s in range(60)]
    run = run_of(config, tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["odtrain.note"] == "written while it was away"
    sent = tracker.client.download_artifacts(str(tracker.run_id), "checkpoints/last.txt")
    assert Path(sent).read_text() == "newer"
    assert [line.split("(")[0] for line in said] == [
        f"tracking: {server.uri} cannot be reached ",
        f"tracking: {server.uri} is back and has everything.",
    ]
    assert longest < 0.05


@pytest.mark.slow
def test_a_server_that_hangs_does_not_hold_training_up(server, tracker_of, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    config = section(
        TrackingConfig, uri=server.uri, experiment="hang", system_metrics=False, flush_seconds=0.2
    )
    with tracker_of(config).start("train") as tracker:
        tracker.flush()
        server.freeze()
        try:
            slowest = 0.0
            for step in range(100):
                before = time.monotonic()
                tracker.log({"train/loss": 1.0}, step)
                slowest = max(slowest, time.monotonic() - before)
                time.sleep(0.02)
            wait_for(lambda: not tracker.online, 15)
            before = time.monotonic()
            assert not tracker.flush()
            flushed_in = time.monotonic() - before
        finally:
            server.thaw()
    assert slowest < 0.05
    assert flushed_in < 0.05
    # The frozen server may have taken a batch whose answer never came: nothing may be there twice.
    assert history(config, tracker.run_id, "train/loss") == [(step, 1.0) for step in range(100)]


def test_a_run_killed_while_the_server_was_away_is_sent_and_marked(server, tmp_path, said):
    away = section(TrackingConfig, uri=f"http://127.0.0.1:{free_port()}", experiment="killed")
    child, _ = child_that_waits(away, tmp_path)
    child.kill()
    child.communicate()
    (run_id,) = sync(tmp_path / "outputs", uri=server.uri)
    here = replace(away, uri=server.uri)
    assert run_of(here, run_id).info.status == "KILLED"
    assert history(here, run_id, "train/loss") == [(5, 1.0), (6, 0.5)]


def test_an_offline_run_is_resumed_offline(tracker_of, tmp_path):
    away = section(
        TrackingConfig,
        uri=f"http://127.0.0.1:{free_port()}",
        experiment="off",
        system_metrics=False,
    )
    first = tracker_of(away).start("train")
    first.log_config(compose_config([]))
    first.log({"train/loss": 1.0}, 1)
    first.finish("KILLED")
    found = find_resumable(away, tmp_path / "outputs", [config_digest(compose_config([]))])
    assert found == first.name
    with tracker_of(away).start("train", resume=found) as again:
        assert again.folder == first.folder
        assert again.resumed
        assert again.logged_steps("train/loss") == {1}


def test_syncing_while_the_server_is_away_says_so(tracker_of, said):
    away = section(TrackingConfig, uri=f"http://127.0.0.1:{free_port()}", experiment="off")
    with tracker_of(away).start("train") as tracker:
        pass
    with pytest.raises(TrackingError) as caught:
        sync(tracker.folder)
    assert str(caught.value) == (
        f"{away.uri}: cannot be reached: [Errno 111] Connection refused.\n"
        f"  {tracker.folder} keeps everything; try again later."
    )


def test_syncing_a_folder_without_runs_says_so(tmp_path):
    with pytest.raises(TrackingError) as caught:
        sync(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: holds no run's folder.\n"
        "  Name a folder like outputs or outputs/EXPERIMENT/RUN_ID."
    )


def test_a_server_that_is_not_mlflow_is_an_error_at_the_start(tracker_of, tmp_path):
    port = free_port()
    other = subprocess.Popen(
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: _listens(port), 20)
        with pytest.raises(TrackingError) as caught:
            tracker_of(
                section(TrackingConfig, uri=f"http://127.0.0.1:{port}", experiment="x")
            ).start("train")
    finally:
        other.terminate()
        other.wait()
    assert str(caught.value).startswith(
        f"http://127.0.0.1:{port}: MLflow cannot use it: API request"
    )
    assert str(caught.value).endswith("\n  Check tracking.uri.")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_database_that_cannot_be_written_is_an_error_at_the_start(tracker_of, tmp_path):
    (tmp_path / "file").write_text("")
    config = section(TrackingConfig, uri=f"sqlite:///{tmp_path}/file/mlflow.db", experiment="x")
    with pytest.raises(TrackingError) as caught:
        tracker_of(config).start("train")
    assert str(caught.value) == (
        f"sqlite:///{tmp_path}/file/mlflow.db: MLflow cannot use it: "
        f"[Errno 17] File exists: '{tmp_path}/file'\n"
        "  Check tracking.uri."
    )
