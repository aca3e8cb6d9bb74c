"""How MLflow's pages open, by what is kept in the experiment and by their addresses."""

import json

import pytest
from support.stores import store_at

from odtrain.tracking.store import experiment_id, open_client, pages
from odtrain.tracking.views import KIND, RUNS, SHARED, share, view


@pytest.fixture
def uri(tmp_path, database):
    return str(store_at(tmp_path, database).uri)


@pytest.fixture
def client(uri):
    return open_client(uri)


def tags(client, name="Default"):
    return client.get_experiment_by_name(name).tags


@pytest.mark.parametrize("name", ["Default", "new"])
def test_an_experiment_is_one_of_training_runs(client, uri, name):
    experiment_id(client, uri, name)
    assert tags(client, name)[KIND] == "custom_model_development"


@pytest.mark.parametrize(
    ("chosen", "after"),
    [
        ("genai_development", "genai_development"),
        ("finetuning", "finetuning"),
        ("no_inferred_type", "custom_model_development"),
    ],
)
def test_a_kind_that_somebody_has_chosen_stays(client, uri, chosen, after):
    client.set_experiment_tag("0", KIND, chosen)
    experiment_id(client, uri, "Default")
    assert tags(client)[KIND] == after


def test_a_store_that_takes_no_tags_of_experiments_takes_runs(client, uri, monkeypatch):
    from mlflow.exceptions import MlflowException

    def refuse(*_):
        raise MlflowException("not yours", 403)

    monkeypatch.setattr(client, "set_experiment_tag", refuse)
    assert experiment_id(client, uri, "Default") == "0"
    assert share(client, client.get_experiment("0"), view({"val/a.jpg": 0})) is None


def test_the_table_has_the_numbers_that_people_compare(client, uri):
    experiment_id(client, uri, "Default")
    kept = json.loads(tags(client)[f"{SHARED}{RUNS}"])
    assert kept["selectedColumns"] == [
        "metrics.`eval/mAP`",
        "metrics.`eval/mAP_50`",
        "metrics.`export/tflite_int8/latency_ms_p50`",
        "metrics.`export/tflite_int8/size_mb`",
    ]


def test_pictures_stand_above_the_charts():
    kept = json.loads(view({"val/a.jpg": 30, "val/b.jpg": 20}))
    assert [one["name"] for one in kept["compareRunSections"]] == [
        "Detections",
        "Training",
        "Results",
    ]
    first, second, third, *_ = kept["compareRunCharts"]
    assert (first["type"], first["imageKeys"], first["step"]) == ("IMAGE", ["val/a.jpg"], 30)
    assert (second["imageKeys"], second["step"]) == (["val/b.jpg"], 20)
    assert third["metricKey"] == "train/loss"


def test_a_view_has_one_name_for_the_same_content(client):
    experiment = client.get_experiment("0")
    named = [share(client, experiment, view(below=run)) for run in ("a", "b", "a")]
    assert named[0] == named[2] != named[1]
    assert share(client, experiment, view({"x" * 6000: 0})) is None


def test_the_addresses_of_a_sweep_and_a_version():
    shown = pages("http://host:5000", "3", "odtrain-1")
    assert shown.run("ab", "artifacts/front.html") == (
        "http://host:5000/#/experiments/3/runs/ab/artifacts/front.html?workflowType=machine_learning"
    )
    assert shown.version("my model", "2") == (
        "http://host:5000/#/models/my%20model/versions/2?workflowType=machine_learning"
    )
    assert shown.table == (
        "http://host:5000/#/experiments/3/runs?workflowType=machine_learning&compareRunsMode=TABLE"
        "&viewStateShareKey=odtrain-1"
    )
