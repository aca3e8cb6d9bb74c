import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from support.commands import TINY_RUN, TrainedRun

from odtrain.cli.main import main
from odtrain.config.compose import as_dict, compose_config, flattened, from_yaml
from odtrain.dataset.read import read_dataset
from odtrain.errors import ConfigError
from odtrain.evaluation.evaluate import quick_map
from odtrain.jobs import fitting
from odtrain.jobs.context import Split
from odtrain.jobs.picked import drop_exports
from odtrain.jobs.resume import resumed as going_on
from odtrain.model_source import open_source
from odtrain.registry.register import resolve_model
from odtrain.reports.data_preview import FILES
from odtrain.tracking.tracker import Tracker, as_text
from odtrain_runtime.model_files import load_detector

pytestmark = pytest.mark.slow

COCO = {"mAP", "mAP_50", "mAP_75", "AR_1", "AR_10", "AR_100"}
LOSSES = {"loss", "localization_loss", "classification_loss", "regularization_loss"}
OF_AN_EXPORT = {
    "mAP",
    "mAP_50",
    "latency_ms_p50",
    "latency_ms_p90",
    "size_mb",
    "peak_memory_mb",
    "max_box_diff",
    "max_score_diff",
}
FORMATS = {
    "pb": "frozen_inference_graph.pb",
    "tflite_fp32": "model.tflite",
    "tflite_int8": "model_int8.tflite",
}


@pytest.fixture(scope="module")
def client(trained: TrainedRun):
    return MlflowClient(trained.uri)


@pytest.fixture(scope="module")
def run(trained, client):
    return client.get_run(trained.run.name)


@pytest.fixture
def again(trained, tmp_path, monkeypatch):
    """A copy of the training's folder, to go on working in."""
    shutil.copytree(trained.folder, tmp_path / "again")
    monkeypatch.chdir(tmp_path / "again")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return MlflowClient(f"sqlite:///{tmp_path}/again/mlflow.db")


