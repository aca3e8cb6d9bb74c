"""`odtrain_runtime.load(...).predict(...)`: what it takes, and what it gives."""

from __future__ import annotations

import hashlib
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.tiny_models import model

import odtrain_runtime
from odtrain.registry.model_card import CARD, write_card
from odtrain_runtime.errors import ModelFileError
from odtrain_runtime.pictures import UnusableError
from odtrain_runtime.predictor import Detector, pixels_of, served_file
from odtrain_runtime.structures import Detections

__all__ = ["model"]

PIXELS = np.random.default_rng(7).integers(0, 256, (8, 12, 3), np.uint8)


def png(pixels=PIXELS, **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", **options)
    return stream.getvalue()


def test_a_detector_has_class_names_and_finds(model):
    detector = odtrain_runtime.load(str(model))
    (found,) = detector.predict(PIXELS)
    assert detector.class_names == ("circle", "square")
    assert found.scores.tolist() == pytest.approx([0.9, 0.6])
    assert found.classes.tolist() == [1, 2]


FORMS = {
    "array": lambda file: PIXELS,
    "bytes": lambda file: png(),
    "Pillow picture": lambda file: Image.fromarray(PIXELS),
    "path": lambda file: file,
    "path as text": str,
}


@pytest.fixture
def file(tmp_path):
    (tmp_path / "picture.png").write_bytes(png())
    return tmp_path / "picture.png"


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_picture_gives_its_pixels(form, file):
    assert np.array_equal(pixels_of(FORMS[form](file)), PIXELS)


def test_files_and_pillow_pictures_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # show it turned a quarter to the right
    lying = png(np.rot90(PIXELS), exif=exif)
    assert np.array_equal(pixels_of(lying), PIXELS)
    assert np.array_equal(pixels_of(Image.open(io.BytesIO(lying))), PIXELS)


def seen(pictures):
    """The shapes of what the detector is given."""
    shapes = []

    def detect(image):
        shapes.append(image.shape)
        return Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))

    return len(Detector(detect).predict(pictures)), shapes


def test_one_picture_gives_a_list_of_one_and_several_one_each(file):
    assert seen(file) == (1, [PIXELS.shape])
    assert seen(iter([file, png(), PIXELS])) == (3, [PIXELS.shape] * 3)
    assert seen(np.stack([PIXELS, PIXELS])) == (2, [PIXELS.shape] * 2)
    assert seen([]) == (0, [])


@pytest.mark.parametrize(
    ("array", "shown"),
    [
        (np.zeros((4, 4), np.uint8), "uint8 (4, 4)"),
        (np.zeros((4, 4, 4), np.uint8), "uint8 (4, 4, 4)"),
        (np.zeros((0, 4, 3), np.uint8), "uint8 (0, 4, 3)"),
        (np.zeros((4, 4, 3), np.float32), "float32 (4, 4, 3)"),
    ],
)
def test_an_array_that_is_no_picture_is_refused(array, shown):
    with pytest.raises(UnusableError) as caught:
        pixels_of(array)
    assert str(caught.value) == (
        f"picture: is an array of {shown}.\n  Give (height, width, 3) RGB values, uint8."
    )


@pytest.mark.parametrize(("given", "kind"), [(None, "NoneType"), ([7], "int")])
def test_what_is_no_picture_at_all_is_refused(given, kind):
    with pytest.raises(UnusableError) as caught:
        seen(given)
    assert str(caught.value) == (
        f"picture: is a {kind}.\n  Give a path, a file's bytes, a Pillow picture, or (height, width, 3) "
        "RGB values, uint8."
    )


def test_a_damaged_file_is_named_with_what_to_do(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(UnusableError) as caught:
        pixels_of(tmp_path / "broken.png")
    assert str(caught.value) == (
        f"{tmp_path}/broken.png: is not a picture, or its beginning is damaged.\n"
        "  Give an undamaged copy of the picture."
    )


# ---- folders as `odtrain models download` leaves them


def card(served, files=("tflite_fp32", "tflite_int8")):
    about = ("raccoon", "ssd", "4f2a", files, {}, ["circle", "square"], "shapes", "d", 8)
    return write_card(*about, served)


@pytest.fixture
def folder(model, tmp_path):
    place = tmp_path / "files"
    place.mkdir()
    for name in ("model.tflite", "model_int8.tflite"):
        shutil.copy(model, place / name)
    (place / "labels.txt").write_text("round\nangular\n")
    return place


@pytest.mark.parametrize(
    ("served", "file"), [("tflite_fp32", "model.tflite"), ("tflite_int8", "model_int8.tflite")]
)
def test_of_a_folder_the_file_that_stands_for_the_version_is_taken(folder, served, file):
    (folder / CARD).write_text(card(served), encoding="utf-8")
    assert served_file(folder) == folder / file


def test_a_folder_with_one_file_needs_no_card(folder):
    (folder / "model_int8.tflite").unlink()
    assert served_file(folder) == folder / "model.tflite"


def test_the_one_file_that_was_downloaded_is_taken_where_another_stands_for_the_version(folder):
    (folder / CARD).write_text(card("tflite_fp32"), encoding="utf-8")
    (folder / "model.tflite").unlink()
    assert served_file(folder) == folder / "model_int8.tflite"


def test_a_folder_that_does_not_say_which_file_is_meant_is_refused(folder):
    with pytest.raises(ModelFileError) as caught:
        odtrain_runtime.load(folder)
    assert str(caught.value) == (
        f"{folder}: does not say which file is meant: model.tflite, model_int8.tflite.\n"
        "  Name the file."
    )


def test_labels_beside_a_file_name_the_classes_of_one_without_its_own(folder):
    assert odtrain_runtime.load(folder / "model.tflite").class_names == ("round", "angular")


def test_a_file_that_is_not_there_is_refused():
    with pytest.raises(ModelFileError, match=r"^nowhere\.tflite: there is no such file\."):
        odtrain_runtime.load(Path("nowhere.tflite"))


def test_a_downloaded_file_that_was_changed_is_refused(model, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    file = folder / "model.tflite"
    file.write_bytes(model.read_bytes())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    (folder / "SHA256SUMS").write_text(f"{digest}  model.tflite\n{digest}  other.tflite\n")
    assert len(odtrain_runtime.load(folder).predict(PIXELS)) == 1
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ModelFileError) as caught:
        odtrain_runtime.load(folder)
    assert str(caught.value) == (
        f"{file}: is not the file that SHA256SUMS lists.\n  Download it again."
    )
