from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from PIL import Image
from support.pictures import draw_picture
from support.stores import Server, free_port, store_at, wait_until_healthy
from support.web_pages import running
from support.words import words

from odtrain.cli.main import main
from odtrain.config.compose import compose_config, section
from odtrain.config.schema import TrackingConfig
from odtrain.errors import TrackingError
from odtrain.io.checksums import SUMS, checksums
from odtrain.promotion.promote import sync_all
from odtrain.registry.download import download, file_of_version, resolve_model, scoring_app
from odtrain.registry.lock import alone_at
from odtrain.registry.register import ModelCandidate, check_name, check_registry, register
from odtrain.registry.versions import (
    SOUND,
    MayNotError,
    find_version,
    history,
    list_models,
    losing_classes,
    refresh_aliases,
    set_champion,
)
from odtrain.tracking.names import key_name
from odtrain.tracking.store import open_client
from odtrain.tracking.tracker import Tracker
from odtrain_runtime.plain import plain
from odtrain_runtime.pyfunc import SERVERS, SERVING

pytestmark = pytest.mark.usefixtures("own_environment")

STRANGER = "zoo/ssd_mobilenet_v1_0.75_depth_quantized_coco.tflite"
"""A model that others trained, on COCO."""


@pytest.fixture(scope="session")
def exports(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `export` leaves it."""
    folder = tmp_path_factory.mktemp("export")
    shutil.copy(shared / STRANGER, folder / "model.tflite")
    shutil.copy(shared / STRANGER, folder / "model_int8.tflite")
    (folder / "saved_model" / "variables").mkdir(parents=True)
    (folder / "saved_model" / "saved_model.pb").write_bytes(b"graph")
    (folder / "saved_model" / "variables" / "variables.index").write_bytes(b"weights")
    (folder / "labels.txt").write_text("".join(f"thing {n}\n" for n in range(1, 91)))
    (folder / "label_map.pbtxt").write_text("item { id: 1 name: 'thing 1' }\n")
    return folder


@pytest.fixture
def candidate(exports: Path) -> ModelCandidate:
    return ModelCandidate(
        name="raccoon",
        architecture="ssd_mobilenet_v1",
        files={
            "saved_model": str(exports / "saved_model"),
            "tflite_fp32": str(exports / "model.tflite"),
            "tflite_int8": str(exports / "model_int8.tflite"),
        },
        metrics={
            "eval/mAP": 0.5,
            "export/saved_model/latency_ms_p50": 30.0,
            "export/tflite_fp32/latency_ms_p50": 20.0,
            "export/tflite_int8/latency_ms_p50": 10.0,
        },
        failed={"tflite_int8": "mAP fell by 0.2"},
        data_digest="d" * 64,
        step=100,
    )


@pytest.fixture
def registered(
    store: TrackingConfig, tmp_path: Path
) -> Callable[[ModelCandidate], tuple[str | None, str | None]]:
    """Register a candidate in a run of its own: (version, run id)."""

    def run(candidate: ModelCandidate) -> tuple[str | None, str | None]:
        with Tracker(store, tmp_path / "outputs").start("train") as tracker:
            tracker.log_params({"train.steps": 100})
            tracker.log_dataset("raccoon-test", "d" * 64, tmp_path, context="test")
            # As after a sweep: the validation split's number first, then that of the test split.
            tracker.log({"eval/mAP": 0.4}, candidate.step)
            tracker.log(candidate.metrics, candidate.step, replace=True)
            tracker.set_tags({"odtrain.eval_split": "test"})
            return register(tracker, candidate), tracker.run_id

    return run


def uri_of(store: TrackingConfig) -> str:
    return str(store.uri)


def test_a_version_carries_its_numbers_and_where_it_comes_from(store, registered, candidate):
    number, run_id = registered(candidate)
    version = find_version("models:/raccoon@challenger", uri_of(store))
    assert (version.name, version.number, version.run_id) == ("raccoon", number, run_id)
    assert version.aliases == ("challenger",)
    expected = {
        "eval/mAP": "0.5",
        "export/tflite_int8/failed": "mAP fell by 0.2",
        "odtrain.architecture": "ssd_mobilenet_v1",
        "odtrain.data_digest": "d" * 64,
        "odtrain.latency_ms_p50": "20",
        "odtrain.run": run_id,
    }
    assert expected.items() <= version.tags.items()


def test_the_model_belongs_to_its_run_and_shows_its_metrics(store, registered, candidate):
    _, run_id = registered(candidate)
    client = open_client(uri_of(store))
    run = client.get_run(str(run_id))
    (output,) = run.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert model.name == "ssd_mobilenet_v1"
    assert model.experiment_id == run.info.experiment_id
    assert model.source_run_id == run_id
    assert str(model.status) == "READY"
    assert model.params["train.steps"] == "100"
    assert {metric.key: metric.value for metric in model.metrics} == candidate.metrics
    assert model.tags["odtrain.served_by"] == "tflite_fp32"


def test_the_table_of_models_names_the_data_and_the_version(store, registered, candidate):
    number, run_id = registered(candidate)
    client = open_client(uri_of(store))
    (output,) = client.get_run(str(run_id)).outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert {(one.dataset_name, one.dataset_digest) for one in model.metrics} == {
        ("raccoon-test", "d" * 36)
    }
    assert json.loads(model.tags["mlflow.modelVersions"]) == [
        {"name": "raccoon", "version": number}
    ]


def test_registering_the_same_files_of_a_run_again_gives_the_same_version(
    store, tmp_path, candidate
):
    with Tracker(store, tmp_path / "outputs").start("train") as tracker:
        assert register(tracker, candidate) == register(tracker, candidate) == "1"
    assert len(list_models(uri_of(store))) == 1


killed_in_each = pytest.mark.parametrize(
    "killed_in", ["Model.log", "_show_numbers", "MlflowClient.create_model_version"]
)


@contextmanager
def killed(where: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is done in the block ends where `register` calls this."""

    def end(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying, pytest.raises(KeyboardInterrupt):
        dying.setattr(f"odtrain.registry.register.{where}", end)
        yield


def check_one_model(store: TrackingConfig, candidate: ModelCandidate) -> None:
    """The store holds one model with its numbers, and one version, which is of it."""
    client = open_client(uri_of(store))
    experiment = client.get_experiment_by_name("tests").experiment_id
    (model,) = client.search_logged_models([experiment])
    assert str(model.status) == "READY"
    assert {metric.key: metric.value for metric in model.metrics} == candidate.metrics
    (version,) = list_models(uri_of(store))
    assert version.source == f"models:/{model.model_id}"


@killed_in_each
def test_registering_that_was_killed_leaves_one_model_when_it_is_done_again(
    store, tmp_path, candidate, killed_in, monkeypatch
):
    with Tracker(store, tmp_path / "outputs").start("train") as tracker:
        tracker.log(candidate.metrics, candidate.step)
        with killed(killed_in, monkeypatch):
            register(tracker, candidate)
        assert register(tracker, candidate) == "1"
    check_one_model(store, candidate)


@killed_in_each
def test_a_sync_that_was_killed_leaves_one_model_when_it_is_done_again(
    store, tmp_path, candidate, killed_in, monkeypatch
):
    nobody = replace(store, uri=f"http://127.0.0.1:{free_port()}")
    with Tracker(nobody, tmp_path / "outputs").start("train") as tracker:
        tracker.log(candidate.metrics, candidate.step)
        assert register(tracker, candidate) is None
    outputs = tmp_path / "outputs"
    with killed(killed_in, monkeypatch):
        sync_all(outputs, str(outputs), store.uri)
    assert sync_all(outputs, str(outputs), store.uri) == "0 runs sent, 1 models registered."
    assert sync_all(outputs, str(outputs), store.uri) == "0 runs sent, 0 models registered."
    check_one_model(store, candidate)


def test_a_model_shows_no_secret_that_its_run_was_begun_with_by_an_older_version(
    store, tmp_path, candidate
):
    with Tracker(store, tmp_path / "outputs").start("train") as tracker:
        tracker.log({"eval/mAP": 0.5}, candidate.step)
        secret = "https://bob:PASSWORD@example.org/zoo?token=TOKEN"
        tracker.client.log_param(tracker.run_id, "zoo.mirrors", secret)
        assert register(tracker, candidate) == "1"
    client = open_client(uri_of(store))
    (output,) = client.get_run(str(tracker.run_id)).outputs.model_outputs
    shown = client.get_logged_model(output.model_id).params
    assert shown["zoo.mirrors"] == "https://bob:***@example.org/zoo?token=***"


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "a@b"])
def test_a_name_that_no_model_can_have_is_refused(name):
    with pytest.raises(TrackingError) as caught:
        check_name(name)
    assert str(caught.value) == (
        f'registry.name="{name}": cannot name a registered model.\n'
        "  Give one without / : @, such as registry.name=raccoon."
    )


