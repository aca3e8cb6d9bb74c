"""Exports to OpenVINO: proven as ONNX is, run without odtrain, and nobody is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.made_up_model import made_up_model
from support.whole_levels import NAMES, agrees, lively, printed_alike, shown_pictures

from odtrain.errors import ConfigError
from odtrain.export.benchmark import measure, size_mb
from odtrain.export.openvino_writer import keep_sixths
from odtrain.export.writers import export
from odtrain.models.build import build_detector
from odtrain_runtime.model_files import load_detector
from odtrain_runtime.others.openvino_file import import_openvino, settings

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/detect_openvino.py"
ABSENT = "pip install 'odtrain[openvino]' brings it"
TINY = {"input_size": [64, 96], "depth_multiplier": 0.25}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Both formats of one small network, of which the exact one agrees with it."""
    pytest.importorskip("openvino", reason=ABSENT)
    pytest.importorskip("nncf", reason=ABSENT)
    detector = lively(build_detector(made_up_model(**TINY), len(NAMES)))
    top = tmp_path_factory.mktemp("openvino")
    agrees(detector, "openvino_fp32", top, shown_pictures(2))
    export(detector, NAMES, ["openvino_int8"], top, shown_pictures(8), "builtin", {})
    return top


@pytest.mark.slow
def test_it_takes_a_picture_gives_detections_and_names_its_classes(folder):
    import openvino

    model = openvino.Core().read_model(folder / "openvino_fp32/model.xml")
    image = model.input(0)
    assert (image.get_any_name(), list(image.shape)) == ("images", [1, 64, 96, 3])
    assert image.get_element_type().get_type_name() == "u8"
    shapes = {output.get_any_name(): list(output.shape) for output in model.outputs}
    assert shapes == {
        "boxes": [1, 100, 4],
        "scores": [1, 100],
        "classes": [1, 100],
        "count": [1],
    }
    assert "엘리베이터" in model.get_rt_info(["framework", "names"]).astype(str)


@pytest.mark.slow
def test_the_example_finds_without_odtrain_what_the_file_finds_here(folder, tmp_path):
    printed_alike(EXAMPLE, folder / "openvino_fp32/model.xml", tmp_path)


@pytest.mark.slow
def test_whole_numbers_are_near_and_make_a_smaller_file(folder):
    file, exact = folder / "openvino_int8", folder / "openvino_fp32"
    measured, beside = (
        measure(each, shown_pictures(2), runs=2, threads=threads, proven=True)
        for each, threads in ((file, 2), (exact, 1))
    )
    assert (measured.class_names, measured.threads) == (NAMES, 2)
    assert measured.passport["format"] == load_detector(file).format == "openvino_int8"
    assert size_mb(file / "model.bin") < size_mb(exact / "model.bin") / 2
    apart = [np.abs(a.scores - b.scores) for a, b in zip(measured.raw, beside.raw, strict=True)]
    assert 0 < np.mean(apart) < 0.05


@pytest.mark.slow
def test_whole_numbers_need_pictures(tmp_path):
    pytest.importorskip("openvino", reason=ABSENT)
    detector = build_detector(made_up_model(input_size=64, depth_multiplier=0.1), len(NAMES))
    with pytest.raises(ConfigError) as error:
        export(detector, NAMES, ["openvino_int8"], tmp_path, [], "builtin", {})
    assert str(error.value) == (
        "export.formats: openvino_int8 is calibrated with training pictures, and there are none.\n"
        "  Leave openvino_int8 out, or give the dataset training pictures."
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "package", "said"),
    [("openvino_fp32", "openvino", "OpenVINO"), ("openvino_int8", "nncf", "NNCF")],
)
def test_without_an_extra_the_line_that_installs_it_is_told(
    name, package, said, tmp_path, monkeypatch
):
    if package == "nncf":
        pytest.importorskip("openvino", reason=ABSENT)
    monkeypatch.setitem(sys.modules, package, None)
    detector = build_detector(made_up_model(input_size=64, depth_multiplier=0.1), len(NAMES))
    with pytest.raises(ConfigError) as error:
        export(detector, NAMES, [name], tmp_path, shown_pictures(1), "builtin", {})
    assert str(error.value) == (
        f"export.formats: {name} is written by {said}, which is not here.\n"
        "  Install it: pip install 'odtrain[openvino]'"
    )


def test_a_factor_of_about_a_sixth_stays_what_it_is():
    """OpenVINO computes MobileNet v3's hard sigmoid, relu6(x + 3) times 0.16667, with a sixth."""
    pytest.importorskip("openvino", reason=ABSENT)
    openvino = import_openvino()
    from openvino import opset13

    shown = np.linspace(-5, 5, 1001, dtype=np.float32)[None]
    expected = np.clip(shown + np.float32(3), 0, 6) * np.float32(0.16667)
    apart = []
    for kept in (False, True):
        given = opset13.parameter(shown.shape, np.float32)
        cut = opset13.minimum(
            opset13.maximum(opset13.add(given, np.float32(3)), np.float32(0)), np.float32(6)
        )
        model = openvino.Model([opset13.multiply(cut, np.float32(0.16667))], [given])
        if kept:
            keep_sixths(model)
        compiled = openvino.Core().compile_model(model, "CPU", settings(1))
        apart.append(np.abs(compiled(shown)[0] - expected).max())
    assert apart[0] > 1e-5  # or this is needed no more
    assert apart[1] < 1e-6


def test_their_makers_are_told_nothing(tmp_path):
    """OpenVINO tells of every import, and keeps a number of the user at home for it."""
    pytest.importorskip("openvino", reason=ABSENT)
    program = (
        "import sys\n"
        "from odtrain_runtime.others.openvino_file import import_openvino, nobody_told\n"
        "import_openvino()\n"
        "with nobody_told():\n"
        "    import nncf\n"
        "print('openvino_telemetry' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": ":".join(filter(None, sys.path)), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
    assert list(tmp_path.iterdir()) == []