@pytest.fixture
def new(database, shapes, tmp_path, monkeypatch):
    """An empty folder with a database, where commands are run."""
    shutil.copy(database, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")


def only_run(client):
    (found,) = client.search_runs([one.experiment_id for one in client.search_experiments()])
    return found


def artifacts(client, run_id, folder=""):
    for item in client.list_artifacts(run_id, folder):
        if item.is_dir:
            yield from artifacts(client, run_id, item.path)
        else:
            yield item.path


# ---- what one command leaves


def test_the_run_is_finished_and_named_by_data_model_and_size(run):
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "shapes panels_ssd_mobilenet_v1 64x64"


def test_it_ends_with_the_numbers_and_where_to_look_next(trained):
    said = trained.done.stdout
    assert said.startswith("Registered models:/shapes/1 is @champion.\n\nmAP ")
    for line in (
        "| model_int8.tflite | ",
        f"mlflow ui --backend-store-uri {trained.uri} --port 5000",
        "http://127.0.0.1:5000/#/experiments/1/runs?",
        "odtrain predict source=models:/shapes@champion input=PICTURES output=drawn",
        "odtrain models download models:/shapes@champion --to DIR",
        "the best of many       odtrain sweep",
    ):
        assert line in said


def test_it_says_that_random_weights_are_a_choice(trained):
    said = (
        "panels_ssd_mobilenet_v1 starts from random weights; model=ssd_mobilenet_v1_coco starts from "
        "COCO.\n"
    )
    assert said in trained.done.stderr


def test_every_setting_of_a_training_is_a_parameter(trained, run):
    composed = flattened(as_dict(compose_config(trained.overrides)))
    expected = {k: as_text(v) for k, v in composed.items() if not k.startswith("sweep.")}
    assert {key: run.data.params.get(key) for key in expected} == expected
    assert not [key for key in run.data.params if key.startswith("sweep.")]


def test_the_logged_configuration_reads_back_as_it_was(trained):
    written = (trained.run / "config/config.yaml").read_text()
    assert from_yaml(written) == compose_config(trained.overrides)


def test_metrics_have_the_names_that_people_sort_by(run):
    names = set(run.data.metrics)
    optional = {"eval/mAP_small", "eval/mAP_medium", "eval/mAP_large"}
    optional |= {"eval/AR_small", "eval/AR_medium", "eval/AR_large"}
    assert names - optional == (
        {f"train/{name}" for name in LOSSES | {"learning_rate", "images_per_second"}}
        | {f"val/{name}" for name in ("mAP", "mAP_50", "mAP_75", "AR_100")}
        | {f"eval/{name}" for name in COCO | {"mAP_lo", "mAP_hi", "AP/circle", "AP/square"}}
        | {f"export/{name}/{metric}" for name in FORMATS for metric in OF_AN_EXPORT}
    )


def test_tags_tell_version_stage_data_and_what_became_of_each_export(trained, run):
    dataset = read_dataset(trained.folder / "datasets/shapes")
    assert run.data.tags["odtrain.stage"] == "train"
    assert run.data.tags["odtrain.data_digest"] == dataset.digest
    assert run.data.tags["odtrain.eval_split"] == "test"
    assert run.data.tags["odtrain.export.pb"] == "passed"
    assert run.data.tags["odtrain.export.tflite_fp32"] == "passed"
    assert run.data.tags["odtrain.export.tflite_int8"].endswith(
        " mAP; export.max_map_drop allows -1"
    )


def test_the_description_says_how_to_do_it_again(trained, run):
    note = run.data.tags["mlflow.note.content"]
    assert note.startswith("`odtrain train data.images=")
    assert "'export.formats=[pb,tflite_fp32,tflite_int8]'" in note
    assert "panels_ssd_mobilenet_v1, 14 steps of 2 in " in note


def test_the_data_of_every_split_is_an_input(trained, run):
    digest = read_dataset(trained.folder / "datasets/shapes").digest
    inputs = {
        one.tags[0].value: (one.dataset.name, one.dataset.digest)
        for one in run.inputs.dataset_inputs
    }
    assert inputs == {
        split: (f"shapes-{split}", digest[:36]) for split in ("train", "validation", "test")
    }


def test_pictures_of_detections_begin_with_the_first_weights(client, run):
    shown = [path for path in artifacts(client, run.info.run_id) if path.startswith("images/val~")]
    validated = client.get_metric_history(run.info.run_id, "val/mAP")
    assert {re.search(r"\+step\+(\d+)\+", path)[1] for path in shown} == {
        "0",
        *(str(metric.step) for metric in validated),
    }


def test_artifacts_are_where_the_design_says(client, run):
    logged = set(artifacts(client, run.info.run_id))
    best = run.data.params and next(
        path for path in logged if path.startswith("checkpoints/best/") and path.endswith(".index")
    ).removesuffix(".index")
    checkpoints = {"checkpoints/best/checkpoint", "checkpoints/last/checkpoint"}
    for prefix in (best, "checkpoints/last/ckpt-12", "checkpoints/last/ckpt-14"):
        checkpoints |= {f"{prefix}.index", f"{prefix}.data-00000-of-00001"}
    pictures = {
        path for path in logged if path.startswith(("eval/drawn/", "eval/worst/", "eval/best/"))
    }
    shown = {path for path in logged if path.startswith("images/val~")}
    assert logged - pictures - shown == checkpoints | {
        "config/config.yaml",
        "config/overrides.yaml",
        "data/dataset.json",
        "data/findings.html",
        "data/findings.json",
        "data/label_map.pbtxt",
        "data/train_labels.csv",
        "data/validation_labels.csv",
        "data/test_labels.csv",
        *(f"data/pictures/{name}" for name in FILES),
        "eval/metrics.json",
        "eval/per_class.csv",
        "eval/pr_curves.png",
        "eval/confusion_matrix.png",
        "eval/worst.csv",
        "eval/detections/labels.npz",
        "eval/detections/evaluated.npz",
        "eval/detections/pb.npz",
        "eval/detections/tflite_fp32.npz",
        "eval/detections/tflite_int8.npz",
        "export/frozen_inference_graph.pb",
        "export/model.tflite",
        "export/model_int8.tflite",
        "export/label_map.pbtxt",
        "export/labels.txt",
        "registry/shapes-1-gate.json",
        "registry/shapes-1-gate.md",
    }
    assert sum(path.startswith("eval/drawn/") for path in pictures) == 2
    assert sum("+step+14+" in path for path in shown) == 2  # a picture and its thumbnail


def test_the_numbers_are_those_of_the_files(trained, run):
    test = Split.read(read_dataset(trained.folder / "datasets/shapes"), "test")
    for name in ("tflite_fp32", "tflite_int8"):
        file = trained.run / "export" / FORMATS[name]
        found = list(map(load_detector(file), test.images))
        scores = quick_map(test.truths, found, ("circle", "square"))
        assert run.data.metrics[f"export/{name}/mAP_50"] == pytest.approx(
            scores["mAP_50"], abs=1e-9
        )
        assert run.data.metrics[f"export/{name}/size_mb"] * 1e6 == pytest.approx(
            file.stat().st_size
        )


def test_a_file_that_failed_is_kept_in_the_run_and_not_registered(trained, client):
    version = client.get_model_version_by_alias("shapes", "champion")
    assert (int(version.version), version.run_id) == (1, trained.run.name)
    files = {path.name for path in resolve_model("models:/shapes@champion", trained.uri).iterdir()}
    assert files >= {"frozen_inference_graph.pb", "model.tflite", "labels.txt"}
    assert "model_int8.tflite" not in files
    assert version.tags["export/tflite_int8/failed"].endswith("export.max_map_drop allows -1")


def test_the_version_is_champion_challenger_and_fastest(client):
    aliases = client.get_registered_model("shapes").aliases
    assert {alias: int(number) for alias, number in aliases.items()} == {
        "champion": 1,
        "challenger": 1,
        "fastest": 1,
    }


def test_data_that_did_not_change_is_not_prepared_again(again, trained):
    records = sorted(Path("datasets/shapes").glob("*.record*"))
    before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in records]
    assert main(["prepare", *trained.overrides]) == 0
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in records] == before


