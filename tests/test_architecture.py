"""The rules of docs/design.md, "Rooms", held by tests; the order of the rooms is held by import-linter."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "odtrain"
MOST_MODULES = 22
"""In one folder: what a reader takes in at once."""
MOST_LINES = 500
LONGER: dict[str, str] = {}
"""Modules that may be longer, and why."""
WITHOUT_TENSORFLOW = (
    "errors structures config.compose findings labels.label_map labels.formats.tfrecords media.phash "
    "media.images media.draw media.video models.anchors system.workers system.processor dataset.shards "
    "dataset.near_duplicates dataset.splits dataset.scan dataset.pairing dataset.check dataset.look "
    "dataset.place dataset.prepare dataset.read dataset.repair dataset.diff dataset.checks.leakage "
    "dataset.checks.class_names dataset.checks.balance dataset.checks.anchor_fit io.tfrecord io.archives "
    "io.fetch io.download evaluation.matching evaluation.coco evaluation.evaluate "
    "evaluation.paired_bootstrap evaluation.saved_detections reports.charts reports.data_charts "
    "reports.findings_page model_files.tflite_metadata model_files.thresholds "
    "export.benchmark tracking.spool tracking.system_metrics collect.sources "
    "collect.manifest collect.collect zoo.costs zoo.catalog cli.main"
).split()


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def test_no_folder_holds_more_modules_than_a_reader_takes_in():
    folders = {}
    for file in modules():
        if file.name != "__init__.py":
            folders.setdefault(file.parent, []).append(file.name)
    assert {place: names for place, names in folders.items() if len(names) > MOST_MODULES} == {}


def test_no_module_grows_past_its_bound_without_a_reason():
    lines = {
        file.relative_to(PACKAGE).as_posix(): len(file.read_text(encoding="utf-8").splitlines())
        for file in modules()
    }
    assert {name: n for name, n in lines.items() if n > MOST_LINES and name not in LONGER} == {}
    assert {name for name in LONGER if lines.get(name, 0) <= MOST_LINES} == set()


def test_packages_import_nothing_when_they_are_imported():
    for file in PACKAGE.rglob("__init__.py"):
        if file.parent != PACKAGE:
            (docstring,) = ast.parse(file.read_text(encoding="utf-8")).body
            assert isinstance(docstring, ast.Expr), file


def test_every_room_has_its_place_in_the_contract():
    code = ROOT / "docs/draw_rooms.py"
    placed = {name for row in _loaded(code).rooms() for name in row}
    rooms = {
        file.stem for file in PACKAGE.iterdir() if file.is_dir() and (file / "__init__.py").exists()
    }
    alone = {file.stem for file in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert rooms | alone == placed


def test_the_picture_of_the_rooms_is_that_of_the_contract():
    drawn = _loaded(ROOT / "docs/draw_rooms.py")
    assert drawn.PICTURE.read_text(encoding="utf-8") == drawn.drawing(drawn.rooms())


def _loaded(file):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_module_is_called_utils():
    assert not [file for file in modules() if "util" in file.stem or "helper" in file.stem]


def test_every_csv_is_written_by_the_one_function_that_guards_cells():
    writers = re.compile(r"csv\.(writer|DictWriter)\b|\bDictWriter\b|\.to_csv\(|import writer")
    found = [
        file.relative_to(ROOT).as_posix()
        for place in ("odtrain", "runtime/odtrain_runtime")
        for file in sorted((ROOT / place).rglob("*.py"))
        if writers.search(file.read_text(encoding="utf-8"))
    ]
    assert found == ["odtrain/io/cells.py"]


def test_no_test_imports_another_test():
    for file in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("test_"), file


def test_model_gardens_vision_package_is_not_imported_before_one_of_its_models_is_built():
    for file in modules():
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("official.vision"), file


def test_predicting_with_a_tflite_file_waits_for_neither_tensorflow_nor_mlflow():
    code = "import odtrain.predict.predict, sys\nsys.exit(bool({'tensorflow', 'mlflow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_data_and_evaluation_modules_do_not_bring_tensorflow_with_them():
    code = "import sys, importlib\n" + "\n".join(
        f"importlib.import_module('odtrain.{name}')" for name in WITHOUT_TENSORFLOW
    )
    done = subprocess.run(
        [sys.executable, "-c", code + "\nsys.exit('tensorflow' in sys.modules)"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", WITHOUT_TENSORFLOW)
def test_these_do_not_import_tensorflow_when_they_are_imported(name):
    file = PACKAGE / (name.replace(".", "/") + ".py")
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {one.split(".")[0] for one in names} & {"tensorflow", "tf_keras", "official"}
