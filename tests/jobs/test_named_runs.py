"""A run that is named otherwise than by its id, wherever one is taken: by one training."""

from __future__ import annotations

import pytest
from support.commands import TrainedRun

from odtrain.config.compose import compose_config
from odtrain.errors import ConfigError, TrackingError
from odtrain.jobs.resume import resumed
from odtrain.model_source import open_source, run_meant, with_named_weights

pytestmark = pytest.mark.slow
NAME = "shapes panels_ssd_mobilenet_v1 64x64 depth 0.1 steps 14 batch 2"


@pytest.fixture(autouse=True)
def there(trained: TrainedRun, monkeypatch):
    monkeypatch.chdir(trained.folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(params=["letters", "latest", "runs:/latest", NAME])
def named(request, trained: TrainedRun):
    return trained.run.name[:7] if request.param == "letters" else request.param


def test_as_a_source(named, trained):
    source = open_source(named, compose_config([]))
    assert (source.name, source.run_id) == (named, trained.run.name)


def test_as_the_run_of_a_file(trained):
    source = open_source("runs:/latest/export/model.tflite", compose_config([]))
    assert source.file == trained.run.relative_to(trained.folder) / "export/model.tflite"


def test_as_first_weights(named, trained):
    config = compose_config([f"train.checkpoint={named}"])
    assert with_named_weights(config).train.checkpoint == trained.run.name


def test_a_version_is_the_run_that_it_comes_from(trained):
    for uri in ("models:/shapes/1", "models:/shapes@champion"):
        assert run_meant(uri, compose_config([]).runs) == trained.run.name


def test_a_run_to_go_on_with(named, trained):
    if "latest" in named:
        with pytest.raises(TrackingError, match="there is none in sqlite:"):
            resumed(compose_config([f"train.resume={named}"]), [])
    else:
        assert resumed(compose_config([f"train.resume={named}"]), [])[1] == trained.run.name


def test_a_source_that_is_nothing_names_the_runs_that_come_near(trained):
    with pytest.raises(ConfigError) as caught:
        open_source("shapes panels_ssd_mobilenet_v1", compose_config([]))
    *_, before, last = str(caught.value).splitlines()
    assert before.endswith(
        "a .tflite, an .onnx, an OpenVINO .xml or a TF1 checkpoint. Runs that may be meant:"
    )
    assert (last[:10], last[-len(NAME) :]) == (f"  {trained.run.name[:8]}", NAME)
