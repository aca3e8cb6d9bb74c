"""Opened model files, ours and strangers', in every layout they come in."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from support.tflite_files import quantize_input, write_constant_model, write_postprocess_model

from odtrain.errors import ModelFileError
from odtrain.model_files.tflite_metadata import with_metadata
from odtrain.structures import Detections
from odtrain_runtime.detector import detections_of
from odtrain_runtime.model_files import load_detector
from odtrain_runtime.others.raw_model import ONE_PICTURE
from odtrain_runtime.others.reading import HEADS
from odtrain_runtime.resizing import resize

PICTURE = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
BOXES = np.array([[[0.1, 0.1, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9], [0, 0, 0, 0]]], np.float32)
SCORES = np.array([[0.75, 0.5, 0]], np.float32)
CLASSES = np.array([[4, 0, 0]], np.float32)
COUNT = np.array([2], np.float32)
MAKE_AGAIN = "Export the model again, or check that the file was copied or downloaded whole."
DETECTORS_ONLY = "Only object detectors with boxes, classes and scores as outputs can be run."


def assert_equal(found: Detections, boxes: Any, scores: Any, classes: Any) -> None:
    np.testing.assert_allclose(found.boxes, boxes, atol=1e-6)
    np.testing.assert_allclose(found.scores, scores, atol=1e-6)
    assert found.classes.tolist() == list(classes)


# ---- resize


@pytest.mark.parametrize("case", ["down", "up", "same"])
def test_resize_is_the_references(shared, case):
    golden = np.load(shared / "golden" / "resize" / "resize.npz")
    resized = resize(golden[f"{case}_in"], (60, 60))
    np.testing.assert_allclose(resized, golden[f"{case}_out"], atol=1e-4)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param((417, 650), (300, 300), id="smaller"),
        pytest.param((97, 41), (160, 224), id="larger, not square"),
        pytest.param((1, 1), (8, 8), id="one pixel"),
        pytest.param((300, 300), (300, 300), id="as it is"),
    ],
)
def test_resize_is_tensorflows(old, new):
    image = np.random.default_rng(1).integers(0, 256, (*old, 3), np.uint8)
    expected = tf.compat.v1.image.resize(image.astype(np.float32), new).numpy()
    np.testing.assert_allclose(resize(image, new), expected, atol=1e-4)


# ---- .tflite


@pytest.mark.parametrize(
    ("names", "order"),
    [
        pytest.param(["a", "b", "c", "d"], "boxes classes scores count", id="classic order"),
        pytest.param(["a", "b", "c", "d"], "scores boxes count classes", id="order since 2.6"),
        pytest.param(["a", "b", "c", "d"], "count scores classes boxes", id="reversed"),
        pytest.param(["a", "b", "c"], "classes scores boxes", id="no count"),
        pytest.param(
            ["detection_scores", "detection_classes", "detection_boxes", "num_detections"],
            "scores classes boxes count",
            id="telling names",
        ),
    ],
)
def test_outputs_are_found_in_any_order(tmp_path, names, order):
    values = {"boxes": BOXES, "classes": CLASSES, "scores": SCORES, "count": COUNT}
    outputs = [(name, values[key]) for name, key in zip(names, order.split(), strict=True)]
    detector = load_detector(write_constant_model(tmp_path / "model.tflite", outputs))
    assert_equal(detector(PICTURE), BOXES[0, :2], SCORES[0, :2], [5, 1])


def test_names_tell_classes_from_scores_where_both_are_whole_numbers(tmp_path):
    ones = np.ones((1, 3), np.float32)
    outputs = [
        ("detection_classes", ones * 0),
        ("detection_boxes", BOXES),
        ("detection_scores", ones),
        ("num_detections", COUNT),
    ]
    found = load_detector(write_constant_model(tmp_path / "model.tflite", outputs))(PICTURE)
    assert_equal(found, BOXES[0, :2], [1, 1], [1, 1])


@pytest.mark.parametrize("described", [True, False])
def test_the_operators_ports_say_which_output_is_which(tmp_path, described):
    one_class = np.array([[0, 0.25], [0, 1], [0, 0.5]], np.float32)
    file = tmp_path / "model.tflite"
    write_postprocess_model(file, one_class, per_class=True, output_order=(2, 0, 3, 1))
    if described:
        file.write_bytes(with_metadata(file.read_bytes(), ["raccoon"], {}))
    boxes = [[0.4, 0.4, 0.6, 0.6], [0.7, 0.7, 0.9, 0.9], [0.1, 0.1, 0.3, 0.3]]
    assert_equal(load_detector(file)(PICTURE), boxes, [1, 0.5, 0.25], [1, 1, 1])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_no_class_is_lost_whatever_the_threads(tmp_path, threads):
    scores = np.array([[0, 0.9, 0, 0, 0], [0, 0, 0, 0.8, 0], [0, 0, 0.7, 0, 0.6]], np.float32)
    file = tmp_path / "model.tflite"
    write_postprocess_model(file, scores, per_class=True, output_order=(0, 1, 2, 3))
    detector = load_detector(file, threads)
    assert detector(PICTURE).classes.tolist() == [1, 3, 2, 4]
    assert detector.threads == 1


def test_one_class_may_use_all_threads(tmp_path):
    scores = np.array([[0, 0.9], [0, 0.8], [0, 0.7]], np.float32)
    file = tmp_path / "model.tflite"
    write_postprocess_model(file, scores, per_class=True, output_order=(0, 1, 2, 3))
    assert load_detector(file, threads=4).threads == 4


def test_class_names_and_passport_come_from_the_file(tmp_path):
    scores = np.array([[0, 0.9, 0], [0, 0, 0.8], [0, 0, 0]], np.float32)
    file = tmp_path / "model.tflite"
    write_postprocess_model(file, scores, per_class=True, output_order=(0, 1, 2, 3))
    passport = {"run_id": "7", "format": "tflite_fp16"}
    file.write_bytes(with_metadata(file.read_bytes(), ["cat", "dog"], passport))
    detector = load_detector(file, class_names=["x", "y"])
    assert detector.class_names == ("cat", "dog")
    assert (detector.passport, detector.format) == (passport, "tflite_fp16")


@pytest.mark.parametrize(
    ("given", "expected"), [(["x", "y"], ("x", "y")), (None, ())], ids=["given", "none"]
)
def test_a_file_without_names_takes_the_given_ones(tmp_path, given, expected):
    outputs = [("a", BOXES), ("b", CLASSES), ("c", SCORES), ("d", COUNT)]
    file = write_constant_model(tmp_path / "model.tflite", outputs)
    detector = load_detector(file, class_names=given)
    assert (detector.class_names, detector.format) == (expected, "tflite")


def test_names_of_another_number_than_the_files_classes_are_refused(tmp_path):
    scores = np.array([[0, 0.9, 0], [0, 0, 0.8], [0, 0, 0]], np.float32)
    file = tmp_path / "model.tflite"
    write_postprocess_model(file, scores, per_class=True, output_order=(0, 1, 2, 3))
    with pytest.raises(ModelFileError) as error:
        load_detector(file, class_names=["raccoon"])
    assert str(error.value) == (
        f"{file}: has 2 classes, but 1 name is given: which name is of which class is not known.\n"
        "  Give the list that the model was made with."
    )


def test_a_class_beyond_the_given_names_is_refused_where_the_file_does_not_count_its_own(tmp_path):
    outputs = [("a", BOXES), ("b", CLASSES), ("c", SCORES), ("d", COUNT)]
    file = write_constant_model(tmp_path / "model.tflite", outputs)
    with pytest.raises(ModelFileError) as error:
        load_detector(file, class_names=["x", "y"])(PICTURE)
    assert str(error.value) == (
        f"{file}: finds class 5, but 2 names are given: which name is of which class is not known.\n"
        "  Give the list that the model was made with."
    )
    assert load_detector(file, class_names=list("abcde"))(PICTURE).classes.tolist() == [5, 1]


def prepared(tmp_path: Path, dtype: type, quantized: tuple[float, int] | None = None) -> Any:
    outputs = [("a", BOXES), ("b", CLASSES), ("c", SCORES), ("d", COUNT)]
    image = np.zeros((1, 4, 6, 3), dtype)
    file = write_constant_model(tmp_path / "model.tflite", outputs, image)
    if quantized:
        quantize_input(file, *quantized)
    return load_detector(file).prepare(PICTURE)


def test_float_input_is_normalised(tmp_path):
    tensor = prepared(tmp_path, np.float32)
    np.testing.assert_allclose(tensor[0], (PICTURE - 127.5) / 127.5, atol=1e-6)


def test_uint8_input_takes_pixels_as_they_are(tmp_path):
    np.testing.assert_array_equal(prepared(tmp_path, np.uint8, (1 / 128, 128))[0], PICTURE)


def test_resized_pixels_are_rounded_for_uint8_input(tmp_path):
    outputs = [("a", BOXES), ("b", CLASSES), ("c", SCORES), ("d", COUNT)]
    image = np.zeros((1, 4, 6, 3), np.uint8)
    detector = load_detector(write_constant_model(tmp_path / "model.tflite", outputs, image))
    picture = np.random.default_rng(2).integers(0, 256, (7, 5, 3), np.uint8)
    exact = resize(picture, (4, 6))
    assert np.abs(detector.prepare(picture)[0] - exact).max() <= 0.5


def test_int8_input_is_quantised(tmp_path):
    tensor = prepared(tmp_path, np.int8, (1 / 127.5, -1))
    difference = tensor[0].astype(int) - (PICTURE.astype(int) - 128)
    assert tensor.dtype == np.int8
    assert np.abs(difference).max() <= 1


def test_input_size_is_the_files(tmp_path):
    outputs = [("a", BOXES), ("b", CLASSES), ("c", SCORES), ("d", COUNT)]
    detector = load_detector(write_constant_model(tmp_path / "model.tflite", outputs))
    assert detector.input_size == (4, 6)


# ---- raw outputs


def test_detections_are_sorted_and_clipped_without_padding():
    raw = {
        "location": np.array([[-0.5, 0, 0.5, 1.5], [0, 0, 1, 1], [1, 1, 2, 2], [0, 0, 1, 1]]),
        "score": np.array([0.5, 0.75, 0.9, 0.8]),
        "category": np.array([1.0, 2.0, 3.0, 4.0]),
        "number of detections": np.array(3.0),
    }
    assert_equal(detections_of(raw), [[0, 0, 1, 1], [0, 0, 0.5, 1]], [0.75, 0.5], [2, 1])


# ---- files that people bring along


@pytest.fixture(scope="module")
def raccoons(shared: Path) -> list[np.ndarray]:
    files = sorted((shared / "data" / "raccoon").rglob("*.jpg"))[:4]
    return [np.asarray(Image.open(file).convert("RGB")) for file in files]


@pytest.fixture(scope="module")
def zoo(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    name = "ssd_mobilenet_v1_0.75_depth_coco_dequantized"
    with tarfile.open(shared / "zoo" / f"{name}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / name


def test_the_published_coco_tflite_sees_what_its_float_graph_sees(shared, zoo, raccoons):
    tflite = load_detector(shared / "zoo" / "ssd_mobilenet_v1_0.75_depth_quantized_coco.tflite")
    graph = load_detector(zoo / "frozen_inference_graph.pb")
    assert (tflite.input_size, graph.input_size) == ((300, 300), (300, 300))
    for image in raccoons:
        a, b = tflite(image).above(0.4), graph(image)
        same = b.classes == a.classes[0]
        assert abs(b.scores[same][0] - a.scores[0]) < 0.08
        assert np.abs(b.boxes[same][0] - a.boxes[0]).max() < 0.06


def test_a_tf1_frozen_graph_and_the_saved_model_beside_it_agree(zoo, raccoons):
    graph, saved = (
        load_detector(zoo / name) for name in ("frozen_inference_graph.pb", "saved_model")
    )
    assert (graph.format, saved.format, saved.input_size) == ("pb", "saved_model", (300, 300))
    for image in raccoons:
        expected = graph(image)
        assert_equal(saved(image), expected.boxes, expected.scores, expected.classes)
        assert len(expected) == 100


def test_a_tf1_frozen_graph_says_how_many_classes_it_has(zoo):
    assert load_detector(zoo / "frozen_inference_graph.pb").num_classes == 90


def test_the_file_inside_a_saved_model_stands_for_its_folder(zoo):
    assert load_detector(zoo / "saved_model" / "saved_model.pb").format == "saved_model"


# ---- files that cannot be run


def message(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        load_detector(path)
    return str(caught.value)


def test_a_missing_file(tmp_path):
    file = tmp_path / "none.tflite"
    assert message(file) == f"{file}: there is no such file.\n  Check the path."


@pytest.mark.parametrize("name", ["model.h5", "folder"])
def test_something_that_is_no_model_file(tmp_path, name):
    file = tmp_path / name
    file.mkdir() if name == "folder" else file.write_bytes(b"x")
    assert message(file) == (
        f"{file}: not a model file that can be run.\n"
        "  Give a .pb, a .tflite, an .onnx, an OpenVINO .xml, or a SavedModel folder (it holds saved_model.pb)."
    )


def test_a_truncated_tflite(tmp_path):
    outputs = [("a", BOXES), ("b", CLASSES), ("c", SCORES), ("d", COUNT)]
    file = write_constant_model(tmp_path / "model.tflite", outputs)
    file.write_bytes(file.read_bytes()[:200])
    shown = message(file)
    assert shown.startswith(f"{file}: cannot be run: ")
    assert shown.endswith(f"\n  {MAKE_AGAIN}")


def test_a_tflite_that_classifies(tmp_path):
    file = tmp_path / "model.tflite"
    write_constant_model(file, [("probabilities", np.zeros((1, 1001), np.float32))])
    assert message(file) == (
        f"{file}: its outputs, without the batch, are probabilities (1001,): of no detector that is known.\n"
        f"  Known heads are: {', '.join(HEADS)}."
    )


def test_a_tflite_that_takes_no_picture(tmp_path):
    outputs = [("a", BOXES), ("b", CLASSES), ("c", SCORES), ("d", COUNT)]
    sound = np.zeros((1, 16000), np.float32)
    file = write_constant_model(tmp_path / "model.tflite", outputs, sound)
    assert message(file) == (
        f"{file}: takes (1, 16000), not one RGB picture (1, height, width, 3).\n  {DETECTORS_ONLY}"
    )


def test_a_pb_that_is_no_graph(tmp_path):
    file = tmp_path / "model.pb"
    file.write_bytes(b"\xff\xd8 not a graph")
    shown = message(file)
    assert shown.startswith(f"{file}: cannot be run: ")
    assert shown.endswith(f"\n  {MAKE_AGAIN}")


def test_a_graph_that_classifies(tmp_path):
    with tf.Graph().as_default() as graph:
        tf.compat.v1.placeholder(tf.uint8, (None, None, None, 3), name="image_tensor")
        tf.compat.v1.placeholder(tf.float32, (None, 4), name="words")
    file = tmp_path / "model.pb"
    file.write_bytes(graph.as_graph_def().SerializeToString())
    assert message(file) == (
        f"{file}: no object detector: the graph takes image_tensor, words, not one picture.\n"
        f"  {DETECTORS_ONLY}"
    )


# ---- files that end before detections

YOLO = np.zeros((1, 6, 10), np.float32)
YOLO[0, :, 0] = [0.5, 0.5, 0.5, 0.25, 0.1, 0.9]
SETTINGS = "classes: [cat, dog]\nresize: stretch\nscale: 0.00392156863\n"


def finds_a_dog_in_the_middle(file, folder):
    (folder / "source.yaml").write_text(SETTINGS)
    found = load_detector(file)(np.zeros((40, 60, 3), np.uint8))
    assert found.boxes[0] == pytest.approx([0.375, 0.25, 0.625, 0.75])
    assert (found.scores[0], found.classes[0]) == (pytest.approx(0.9), 2)


def test_a_tflite_without_suppression_is_read_as_source_yaml_says(tmp_path):
    finds_a_dog_in_the_middle(
        write_constant_model(tmp_path / "model.tflite", [("output", YOLO)]), tmp_path
    )


def test_a_frozen_graph_without_suppression_is_read_as_source_yaml_says(tmp_path):
    with tf.Graph().as_default() as graph:
        images = tf.compat.v1.placeholder(tf.float32, (None, 64, 64, 3), name="images")
        tf.identity(YOLO + 0 * tf.reduce_mean(images), name="output")
    file = tmp_path / "model.pb"
    file.write_bytes(graph.as_graph_def().SerializeToString())
    finds_a_dog_in_the_middle(file, tmp_path)


def test_a_saved_model_without_suppression_is_read_as_source_yaml_says(tmp_path):
    module = tf.Module()
    signature = [tf.TensorSpec((1, 64, 64, 3), tf.float32, "images")]
    module.run = tf.function(
        lambda images: {"output": YOLO + 0 * tf.reduce_mean(images)}, input_signature=signature
    )
    folder = tmp_path / "saved_model"
    tf.saved_model.save(module, str(folder), signatures=module.run.get_concrete_function())
    finds_a_dog_in_the_middle(folder, tmp_path)


def test_a_damaged_saved_model(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"\xff\xff")
    shown = message(tmp_path)
    assert shown.startswith(f"{tmp_path}: cannot be run: ")
    assert shown.endswith(f"\n  {MAKE_AGAIN}")


def test_a_saved_model_that_classifies(tmp_path):
    module = tf.Module()
    signature = [tf.TensorSpec((None, 4), tf.float32, "x")]
    module.classify = tf.function(lambda x: {"scores": x}, input_signature=signature)
    signatures = module.classify.get_concrete_function()
    tf.saved_model.save(module, str(tmp_path), signatures=signatures)
    assert message(tmp_path) == (
        f"{tmp_path}: takes (any, 4), not one RGB picture.\n  {ONE_PICTURE}"
    )
