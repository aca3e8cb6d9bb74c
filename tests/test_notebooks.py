"""The notebooks, run from top to bottom as people run them, on small models."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from support.commands import TINY_RUN, TrainedRun

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
SHIPPED = sorted(file.name for file in NOTEBOOKS.glob("*.ipynb"))


def run(name: str, folder: Path, **parameters: Any) -> Any:
    """The notebook after it was run in `folder`, with other values in its cell of parameters."""
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    (cell,) = [each for each in notebook.cells if "parameters" in each.metadata.get("tags", ())]
    cell.source += "".join(f"\n{key} = {value!r}" for key, value in parameters.items())
    shutil.copytree(NOTEBOOKS, folder / "notebooks")
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": folder}}).execute()
    return notebook


def outputs(notebook: Any, kind: str) -> list[Any]:
    return [
        output.data[kind]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if kind in output.get("data", {})
    ]


def printed(notebook: Any) -> str:
    streams = [
        output.text
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type == "stream" and output.name == "stdout"
    ]
    return "".join(streams)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_notebooks_were_run_to_their_end(name):
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [o for cell in cells for o in cell.outputs if o.output_type == "error"]


@pytest.mark.slow
def test_the_prediction_notebook_draws_pictures(trained: TrainedRun, shapes, tmp_path):
    model = trained.run / "export" / "model.tflite"
    done = run(
        "predict.ipynb", tmp_path, FOLDER=".", SOURCE=str(model), PICTURES=str(shapes), SHOWN=2
    )
    assert "('circle', 'square')" in printed(done)
    assert len(outputs(done, "image/png")) == 2


@pytest.mark.slow
def test_the_webcam_notebook_shows_a_video_in_place_of_a_camera(
    trained: TrainedRun, shapes, tmp_path
):
    from support.videos import make_video

    video = make_video(tmp_path / "clip.mp4", 8, size=(96, 80))
    model = trained.run / "export" / "model.tflite"
    done = run("webcam.ipynb", tmp_path, FOLDER=".", SOURCE=str(model), CAMERA=str(video))
    assert printed(done).startswith("8 frames, ")
    assert len(outputs(done, "image/png")) == 1


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """`!odtrain` is this one."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


FORMATS = "export.formats=[tflite_fp32,tflite_int8]"
TINY = [*TINY_RUN[1:], FORMATS]


@pytest.mark.long
def test_the_quickstart_trains_measures_and_shows(shapes, tmp_path):
    settings = [*TINY, f"data.images={shapes}", "data.name=shapes"]
    done = run("quickstart.ipynb", tmp_path, SETTINGS=settings, SHOWN=2)
    assert printed(done).endswith("models:/shapes/1 is @champion.\n")
    assert "mAP_lo" in outputs(done, "text/plain")[0]
    assert "model_int8.tflite" in outputs(done, "text/plain")[1]
    assert len(outputs(done, "image/png")) == 1


@pytest.mark.long
def test_own_data_are_checked_trained_on_and_shown(commands, tmp_path):
    done = run("own_data.ipynb", tmp_path, SETTINGS=TINY, SHOWN=2)
    assert "OD008" in outputs(done, "text/plain")[0]
    assert "OD113 panels/first/img3.xml: flor" in printed(done)
    assert "models:/lift/1 is @champion." in printed(done)
    assert len(outputs(done, "image/png")) == 2


@pytest.mark.long
def test_two_versions_are_compared_on_the_same_pictures(commands, tmp_path):
    done = run("compare_and_promote.ipynb", tmp_path, FIRST=TINY, SECOND=TINY)
    assert "models:/lift/1 is @champion." in printed(done)
    (compared,) = outputs(done, "text/markdown")
    assert "on 11 pictures" in compared
    assert "models:/lift/2" in compared
    assert len(outputs(done, "image/png")) == 1


@pytest.mark.long
def test_a_sweep_ends_with_a_front_and_a_model(commands, shapes, tmp_path):
    settings = [
        *TINY_RUN,
        f"data.images={shapes}",
        "sweep.n_trials=2",
        "data.validation_fraction=0.2",
    ]
    done = run("sweep.ipynb", tmp_path, SETTINGS=settings, SHOWN=2)
    front, picked = outputs(done, "text/markdown")
    assert front.startswith("2 trainings, ")
    assert "registered as models:/shapes" in picked
    assert len(outputs(done, "image/png")) == 2


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_notebook_is_small_enough_to_open(name):
    assert (NOTEBOOKS / name).stat().st_size < 600_000
