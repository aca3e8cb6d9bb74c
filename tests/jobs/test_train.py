import re
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from support.commands import TINY_RUN, TrainedRun
from support.metrics_page import untold
from support.stores import artifacts, logged_settings

from odtrain.cli.main import main
from odtrain.config.compose import as_dict, compose_config, flattened, from_yaml
from odtrain.config.schema import replaced
from odtrain.dataset.read import read_dataset
from odtrain.errors import ConfigError
from odtrain.evaluation.evaluate import quick_map
from odtrain.jobs.context import Split
from odtrain.jobs.resume import resumed as going_on
from odtrain.models.build import build_detector
from odtrain.registry.download import resolve_model
from odtrain.reports.data_preview import FILES
from odtrain.tracking.names import as_text
from odtrain.tracking.tracker import Tracker
from odtrain.training.bound import gflop_of_training
from odtrain_runtime.model_files import load_detector

PAGES = "http://127.0.0.1:5000/#"


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
    "raw_box_diff",
    "raw_score_diff",
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


# ---- what one command leaves


def test_the_run_is_finished_and_named_by_data_model_and_size(run):
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "shapes panels_ssd_mobilenet_v1 64x64 depth 0.1 steps 14 batch 2"


def test_it_ends_with_the_numbers_and_where_to_look_next(trained):
    said = trained.done.stdout
    assert said.startswith("Registered models:/shapes/1 is @champion.\n")
    first, second = said.splitlines()[1:4:2]
    assert re.fullmatch(
        r"frozen_inference_graph\.pb finds (none|\d) of 6 objects in the 4 test pictures, at scores "
        r"from 0\.5.*\.|model\.tflite finds .*",
        first,
    )
    assert second.startswith("mAP ")
    for line in (
        "| model_int8.tflite | ",
        f"mlflow ui --backend-store-uri {trained.uri} --port 5000",
        f"  this run               {trained.run.name}\n",
        f"  {PAGES}/experiments/0/runs/{trained.run.name}?workflowType=machine_learning\n",
        f"  loss, mAP, detections  {PAGES}/experiments/0/runs?workflowType=machine_learning"
        "&compareRunsMode=CHART&viewStateShareKey=odtrain-",
        f"  the runs in a table    {PAGES}/experiments/0/runs?workflowType=machine_learning"
        "&compareRunsMode=TABLE&viewStateShareKey=odtrain-",
        f"  the version            {PAGES}/models/shapes/versions/1?workflowType=machine_learning\n",
        "odtrain predict source=models:/shapes@champion input=PICTURES output=drawn",
        "odtrain models download models:/shapes@champion --to DIR",
        "the best of many       odtrain sweep",
    ):
        assert line in said


def test_it_says_and_logs_where_the_time_went(trained, run):
    stages = ("prepare", "train", "evaluate", "export", "register")
    seconds = [run.data.metrics[f"seconds/{stage}"] for stage in stages]
    assert all(each > 0 for each in seconds)
    parts = ", ".join(
        f"{stage} {each:.0f} s" if each < 100 else rf"{stage} \d+ min"
        for stage, each in zip(stages, seconds, strict=True)
    )
    assert re.search(rf"^It took \d+ (s|min): {parts}\.$", trained.done.stdout, re.MULTILINE)


def test_the_page_of_the_run_has_the_same_sentence(trained, run):
    sentence = trained.done.stdout.splitlines()[1]
    assert run.data.tags["mlflow.note.content"].split("\n\n")[1].endswith(f"`). {sentence}")


def test_without_a_terminal_every_line_is_plain(trained):
    said = trained.done.stderr
    assert ("\r" in said, "\x1b" in said, "cuInit" in said) == (False, False, False)
    assert re.search(r"^export: 3 of 3 files in \d+ s$", said, re.MULTILINE)


def test_reasons_to_doubt_are_said_at_the_end_and_on_the_page_of_the_run(trained, run):
    said = re.findall(r"^Look here: (.*)$", trained.done.stdout, re.MULTILINE)
    assert said[0].startswith("mAP 0.000 on the validation pictures is next to nothing")
    paragraphs = run.data.tags["mlflow.note.content"].split("\n\n")
    assert [each for each in paragraphs if each.startswith("**Look here")] == [
        f"**Look here:** {each}" for each in said
    ]