# ---- going on with a run


def resumed(trained, *overrides):
    given = (f"train.resume={trained.run.name}", *overrides)
    return going_on(compose_config(given), given)


def test_a_resumed_run_keeps_its_configuration(again, trained):
    config, run_id = resumed(trained)
    assert run_id == trained.run.name
    begun = compose_config(trained.overrides)
    assert replace(config, tracking=begun.tracking) == begun


@pytest.mark.parametrize(
    "override",
    ["train.steps=14", "train.max_minutes=3", "predict.threshold=0.3", "tracking.flush_seconds=1"],
)
def test_what_does_not_change_the_result_may_be_given_with_resume(again, trained, override):
    assert resumed(trained, override)[1] == trained.run.name


def test_a_resumed_run_gets_the_time_that_is_given_now(again, trained):
    assert resumed(trained, "train.max_minutes=3")[0].train.max_minutes == 3


@pytest.mark.parametrize(
    ("override", "asked", "kept"),
    [
        ("train.steps=20", "train.steps=20", "train.steps=14"),
        ("train.steps=700", "train.steps=700", "train.steps=14"),
        ("augment=none", "augment.flip=False", "augment.flip=True"),
        ("model.input_size=[64,96]", "model.input_size=[64, 96]", "model.input_size=64"),
    ],
)
def test_a_changed_setting_is_refused_with_resume(again, trained, override, asked, kept):
    with pytest.raises(ConfigError) as caught:
        resumed(trained, override)
    assert str(caught.value) == (
        f"{asked}: run {trained.run.name} was begun with {kept} and goes on with it.\n"
        "  Leave the override out, or begin a new run without train.resume."
    )


def test_auto_finds_nothing_where_every_run_is_finished(again, trained, capsys):
    given = (*trained.overrides, "train.resume=auto")
    assert going_on(compose_config(given), given)[1] is None
    assert capsys.readouterr().err == (
        "No unfinished run of this configuration: a new one begins.\n"
    )


# ---- signals


class Asked:
    def __init__(self):
        self.reasons = []

    def ask_to_stop(self, reason):
        self.reasons.append(reason)


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")]
)
def test_a_signal_asks_training_to_stop(number, reason, capsys):
    fit, before = Asked(), signal.getsignal(number)
    with fitting._stop_on_signals(fit):
        os.kill(os.getpid(), number)
    assert fit.reasons == [reason]
    assert signal.getsignal(number) == before
    assert capsys.readouterr().err == (
        "\nStopping behind a checkpoint; Ctrl-C again stops at once.\n"
    )


