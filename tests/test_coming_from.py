"""The pages for those who come from other programs: their words are the program's, their examples work."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.pictures import draw_picture
from support.pipeline_configs import pipeline_text

from odtrain.cli.main import main
from odtrain.config.compose import compose_config
from odtrain.config.foreign_words import WORDS, in_our_words

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = sorted(DOCS.glob("from_*.md"))
CODE = re.compile(r"`([^`]+)`")


def rows():
    for page in PAGES:
        table = page.read_text(encoding="utf-8").partition("| word | here |\n|---|---|\n")[2]
        for line in table.partition("\n\n")[0].splitlines():
            words, here = line.strip("| ").split(" | ", 1)
            yield from (
                pytest.param(word, here, id=f"{page.stem}-{word}") for word in CODE.findall(words)
            )


@pytest.mark.parametrize(("word", "here"), list(rows()))
def test_a_word_is_told_by_the_program_as_on_the_page(word, here):
    assert word in WORDS
    told = in_our_words(word, "1", [])
    named = [name.split("=")[0].removeprefix("augment.") for name in CODE.findall(here)]
    assert any(name in told for name in named) if named else here.partition(";")[0] in told


def commands(page):
    """The lines of the page's shell blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", (DOCS / page).read_text("utf-8"), re.M | re.S)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def picture(file, class_number=0):
    """One with one box: its YOLO line."""
    draw_picture(file, (96, 80), [("circle", 12, 8, 48, 40)], sum(map(ord, file.stem)))
    return f"{class_number} 0.3125 0.3 0.375 0.4\n"


def test_a_folder_of_ultralytics_needs_no_conversion(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for split, count in (("train", 4), ("val", 2)):
        for number in range(count):
            line = picture(tmp_path / f"raccoon/images/{split}/{split}{number}.jpg")
            label = tmp_path / f"raccoon/labels/{split}/{split}{number}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(line)
    (tmp_path / "raccoon/data.yaml").write_text(
        "train: images/train\nval: images/val\nnames:\n  0: raccoon\n"
    )
    ((_, *arguments),) = commands("from_ultralytics.md")
    assert main(arguments) == 0
    assert "labels are read as YOLO text: 6 files about 6 pictures." in capsys.readouterr().out
    assert main(["prepare", *arguments[1:]]) == 0
    said = capsys.readouterr().out
    assert re.search(r"validation +2 pictures", said)
    assert "classes: raccoon" in said


def test_a_csv_of_model_maker_is_converted_by_the_script_on_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = []
    for which, count in (("TRAIN", 4), ("VALIDATION", 2), ("TEST", 2)):
        for number in range(count):
            picture(tmp_path / f"images/{which}{number}.jpg")
            lines.append(f"{which},images/{which}{number}.jpg,Salad,0.125,0.1,,,0.5,0.5,,")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    page = (DOCS / "from_model_maker.md").read_text(encoding="utf-8")
    (script,) = [
        each for each in re.findall(r"```python\n(.*?)```", page, re.S) if "import csv" in each
    ]
    (tmp_path / "convert.py").write_text(script)
    convert, (_, *check) = commands("from_model_maker.md")
    subprocess.run([sys.executable, *convert[1:]], check=True)
    assert main(check) == 0
    assert main(["prepare", *check[1:]]) == 0
    said = capsys.readouterr().out
    assert [
        re.search(rf"{name} +(\d+) pictures", said)[1] for name in ("train", "validation", "test")
    ] == [
        "4",
        "2",
        "2",
    ]
    assert "classes: Salad" in said
    first = (tmp_path / "boxes.csv").read_text().splitlines()[1]
    assert first == "TRAIN0.jpg,96,80,Salad,12.0,8.0,48.0,40.0"


def test_a_pipeline_config_is_imported_and_trained_by_the_commands_on_the_page(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for name in ("train.record", "test.record"):
        (tmp_path / name).touch()
    (tmp_path / "object-detection.pbtxt").write_text("item {\n  id: 1\n  name: 'raccoon'\n}\n")
    readers = "".join(
        f'{kind}_input_reader {{\n  tf_record_input_reader {{ input_path: "{record}.record" }}\n'
        '  label_map_path: "object-detection.pbtxt"\n}\n'
        for kind, record in (("train", "train"), ("eval", "test"))
    )
    text = pipeline_text(
        compose_config(["model=ssd_mobilenet_v1_coco"]), num_classes=1, reader=readers
    )
    (tmp_path / "training").mkdir()
    (tmp_path / "training/pipeline.config").write_text(text)
    (_, *imported), (_, *train) = commands("from_tf_object_detection_api.md")
    assert main(imported) == 0
    assert main([*train, "--cfg"]) == 0
    said = capsys.readouterr().out
    assert "architecture: ssd_mobilenet_v1\n" in said
    assert "format: tfrecord" in said