@pytest.mark.parametrize("name", [".", "..a", "x" * 251, "a\nb", "a\udc80", "'\""])
def test_a_name_that_mlflow_or_a_database_refuses_is_refused(name):
    with pytest.raises(TrackingError) as caught:
        check_name(name)
    assert str(caught.value) == (
        f'registry.name="{plain(name)}": cannot name a registered model.\n'
        "  Give one of at most 250 letters, dots and quotes aside, such as registry.name=raccoon."
    )


@pytest.mark.parametrize("name", ["it's", 'say "a"', "100%", "▲"])
def test_a_name_that_mlflow_takes_is_found_again(store, registered, candidate, name):
    check_name(name)
    number, _ = registered(replace(candidate, name=name))
    assert find_version(f"models:/{name}@challenger", uri_of(store)).number == number


def test_class_names_that_mlflow_refuses_are_registered_under_keys_of_their_own(
    store, registered, candidate
):
    names = [f"eval/AP/{word}" for word in words()]
    values = {name: place / 1000 for place, name in enumerate(names)}
    number, _ = registered(replace(candidate, metrics={**candidate.metrics, **values}))
    version = find_version("models:/raccoon", uri_of(store))
    assert (number, version.number) == ("1", "1")
    told = {name: version.tags[key_name(name)] for name in names}
    assert told == {name: f"{value:.6g}" for name, value in values.items()}
    shown = MlflowClient(store.uri).get_logged_model(version.source.removeprefix("models:/"))
    assert {key_name(name) for name in names} <= {one.key for one in shown.metrics}


