from __future__ import annotations

import base64
import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import environment_variables
from mlflow.exceptions import MlflowException
from PIL import Image

from odtrain_runtime.pyfunc import SERVERS, SERVING, DetectorModel
from odtrain_runtime.structures import UInt8Image

STRANGER = "zoo/ssd_mobilenet_v1_0.75_depth_quantized_coco.tflite"
"""A model that others trained, on COCO."""


@pytest.fixture(scope="module")
def picture(shared: Path) -> Path:
    return shared / "data" / "raccoon" / "images" / "raccoon-1.jpg"


@pytest.fixture(scope="module")
def model(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> DetectorModel:
    labels = tmp_path_factory.mktemp("labels") / "labels.txt"
    labels.write_text("".join(f"thing {number}\n" for number in range(1, 91)))
    loaded = DetectorModel()
    artifacts = {"tflite_int8": str(shared / STRANGER), "labels": str(labels)}
    context = SimpleNamespace(artifacts=artifacts, model_config={"detector": "tflite_int8"})
    loaded.load_context(context)
    return loaded


@pytest.fixture(scope="module")
def expected(model: DetectorModel, picture: Path) -> list[dict[str, Any]]:
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    return model.predict(None, pixels, {"score_threshold": 0.3})


def test_a_known_picture_gives_boxes_scores_and_names(expected):
    (found,) = expected
    assert len(found["boxes"]) == len(found["scores"]) == len(found["class_names"]) > 0
    assert all(0 <= side <= 1 for box in found["boxes"] for side in box)
    ymin, xmin, ymax, xmax = found["boxes"][0]
    assert ymin < ymax
    assert xmin < xmax
    assert found["scores"] == sorted(found["scores"], reverse=True)
    assert min(found["scores"]) >= 0.3
    assert found["class_names"][0] == f"thing {found['classes'][0]}"


def base64_of(picture: Path) -> str:
    return base64.b64encode(picture.read_bytes()).decode()


def pixels_of(picture: Path) -> UInt8Image:
    return np.asarray(Image.open(picture).convert("RGB"))


FORMS: dict[str, Callable[[Path], Any]] = {
    "bytes": lambda file: file.read_bytes(),
    "list of bytes": lambda file: [file.read_bytes()],
    "array": pixels_of,
    "batch of arrays": lambda file: pixels_of(file)[None],
    "list of arrays": lambda file: [pixels_of(file)],
    "array of floats": lambda file: pixels_of(file).astype(np.float32),
    "Pillow picture": Image.open,
    "list of Pillow pictures": lambda file: [Image.open(file)],
    "path": lambda file: file,
    "path as text": str,
    "list of paths": lambda file: [str(file)],
    "base64": base64_of,
    "base64 in lines": lambda file: base64.encodebytes(file.read_bytes()).decode(),
    "data URL": lambda file: f"data:image/jpeg;base64,{base64_of(file)}",
    "table of bytes": lambda file: pd.DataFrame({"image": [file.read_bytes()]}),
    "table of base64": lambda file: pd.DataFrame({"image": [base64_of(file)]}),
    "table of paths": lambda file: pd.DataFrame({"image": [str(file)]}),
    "table of arrays": lambda file: pd.DataFrame({"image": [pixels_of(file)]}),
    "column without a name": lambda file: pd.DataFrame([str(file)]),
    "rows": lambda file: [{"image": file.read_bytes()}],
    "columns": lambda file: {"image": [base64_of(file)]},
    "one column of one": lambda file: {"image": base64_of(file)},
    "column as an array": lambda file: {"image": np.array([base64_of(file)], dtype=object)},
    "rows as TensorFlow Serving has them": lambda file: [{"image": {"b64": base64_of(file)}}],
    "column as TensorFlow Serving has it": lambda file: {"image": [{"b64": base64_of(file)}]},
}


@pytest.fixture
def no_server(monkeypatch):
    """A process that serves nobody, whatever other tests have imported: there a text may be a path."""
    monkeypatch.delenv(SERVING, raising=False)
    for name in SERVERS:
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.usefixtures("no_server")
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_picture_gives_the_same(model, picture, expected, form):
    given = FORMS[form](picture)
    assert model.predict(None, given, {"score_threshold": 0.3}) == expected


def test_several_pictures_at_once(model, picture, expected):
    data = picture.read_bytes()
    found = model.predict(None, [data, pixels_of(picture), data], {"score_threshold": 0.3})
    assert found == expected * 3


def test_the_threshold_cuts(model, picture):
    (many,) = model.predict(None, picture, {"score_threshold": 0.01})
    (few,) = model.predict(None, picture)
    assert len(many["scores"]) > len(few["scores"])
    assert min(few["scores"], default=1) >= 0.5


def test_a_rotated_photograph_is_turned_upright(model, picture, expected):
    lying, file = Image.open(picture).convert("RGB").rotate(90, expand=True), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # show it turned a quarter to the right
    lying.save(file, "PNG", exif=exif)
    assert model.predict(None, file.getvalue(), {"score_threshold": 0.3}) == expected


REMEDY = "Send a JPEG or PNG file's bytes, base64-encoded in JSON."
NO_PICTURE = "its bytes are no picture of a format that is read."

BAD: dict[str, tuple[Any, str]] = {
    "empty": (b"", f"picture 0 cannot be read: {NO_PICTURE} {REMEDY}"),
    "no picture": (b"hello world", f"picture 0 cannot be read: {NO_PICTURE} {REMEDY}"),
    "not base64": (
        "not/there.jpg",
        f"picture 0 cannot be read: its text is neither base64 nor a file here. {REMEDY}",
    ),
    "number": (3.5, f"picture 0 cannot be read: it is a float. {REMEDY}"),
    "flat array": (
        np.zeros((7,)),
        "picture 0 cannot be read: an array of shape (7,) is no (height, width, 3) picture. "
        f"{REMEDY}",
    ),
    "values out of range": (
        np.full((4, 4, 3), 300.0),
        f"picture 0 cannot be read: its values are not within 0-255. {REMEDY}",
    ),
    "wrong column": (
        pd.DataFrame({"img": [b""]}),
        f'there is no column "image" (but img). {REMEDY}',
    ),
}


@pytest.mark.usefixtures("no_server")
@pytest.mark.parametrize("case", BAD)
def test_what_is_no_picture_is_refused_with_the_reason(model, case):
    given, message = BAD[case]
    with pytest.raises(MlflowException) as caught:
        model.predict(None, given)
    assert caught.value.message == message
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert caught.value.get_http_status_code() == 400


def test_a_truncated_photograph_is_refused(model, picture):
    with pytest.raises(MlflowException, match=r"^picture 1 cannot be decoded: .*truncated"):
        model.predict(None, [picture, picture.read_bytes()[:3000]])


NO_PATHS = (
    f"picture 0 cannot be read: its text is not base64, and a server opens no paths. {REMEDY}"
)
SENT: dict[str, Callable[[str], Any]] = {
    "text": str,
    "list": lambda text: [text],
    "table": lambda text: pd.DataFrame({"image": [text]}),
    "column": lambda text: {"image": np.array([text], dtype=object)},
    "row as TensorFlow Serving has it": lambda text: [{"image": {"b64": text}}],
}


@pytest.mark.usefixtures("no_server")
@pytest.mark.parametrize("sent", SENT)
def test_a_path_from_a_client_of_mlflows_server_is_not_opened(model, picture, monkeypatch, sent):
    monkeypatch.setenv(SERVING, "true")
    with pytest.raises(MlflowException) as caught:
        model.predict(None, SENT[sent](str(picture)))
    assert caught.value.message == NO_PATHS


def test_mlflows_server_says_so_by_the_variable_that_is_looked_at():
    assert environment_variables._MLFLOW_IS_IN_SERVING_ENVIRONMENT.name == SERVING


@pytest.mark.usefixtures("no_server")
@pytest.mark.parametrize("server", SERVERS)
def test_a_path_from_a_client_is_not_opened(model, picture, monkeypatch, server):
    monkeypatch.setitem(sys.modules, server, ModuleType(server))
    with pytest.raises(MlflowException) as caught:
        model.predict(None, pd.DataFrame({"image": [str(picture)]}))
    assert caught.value.message == NO_PATHS
