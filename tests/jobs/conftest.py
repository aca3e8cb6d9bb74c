"""A trained folder to go on working in, and an empty one."""

import shutil

import pytest
from mlflow import MlflowClient


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
