import csv
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from lxml import etree
from PIL import Image
from support.commands import TrainedRun
from support.pictures import SHAPES, draw_picture

from odtrain.cli.main import main
from odtrain.media.draw import draw
from odtrain.media.find import Medium, find_pictures
from odtrain.predict.predict import output_names
from odtrain_runtime.model_files import load_detector
from odtrain_runtime.pictures import read_upright

LOW = "predict.threshold=0.05"
"""Low enough for a model that saw a dozen steps to find something."""

STRANGER = "ssd_mobilenet_v1_0.75_depth_quantized_coco.tflite"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


@pytest.fixture
def model(trained: TrainedRun):
    return trained.run / "export/model.tflite"


@pytest.fixture
def pictures(shapes, tmp_path):
    """Three pictures, one of them with Korean letters and a space in its name, one in a folder."""
    folder = tmp_path / "my pictures"
    folder.mkdir()
    for name in SHAPES[:2]:
        shutil.copy(shapes / name, folder)
    (folder / "more").mkdir()
    shutil.copy(shapes / SHAPES[2], folder / "more" / SHAPES[1])
    return folder


def odtrain_predict(capsys, *arguments):
    status = main(["predict", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def table(folder):
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def expected(model, files):
    """What the file itself finds, as rows of file, class, corners in pixels, score."""
    detect = load_detector(model)
    rows = []
    for file in files:
        image = read_upright(file)
        found = detect(image).above(0.05)
        scale = np.array([image.shape[0], image.shape[1]] * 2)
        for box, score, number in zip(found.boxes, found.scores, found.classes, strict=True):
            ymin, xmin, ymax, xmax = box * scale
            name = ("circle", "square")[number - 1]
            rows.append((str(file), name, xmin, ymin, xmax, ymax, score))
    return rows


def test_a_folder_is_done_picture_by_picture(capsys, model, pictures, tmp_path):
    out = tmp_path / "out"
    status, said, _ = odtrain_predict(
        capsys, f"source={model}", f"input={pictures}", f"output={out}", LOW
    )
    files = sorted(path for path in pictures.rglob("*") if path.is_file())
    rows = expected(model, files)
    assert status == 0
    assert said == f"{len(rows)} detections from score 0.05 in 3 of 3 pictures: {out}\n"
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == [
        "drawn/img1-jpg.jpg",
        "drawn/more/img1-jpg.jpg",
        "drawn/판 0-png.jpg",
        "predictions.csv",
        "predictions.json",
    ]


def test_the_table_holds_what_the_file_finds(capsys, model, pictures, tmp_path):
    odtrain_predict(capsys, f"source={model}", f"input={pictures}", f"output={tmp_path}/out", LOW)
    rows = expected(model, sorted(path for path in pictures.rglob("*") if path.is_file()))
    found = table(tmp_path / "out")
    assert len(rows) > 5
    assert [(row["filename"], row["class"]) for row in found] == [row[:2] for row in rows]
    assert {(row["width"], row["height"]) for row in found} == {("96", "80")}
    for row, wanted in zip(found, rows, strict=True):
        corners = [float(row[side]) for side in ("xmin", "ymin", "xmax", "ymax")]
        assert corners == pytest.approx(wanted[2:6], abs=0.051)
        assert float(row["score"]) == pytest.approx(wanted[6], abs=6e-5)


def test_the_json_holds_coco_results(capsys, model, pictures, tmp_path):
    odtrain_predict(capsys, f"source={model}", f"input={pictures}", f"output={tmp_path}/out", LOW)
    rows = expected(model, sorted(path for path in pictures.rglob("*") if path.is_file()))
    results = json.loads((tmp_path / "out/predictions.json").read_text())
    assert {result["image_id"] for result in results} <= {1, 2, 3}
    for result, (file, name, xmin, ymin, xmax, ymax, score) in zip(results, rows, strict=True):
        assert result["file_name"] == file
        assert result["category_id"] == {"circle": 1, "square": 2}[name]
        assert result["bbox"] == pytest.approx([xmin, ymin, xmax - xmin, ymax - ymin], abs=0.11)
        assert result["score"] == pytest.approx(score, abs=6e-6)


def test_detections_are_drawn_on_the_picture(capsys, model, pictures, tmp_path):
    picture = pictures / SHAPES[0]
    odtrain_predict(capsys, f"source={model}", f"input={picture}", f"output={tmp_path}/out", LOW)
    image = read_upright(picture)
    marked = draw(image, load_detector(model)(image), ("circle", "square"), 0.05)
    assert not np.array_equal(marked, image)
    Image.fromarray(marked).save(tmp_path / "expected.jpg", quality=92)
    drawn = (tmp_path / "out/drawn/판 0-png.jpg").read_bytes()
    assert drawn == (tmp_path / "expected.jpg").read_bytes()


def test_xml_is_what_labelimg_reads(capsys, model, pictures, tmp_path):
    picture = pictures / SHAPES[0]
    odtrain_predict(
        capsys,
        f"source={model}",
        f"input={picture}",
        f"output={tmp_path}/out",
        LOW,
        "predict.xml=true",
    )
    root = etree.parse(tmp_path / "out/xml/판 0.xml").getroot()
    rows = expected(model, [picture])
    assert root.findtext("folder") == "my pictures"
    assert root.findtext("filename") == "판 0.png"
    assert root.findtext("path") == str(picture)
    assert [root.findtext(f"size/{tag}") for tag in ("width", "height", "depth")] == [
        "96",
        "80",
        "3",
    ]
    assert [item.findtext("name") for item in root.iter("object")] == [row[1] for row in rows]
    for box, row in zip(root.iter("bndbox"), rows, strict=True):
        corners = [int(box.findtext(side)) for side in ("xmin", "ymin", "xmax", "ymax")]
        assert corners == pytest.approx(
            [max(int(row[2]), 1), max(int(row[3]), 1), *row[4:6]], abs=1.1
        )


def test_a_broken_picture_is_told_and_left_out(capsys, model, pictures, tmp_path):
    broken = pictures / "broken.jpg"
    broken.write_bytes((pictures / "img1.jpg").read_bytes()[:700])
    status, said, err = odtrain_predict(
        capsys, f"source={model}", f"input={pictures}", f"output={tmp_path}/out", LOW
    )
    assert status == 0
    assert "in 3 of 4 pictures" in said
    assert f"error OD010 {broken}: " in err
    assert {Path(row["filename"]).name for row in table(tmp_path / "out")} <= {
        "img1.jpg",
        "판 0.png",
    }


def test_nothing_but_broken_pictures_is_an_error(capsys, model, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    status, _, err = odtrain_predict(
        capsys, f"source={model}", f"input={tmp_path}/broken.jpg", f"output={tmp_path}/out"
    )
    assert status == 1
    assert err.endswith(
        f"{tmp_path}/broken.jpg: holds no picture that can be read.\n  See above.\n"
    )


def test_what_was_drawn_before_is_no_input(capsys, model, pictures):
    for _ in range(2):
        status, said, _ = odtrain_predict(
            capsys, f"source={model}", f"input={pictures}", f"output={pictures}"
        )
        assert status == 0
        assert "of 3 pictures" in said


def test_a_name_that_is_no_unicode_stops_nothing(capsys, model, tmp_path):
    picture = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    draw_picture(picture, (64, 64), [("circle", 5, 5, 40, 40)])
    status, _, _ = odtrain_predict(
        capsys,
        f"source={model}",
        f"input={tmp_path}",
        f"output={tmp_path}/out",
        LOW,
        "predict.xml=true",
    )
    assert status == 0
    assert os.fsencode(picture) in (tmp_path / "out/predictions.csv").read_bytes()
    (xml,) = (tmp_path / "out/xml").iterdir()
    assert etree.parse(os.fsencode(xml)).findtext("filename") == "caf\N{REPLACEMENT CHARACTER}.png"


def test_an_untouched_stranger_is_run_and_its_nameless_classes_told(capsys, shared, tmp_path):
    model = tmp_path / "model.tflite"
    shutil.copy(shared / "zoo" / STRANGER, model)
    pictures = sorted((shared / "data/raccoon").rglob("*.jpg"))[:2]
    shutil.copy(pictures[0], tmp_path)
    picture = tmp_path / pictures[0].name
    status, _, err = odtrain_predict(
        capsys, f"source={model}", f"input={picture}", f"output={tmp_path}/out", LOW
    )
    assert status == 0
    assert err.startswith(
        f"{model} carries no class names: they are class 1, class 2, ... predict.label_map=FILE "
        "gives names.\n"
    )
    assert {row["class"].partition(" ")[0] for row in table(tmp_path / "out")} == {"class"}


def test_class_names_can_be_given_as_a_list(capsys, shared, tmp_path):
    names = tmp_path / "labels.txt"
    names.write_text("".join(f"thing {number}\n" for number in range(1, 91)))
    picture = min((shared / "data/raccoon").rglob("*.jpg"))
    status, _, err = odtrain_predict(
        capsys,
        f"source={shared / 'zoo' / STRANGER}",
        f"input={picture}",
        f"output={tmp_path}/out",
        f"predict.label_map={names}",
        LOW,
    )
    assert status == 0
    assert "carries no class names" not in err
    assert {row["class"].partition(" ")[0] for row in table(tmp_path / "out")} == {"thing"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            [],
            "input: is not given.\n  Name a picture, a video, a folder, a glob, a URL or camera:0: "
            "input=...\n",
            id="no input",
        ),
        pytest.param(
            ["input=pictures/*.png"],
            "pictures/*.png: no picture or video is there, taken from HERE.\n  Name a picture, "
            "a video, a folder, a "
            "glob, a URL or camera:0: input=...\n",
            id="nothing there",
        ),
        pytest.param(
            ["input=img.png"],
            "source: is not given.\n  Name a run, models:/NAME@ALIAS, a .pb, a SavedModel folder, "
            "a .tflite, an .onnx or an OpenVINO .xml: source=...\n",
            id="no source",
        ),
        pytest.param(
            ["input=img.png", "source=modle.tflite"],
            "source=modle.tflite: is neither a run nor a file that is there, taken from HERE.\n  "
            "Name a run, "
            "models:/NAME@ALIAS, a .pb, a SavedModel folder, a .tflite, an .onnx, an OpenVINO .xml or a TF1 "
            "checkpoint.\n",
            id="misspelt source",
        ),
        pytest.param(
            ["input=img.png", "source=img.tflite"],
            "img.tflite: cannot be run: The model is not a valid Flatbuffer buffer\n  Export the model "
            "again, or check that the file was copied or downloaded whole.\n",
            id="not a model",
        ),
    ],
)
def test_what_is_missing_is_told(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    draw_picture(tmp_path / "img.png", (64, 64), [])
    (tmp_path / "img.tflite").write_bytes(b"no model at all")
    status, out, err = odtrain_predict(capsys, *arguments)
    assert (status, out) == (1, "")
    assert err == message.replace("HERE", str(tmp_path))


def test_a_picture_of_any_suffix_can_be_named_itself(tmp_path):
    file = draw_picture(tmp_path / "img.png", (8, 8), []).rename(tmp_path / "img")
    assert find_pictures(str(file)) == [file]


def test_a_glob_goes_into_folders(pictures):
    found = find_pictures(f"{pictures}/**/*.jpg")
    assert [path.relative_to(pictures).as_posix() for path in found] == [
        "img1.jpg",
        "more/img1.jpg",
    ]


def test_no_two_pictures_are_written_to_one_file():
    files = [Path("in", name) for name in ("a.jpg", "a.png", "b/a.jpg", "c.v1.jpg", "c.v2.jpg")]
    names = output_names([Medium(file, str(file), moving=False) for file in files])
    assert [str(drawn) for drawn, _ in names.values()] == [
        "drawn/a-jpg.jpg",
        "drawn/a-png.jpg",
        "drawn/b/a-jpg.jpg",
        "drawn/c.v1-jpg.jpg",
        "drawn/c.v2-jpg.jpg",
    ]
    assert [str(xml) for _, xml in names.values()] == [
        "xml/a-jpg.xml",
        "xml/a-png.xml",
        "xml/b/a.xml",
        "xml/c.v1.xml",
        "xml/c.v2.xml",
    ]
    assert max(Counter(names.values()).values()) == 1
