"""Where an int8 file differs from float32, and in which pictures."""

import numpy as np
import pytest
from PIL import Image
from support.wide_range import NAMES, drawn_pictures

from odtrain.export.benchmark import change
from odtrain.export.int8.explain import PICTURES, explain, short
from odtrain.export.int8.graph import Graph
from odtrain.export.int8.layers import compare_layers
from odtrain.export_formats import INT8
from odtrain.model_files.operators import for_edge_tpu, for_hexagon, for_xnnpack, shares
from odtrain.structures import Detections
from odtrain_runtime.model_files import load_detector

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def layers(files):
    """What both give in three pictures."""
    pictures = drawn_pictures(3, seed=1)
    return compare_layers(files / "tflite_fp32.tflite", files / f"{INT8}.tflite", pictures)


def test_every_layer_is_compared_and_the_worst_is_first(layers, files):
    noise = [layer.snr_db for layer in layers]
    assert noise == sorted(noise)
    nodes = Graph.read((files / "tflite_fp32.tflite").read_bytes()).nodes.values()
    assert len(layers) >= 0.9 * len({node.name for node in nodes})


def test_half_of_the_channels_of_a_layer_of_far_apart_channels_are_lost(layers):
    found = {layer.name.split("MobilenetV1/")[-1].split("/")[0]: layer for layer in layers}
    assert 0.4 <= found["Conv2d_3_depthwise"].lost_channels <= 0.7
    assert found["Conv2d_2_pointwise"].lost_channels <= 0.1
    # What reads them has larger weights for just what is lost.
    assert found["Conv2d_3_pointwise"].snr_db < 10 < found["Conv2d_2_pointwise"].snr_db
    assert found["Conv2d_3_pointwise"].cosine < 0.97 < found["Conv2d_2_pointwise"].cosine


def test_numbers_beyond_a_range_are_counted(case, files, tmp_path):
    """Calibrated with grey alone, a file cuts off what pictures hold."""
    grey = [np.full((96, 96, 3), 127, np.uint8)] * 2
    calibrated, case.writer.calibration = case.writer.calibration, grey
    try:
        content = case.writer.content(INT8, NAMES, case.passport)
    finally:
        case.writer.calibration = calibrated
    (tmp_path / "grey.tflite").write_bytes(content)
    pictures = drawn_pictures(2, seed=1)
    found = compare_layers(files / "tflite_fp32.tflite", tmp_path / "grey.tflite", pictures)
    assert max(layer.saturated for layer in found) > 0.1
    cut = max(found, key=lambda layer: layer.saturated)
    assert cut.used_high > cut.high or cut.used_low < cut.low


def test_an_explanation_has_table_chart_and_the_pictures_that_changed_most(case, files, tmp_path):
    file = files / f"{INT8}.tflite"
    found = list(map(load_detector(file), case.pictures))
    said = explain(
        case.writer, file, NAMES, case.pictures, case.truths, case.reference, found, tmp_path
    )
    assert said.splitlines()[0] == (
        "| layer | signal to noise | cosine | lost channels | range of the file | in float32 | saturated |"
    )
    assert len(said.splitlines()) == 7
    assert (tmp_path / "layers.md").read_text().startswith(said)
    with Image.open(tmp_path / "layers.png") as chart:
        assert chart.width > 800
    drawn = sorted((tmp_path / "changed").iterdir())
    changes = [change(a, b) for a, b in zip(case.reference, found, strict=True)]
    assert drawn[0].name == f"001_{np.argmax(changes)}.jpg"
    assert len(drawn) == min(PICTURES, sum(each > 0 for each in changes))


def test_a_picture_changed_by_the_scores_that_moved_and_those_of_one_side_alone():
    boxes = np.float32([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]])
    both = Detections(boxes, np.float32([0.9, 0.4]), np.int32([1, 1]))
    one = Detections(boxes[:1], np.float32([0.7]), np.int32([1]))
    assert change(both, one) == pytest.approx(0.2 + 0.4)
    assert change(one, both) == pytest.approx(0.2 + 0.4)
    assert change(both, both) == 0


def test_a_long_name_keeps_its_end():
    name = "network/" * 12 + "Conv2d_3/Relu6;other"
    assert len(short(name)) == 60
    assert short(name).startswith("…") and short(name).endswith("/Conv2d_3/Relu6")


# ---- which operators are taken


def test_all_of_a_networks_convolutions_in_int8_are_taken_by_all_three(files):
    content = (files / f"{INT8}.tflite").read_bytes()
    for look in (for_edge_tpu, for_hexagon, for_xnnpack):
        why = {each.why for each in look(content) if each.name.endswith("CONV_2D")}
        assert why == {None}, look


def test_float32_is_taken_by_xnnpack_alone(files):
    found = shares((files / "tflite_fp32.tflite").read_bytes())
    taken = {name: int(share.split("/")[0]) for name, share in found.items()}
    assert taken["coral"] == taken["hexagon"] == 0 < taken["xnnpack"]


def test_heads_are_what_is_computed_for_boxes_or_for_scores_alone(case):
    graph = Graph.read(case.writer.network("tflite_fp32"))
    names = graph.names(graph.heads)
    assert (
        all("BoxPredictor" in name or "Identity" in name or "/" not in name for name in names)
        or names
    )
    assert not any("FeatureExtractor" in name for name in names)
    convolutions = {
        name for name in graph.names(graph.nodes) if "Predictor/" in name and "Conv2D" in name
    }
    assert convolutions <= names
