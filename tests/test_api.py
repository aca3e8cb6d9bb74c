"""What `import odtrain` gives."""

from __future__ import annotations

import ast
import importlib.util
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.commands import TINY_RUN

import odtrain
from odtrain import api
from odtrain.dataset.read import Dataset
from odtrain.errors import ConfigError, DataError
from odtrain.tracking.store import open_client

NAMES = {"Detections", "check", "compose", "evaluate", "load", "prepare", "train"}
TAKEN = (
    "  Give a path, a file's bytes, a PIL picture, a uint8 array (height, width, 3) in RGB, or a sequence "
    "of these."
)
PACKAGE = Path(odtrain.__file__).parent


# ---- names


def test_these_are_the_names():
    assert {*odtrain.__all__} == NAMES | {"__version__"}
    assert {*dir(odtrain)} >= NAMES
    assert all(getattr(odtrain, name) is getattr(api, name) for name in NAMES)


def test_another_name_is_none():
    with pytest.raises(AttributeError) as caught:
        _ = odtrain.trian  # type: ignore[attr-defined]
    assert str(caught.value) == "module 'odtrain' has no attribute 'trian'"


def test_type_checkers_see_the_same_names():
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text())
    imported = {
        alias.asname
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == NAMES
    (listed,) = [node.value for node in tree.body if isinstance(node, ast.Assign)]
    assert ast.literal_eval(listed) == odtrain.__all__
    assert (PACKAGE / "py.typed").is_file()


def test_importing_it_imports_nothing_else():
    program = "import sys; known = {*sys.modules}; import odtrain; print(*{*sys.modules} - known)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "odtrain\n"


# ---- jobs


def test_compose_gives_the_configuration():
    assert odtrain.compose(["train.steps=7", "data.name=mine"]).train.steps == 7


def test_one_text_in_place_of_a_sequence_is_refused():
    with pytest.raises(ConfigError) as caught:
        odtrain.compose("train.steps=7")
    assert str(caught.value) == (
        "train.steps=7: is one text.\n"
        '  Give a sequence of texts: ["train.steps=100", "data.name=mine"].'
    )


def test_check_gives_the_findings(shapes):
    (Path(shapes) / "unlabelled.txt").unlink(missing_ok=True)
    findings = odtrain.check([f"data.images={shapes}", "data.name=shapes"])
    assert {finding.severity for finding in findings} <= {"warning", "info"}
    with pytest.raises(DataError):
        odtrain.check(["data.images=nowhere", "data.name=shapes"])


def test_prepare_gives_the_dataset(shapes, tmp_path):
    dataset = odtrain.prepare(
        [f"data.images={shapes}", "data.name=shapes", f"data.prepared={tmp_path / 'ready'}"]
    )
    assert isinstance(dataset, Dataset)
    assert dataset.class_names == ("circle", "square")


@pytest.fixture(scope="module")
def result(database, shapes, tmp_path_factory):
    """A training of a few steps, called as a function, in the folder where tests then are."""
    import shutil

    folder = tmp_path_factory.mktemp("api")
    shutil.copy(database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        overrides = [f"data.images={shapes}", *TINY_RUN, "train.steps=4", "registry.min_recall=0.1"]
        yield odtrain.train([*overrides, "export.formats=[tflite_fp32]"])


@pytest.mark.slow
def test_train_prints_nothing_and_returns_what_came_of_it(result):
    assert result.folder == Path("outputs/Default", result.run_id)
    assert result.files == {"tflite_fp32": result.folder / "export/model.tflite"}
    assert result.metrics["mAP"] == result.evaluation.metrics["mAP"]
    assert result.model == "models:/shapes@challenger"
    assert result.outcome == (
        "models:/shapes/1 is @challenger, not @champion:\n"
        "  floor: finds 0% of the objects at score 0.5 and IoU 0.5; registry.min_recall=0.1. Train longer or "
        "on more pictures: odtrain check says what the data lack."
    )
    aliases = open_client(result.store).get_registered_model("shapes").aliases
    assert list(aliases) == ["challenger"]


@pytest.mark.slow
def test_evaluate_returns_what_the_run_has(result, capsys):
    again = odtrain.evaluate([f"source={result.run_id}"])
    assert again.run_id == result.run_id
    assert again.metrics["AR_100"] == pytest.approx(result.metrics["AR_100"])
    assert again.report == result.folder / "eval"
    assert capsys.readouterr().out == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "source",
    [
        "{0.run_id}",
        "runs:/{0.run_id}",
        "runs:/{0.run_id}/export/model.tflite",
        "models:/shapes/1",
        "models:/shapes@challenger",
        "{0.folder}/export/model.tflite",
    ],
)
def test_load_takes_whatever_a_source_is(result, shapes, source):
    detector = odtrain.load(source.format(result))
    assert detector.class_names == ("circle", "square")
    files = sorted(Path(shapes).glob("*.jpg"))[:2]
    assert [len(one) > 0 for one in detector.predict(files, 0)] == [True, True]


# ---- pictures


class Half:
    """Finds the upper half of every picture, and a fainter left half."""

    class_names = ("cat", "dog")
    batch = 2

    def __init__(self):
        self.seen = []

    def detect_all(self, images):
        self.seen += images
        boxes = np.array([[0, 0, 0.5, 1], [0, 0, 1, 0.5]], np.float32)
        one = api.structures.Detections(boxes, np.array([0.9, 0.4], np.float32), np.array([2, 1]))
        return [one for _ in images]


@pytest.fixture
def half():
    return api.Detector(Half())


@pytest.fixture
def turned(tmp_path):
    """A file of 40 x 20 that EXIF turns upright, to 20 x 40."""
    picture = Image.new("RGB", (40, 20), (200, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif)
    return tmp_path / "turned.jpg"


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "PIL", "array"])
def test_one_picture_of_any_kind_gives_a_list(half, turned, kind):
    with Image.open(turned) as picture:
        given = {
            "path": turned,
            "text": str(turned),
            "bytes": turned.read_bytes(),
            "PIL": picture,
            "array": np.zeros((40, 20, 3), np.uint8),
        }[kind]
        (found,) = half.predict(given)
    assert isinstance(found, odtrain.Detections)
    assert found.size == (40, 20)
    assert half.source.seen[0].shape == (40, 20, 3)
    assert found.names == ["dog"]
    assert found.xyxy.tolist() == [[0, 0, 20, 20]]