def test_it_begins_with_its_id_and_where_it_is_to_be_seen(trained):
    page = f"{PAGES}/experiments/0/runs/{trained.run.name}?workflowType=machine_learning"
    assert f"\nRun {trained.run.name}: {page}\n" in trained.done.stderr


def test_it_says_that_random_weights_are_a_choice(trained):
    said = (
        "panels_ssd_mobilenet_v1 starts from random weights; model=ssd_mobilenet_v1_coco starts from "
        "COCO.\n"
    )
    assert said in trained.done.stderr


def test_every_setting_of_a_training_is_in_its_configuration(trained, client, run):
    composed = flattened(as_dict(compose_config(trained.overrides)))
    expected = {k: as_text(v) for k, v in composed.items() if not k.startswith("sweep.")}
    settings = logged_settings(client, run.info.run_id)
    assert {key: settings.get(key) for key in expected} == expected
    assert not [key for key in run.data.params if key.startswith("sweep.")]


def test_its_parameters_are_what_people_ask_for_and_what_differs(trained, run):
    assert run.data.params == {
        "model.name": "panels_ssd_mobilenet_v1",
        "model.input_size": "64",
        "model.depth_multiplier": "0.1",
        "train.steps": "14",
        "train.batch_size": "2",
        "train.learning_rate": "0.005",
        "train.seed": "0",
        "train.precision": "fp32",
        "train.log_every": "1",
        "train.checkpoint_every": "3",
        "train.trace_batches": "true",
        "data.name": "shapes",
        "data.images": trained.overrides[0].partition("=")[2],
        "data_digest": run.data.tags["odtrain.data_digest"][:12],
        "evaluate.every": "5",
        "evaluate.bootstrap": "20",
        "evaluate.drawn": "2",
        "export.formats": "[pb,tflite_fp32,tflite_int8]",
        "export.max_map_drop": "-1.0",
        "detector": "tflite_fp32",
    }
    assert (
        " minutes. 4 more settings differ from conf/: `config/config.yaml` has them.\n\n"
        in re.sub(
            r" minutes, weights of step \d+\.", " minutes.", run.data.tags["mlflow.note.content"]
        )
    )


def test_the_logged_configuration_reads_back_as_it_was(trained):
    written = (trained.run / "config/config.yaml").read_text()
    assert from_yaml(written) == compose_config(trained.overrides)


def test_metrics_have_the_names_that_people_sort_by(run):
    names = set(run.data.metrics)
    optional = {"eval/mAP_small", "eval/mAP_medium", "eval/mAP_large"}
    optional |= {"eval/AR_small", "eval/AR_medium", "eval/AR_large"}
    assert names - optional == (
        {
            f"train/{name}"
            for name in LOSSES | {"learning_rate", "images_per_second", "share_of_bound", "mAP"}
        }
        | {f"val/{name}" for name in ("mAP", "mAP_50", "mAP_75", "AR_100")}
        | {f"eval/{name}" for name in COCO | {"mAP_lo", "mAP_hi", "AP/circle", "AP/square"}}
        | {f"export/{name}/{metric}" for name in FORMATS for metric in OF_AN_EXPORT}
        | {f"seconds/{stage}" for stage in ("prepare", "train", "evaluate", "export", "register")}
    )


def test_every_metric_of_a_training_is_on_the_page_of_metrics(run):
    assert untold(run.data.metrics) == []


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


def test_the_log_of_the_run_has_what_was_said_before_it_began(trained):
    begin = "INFO odtrain.jobs.train: panels_ssd_mobilenet_v1 starts from random weights; "
    assert begin in (trained.run / "run.log").read_text(encoding="utf-8")


