"""The tutorial's commands, in both languages, in their order on small data."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from support.commands import TINY_RUN, odtrain
from support.pictures import SHAPES, draw_picture

DOCS = Path(__file__).resolve().parents[1] / "docs"
BLOCK = re.compile(r"^```sh\n(odtrain .*)\n```$", re.MULTILINE)
SMALLER = {"train": [*TINY_RUN[1:], "export.formats=[pb,saved_model,tflite_fp32]"]}
"""Settings added to a command so that it takes seconds."""


def commands(name: str) -> list[str]:
    return BLOCK.findall((DOCS / name).read_text(encoding="utf-8"))


def test_both_languages_have_the_same_commands():
    assert commands("tutorial.md") == commands("tutorial.ko.md")
    assert len(commands("tutorial.md")) == 7


def test_both_languages_have_the_same_table_and_outputs():
    pages = [(DOCS / name).read_text("utf-8") for name in ("tutorial.md", "tutorial.ko.md")]
    printed, rows = zip(
        *(
            (re.findall(r"\n```\n\n```\n(.*?)```", page, re.S), page.count("\n| "))
            for page in pages
        ),
        strict=True,
    )
    assert printed[0] == printed[1]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_the_commands_work_one_after_the_other(shapes, tmp_path):
    for name in SHAPES:
        (tmp_path / "memory-card").mkdir(exist_ok=True)
        shutil.copy(shapes / name, tmp_path / "memory-card")
    for seed in range(3):
        draw_picture(tmp_path / "more" / f"new{seed}.jpg", (96, 80), [], 70 + seed)
    for line in commands("tutorial.md"):
        words = shlex.split(line)[1:]
        done = odtrain([*words, *SMALLER.get(words[0], [])], tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        if words[0] == "collect":
            label(tmp_path / "images", shapes)
    assert (tmp_path / "files" / "model_card.md").is_file()
    assert (tmp_path / "drawn" / "predictions.csv").is_file()
    assert len(list((tmp_path / "to_label").glob("*.xml"))) == 3


def label(images: Path, shapes: Path) -> None:
    """What an afternoon in labelImg comes to: an XML for each picture, under its new name."""
    known = {
        picture.read_bytes(): picture.with_suffix(".xml") for picture in shapes.glob("*.[jp]*g")
    }
    for picture in images.glob("img*"):
        xml = known[picture.read_bytes()]
        text = xml.read_text(encoding="utf-8")
        name = re.sub(r"<filename>.*</filename>", f"<filename>{picture.name}</filename>", text)
        picture.with_suffix(".xml").write_text(name, encoding="utf-8")
