"""What is named as a model and is none is told for what it is, and what would do instead."""

from __future__ import annotations

import zipfile

import pytest
from support.pictures import draw_picture

from odtrain.config.compose import compose_config
from odtrain.errors import ConfigError
from odtrain.model_files.strangers import KERAS, NEEDED, PYTORCH
from odtrain.model_source import open_source

AS_INPUT = "Give it as input=FILE, and the model as source=MODEL."


def refused(source):
    with pytest.raises(ConfigError) as caught:
        open_source(str(source), compose_config([]))
    return str(caught.value)


def archive(file, *names):
    with zipfile.ZipFile(file, "w") as opened:
        for name in names:
            opened.writestr(name, "x")


def made(folder, name):
    """A file or folder of this name, as other programs write it."""
    file = folder / name
    if name in ("best.pt", "renamed.bin"):
        archive(file, "best/data.pkl", "best/version")
    elif name == "model.keras":
        archive(file, "config.json", "model.weights.h5")
    elif name == "models.zip":
        archive(file, "a.tflite")
    elif name.endswith("img.jpg"):
        draw_picture(file, (64, 48), [])
    elif name in ("h5 by its bytes", "model.h5"):
        file.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 40)
    elif name == "nothing.tflite.part":
        file.write_bytes(b"")
    elif name == "empty":
        file.mkdir()
    elif name == "pictures":
        draw_picture(file / "img.jpg", (64, 48), [])
    else:
        file.write_bytes(b"something else")
    return file


@pytest.mark.parametrize(
    ("name", "what", "remedy"),
    [
        ("best.pt", "a PyTorch model", PYTORCH),
        ("renamed.bin", "a PyTorch model", PYTORCH),
        ("model.h5", "a Keras model", KERAS),
        ("h5 by its bytes", "a Keras model", KERAS),
        ("model.keras", "a Keras model", KERAS),
        ("img.jpg", "a picture", AS_INPUT),
        ("clip.mp4", "a video", AS_INPUT),
        ("models.zip", "an archive", "Unpack it and name the model in it as source=MODEL."),
        ("nothing.tflite.part", "an empty file", f"{NEEDED}."),
        ("empty", "an empty folder", f"{NEEDED}, or a run's id."),
        ("pictures", "a folder without a model", f"{NEEDED}, or a run's id."),
        ("data.yaml", "data or settings, no model", f"{NEEDED}."),
    ],
)
def test_a_source_that_is_no_model_is_told_for_what_it_is(tmp_path, name, what, remedy):
    file = made(tmp_path, name)
    assert refused(file) == f"source={file}: is {what}.\n  {remedy}"


def test_a_folder_of_models_names_them(tmp_path):
    for name in ("a.tflite", "b.pb"):
        (tmp_path / name).write_bytes(b"x")
    assert refused(tmp_path) == (
        f"source={tmp_path}: is a folder of models.\n"
        f"  Name one of them: source={tmp_path}/b.pb or source={tmp_path}/a.tflite"
    )


def test_the_folder_of_a_run_names_the_run(tmp_path):
    for name in ("export", "checkpoints"):
        (tmp_path / "0123" / name).mkdir(parents=True)
    folder = tmp_path / "0123"
    assert (
        refused(folder) == f"source={folder}: is the folder of a run.\n  Name the run: source=0123"
    )


def test_a_relative_path_that_is_not_there_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = refused("nowhere.tflite").splitlines()[0]
    assert first == (
        f"source=nowhere.tflite: is neither a run nor a file that is there, taken from {tmp_path}."
    )
    first = refused(tmp_path / "nowhere.tflite").splitlines()[0]
    assert first.endswith("is neither a run nor a file that is there.")
