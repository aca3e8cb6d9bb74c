"""What others put into their CI: the action, the hook, the gate."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from support.commands import TrainedRun, odtrain
from support.pictures import label_picture

from odtrain.findings import Finding, findings_annotations
from odtrain.registry.versions import find_version

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = "data.images=pictures data.name=tiny"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A data repository with a box outside its picture."""
    for i in range(4):
        label_picture(tmp_path / f"pictures/{i}.jpg", (96, 80), [("cat", 5, 5, 40, 40)], seed=i)
    label = tmp_path / "pictures/2.xml"
    label.write_text(label.read_text().replace("<xmax>40<", "<xmax>400<"))
    return tmp_path


def shell(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A step as GitHub runs it."""
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def action() -> dict[str, object]:
    content: dict[str, object] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    return content


def test_the_action_annotates_the_file_and_fails_on_an_error(repository):
    steps = action()["runs"]["steps"]
    (check,) = [step for step in steps if step.get("id") == "check"]
    done = shell(check["run"], repository, SETTINGS=SETTINGS, HTML="findings.html")
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("::error ")]
    assert [line.partition("::")[2].partition("::")[0] for line in lines] == [
        "error file=pictures/2.xml,title=OD008 box outside the picture"
    ]
    assert (repository / "findings.html").is_file()


def test_the_action_hands_what_a_user_writes_to_no_shell():
    for step in action()["runs"]["steps"]:
        assert "${{" not in step.get("run", "")


def test_the_action_installs_the_odtrain_that_it_came_with():
    (install,) = [step for step in action()["runs"]["steps"] if "pip" in step.get("run", "")]
    words = shlex.split(install["run"])
    places = [word.removeprefix("$ACTION") for word in words if word.startswith("$ACTION")]
    assert places == ["/requirements.txt", "/runtime", ""]
    assert all((ROOT / place.lstrip("/")).exists() for place in places)


def test_the_hook_fails_a_commit_with_a_faulty_label(repository):
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    done = shell(f"{hook['entry']} {SETTINGS}", repository)
    assert done.returncode == 1
    assert "OD008" in done.stdout


def test_an_annotation_stays_on_one_line_and_escapes_what_github_reads():
    finding = Finding.of("OD008", "a,b:c.xml", "50 %\nof it")
    assert findings_annotations([finding]) == (
        "::error file=a%2Cb%3Ac.xml,title=OD008 box outside the picture::"
        "50 %25\\nof it Redraw it in labelImg, or delete its <object>."
    )


def test_what_is_only_told_is_no_annotation():
    assert findings_annotations([Finding.of("OD203", "a.gif", "is a GIF.")]) == ""


@pytest.mark.slow
def test_a_dry_run_judges_and_changes_nothing(trained: TrainedRun):
    before = find_version("models:/shapes/1", trained.uri)
    words = ["models", "promote", "shapes", "1", "--dry-run", f"tracking.uri={trained.uri}"]
    done = odtrain([*words, "registry.min_recall=0"], trained.folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# models:/shapes/1: passed\n\n| check |")
    refused = odtrain(
        [*words, "registry.min_recall=0", "registry.max_size_mb=0.01"], trained.folder
    )
    assert refused.returncode == 1
    assert refused.stdout.startswith("# models:/shapes/1: not passed\n")
    assert "| size | **fails** |" in refused.stdout
    assert find_version("models:/shapes/1", trained.uri) == before