def test_a_registry_that_can_only_be_read_is_told_before_anything_is_trained(
    store, tmp_path, database, monkeypatch
):
    shutil.copy(database, tmp_path / "other.db")
    other = f"sqlite:///file:{tmp_path}/other.db?mode=ro&uri=true"
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", other)
    with pytest.raises(TrackingError) as caught:
        check_registry(open_client(store.uri), store.uri, "raccoon")
    assert str(caught.value) == (
        f"models:/raccoon: the registry {other} takes no version of it: (sqlite3.OperationalError) "
        "attempt to write a readonly database\n"
        "  Have it made writable, give another (tracking.uri=, MLFLOW_REGISTRY_URI), or a name that "
        "is yours: registry.name=NAME."
    )


def test_asking_the_registry_leaves_nothing_in_it(store, registered, candidate):
    client = MlflowClient(store.uri)
    check_registry(client, store.uri, "raccoon")
    assert client.search_registered_models() == []
    registered(candidate)
    check_registry(client, store.uri, "raccoon")
    (model,) = client.search_registered_models()
    assert (model.name, model.tags) == ("raccoon", {})


def test_a_candidate_without_files_is_refused(registered, candidate):
    with pytest.raises(TrackingError) as caught:
        registered(replace(candidate, files={}))
    assert str(caught.value) == (
        "models:/raccoon: no exported file is fit to be registered.\n"
        "  The run's tags odtrain.export.* say what each lacks."
    )


def test_the_fastest_is_the_quickest_version_whose_files_are_sound(store, registered, candidate):
    client = open_client(uri_of(store))
    for milliseconds in (20.0, 25.0, 15.0):
        registered(timed(candidate, milliseconds))
    assert aliases_in(store) == {"3": ("challenger",), "2": (), "1": ()}
    for number, found in {"1": "passed", "2": "passed", "3": "failed"}.items():
        client.set_model_version_tag("raccoon", number, SOUND, found)
    refresh(client)
    assert aliases_in(store) == {"3": ("challenger",), "2": (), "1": ("fastest",)}
    client.set_model_version_tag("raccoon", "1", SOUND, "failed")
    refresh(client)
    assert aliases_in(store) == {"3": ("challenger",), "2": ("fastest",), "1": ()}
    client.set_model_version_tag("raccoon", "2", SOUND, "failed")
    refresh(client)
    assert aliases_in(store) == {"3": ("challenger",), "2": (), "1": ()}


