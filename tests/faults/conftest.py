"""A training that things happen to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.faults import SETTINGS, Training


@pytest.fixture
def training(shapes: Path, database: Path, tmp_path: Path) -> Training:
    """Of tiny pictures, with a database of its own in its folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copy(database, folder / "mlflow.db")
    return Training(folder, f"sqlite:///{folder}/mlflow.db", [f"data.images={shapes}", *SETTINGS])


@pytest.fixture(scope="module")
def trained_once(
    shapes: Path, database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Training:
    """A folder in which a model was trained and registered."""
    folder = tmp_path_factory.mktemp("trained_once")
    shutil.copy(database, folder / "mlflow.db")
    settings = [f"data.images={shapes}", *SETTINGS]
    training = Training(folder, f"sqlite:///{folder}/mlflow.db", settings)
    done = training.begin().wait()
    assert done.rc == 0, done.said
    return training
