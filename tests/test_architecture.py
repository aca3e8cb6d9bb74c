"""The rules of docs/design.md, "Shape of the code", held by tests."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "odtrain"
MLFLOW = {"store", "delivery", "runs", "track", "lease", "versions", "registry", "pyfunc_model"}
HYDRA = {"config.compose"}
AV = {"video"}
WITHOUT_TENSORFLOW = (
    "errors boxes config.schema config.checks config.compose "
    "framing findings label_map likeness pictures processes shards "
    "annotations "
    "formats.tfrecords scenes splits inspection leaks class_names balance anchors anchor_fit pairing "
    "dataset tfrecord record_files records repair data_diff drawing matching coco_eval charts "
    "data_charts evaluate passport tflite_metadata native_output detectors benchmark spool machine archives "
    "video fetching picture_sources manifest collect download cli "
    "costs findings_page catalogue paired detection_files"
).split()


ORDER = (
    "__init__ errors boxes config.__init__ config.schema config.checks config.compose framing "
    # data
    "findings text_format label_map "
    "likeness tfrecord annotations formats.reading formats.xml_files formats.voc "
    "formats.cvat formats.yolo formats.csv_table formats.documents formats.coco formats.createml "
    "formats.labelme formats.label_studio formats.tfrecords formats.__init__ pictures processes "
    "inspection scenes splits pairing leaks class_names balance "
    "anchors anchor_fit dataset shards record_files records convert repair data_diff "
    # pictures from anywhere
    "video fetching archives picture_sources manifest collect "
    # network
    "models.layers models.heads models.blocks models.ssd models.ssd_mobilenet_v1 "
    "models.ssd_mobilenet_v2 models.ssd_mobilenet_v3 models.ssd_mobiledet models.ssd_inception_v2 "
    "models.ssd_ppn models.resnet_v1 models.ssd_fpn models.retinanet models.__init__ "
    "checkpoints download costs catalogue zoo "
    # training
    "augment inputs targets mining retinanet_loss losses schedules optimizers turns train "
    # evaluation
    "matching drawing findings_page coco_eval charts data_charts data_pictures evaluate mistakes "
    "paired detection_files "
    # exported files
    "passport flat_tables tflite_metadata native_output export file_detector graph_detector "
    "tflite_detector detectors benchmark proof gate model_card "
    # tracking
    "spool machine server store delivery runs track lease versions registry pyfunc_model "
    # whole jobs
    "sources compare report promotion thresholds pipeline live media journal predictions looking predict web "
    "webcam serving verification worth prelabel merging pipeline_config pipeline_import "
    "experiment sweep_space sweep_front sweep_rule sweep_trial sweep_study sweep_trials sweep_results "
    "sweep_worker sweep_page sweep_pick sweep cli __main__"
).split()
"""Every module, each importing earlier ones alone: a new module gets its place here."""


def modules():
    return {
        ".".join(file.relative_to(PACKAGE).with_suffix("").parts): file
        for file in sorted(PACKAGE.rglob("*.py"))
    }


def imported(file, *, anywhere):
    """Names of the modules that a file imports: at its top level, or anywhere in it."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if anywhere else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def users_of(library):
    return {
        name
        for name, file in modules().items()
        if any(f"{found}.".startswith(f"{library}.") for found in imported(file, anywhere=True))
    }


def test_mlflow_stays_in_the_tracking_modules():
    assert users_of("mlflow") <= MLFLOW


def test_hydra_stays_in_the_configuration():
    assert users_of("hydra") <= HYDRA


def test_pyav_stays_where_video_is():
    assert users_of("av") <= AV


@pytest.mark.parametrize("name", ORDER)
def test_model_gardens_vision_package_is_not_imported_before_one_of_its_models_is_built(name):
    tops = imported(modules()[name], anywhere=False)
    assert not [top for top in tops if top.startswith("official.vision")]


def test_no_module_is_called_utils():
    assert not [name for name in modules() if "util" in name or "helper" in name]


def test_every_module_has_its_place_in_the_order():
    assert sorted(ORDER) == sorted(modules())


@pytest.mark.parametrize("name", ORDER)
def test_a_module_imports_earlier_ones_alone(name):
    allowed = ORDER[: ORDER.index(name) + 1]
    found = {
        used.removeprefix("odtrain.")
        for used in imported(modules()[name], anywhere=True)
        if used.startswith("odtrain.")
    }
    # `from odtrain.boxes import Detect` yields odtrain.boxes and odtrain.boxes.Detect.
    known = {used for used in found if used in ORDER or f"{used}.__init__" in ORDER}
    assert not {used for used in known if not {used, f"{used}.__init__"} & set(allowed)}


def test_only_compare_experiment_registry_and_sweep_know_the_tracker():
    assert users_of("odtrain.track") == {"compare", "experiment", "registry", "sweep"}


@pytest.mark.parametrize("name", WITHOUT_TENSORFLOW)
def test_these_are_imported_without_tensorflow(name):
    tops = set(imported(modules()[name], anywhere=False))
    assert not [top for top in tops if top.split(".")[0] in ("tensorflow", "tf_keras", "official")]


def test_predicting_with_a_tflite_file_waits_for_neither_tensorflow_nor_mlflow():
    code = "import sys, odtrain.predict.predict\nsys.exit(bool({'tensorflow', 'mlflow'} & set(sys.modules)))"
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