def timed(candidate: ModelCandidate, milliseconds: float) -> ModelCandidate:
    metrics = {**candidate.metrics, "export/tflite_fp32/latency_ms_p50": milliseconds}
    return replace(candidate, metrics=metrics)


def aliases_in(store: TrackingConfig) -> dict[str, tuple[str, ...]]:
    return {version.number: version.aliases for version in list_models(uri_of(store))}


def refresh(client: MlflowClient) -> None:
    with alone_at(client, "raccoon") as lease:
        refresh_aliases(client, "raccoon", lease)


def make_champion(client: MlflowClient, number: str) -> None:
    with alone_at(client, "raccoon") as lease:
        set_champion(client, "raccoon", number, "promoted", lease)


def test_the_history_says_when_a_version_was_champion_and_after_which(store, registered, candidate):
    client = open_client(uri_of(store))
    for milliseconds in (20.0, 25.0):
        registered(timed(candidate, milliseconds))
    for number in ("1", "2", "2"):
        make_champion(client, number)
    second, first = list_models(uri_of(store))
    assert second.aliases == ("challenger", "champion")
    (before,), (now,) = history(first), history(second)
    assert (before["how"], before["before"], now["how"], now["before"]) == (
        "promoted",
        None,
        "promoted",
        "1",
    )
    assert before["until"] == now["since"]
    assert now["until"] is None


def test_a_champion_that_may_not_be_changed_stays_and_no_history_is_written(
    store, registered, candidate, monkeypatch
):
    client = open_client(uri_of(store))
    for milliseconds in (20.0, 25.0):
        registered(timed(candidate, milliseconds))
    make_champion(client, "1")

    def refuse(name: str, alias: str, version: str) -> None:
        raise MlflowException("Permission denied", error_code=PERMISSION_DENIED)

    monkeypatch.setattr(client, "set_registered_model_alias", refuse)
    with pytest.raises(MayNotError) as caught:
        make_champion(client, "2")
    assert str(caught.value) == (
        "models:/raccoon/2: you may not make it @champion.\n"
        "  Who manages the model may: odtrain models promote raccoon 2"
    )
    second, first = list_models(uri_of(store))
    assert (history(second), "champion" in first.aliases) == ([], True)


def test_a_rollback_goes_to_the_champion_before_and_a_second_one_further(
    store, registered, candidate, capsys
):
    client = open_client(uri_of(store))
    for milliseconds in (20.0, 25.0, 30.0):
        registered(timed(candidate, milliseconds))
    for number in ("1", "2", "3"):
        make_champion(client, number)
    arguments = ["models", "rollback", "raccoon", f"tracking.uri={store.uri}"]
    for was, now in (("3", "2"), ("2", "1")):
        assert main(arguments) == 0
        assert capsys.readouterr().out == (
            f"models:/raccoon@champion is version {now} again (it was version {was}).\n"
        )
        assert find_version("models:/raccoon@champion", uri_of(store)).number == now
    assert [row["how"] for row in history(find_version("models:/raccoon/2", uri_of(store)))] == [
        "promoted",
        "rollback",
    ]
    assert main(arguments) == 1
    assert capsys.readouterr().err == (
        "models:/raccoon@champion: version 1 was the first champion, or the one before it is gone.\n"
        "  Promote another: odtrain models promote raccoon VERSION. There are versions 3, 2, 1.\n"
    )