def test_a_second_ctrl_c_stops_at_once():
    with pytest.raises(KeyboardInterrupt), fitting._stop_on_signals(Asked()):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_a_terminated_training_leaves_a_killed_run_with_a_checkpoint(
    new, shapes, monkeypatch, capsys
):
    score = fitting.quick_map

    def terminated(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
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


# ---- the other commands


def test_evaluating_a_run_replaces_its_numbers_and_leaves_it_as_it_is(again, trained, capsys):
    again.set_terminated(trained.run.name, "KILLED")
    before = again.get_run(trained.run.name).data.metrics["eval/AR_100"]
    for file in Path("outputs/odtrain", trained.run.name, "eval").glob("*.json"):
        file.unlink()
    assert main(["evaluate", f"source={trained.run.name}", "evaluate.bootstrap=5"]) == 0
    run = only_run(again)
    assert run.info.status == "KILLED"
    assert run.data.tags["odtrain.stage"] == "train"
    assert len(again.get_metric_history(trained.run.name, "eval/mAP")) == 2
    assert run.data.metrics["eval/AR_100"] == pytest.approx(before)
    report = Path("outputs/odtrain", trained.run.name, "eval")
    assert capsys.readouterr().out.endswith(f"\nReport: {report}\n")
    assert (report / "metrics.json").is_file()


def test_evaluating_a_file_makes_a_run_of_its_own(again, trained):
    model = trained.run / "export/model.tflite"
    assert main(["evaluate", f"source={model}", *trained.overrides]) == 0
    runs = again.search_runs(["1"], "tags.`odtrain.stage` = 'evaluate'")
    expected = again.get_run(trained.run.name).data.metrics["export/tflite_fp32/mAP_50"]
    assert [run.info.status for run in runs] == ["FINISHED"]
    assert runs[0].data.metrics["eval/mAP_50"] == pytest.approx(expected, abs=1e-9)


def test_a_source_with_other_classes_is_refused(again, trained, capsys):
    model = trained.run / "export/model.tflite"
    names = enumerate(("circle", "square", "triangle"), start=1)
    items = "".join(f"item {{ id: {number} name: '{name}' }}\n" for number, name in names)
    Path("three.pbtxt").write_text(items)
    given = [*trained.overrides, "data.label_map=three.pbtxt", "data.prepared=three"]
    assert main(["evaluate", f"source={model}", *given]) == 1
    assert capsys.readouterr().err.endswith(
        f"{model}: knows the classes circle, square; shapes has circle, square, triangle.\n"
        "  Evaluate it on data with its own classes: data.images=..., data.label_map=...\n"
    )


def test_exporting_again_replaces_files_and_numbers_together(again, trained, capsys):
    again.set_terminated(trained.run.name, "KILLED")
    arguments = ["export.formats=[tflite_fp32]", "export.nms=fast", "benchmark.runs=2"]
    assert main(["export", f"source={trained.run.name}", *arguments]) == 0
    run, file = only_run(again), trained.run.relative_to(trained.folder) / "export/model.tflite"
    assert run.info.status == "KILLED"
    assert file.read_bytes() != (trained.folder / file).read_bytes()
    latencies = again.get_metric_history(trained.run.name, "export/tflite_fp32/latency_ms_p50")
    assert [point.step for point in latencies] == [14, 14]
    assert run.data.metrics["export/tflite_fp32/latency_ms_p50"] == latencies[1].value
    assert "| model.tflite | " in capsys.readouterr().out


def test_exporting_to_a_folder_leaves_the_run_alone(again, trained):
    before = again.get_run(trained.run.name)
    arguments = ["export.formats=[tflite_fp16]", "benchmark.runs=2", "output=files"]
    assert main(["export", f"source={trained.run.name}", *arguments]) == 0
    assert Path("files/model_fp16.tflite").is_file()
    assert again.get_run(trained.run.name).to_dictionary() == before.to_dictionary()


def test_the_registered_model_can_be_a_source(again, trained, capsys):
    config = compose_config(["source=models:/shapes@champion"])
    source = open_source(config.source, config)
    assert source.class_names == ("circle", "square")
    assert source.file is not None
    assert source.file.name == "model.tflite"


def test_a_file_of_a_run_can_be_a_source(again, trained):
    config = compose_config([f"source=runs:/{trained.run.name}/export/model_int8.tflite"])
    assert open_source(config.source, config).class_names == ("circle", "square")


def test_files_that_are_dropped_are_gone_here_and_in_the_store_and_the_run_says_so(new):
    config = compose_config(["tracking.system_metrics=false"])
    with Tracker(config.tracking, Path(config.outputs)).start("train") as tracker:
        export = tracker.folder / "export"
        for name in ("saved_model/saved_model.pb", "model.tflite", "model_int8.tflite"):
            (export / name).parent.mkdir(parents=True, exist_ok=True)
            (export / name).write_text(name)
        tracker.log_folder(export, "export")
    run_id = str(tracker.run_id)
    files = {"saved_model": "export/saved_model", "tflite_fp32": "export/model.tflite"}
    drop_exports(config.runs, run_id, files)
    assert [file.name for file in export.iterdir()] == ["model_int8.tflite"]
    assert [file.path for file in new.list_artifacts(run_id, "export")] == [
        "export/model_int8.tflite"
    ]
    run = new.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert {run.data.tags[f"odtrain.export.{name}"] for name in files} == {
        "dropped: not on the front of its sweep"
    }