def test_several_pictures_of_several_kinds_are_answered_in_their_order(half, turned):
    several = [turned, np.zeros((4, 8, 3), np.uint8), turned.read_bytes()]
    assert [one.size for one in half.predict(several)] == [(40, 20), (4, 8), (40, 20)]
    assert [one.size for one in half.predict(np.zeros((3, 5, 7, 3), np.uint8))] == [(5, 7)] * 3
    assert half.predict([]) == []


def test_the_threshold_is_the_lowest_score(half):
    (found,) = half.predict(np.zeros((4, 8, 3), np.uint8), threshold=0.3)
    assert found.names == ["dog", "cat"]
    assert found.above(0.5).names == ["dog"]


def test_a_model_without_names_has_numbers_for_them(half):
    half.source.class_names = ()
    assert half.predict(np.zeros((4, 8, 3), np.uint8))[0].names == ["class 2"]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (7, "a int: is no picture."),
        ([None], "a NoneType: is no picture."),
        (np.zeros((4, 8), np.uint8), "an array of uint8, 4×8: is no picture."),
        (np.zeros((4, 8, 4), np.uint8), "an array of uint8, 4×8×4: is no picture."),
        (np.zeros((4, 8, 3)), "an array of float64, 4×8×3: is no picture."),
        (np.zeros((0, 8, 3), np.uint8), "an array of uint8, 0×8×3: is no picture."),
    ],
)
def test_what_is_no_picture_is_refused_and_told_what_is_taken(half, given, problem):
    with pytest.raises(DataError) as caught:
        half.predict(given)
    assert str(caught.value) == f"{problem}\n{TAKEN}"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (
            "nowhere.jpg",
            "nowhere.jpg: cannot be decoded: [Errno 2] No such file or directory: 'nowhere.jpg'.",
        ),
        (b"no picture", "the bytes: is not a picture, or its beginning is damaged."),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(half, given, problem):
    with pytest.raises(DataError) as caught:
        half.predict(given)
    assert str(caught.value) == f"{problem}\n{TAKEN}"


def test_a_damaged_pil_picture_is_refused(half):
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    whole = io.BytesIO()
    Image.fromarray(noise).save(whole, "JPEG")
    with Image.open(io.BytesIO(whole.getvalue()[:-900])) as picture:
        with pytest.raises(DataError) as caught:
            half.predict(picture)
    assert str(caught.value).startswith("the picture: cannot be decoded: image file is truncated")


# ---- tables


def test_detections_as_a_table(half):
    (found,) = half.predict(np.zeros((10, 40, 3), np.uint8), 0)
    table = found.to_pandas()
    assert table.columns.tolist() == ["name", "class", "score", "xmin", "ymin", "xmax", "ymax"]
    assert table["name"].tolist() == ["dog", "cat"]
    assert table["class"].tolist() == [2, 1]
    assert table["score"].tolist() == pytest.approx([0.9, 0.4])
    assert table[["xmin", "ymin", "xmax", "ymax"]].values.tolist() == [
        [0, 0, 40, 5],
        [0, 0, 20, 10],
    ]
    assert found.above(1).to_pandas().empty


def test_detections_for_supervision(half):
    pytest.importorskip("supervision")
    (found,) = half.predict(np.zeros((10, 40, 3), np.uint8), 0)
    theirs = found.to_supervision()
    assert theirs.xyxy.tolist() == [[0, 0, 40, 5], [0, 0, 20, 10]]
    assert theirs.class_id.tolist() == [1, 0]
    assert theirs.data["class_name"].tolist() == ["dog", "cat"]
    assert len(found.above(1).to_supervision()) == 0


def test_supervision_that_is_not_installed_is_named(half):
    if importlib.util.find_spec("supervision"):
        pytest.skip("it is installed")
    (found,) = half.predict(np.zeros((10, 40, 3), np.uint8))
    with pytest.raises(ConfigError) as caught:
        found.to_supervision()
    assert str(caught.value) == (
        "to_supervision(): supervision is not installed.\n  pip install supervision"
    )
