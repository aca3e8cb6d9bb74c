"""How models that were trained elsewhere are recognised: by what they say, by shapes, or not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.onnx_files import SIDE, write_constant_onnx

from odtrain_runtime.model_files import open_model
from odtrain_runtime.others.recognise import UnsettledError, recognise, settled

CELLS, FINER = 84, 85
"""Of grids of strides 8, 16 and 32 over 64 pixels; and with stride 64."""


def outputs(
    *shapes: tuple[int, ...], low: float = 0.0, high: float = 60.0
) -> dict[str, np.ndarray]:
    drawn = np.random.default_rng(0)
    return {f"output{i}": drawn.uniform(low, high, (1, *shape)) for i, shape in enumerate(shapes)}


def model(folder: Path, given: dict[str, np.ndarray], texts: dict[str, str] | None = None):
    return open_model(write_constant_onnx(folder / "model.onnx", given, texts=texts), 1)


@pytest.mark.parametrize(
    ("given", "names", "heads"),
    [
        pytest.param(outputs((6, CELLS)), "ab", ["yolo"], id="a row a value"),
        pytest.param(outputs((CELLS, 6)), "ab", ["yolo"], id="the same turned"),
        pytest.param(outputs((CELLS, 6)), "a", ["yolox", "yolox_raw"], id="a column more"),
        pytest.param(outputs((3 * CELLS, 7)), "ab", ["yolov5"], id="three anchors a cell"),
        pytest.param(outputs((300, 6), high=1), "ab", ["end_to_end"], id="few rows of six"),
        pytest.param(outputs((FINER, 34), high=1), "ab", ["nanodet"], id="32 distances"),
        pytest.param(
            outputs((300, 4), (300, 2), high=1), "ab", ["detr", "ssd"], id="two of a length"
        ),
        pytest.param(
            outputs((300, 3), (300, 4), high=1), "ab", ["detr", "ssd"], id="no object more"
        ),
        pytest.param(
            outputs((64, 2), (16, 2), (4, 2), (64, 32), (16, 32), (4, 32), high=1),
            "ab",
            ["nanodet"],
            id="two a grid",
        ),
    ],
)
def test_shapes_and_the_number_of_classes_say_what_a_head_can_be(tmp_path, given, names, heads):
    found = recognise(model(tmp_path, given), {}, tuple(names))
    assert not found.settled
    assert list(dict.fromkeys(each.head for each in found.readings)) == heads


@pytest.mark.parametrize(
    ("texts", "shape", "expected"),
    [
        ({"names": "{0: 'a'}", "stride": "32"}, (5, CELLS), ("yolo", "letterbox", "rgb", 1 / 255)),
        (
            {"names": "{0: 'a'}", "stride": "32"},
            (300, 6),
            ("end_to_end", "letterbox", "rgb", 1 / 255),
        ),
        (
            {"model_family": "yolox", "names": '{"0": "a"}'},
            (CELLS, 6),
            ("yolox", "corner", "bgr", 1),
        ),
        (
            {"model_family": "yolo9", "names": '{"0": "a"}'},
            (5, CELLS),
            ("yolo", "corner", "rgb", 1 / 255),
        ),
        (
            {"model_family": "yolo9", "names": '{"0": "a"}', "letterbox_pad": "center"},
            (5, CELLS),
            ("yolo", "letterbox", "rgb", 1 / 255),
        ),
        (
            {
                "source.yaml": json.dumps({"head": "yolo", "resize": "stretch", "scale": 2}),
                "names": "['a']",
            },
            (5, CELLS),
            ("yolo", "stretch", "rgb", 2),
        ),
    ],
)
def test_what_a_file_says_settles_it(tmp_path, texts, shape, expected):
    how = settled(model(tmp_path, outputs(shape, high=0.4), texts), {}, ())
    assert (how.head, how.resize, how.colours, how.scale) == expected
    assert how.classes == ("a",)


def test_boxes_below_two_everywhere_are_fractions(tmp_path):
    how = settled(
        model(tmp_path, outputs((5, CELLS), high=1)), {"resize": "stretch", "scale": 1.0}, "a"
    )
    assert how.unit == "fractions"


def test_what_cannot_be_told_is_refused_with_the_lines_to_write(tmp_path):
    file = tmp_path / "model.onnx"
    with pytest.raises(UnsettledError) as error:
        settled(model(tmp_path, outputs((CELLS, 6))), {}, ("a",))
    assert str(error.value) == (
        f"{file}: does not say how its pictures are made ready; its outputs may be those of yolox or "
        "yolox_raw.\n"
        "  Name labelled pictures to try it on (data.images=DIR data.annotations=DIR), or write what is "
        "true into source.yaml beside it, such as:\n"
        "head: yolox\n"
        "resize: corner\n"
        "colours: bgr\n"
        "scale: 1\n"
        "mean: [0, 0, 0]\n"
        "std: [1, 1, 1]\n"
        "fill: [114, 114, 114]"
    )
    assert {each.head for each in error.value.readings} == {"yolox", "yolox_raw"}


@pytest.mark.parametrize("text", ["{0: 'a', 2: 'b'}", "[" * 5000, "open('x')", "{'a': 1}", ""])
def test_names_that_cannot_be_read_are_none(tmp_path, text):
    texts = {"names": text, "stride": "32"}
    assert settled(model(tmp_path, outputs((5, CELLS)), texts), {}, ()).classes == ()


def test_an_ssd_without_anchors_is_told_to_give_them(tmp_path):
    given = {f"{name}_out": np.zeros((1, 9, n)) for name, n in (("encodings", 4), ("scores", 2))}
    with pytest.raises(Exception, match="has an SSD's outputs, and no anchors"):
        settled(model(tmp_path, given), {"resize": "stretch", "scale": 1.0}, ("a", "b"))


def test_the_input_is_of_the_file_not_of_source_yaml(tmp_path):
    with pytest.raises(Exception, match=f"takes {SIDE} x {SIDE}, and source.yaml says 32 x 32"):
        settled(model(tmp_path, outputs((5, CELLS))), {"size": (32, 32)}, ("a",))
