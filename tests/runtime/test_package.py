"""The distribution: what it needs, what it brings, and that it stands alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image
from support.tiny_models import model

import odtrain
import odtrain_runtime
from odtrain.structures import Detections

__all__ = ["model"]

ROOT = Path(__file__).resolve().parents[2]
ALONE = """
import sys
for name in ("google", "mlflow", "odtrain", "pandas", "starlette", "tensorflow", "yaml"):
    sys.modules[name] = None
"""
MEGABYTES = 150


def project(file: Path) -> dict[str, object]:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 brings it")
    found: dict[str, object] = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    return found


def test_it_has_the_version_of_odtrain_which_asks_for_just_that():
    assert odtrain_runtime.__version__ == odtrain.__version__
    needs = [Requirement(text) for text in project(ROOT / "pyproject.toml")["dependencies"]]
    (runtime,) = [need for need in needs if need.name == "odtrain-runtime"]
    assert str(runtime.specifier) == f"=={odtrain_runtime.__version__}"


def test_it_is_for_the_pythons_and_under_the_licence_of_odtrain():
    ours, whole = project(ROOT / "runtime/pyproject.toml"), project(ROOT / "pyproject.toml")
    assert [ours[key] for key in ("requires-python", "license")] == [
        whole[key] for key in ("requires-python", "license")
    ]
    licence = (ROOT / "runtime/LICENSE").read_text(encoding="utf-8")
    assert licence == (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_it_needs_litert_numpy_and_pillow_in_the_versions_that_odtrain_needs():
    ours = set(project(ROOT / "runtime/pyproject.toml")["dependencies"])
    assert {Requirement(text).name for text in ours} == {
        *("ai-edge-litert", "flatbuffers", "numpy", "pillow")
    }
    assert ours <= set(project(ROOT / "pyproject.toml")["dependencies"])


def test_its_wheel_brings_the_package_and_its_types(tmp_path, monkeypatch):
    building = pytest.importorskip("hatchling.build", reason="hatchling builds the wheel")
    monkeypatch.chdir(ROOT / "runtime")
    with zipfile.ZipFile(tmp_path / building.build_wheel(str(tmp_path))) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = ROOT / "runtime/odtrain_runtime"
    modules = {
        f"odtrain_runtime/{f.relative_to(package).as_posix()}" for f in package.rglob("*.py")
    }
    assert names == modules | {"odtrain_runtime/py.typed"}


def test_its_public_names_are_there_and_no_others():
    for name in odtrain_runtime.__all__:
        assert getattr(odtrain_runtime, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'odtrain_runtime' has no attribute 'train'"):
        _ = odtrain_runtime.train


def test_detections_are_one_class_in_odtrain_and_the_runtime():
    assert Detections is odtrain_runtime.Detections


def test_a_part_of_it_does_not_wait_for_litert_or_pillow():
    slow = {"PIL", "ai_edge_litert", "numpy"}
    code = f"import odtrain_runtime.errors, sys\nsys.exit(bool({slow} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "module",
    sorted(
        file.stem
        for file in (ROOT / "runtime/odtrain_runtime").glob("*.py")
        if file.stem not in ("__init__", "__main__", "pyfunc")
    ),
)
def test_a_module_imports_nothing_that_only_odtrain_needs(module):
    imported = import_module(f"odtrain_runtime.{module}")
    code = f"{ALONE}import odtrain_runtime.{module} as loaded\nprint(loaded.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, imported.__file__), done.stderr


def test_it_predicts_where_there_is_neither_odtrain_nor_tensorflow_nor_mlflow(model, tmp_path):
    picture = tmp_path / "picture.png"
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(picture)
    code = f"{ALONE}from odtrain_runtime.__main__ import main\nsys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "predict", str(model), str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["class_names"] == ["circle", "square"]


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_fresh_environment_with_it_alone_predicts_and_is_small(model, tmp_path):
    venv.create(tmp_path / "alone", with_pip=True)
    python = str(tmp_path / "alone/bin/python")
    environment = {key: text for key, text in os.environ.items() if key != "PYTHONPATH"}

    def run(*arguments: str) -> str:
        command = [python, *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("-m", "pip", "install", "--no-compile", str(ROOT / "runtime"))
    run("-m", "pip", "uninstall", "--yes", "pip", "setuptools")
    picture = tmp_path / "picture.png"
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(picture)
    found = json.loads(run("-m", "odtrain_runtime", "predict", str(model), str(picture)))
    assert found["class_names"] == ["circle", "square"]
    (packages,) = (tmp_path / "alone/lib").glob("python*/site-packages")
    there = {place.name for place in packages.iterdir()}
    assert there.isdisjoint({"tensorflow", "mlflow", "pandas", "odtrain"})
    size = sum(file.stat().st_size for file in packages.rglob("*") if file.is_file())
    assert size < MEGABYTES * 1_000_000
