import ast
import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import requires
from pathlib import Path

import mlflow
import pytest
import yaml
from packaging.requirements import Requirement
from support.pictures import draw_picture, write_xml
from support.stores import logged_settings

from odtrain.cli.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[1]


def test_every_entry_point_is_a_command_and_has_no_parameters():
    project = yaml.safe_load((ROOT / "MLproject").read_text())
    assert set(project["entry_points"]) >= {"main", "prepare", "train", "evaluate", "export"}
    for name, entry in project["entry_points"].items():
        command = entry["command"].split()
        assert command[:3] == ["python", "-m", "odtrain"]
        assert command[3] == ("train" if name == "main" else name)
        assert command[3] in COMMANDS
        assert "parameters" not in entry


RUNTIME = "odtrain-runtime"
"""Comes from this repository, not from an index: requirements.txt does not pin it."""


def test_requirements_pin_what_the_package_needs():
    lines = [line.split(" ;")[0] for line in (ROOT / "requirements.txt").read_text().splitlines()]
    pins = {line.split("==")[0].lower(): line.split("==")[1].strip() for line in lines if line}
    for text in requires("odtrain") or []:
        needed = Requirement(text)
        if needed.marker is None and needed.name != RUNTIME:
            assert needed.specifier.contains(pins[needed.name.lower()]), text


DISTRIBUTIONS = {
    "PIL": "pillow",
    "google": "protobuf",
    "hydra": "hydra-core",
    "official": "tf-models-official",
    "yaml": "pyyaml",
}
"""Of packages that are not called like what brings them."""
NOT_IMPORTED = {
    "setuptools": "tensorflow_hub, which tf-models-official imports, needs pkg_resources"
}

OF_EXTRAS = {
    *("fsspec", "itsdangerous", "onnx", "onnxruntime", "openvino", "ray", "supervision", "tf2onnx"),
    "trackers",
}
"""What is imported where an extra was installed: trackers brings supervision, s3fs fsspec, and mlflow[auth]
itsdangerous."""


def imported_distributions():
    tops = set()
    for file in (ROOT / "odtrain").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                tops |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                tops.add(str(node.module).split(".")[0])
    others = tops - {*sys.stdlib_module_names, "odtrain"}
    return {DISTRIBUTIONS.get(top, top.replace("_", "-")) for top in others}


def test_what_is_imported_is_a_dependency_and_the_other_way_round():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 brings it")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {Requirement(text).name.lower() for text in project["dependencies"]}
    assert declared == (imported_distributions() - OF_EXTRAS) | NOT_IMPORTED.keys()


def test_requirements_name_no_index():
    text = (ROOT / "requirements.txt").read_text()
    assert "://" not in text
    assert "--" not in text


def test_the_wheel_brings_configuration_and_demo_pictures(tmp_path, monkeypatch):
    building = pytest.importorskip("hatchling.build", reason="hatchling builds the wheel")
    monkeypatch.chdir(ROOT)
    wheel = tmp_path / building.build_wheel(str(tmp_path))
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    shipped = {f"odtrain/{file.relative_to(ROOT)}" for file in (ROOT / "conf").rglob("*.yaml")}
    assert names >= shipped | {
        "odtrain/cli/main.py",
        "odtrain/models/ssd.py",
        "odtrain/__init__.pyi",
        "odtrain/py.typed",
    }
    assert any(name.startswith("odtrain/data/panels/images/test/") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]


@pytest.mark.slow
def test_mlflow_run_with_overrides_leaves_one_finished_run(tmp_path):
    data = tmp_path / "data set"
    for number in range(12):
        objects = [("circle", 10, 12, 40, 44)] if number % 2 else [("square", 20, 20, 60, 60)]
        file = draw_picture(data / f"사진 {number}.png", (80, 80), objects, seed=number)
        write_xml(file.with_suffix(".xml"), file.name, (80, 80), objects)
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    settings = {
        "data.images": data,
        "data.name": "shapes",
        "data.prepared": tmp_path / "prepared",
        "outputs": tmp_path / "outputs",
        "model.input_size": 64,
        "model.depth_multiplier": 0.1,
        "experiment": "null",
        "train.steps": 3,
        "train.batch_size": 2,
        "evaluate.every": 0,
        "evaluate.drawn": 2,
        "evaluate.bootstrap": 20,
        "export.formats": "[pb,tflite_fp32]",
        "benchmark.runs": 2,
    }
    flags = [word for key, value in settings.items() for word in ("-P", f"{key}={value}")]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": store, "PYTHONWARNINGS": "default"}
    environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = [sys.executable, "-m", "mlflow", "run", str(ROOT), "--env-manager", "local"]
    done = subprocess.run(
        [*command, "-e", "train", *flags],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]

    client = mlflow.MlflowClient(store)
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert run.info.status == "FINISHED"
    assert run.data.params["train.steps"] == "3"
    decided = re.findall(r"train\.precision=auto is (\w+) here: .*, measured now\.", done.stderr)
    settings = logged_settings(client, run.info.run_id)
    assert decided == [settings["train.precision"]] == [run.data.tags["odtrain.precision"]]
    assert {"train/loss", "val/mAP", "eval/mAP", "export/pb/mAP"} <= run.data.metrics.keys()
    # Three steps leave all scores nearly tied, so whether a file agrees with the checkpoint is not asked.
    assert "odtrain.export.pb" in run.data.tags
    top = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"config", "data", "checkpoints", "eval", "export"} <= top