def test_a_model_without_champion_cannot_be_rolled_back(store, registered, candidate, capsys):
    registered(candidate)
    assert main(["models", "rollback", "raccoon", f"tracking.uri={store.uri}"]) == 1
    assert capsys.readouterr().err == (
        "models:/raccoon: has no champion.\n  `odtrain models promote NAME VERSION` makes one.\n"
    )


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        pytest.param(
            "models:/racoon@champion",
            'no model "racoon" is registered in {store}.\n  There are: raccoon.',
            id="name",
        ),
        pytest.param(
            "models:/raccoon@best",
            '"raccoon" has no such version.\n  There are: raccoon/1, '
            "raccoon@challenger (version 1).",
            id="alias",
        ),
        pytest.param(
            "models:/raccoon/7",
            '"raccoon" has no such version.\n  There are: raccoon/1, '
            "raccoon@challenger (version 1).",
            id="version",
        ),
        pytest.param(
            "models:/a/b/c",
            "does not name a model.\n  Write models:/NAME@ALIAS or models:/NAME/VERSION.",
            id="malformed",
        ),
    ],
)
def test_a_model_that_is_not_there_is_an_error_that_lists_what_is(
    store, registered, candidate, uri, message
):
    registered(candidate)
    with pytest.raises(TrackingError) as caught:
        find_version(uri, uri_of(store))
    assert str(caught.value) == f"{uri}: {message.format(store=store.uri)}"


def test_an_empty_registry_says_how_to_fill_it(store):
    with pytest.raises(TrackingError) as caught:
        find_version("raccoon", uri_of(store))
    assert str(caught.value) == (
        f'raccoon: no model "raccoon" is registered in {store.uri}.\n'
        "  None is yet; `odtrain train` registers one."
    )


def test_a_bare_name_means_the_champion_else_the_newest(store, registered, candidate):
    registered(candidate)
    registered(timed(candidate, 30.0))
    assert find_version("raccoon", uri_of(store)).number == "2"
    make_champion(open_client(uri_of(store)), "1")
    assert find_version("raccoon", uri_of(store)).number == "1"
    assert find_version("models:/raccoon/latest", uri_of(store)).number == "2"


