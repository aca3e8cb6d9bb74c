"""What is released: wheels and source archives outside the checkout; versions; names that stay."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

import odtrain
from odtrain.cli.commands import COMMANDS, load
from odtrain.config.schema import keys
from odtrain.config.shipped import conf, groups
from odtrain.export_formats import FORMATS
from odtrain.findings import KINDS

ROOT = Path(__file__).resolve().parents[1]
SET_VERSION = ROOT / ".ci/set_version"
BUILT = ("conf", "kits", "data/panels/images")
"""Folders that the wheel brings under `odtrain/`."""


def built(project: Path, kind: str, into: Path) -> Path:
    """A wheel or source archive, by the build backend itself: nothing is fetched."""
    pytest.importorskip("hatchling.build", reason="hatchling builds the wheel")
    code = f"import sys; from hatchling.build import build_{kind} as b; print(b(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(into)],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    return into / done.stdout.splitlines()[-1]


def unpacked(archive: Path, into: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data")
    (top,) = into.iterdir()
    return top


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of both packages, each built from its own source archive, where no .git is."""
    folder = tmp_path_factory.mktemp("dist")
    found = []
    for project in (ROOT / "runtime", ROOT):
        source = unpacked(built(project, "sdist", folder), folder / project.name)
        found.append(built(source, "wheel", folder))
    return found


@pytest.fixture(scope="module")
def installed(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both wheels, as pip leaves them; what they need is this environment's."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*command, "--target", str(folder), *map(str, wheels)], check=True)
    return folder


def elsewhere(site: Path, folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "odtrain", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_brings_what_lies_beside_the_package(wheels):
    with zipfile.ZipFile(wheels[1]) as archive:
        names = set(archive.namelist())
    for folder in BUILT:
        wanted = {
            f"odtrain/{file.relative_to(ROOT).as_posix()}"
            for file in (ROOT / folder).rglob("*")
            if file.is_file() and "__pycache__" not in file.parts
        }
        assert wanted
        assert wanted <= names
    assert "odtrain/py.typed" in names


def test_an_installed_wheel_finds_its_settings_and_kits_outside_the_checkout(installed, tmp_path):
    assert elsewhere(installed, tmp_path, "--version") == f"odtrain {odtrain.__version__}\n"
    config = yaml.safe_load(elsewhere(installed, tmp_path, "train", "--cfg"))
    assert config["data"]["name"] == "panels"
    code = (
        "from odtrain.config.shipped import shipped; print(*map(shipped, ('conf', 'kits', 'data')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    package = installed / "odtrain"
    assert done.stdout.split() == [str(package / each) for each in ("conf", "kits", "data")]


def test_an_installed_wheel_brings_the_pictures_of_the_first_command(installed, tmp_path):
    said = elsewhere(installed, tmp_path, "demo", "pictures", "--to", "pictures")
    assert "pictures" in said
    assert list((tmp_path / "pictures").iterdir())


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_wheels_do_the_first_command_in_a_fresh_environment(wheels, tmp_path):
    venv.create(tmp_path / "fresh", with_pip=True)
    python = str(tmp_path / "fresh/bin/python")
    environment = {
        key: text
        for key, text in os.environ.items()
        if key != "PYTHONPATH" and not key.startswith("MLFLOW_")
    }
    work = tmp_path / "work"
    work.mkdir()
    for words in (
        [
            "-m",
            "pip",
            "install",
            "--quiet",
            "-r",
            str(ROOT / "requirements.txt"),
            *map(str, wheels),
        ],
        ["-m", "odtrain", "train"],
    ):
        done = subprocess.run(
            [python, *words], cwd=work, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert "models:/panels/1" in done.stdout


# ---- versions


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what has a version in it, without .git."""
    for name in ("odtrain/__init__.py", "runtime/odtrain_runtime/__init__.py", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def set_version(tag: str, checkout: Path) -> None:
    main = runpy.run_path(str(SET_VERSION))["main"]
    main(tag, checkout)


def test_a_tag_gives_both_packages_its_version(checkout):
    set_version("v1.2.3rc1", checkout)
    for name in ("odtrain/__init__.py", "runtime/odtrain_runtime/__init__.py"):
        assert '\n__version__ = "1.2.3rc1"\n' in (checkout / name).read_text(encoding="utf-8")
    asked = (checkout / "pyproject.toml").read_text(encoding="utf-8")
    assert '"odtrain-runtime[mlflow]==1.2.3rc1"' in asked


def test_a_tag_that_names_no_version_is_refused(checkout):
    with pytest.raises(SystemExit) as refused:
        set_version("release-1", checkout)
    assert str(refused.value) == (
        "release-1: no tag of a version.\n  Tag it as v0.2.0, or v0.2.0rc1 before."
    )


def test_the_release_takes_its_version_from_the_tag_and_holds_no_password():
    text = (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    flow = yaml.safe_load(text)
    steps = [step.get("run", step.get("uses")) for step in flow["jobs"]["build"]["steps"]]
    assert steps.index('.ci/set_version "$GITHUB_REF_NAME"') < steps.index(".ci/build dist")
    assert flow["jobs"]["publish"]["permissions"]["id-token"] == "write"
    assert "secrets." not in text


# ---- stable names

STABLE = json.loads((ROOT / "tests/stable_names.json").read_text(encoding="utf-8"))
"""Names of the last release; one is taken out only with its deprecation over: docs/stability.md."""


def flags_of(name: str, action: str) -> set[str]:
    return {each.name for each in load(name).actions[action].all_flags}


def test_commands_with_their_actions_and_flags_still_answer():
    for name, actions in STABLE["commands"].items():
        assert name in COMMANDS
        for action, flags in actions.items():
            assert action in load(name).actions, (name, action)
            assert set(flags) <= flags_of(name, action), (name, action)


def test_settings_and_choices_are_still_there():
    assert set(STABLE["settings"]) <= set(keys())
    now = groups([conf()])
    for group, choices in STABLE["choices"].items():
        assert set(choices) <= set(now[group]), group


def test_names_of_python_metrics_findings_and_files_are_still_there():
    assert set(STABLE["python"]) <= set(odtrain.__all__)
    assert {name: each.file for name, each in FORMATS.items()}.items() >= STABLE["formats"].items()
    assert set(STABLE["findings"]) <= set(KINDS)
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    assert set(STABLE["metrics"]) <= set(re.findall(r"`([a-z]+/[^`]+)`", page))


def test_every_name_of_today_is_among_the_stable_ones():
    assert set(COMMANDS) == set(STABLE["commands"])
    assert set(keys()) == set(STABLE["settings"])
    assert set(odtrain.__all__) == set(STABLE["python"])
    assert set(KINDS) == set(STABLE["findings"])