def test_a_run_says_what_it_computed_with_and_how_near_it_came_to_the_bound(trained, run):
    tags = {
        key: run.data.tags[f"odtrain.{key}"] for key in ("processor", "instructions", "threads")
    }
    assert run.data.tags["odtrain.precision"] == "fp32"
    assert run.data.tags["odtrain.onednn"] in ("on", "off")
    (line,) = re.findall(r"Computing in .*", trained.done.stderr)
    product = float(run.data.tags["odtrain.fp32_gflops"])
    bound = run.data.metrics["train/images_per_second"] / run.data.metrics["train/share_of_bound"]
    assert line == (
        f"Computing in fp32 on {tags['processor']}, {tags['instructions']}, oneDNN "
        f"{run.data.tags['odtrain.onednn']}, {tags['threads']} threads. The product of two fp32 matrices "
        f"reaches {product:.0f} GFLOP/s, which bounds this training at {bound:.1f} images/s."
    )
    network = build_detector(compose_config(trained.overrides).model, 2).network
    assert bound == pytest.approx(product / gflop_of_training(network), rel=0.01)


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
    folders = tuple(f"eval/{name}/" for name in ("drawn", "worst", "best", "pictures"))
    pictures = {path for path in logged if path.startswith(folders)}
    shown = {path for path in logged if path.startswith("images/val~")}
    shown |= {
        path for path in logged if path.startswith("export/int8/")
    }  # why int8 lost, if it did
    assert logged - pictures - shown == checkpoints | {
        "config/config.yaml",
        "config/overrides.yaml",
        "data/dataset.json",
        "data/findings.html",
        "data/findings.json",
        "data/label_map.pbtxt",
        *(f"data/{split}_labels.csv" for split in ("train", "validation", "test")),
        *(f"data/{split}_list.txt" for split in ("train", "validation", "test")),
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
        "run.log",
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


# ---- what is refused before the first step


@pytest.fixture
def untrained(monkeypatch):
    """Nothing may be trained."""
    monkeypatch.setattr("odtrain.jobs.train.train_detector", lambda _: pytest.fail("it trains"))


def test_a_registry_that_takes_nothing_is_told_before_the_first_step(
    new, shapes, untrained, database, monkeypatch, capsys
):
    read_only = f"sqlite:///file:{database}?mode=ro&uri=true"
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", read_only)
    assert main(["train", f"data.images={shapes}", *TINY_RUN]) == 1
    assert capsys.readouterr().err.endswith(
        f"models:/shapes: the registry {read_only} takes no version of it: (sqlite3.OperationalError) "
        "attempt to write a readonly database\n"
        "  Have it made writable, give another (tracking.uri=, MLFLOW_REGISTRY_URI), or a name that is "
        "yours: registry.name=NAME.\n"
    )


@pytest.mark.parametrize("deleted", ["run", "experiment"])
def test_what_was_deleted_is_not_trained_on(again, trained, untrained, deleted, capsys):
    run = again.get_run(trained.run.name).info
    number = run.run_id if deleted == "run" else run.experiment_id
    (again.delete_run if deleted == "run" else again.delete_experiment)(number)
    assert main(["train", f"train.resume={run.run_id}"]) == 1
    place = {"run": f"run {number}", "experiment": "experiment Default"}[deleted]
    said = capsys.readouterr().err
    assert f"{place}: it has been deleted" in said
    assert f"  Restore it (mlflow {deleted}s restore --{deleted}-id {number}), or " in said


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


def test_a_resumed_run_keeps_its_precision_where_this_processor_would_decide_anew(again, trained):
    config, _ = resumed(trained, "train.precision=auto")
    assert config.train.precision == "fp32"
    assert resumed(trained)[0].train.precision == "fp32"


@pytest.mark.parametrize("begun_in", ["fp32", "bf16"])
def test_auto_goes_on_with_a_run_whose_precision_was_decided(new, begun_in):
    given = ["data.name=mine"]
    config = replaced(compose_config(given), {"train.precision": begun_in})
    tracker = Tracker(config.tracking, Path(config.outputs)).start("train", "mine")
    tracker.log_config(config, given)
    tracker.finish("KILLED")
    config, found = going_on(compose_config([*given, "train.resume=auto"]), given)
    assert (found, config.train.precision) == (tracker.run_id, begun_in)


@pytest.mark.parametrize(
    ("override", "asked", "kept"),
    [
        ("train.precision=bf16", "train.precision=bf16", "train.precision=fp32"),
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