def test_a_download_holds_every_file_and_checksums_that_sha256sum_accepts(
    store, registered, candidate, tmp_path
):
    registered(candidate)
    to = tmp_path / "got"
    copied = download("models:/raccoon@challenger", to, uri_of(store))
    assert sorted(path.name for path in copied) == [
        "label_map.pbtxt",
        "labels.txt",
        "model.tflite",
        "model_card.md",
        "model_int8.tflite",
        "saved_model",
    ]
    original = Path(candidate.files["tflite_fp32"]).read_bytes()
    assert (to / "model.tflite").read_bytes() == original
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    checked = subprocess.run(command, cwd=to, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    assert len((to / "SHA256SUMS").read_text().splitlines()) == 7


def test_one_format_comes_with_its_labels_alone(store, registered, candidate, tmp_path):
    registered(candidate)
    download("raccoon", tmp_path / "got", uri_of(store), "tflite_int8")
    assert sorted(path.name for path in (tmp_path / "got").iterdir()) == [
        "SHA256SUMS",
        "label_map.pbtxt",
        "labels.txt",
        "model_card.md",
        "model_int8.tflite",
    ]


def test_a_format_that_was_not_exported_is_an_error(store, registered, candidate, tmp_path):
    registered(candidate)
    with pytest.raises(TrackingError) as caught:
        download("raccoon", tmp_path, uri_of(store), "pb")
    assert str(caught.value) == (
        'raccoon: holds no "pb".\n  It holds: saved_model, tflite_fp32, tflite_int8.'
    )


def refused(of: Callable[[], object], folder: Path, problem: str) -> None:
    with pytest.raises(TrackingError) as caught:
        of()
    assert str(caught.value) == (
        f"models:/raccoon/1: {problem}.\n  Something changed it in {folder} since. Bring it back from a "
        "backup, or register its run again."
    )


def users_of(store: TrackingConfig, to: Path) -> list[Callable[[], object]]:
    """What takes the file that stands for a version: `source=`, a download, and `serve`."""
    version, uri = find_version("raccoon", uri_of(store)), uri_of(store)
    return [
        lambda: file_of_version(version, uri),
        lambda: download("raccoon", to, uri),
        lambda: scoring_app("models:/raccoon/1", uri),
    ]


@pytest.mark.parametrize("hidden", [False, True])
def test_a_file_that_is_not_the_registered_one_is_used_nowhere(
    hidden, store, registered, candidate, tmp_path
):
    registered(replace(candidate, failed={"saved_model": "slow"}))
    folder = resolve_model("raccoon", uri_of(store))
    stored = folder / "model.tflite"
    stored.write_bytes(stored.read_bytes()[:-1] + b"?")
    if hidden:
        files = [path for path in folder.iterdir() if path.name != SUMS]
        (folder / SUMS).write_text(checksums(files))
    for use in users_of(store, tmp_path / "got"):
        changed = f"{SUMS} is not the one that was registered"
        refused(use, folder, changed if hidden else "model.tflite is damaged or missing")
    assert not (tmp_path / "got").exists()


def test_a_damaged_copy_in_the_cache_is_let_go(store, registered, candidate, tmp_path, monkeypatch):
    registered(candidate)
    version = find_version("raccoon", uri_of(store))
    kept = tmp_path / "cache/odtrain/models/m-1"
    shutil.copytree(resolve_model("raccoon", uri_of(store)), kept)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("odtrain.registry.download.resolve_model", lambda uri, store: kept)
    assert file_of_version(version, uri_of(store))[1] == kept / "model.tflite"
    (kept / "model.tflite").unlink()
    with pytest.raises(TrackingError) as caught:
        file_of_version(version, uri_of(store))
    assert str(caught.value) == (
        f"{kept}: model.tflite is damaged or missing.\n  This copy was removed: the same command "
        "downloads it again."
    )
    assert not kept.exists()


def test_the_code_in_the_artifact_store_is_not_what_is_served(
    store, registered, candidate, tmp_path
):
    registered(candidate)
    top = resolve_model("raccoon", uri_of(store)).parent
    spoiled = f"open({str(tmp_path / 'run')!r}, 'w')\n"
    for file in (top / "pyfunc_model.py", top / "code/odtrain_runtime/__init__.py"):
        file.write_text(spoiled + file.read_text())
    scoring_app("models:/raccoon/1", uri_of(store))
    assert not (tmp_path / "run").exists()


def test_models_list_show_and_download_print_what_they_found(
    store, registered, candidate, tmp_path, capsys
):
    _, run_id = registered(candidate)

    def models(*arguments: str) -> str:
        where = [f"tracking.uri={store.uri}", "registry.name=raccoon"]
        assert main(["models", *arguments, *where]) == 0
        return str(capsys.readouterr().out).removesuffix("\n")

    assert models("list").splitlines()[1].split() == [
        "models:/raccoon/1",
        "challenger",
        "ssd_mobilenet_v1",
        "0.5",
        "-",
        "20",
        run_id,
    ]
    shown = models("show")
    assert shown.startswith("models:/raccoon/1\n  eval/mAP: 0.5\n")
    assert "models:/raccoon@challenger" in shown
    to = str(tmp_path / "got")
    printed = models(
        "download", "models:/raccoon@challenger", "--to", to, "--format", "tflite_fp32"
    )
    assert printed == "\n".join(
        f"{to}/{name}"
        for name in ("model.tflite", "labels.txt", "label_map.pbtxt", "model_card.md")
    )


def test_a_run_that_has_its_suppression_in_its_configuration_alone_is_read(
    store, registered, candidate
):
    classes = {"eval/AP/cat": 0.1, "eval/AP/dog": 0.2}
    _, run_id = registered(replace(candidate, metrics={**candidate.metrics, **classes}))
    versions = list_models(uri_of(store))
    assert losing_classes(versions, uri_of(store)) == versions
    open_client(uri_of(store)).log_text(run_id, "export: {nms: builtin}", "config/config.yaml")
    assert losing_classes(versions, uri_of(store)) == []


def test_listing_an_empty_registry_says_so(store, capsys):
    assert main(["models", "list", f"tracking.uri={store.uri}"]) == 0
    said = capsys.readouterr().out
    assert said == "No model is registered yet; `odtrain train` registers one.\n"


# Loading and serving


def test_the_loaded_model_detects(store, registered, candidate, shared):
    registered(candidate)
    picture = (shared / "data" / "raccoon" / "images" / "raccoon-1.jpg").read_bytes()
    mlflow.set_tracking_uri(uri_of(store))
    model = mlflow.pyfunc.load_model("models:/raccoon@challenger")
    table = pd.DataFrame({"image": [picture]})
    (found,) = model.predict(table, params={"score_threshold": 0.3})
    assert found["scores"]
    assert found["class_names"][0] == f"thing {found['classes'][0]}"


FORMS: dict[str, Callable[[Path], object]] = {
    "path": str,
    "paths": lambda file: [str(file), file],
    "bytes": lambda file: file.read_bytes(),
    "PIL picture": Image.open,
    "PIL pictures": lambda file: [Image.open(file), Image.open(file)],
    "array": lambda file: np.asarray(Image.open(file)),
    "arrays": lambda file: [np.asarray(Image.open(file))] * 2,
    "batch": lambda file: np.asarray(Image.open(file))[None],
    "table": lambda file: pd.DataFrame({"image": [file.read_bytes()]}),
}


def test_the_loaded_model_takes_a_picture_however_it_is_at_hand(
    store, registered, candidate, shared, monkeypatch
):
    registered(candidate)
    for name in SERVERS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delenv(SERVING, raising=False)
    picture = shared / "data" / "raccoon" / "images" / "raccoon-1.jpg"
    mlflow.set_tracking_uri(uri_of(store))
    model = mlflow.pyfunc.load_model("models:/raccoon@challenger")
    found = {name: model.predict(given(picture)) for name, given in FORMS.items()}
    (one,) = found["path"]
    assert sorted(one) == ["boxes", "class_names", "classes", "scores"]
    several = {"paths", "PIL pictures", "arrays"}
    assert found == {name: [one] * (2 if name in several else 1) for name in FORMS}


LOAD_ELSEWHERE = """
import sys, warnings
warnings.simplefilter("ignore")
import mlflow.pyfunc
model = mlflow.pyfunc.load_model(sys.argv[1])
picture = open(sys.argv[2], "rb").read()
(found,) = model.unwrap_python_model().predict(None, [picture], {"score_threshold": 0.3})
import odtrain_runtime
print(odtrain_runtime.__file__, "odtrain" in sys.modules)
print(len(found["scores"]) > 0)
"""


@pytest.mark.slow
def test_the_model_brings_the_code_it_needs(store, registered, candidate, shared, tmp_path):
    registered(candidate)
    folder = tmp_path / "elsewhere"
    shutil.copytree(resolve_model("raccoon", uri_of(store)).parent, folder)
    picture = shared / "data" / "raccoon" / "images" / "raccoon-1.jpg"
    environment = {key: text for key, text in os.environ.items() if key != "PYTHONPATH"}
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD_ELSEWHERE, str(folder), str(picture)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert loaded.stdout.splitlines() == [
        f"{folder}/code/odtrain_runtime/__init__.py False",
        "True",
    ], loaded.stderr


@dataclass
class Served:
    url: str
    picture: Path

    def post(self, body: object) -> requests.Response:
        return requests.post(f"{self.url}/invocations", json=body, timeout=30)


@pytest.fixture(scope="module")
def served(
    shared: Path,
    exports: Path,
    database: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    """`mlflow models serve` on the model that has the alias champion."""
    folder = tmp_path_factory.mktemp("serving")
    store = store_at(folder, database)
    with Tracker(store, folder / "outputs").start("train") as tracker:
        files = {"tflite_fp32": str(exports / "model.tflite")}
        register(tracker, ModelCandidate("raccoon", "ssd", files, {}, {}, "d", 0))
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["-m", "models:/raccoon@challenger", "--port", str(port), "--workers", "1"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # finds uvicorn there
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, "MLFLOW_TRACKING_URI": str(store.uri), "PATH": path},
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}/ping", process)
        picture = shared / "data" / "raccoon" / "images" / "raccoon-1.jpg"
        yield Served(f"http://127.0.0.1:{port}", picture)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


NO_PATHS = "its text is not base64, and a server opens no paths."
BODIES: dict[str, Callable[[str], object]] = {
    "dataframe_records": lambda text: {"dataframe_records": [{"image": text}]},
    "dataframe_split": lambda text: {"dataframe_split": {"columns": ["image"], "data": [[text]]}},
    "inputs": lambda text: {"inputs": {"image": [text]}},
    "instances": lambda text: {"instances": [{"image": text}]},
    "inputs, text alone": lambda text: {"inputs": text},
    "inputs, a list": lambda text: {"inputs": [text]},
}


@pytest.mark.slow
@pytest.mark.parametrize("form", BODIES)
def test_a_served_model_takes_base64_in_every_form_of_request(served, form):
    body = BODIES[form](base64.b64encode(served.picture.read_bytes()).decode())
    answer = served.post({**body, "params": {"score_threshold": 0.3}})
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["predictions"]
    assert len(found["boxes"]) == len(found["scores"]) > 0
    assert len(found["boxes"][0]) == 4
    assert found["class_names"][0] == f"thing {found['classes'][0]}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(
            {"dataframe_records": [{"image": "bm8gcGljdHVyZQ=="}]},
            "its bytes are no picture of a format that is read.",
            id="no picture",
        ),
        pytest.param({"dataframe_records": [{"img": "bm8="}]}, "image", id="no such column"),
        pytest.param({"inputs": {"image": ["/etc/passwd"]}}, NO_PATHS, id="path"),
        pytest.param({"instances": [{"image": "../mlflow.db"}]}, NO_PATHS, id="relative path"),
        pytest.param({"inputs": "/etc/passwd"}, NO_PATHS, id="path alone"),
        pytest.param({"dataframe_records": [{"image": "%%%"}]}, NO_PATHS, id="no base64"),
    ],
)
def test_a_served_model_refuses_what_is_no_picture(served, body, reason):
    answer = served.post(body)
    assert answer.status_code == 400, answer.text
    assert reason in answer.json()["message"]


