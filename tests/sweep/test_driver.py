"""The driver of sweeps: with trainings that are made up, and once with real ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient
from support.commands import TINY_RUN, odtrain
from support.made_up_training import chosen, made_up
from support.metrics_page import untold

from odtrain.config.compose import compose_config, from_yaml
from odtrain.errors import CheckpointError, ConfigError
from odtrain.sweep import driver
from odtrain.sweep import pick as sweep_pick
from odtrain.sweep import results as sweep_results
from odtrain.sweep import study as sweep_study

SPACE = """
train.learning_rate: {low: 0.001, high: 0.01, log: true}
model.input_size: {choices: [64, 96]}
"""


@pytest.fixture
def settings(shapes, database, tmp_path, monkeypatch, own_environment):
    """Overrides of a sweep of two keys, in a folder of its own with an empty store."""
    (tmp_path / "conf/sweep/space").mkdir(parents=True)
    (tmp_path / "conf/sweep/space/two.yaml").write_text(SPACE)
    shutil.copy(database, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    return [
        f"data.images={shapes}",
        "data.name=shapes",
        "tracking.system_metrics=false",
        "sweep/space=two",
        "sweep.baselines=[]",
        "sweep.n_trials=4",
    ]


def composed(settings, *more):
    return compose_config([*settings, *more], "conf")


@pytest.fixture
def requests():
    """What was asked of the trainings, in order."""
    return []


@pytest.fixture
def trainings(monkeypatch, requests):
    """Points that were trained, in order; nothing is trained, and fp32 is what is fastest."""
    done = []
    monkeypatch.setattr(driver, "decided", lambda corners: "fp32")

    def train(job, request, heard):
        requests.append(request)
        done.append(point_of(request))
        return made_up(done[-1])

    monkeypatch.setattr(driver, "train_in_process", train)
    return done


def point_of(request):
    values = chosen(request.overrides)
    return {
        "model.input_size": int(values["model.input_size"]),
        "train.learning_rate": float(values["train.learning_rate"]),
    }


def study_of(config):
    return optuna.load_study(study_name=config.sweep.name, storage="sqlite:///optuna.db")


def test_the_same_command_goes_on_with_the_study_in_the_same_run(settings, trainings):
    driver.sweep(composed(settings), settings)
    driver.sweep(composed(settings, "sweep.n_trials=6"), settings)
    assert len(trainings) == 6
    client = MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")
    experiments = [one.experiment_id for one in client.search_experiments()]
    (run,) = client.search_runs(experiments)
    assert run.info.status == "FINISHED"
    assert run.data.tags["odtrain.stage"] == "sweep"
    assert run.info.run_name == "sweep shapes of shapes panels_ssd_mobilenet_v1"
    names = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert {"front.json", "front.html", "front.png", "space.json", "config"} <= names


def test_the_closing_words_have_commands_for_this_study(settings, trainings):
    given = [*settings, "sweep.name=mine", "sweep.n_trials=1"]
    said = driver.sweep(composed(given), given)
    same = "data.name=shapes sweep.name=mine"
    assert said.splitlines()[-3:] == [
        f"  the best under 5 ms    odtrain sweep pick {same} --max-latency-ms 5",
        f"  the same, registered   odtrain sweep pick {same} --max-latency-ms 5 --register",
        f"  measured once more     odtrain sweep verify {same}",
    ]


def test_the_front_is_logged_and_picked_from(settings, trainings):
    config = composed(settings)
    driver.sweep(config, settings)
    best = sweep_results.points(study_of(config))
    assert {round(point.metrics["latency_ms_p50"], 3) for point in best} == {6.4, 3.2, 9.6, 4.8}
    large = [one for one in trainings if one["model.input_size"] == 96]
    score = max(made_up(one).files["tflite_int8"]["mAP"] for one in large)
    lines = sweep_pick.pick(config, 5.0, None, None, False).splitlines()
    assert f"| tflite_int8 | {score:.3f} | 0.960 | 4.80 ms | 1.00 MB |" in lines[2]
    assert lines[3] == f"its mAP lies between {score - 0.05:.3f} and {score + 0.05:.3f} (95 %)"
    assert lines[4].startswith("next quicker: tflite_int8 of trial")
    assert "-1.60 ms" in lines[4]
    assert lines[5].startswith("next slower: tflite_fp32 of trial")
    assert lines[5].endswith("+4.80 ms, +0.050 mAP, +0.00 MB")
    assert lines[-1].startswith("file: runs:/")


def test_nothing_within_the_limits_is_told_with_the_front(settings, trainings):
    config = composed(settings)
    driver.sweep(config, settings)
    with pytest.raises(ConfigError) as error:
        sweep_pick.pick(config, 0.1, None, None, False)
    lines = str(error.value).splitlines()
    assert lines[0] == "sweep pick: no file on the front is within these limits:"
    assert lines[-1] == "  Allow more, or sweep further: sweep.n_trials."


def test_baselines_come_first(settings, trainings):
    baseline = "sweep.baselines=[{model.input_size: 96, train.learning_rate: 0.005}]"
    driver.sweep(composed(settings, baseline), settings)
    assert trainings[0] == {"train.learning_rate": 0.005, "model.input_size": 96}


def test_files_off_the_front_are_dropped_when_all_trainings_are_done(
    settings, trainings, monkeypatch
):
    dropped = {}
    monkeypatch.setattr(
        driver, "drop_exports", lambda _, run_id, files: dropped.update({run_id: files})
    )
    config = composed(settings, "sweep.keep=front")
    driver.sweep(config, settings)
    study = study_of(config)
    kept = {(point.run_id, point.format) for point in sweep_results.front(study)}
    files = {(point.run_id, point.format): point.file for point in sweep_results.points(study)}
    assert kept
    assert {(run, name): file for run, own in dropped.items() for name, file in own.items()} == {
        key: file for key, file in files.items() if key not in kept
    }
    assert len(kept) < len(files)


def test_a_study_is_not_gone_on_with_in_other_directions(settings, trainings):
    driver.sweep(composed(settings, "sweep.n_trials=1"), settings)
    changed = composed(settings, "sweep.directions.latency_ms_p50=maximize")
    with pytest.raises(ConfigError) as error:
        driver.sweep(changed, settings)
    assert str(error.value) == (
        "sweep.name=shapes: is a study that compares mAP: maximize, latency_ms_p50: minimize.\n"
        "  Give another sweep.name, or the directions it was begun with."
    )


@pytest.mark.parametrize("trials", [0, 2])
def test_a_study_that_odtrain_did_not_begin_is_refused_and_stays_as_it_is(
    settings, trainings, monkeypatch, trials
):
    monkeypatch.setattr(sweep_study, "LONGEST_UNMARKED", 0.3)
    theirs = optuna.create_study(
        storage="sqlite:///optuna.db", study_name="shapes", direction="minimize"
    )
    theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=trials)
    config = composed(settings)
    for command in (
        lambda: driver.sweep(config, settings),
        lambda: sweep_pick.pick(config, None, None, None, False),
    ):
        with pytest.raises(ConfigError) as caught:
            command()
        assert str(caught.value) == (
            "sweep.name=shapes: is a study that odtrain did not begin (one number: minimized).\n"
            "  Give another sweep.name, or another sweep.storage."
        )
    now = optuna.load_study(storage="sqlite:///optuna.db", study_name="shapes")
    assert (now.user_attrs, len(now.trials)) == ({}, trials)


def precisions(requests):
    return [compose_config(request.overrides, "conf").train.precision for request in requests]


def test_all_trainings_of_a_study_have_the_precision_that_was_decided_when_it_was_begun(
    settings, trainings, requests, monkeypatch, said
):
    driver.sweep(composed(settings, "sweep.n_trials=2"), settings)
    monkeypatch.setattr(driver, "decided", lambda corners: "bf16")
    driver.sweep(composed(settings, "sweep.n_trials=3"), settings)
    assert precisions(requests) == ["fp32"] * 3
    assert said.count("All trainings of the study compute in fp32, as those before.") == 1
    (config,) = Path("outputs").rglob("config/config.yaml")
    assert from_yaml(config.read_text()).train.precision == "fp32"


def test_another_precision_than_that_of_the_study_is_refused(settings, trainings):
    driver.sweep(composed(settings, "sweep.n_trials=1"), settings)
    other = [*settings, "train.precision=bf16"]
    with pytest.raises(ConfigError) as error:
        driver.sweep(composed(other, "sweep.n_trials=2"), other)
    assert str(error.value) == (
        "train.precision=bf16: the study shapes was begun with train.precision=fp32.\n"
        "  Leave the override out, or give another sweep.name."
    )
    assert len(trainings) == 1


@pytest.mark.parametrize(
    ("settings_before", "kept"), [(["train.precision=bf16"], "bf16"), ([], "fp32")]
)
def test_a_study_from_before_precision_was_decided_goes_on_in_its_own(
    settings, trainings, requests, settings_before, kept
):
    before = [*settings_before, *settings]
    driver.sweep(composed(before, "sweep.n_trials=1"), before)
    study = study_of(composed(settings))
    compared = [one for one in study.user_attrs["settings"] if one not in settings_before]
    study.set_user_attr("settings", [*settings_before, *compared])
    study.set_user_attr("precision", None)
    driver.sweep(composed(settings, "sweep.n_trials=2"), settings)
    assert precisions(requests) == [kept] * 2


def test_a_study_is_not_gone_on_with_under_other_settings_or_choices(settings, trainings):
    driver.sweep(composed(settings, "sweep.n_trials=1"), [*settings, "train.steps=7"])
    with pytest.raises(ConfigError) as error:
        driver.sweep(composed(settings, "sweep.n_trials=2"), [*settings, "train.steps=8"])
    assert str(error.value) == (
        "sweep.name=shapes: is a study that was begun with train.steps=7.\n"
        "  Give another sweep.name, or the settings it was begun with."
    )
    changed = composed(settings, "sweep.space={model.input_size: {choices: [64, 128]}}")
    with pytest.raises(ConfigError) as error:
        driver.sweep(changed, [*settings, "train.steps=7"])
    assert str(error.value) == (
        "sweep.space: model.input_size: the study shapes was begun with the choices 64, 96.\n"
        "  Give another sweep.name, or go on with what it was begun with."
    )


def test_a_metric_that_no_file_has_is_refused_before_anything_is_trained(settings, trainings):
    with pytest.raises(ConfigError) as error:
        driver.sweep(composed(settings, "+sweep.directions.beauty=maximize"), settings)
    assert str(error.value) == (
        "sweep.directions: beauty: maximize: no such metric or direction.\n"
        "  Metrics: mAP, mAP_50, latency_ms_p50, latency_ms_p90, size_mb, peak_memory_mb; "
        "each maximize or minimize."
    )
    assert trainings == []


def test_data_without_validation_pictures_is_refused(settings, trainings):
    done = odtrain(
        ["sweep", *settings, "data.validation_fraction=0", "--config-dir", "conf"],
        Path.cwd(),
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-2:] == [
        "shapes: has no validation pictures, and a sweep is judged on them.",
        "  Give data.validation_fraction=0.1, or data.validation_list.",
    ]


@pytest.mark.parametrize(
    ("model", "checkpoint", "message"),
    [
        (
            "ssd_mobilenet_v1_0.25_depth_192",
            "zoo",
            "train.checkpoint=zoo: ssd_mobilenet_v1_0.25_depth_192 has no published weights.\n"
            "  Give train.checkpoint=PATH, or null to start from random weights.",
        ),
        (
            "ssd_mobilenet_v1_coco",
            "weights.tar.gz",
            "weights.tar.gz: no such tarball, folder or checkpoint.\n"
            "  Looked for HERE/weights.tar.gz and HERE/weights.tar.gz.index. Give a .tar.gz, a folder or a "
            "model.ckpt prefix.",
        ),
    ],
)
def test_a_model_without_the_weights_it_begins_with_is_refused_before_anything_is_trained(
    settings, trainings, model, checkpoint, message
):
    space = f"model: {{choices: [{model}]}}\n"
    Path("conf/sweep/space/two.yaml").write_text(space)
    overrides = [*settings, f"train.checkpoint={checkpoint}"]
    with pytest.raises(CheckpointError) as error:
        driver.sweep(compose_config(overrides, "conf"), overrides, "conf")
    assert str(error.value) == message.replace("HERE", str(Path.cwd()))
    assert (trainings, Path("optuna.db").exists()) == ([], False)


def test_a_depth_that_the_weights_do_not_have_is_refused_before_anything_is_trained(
    settings, trainings, shared
):
    weights = shared / "zoo/ssd_mobilenet_v1_0.75_depth_coco_dequantized.tar.gz"
    space = "model.depth_multiplier: {choices: [0.75, 0.5]}\n"
    Path("conf/sweep/space/two.yaml").write_text(space)
    overrides = [*settings, "model=ssd_mobilenet_v1_0.75_depth_coco", f"train.checkpoint={weights}"]
    with pytest.raises(CheckpointError) as error:
        driver.sweep(compose_config(overrides, "conf"), overrides, "conf")
    assert "it looks like ssd_mobilenet_v1 of depth 0.75" in str(error.value)
    assert (trainings, Path("optuna.db").exists()) == ([], False)


@pytest.mark.slow
def test_a_sweep_trains_below_its_run_and_its_pick_is_registered(settings):
    own = [text for text in TINY_RUN if not text.startswith(("train.steps", "evaluate.every"))]
    more = ["sweep.n_trials=1", "train.steps=4", "evaluate.every=2", "sweep.overrides=[]"]
    arguments = [*settings, *own, *more, "--config-dir", "conf"]
    done = odtrain(["sweep", *arguments], Path.cwd())
    assert done.returncode == 0, done.stderr
    assert "1 trainings, 0 of them stopped early; " in done.stdout
    client = MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    by_stage = {run.data.tags["odtrain.stage"]: run for run in runs}
    child, parent = by_stage["train"], by_stage["sweep"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert untold([*parent.data.metrics, *child.data.metrics]) == []
    assert child.data.tags["odtrain.eval_split"] == "validation"
    assert {child.info.status, parent.info.status} == {"FINISHED"}
    local = client.download_artifacts(parent.info.run_id, "front.json")
    rows = json.loads(Path(local).read_text())
    assert {row["run_id"] for row in rows} == {child.info.run_id}
    assert {row["format"] for row in rows} <= {"tflite_fp32", "tflite_int8"}
    for row in rows:
        measured = child.data.metrics[f"export/{row['format']}/latency_ms_p50"]
        assert row["latency_ms_p50"] == measured
    picked = odtrain(["sweep", "pick", "--register", *arguments], Path.cwd())
    assert picked.returncode == 0, picked.stderr
    (version,) = client.search_model_versions("name='shapes'")
    assert version.run_id == child.info.run_id
    assert "registered as models:/shapes@" in picked.stdout
    assert client.get_run(child.info.run_id).data.tags["odtrain.eval_split"] == "test"
    described = client.get_run(child.info.run_id).data.tags["mlflow.note.content"].split("\n\n")
    assert "on the validation split" in described[1]
    assert described[4].startswith("Picked from a sweep and measured again, as `models:/shapes@")
    assert described[4].endswith("** on the test split.")
    assert len(described) == 6
