"""The README, followed on a machine that has nothing of odtrain: its blocks in their order, as they stand."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
WEIGHTS = "ssd_mobilenet_v1_0.75_depth_coco_dequantized.tar.gz"
"""In place of those that are published: here no network reaches them."""

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


def blocks(language: str) -> list[str]:
    """The fenced blocks without the test command, which is for those who change odtrain."""
    text = re.sub(r"<!-- test-command -->.*?<!-- end -->", "", README, flags=re.DOTALL)
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def bash(script: str, folder: Path) -> str:
    """What a script prints; its first command that fails ends it."""
    ours = ("VIRTUAL_ENV", "PYTHONPATH", "PYTEST_CURRENT_TEST")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name not in ours},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which README's first two blocks were run: the demo is trained."""
    folder = tmp_path_factory.mktemp("fresh")
    get, install_and_train, *_ = blocks("sh")
    said = bash(get.replace("REPOSITORY", str(ROOT)) + install_and_train, folder)
    assert "Registered models:/panels/1 is @champion." in said
    return folder / "odtrain"


@pytest.fixture(scope="module")
def own(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as labelImg leaves it: photographs of raccoons with an XML beside each."""
    folder = tmp_path_factory.mktemp("own") / "pictures"
    folder.mkdir()
    for file in (shared / "data/raccoon/images").iterdir():
        shutil.copy(file, folder)
    for file in (shared / "data/raccoon/annotations").glob("*.xml"):
        shutil.copy(file, folder)
    return folder


def test_an_own_folder_becomes_a_detector_that_finds_in_an_own_picture(clone, own, shared):
    train = "odtrain train data.images=DIR data.name=raccoon"
    commands = blocks("sh")[2].replace(
        train, f"{train} train.checkpoint={shared / 'zoo' / WEIGHTS}"
    )
    assert "train.checkpoint" in commands
    script = commands.replace("DIR", str(own)).replace("PICTURES", f"{own}/raccoon-1.jpg")
    said = bash(f". .venv/bin/activate\n{script}", clone)
    assert "Registered models:/raccoon/1 is @champion." in said
    drawn = clone / "drawn/drawn/raccoon-1-jpg.jpg"
    assert drawn.read_bytes() != (own / "raccoon-1.jpg").read_bytes()
    with (clone / "drawn/predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["class"] for row in rows} == {"raccoon"}


def test_the_same_in_python(clone, own, shared):
    (program,) = blocks("python")
    name = '"data.name=raccoon"'
    weights = f'{name}, "train.checkpoint={shared / "zoo" / WEIGHTS}"'
    assert name in program
    program = program.replace("DIR", str(own)).replace(name, weights)
    for number, name in enumerate(("one.jpg", "two.jpg"), start=1):
        shutil.copy(own / f"raccoon-{number}.jpg", clone / name)
    (clone / "program.py").write_text(program, encoding="utf-8")
    said = bash(". .venv/bin/activate\npython program.py", clone)
    assert said.count("['raccoon") == 2