@pytest.mark.slow
@pytest.mark.parametrize("form", BODIES)
def test_a_served_model_opens_no_path_of_a_client(served, form):
    """The path names a picture that is really there."""
    answer = served.post(BODIES[form](str(served.picture)))
    assert answer.status_code == 400
    assert NO_PATHS in answer.json()["message"]


def test_a_registered_model_is_scored_within_the_bounds_of_its_app(
    store, registered, candidate, tmp_path
):
    registered(candidate)
    app = scoring_app("models:/raccoon/1", uri_of(store), max_pixels=1000, max_pictures=2)

    def said(side: int, count: int) -> tuple[int, str]:
        encoded = base64.b64encode(draw_picture(tmp_path / "p.png", (side, side), []).read_bytes())
        form = {"inputs": {"image": [encoded.decode()] * count}}
        answer = requests.post(f"http://127.0.0.1:{port}/invocations", json=form, timeout=60)
        return answer.status_code, answer.text

    with running(app) as port:
        assert said(31, 2)[0] == 200
        for (side, count), refusal in (
            ((32, 1), "picture 0 cannot be read: it has more than 0 million pixels."),
            ((9, 3), "3 pictures are more than 2."),
        ):
            status, text = said(side, count)
            assert status == 400
            assert refusal in text


# The server out of reach


@pytest.mark.slow
def test_a_model_is_registered_later_when_the_server_was_away(
    candidate, database, tmp_path, shared
):
    away = section(
        TrackingConfig,
        uri=f"http://127.0.0.1:{free_port()}",
        experiment="away",
        system_metrics=False,
    )
    with Tracker(away, tmp_path / "outputs").start("train") as tracker:
        tracker.log(candidate.metrics, candidate.step)
        assert register(tracker, candidate) is None
    folder = tmp_path / "server"
    store_at(folder, database)
    server = Server(folder)
    server.start()
    try:
        done = sync_all(tmp_path / "outputs", compose_config([]).outputs, server.uri)
        assert done == "1 runs sent, 1 models registered."
        version = find_version("models:/raccoon@challenger", server.uri)
        assert version.tags["eval/mAP"] == "0.5"
        # From another machine the files come through the server.
        copied = download("models:/raccoon@challenger", tmp_path / "got", server.uri, "tflite_fp32")
        assert copied[0].read_bytes() == Path(candidate.files["tflite_fp32"]).read_bytes()
        assert (
            sync_all(tmp_path / "outputs", compose_config([]).outputs, server.uri)
            == "0 runs sent, 0 models registered."
        )
    finally:
        server.stop()
