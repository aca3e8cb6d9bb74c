"""Every export format of a small network with known weights, each compared with the network."""

from __future__ import annotations

import os
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageDraw

from odtrain.config.compose import section
from odtrain.config.schema import BenchmarkConfig, ModelConfig
from odtrain.errors import ConfigError
from odtrain.export import raw_outputs
from odtrain.export.benchmark import agreement, measure
from odtrain.export.parity import not_exact, prove
from odtrain.export.raw_outputs import raw_difference, raw_of, raw_reader
from odtrain.export.writers import WRITERS, as_exported, export
from odtrain.export_formats import FORMATS
from odtrain.models.build import SSD, build_detector
from odtrain.structures import Detections, GroundTruth, UInt8Image, pairwise_iou
from odtrain_runtime.model_files import load_detector
from odtrain_runtime.tflite import open_tflite
from odtrain_runtime.tflite_metadata import read_metadata

pytestmark = pytest.mark.slow

NAMES = ("open", "close", "엘리베이터")
PASSPORT = {"run_id": "4f2a", "data_digest": "sha256:77"}
CONFIG = section(
    ModelConfig,
    name="small",
    architecture="ssd_mobilenet_v1",
    input_size=[128, 160],
    depth_multiplier=0.25,
    initializer="he",
)
TENSORFLOW = [name for name in FORMATS if not name.startswith(("onnx", "openvino"))]
"""The others see whole levels: tests/export/test_onnx_writer.py, test_openvino_writer.py."""
TF1_OPERATORS = {
    "AddV2", "BiasAdd", "Cast", "CombinedNonMaxSuppression", "ConcatV2", "Const", "Conv2D",
    "DepthwiseConv2dNative", "Exp", "FusedBatchNormV3", "GatherV2", "Greater", "Identity",
    "Maximum", "Minimum", "Mul", "NoOp", "Pack", "Pad", "Placeholder", "RealDiv", "Relu6",
    "Reshape", "ResizeBilinear", "SelectV2", "Shape", "Sigmoid", "StridedSlice", "Sub", "Sum",
    "TopKV2",
}  # fmt: skip
"""Operators in files that TensorFlow 1.15.5 itself was seen to load and run."""


def spread_predictions(detector: SSD) -> None:
    """Give the network weights with which scores and boxes differ widely, as after training."""
    random = np.random.default_rng(5)
    for name, variable in detector.variables_by_name().items():
        if name.endswith("gamma"):
            variable.assign(np.full(variable.shape, 1.15, np.float32))
        for end, spread in (
            ("BoxEncodingPredictor/weights", 0.05),
            ("ClassPredictor/weights", 0.1),
        ):
            if name.endswith(end):
                variable.assign(random.normal(0, spread, variable.shape).astype(np.float32))
        if name.endswith("ClassPredictor/biases"):
            variable.assign(np.full(variable.shape, -4, np.float32))


def drawn_pictures(count: int, seed: int) -> list[UInt8Image]:
    """Pictures of several sizes with bright shapes on grey."""
    random = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        width, height = (int(side) for side in random.integers(90, 400, 2))
        picture = Image.new("RGB", (width, height), (90, 90, 90))
        for _ in range(6):
            x, y = random.integers(0, width - 40), random.integers(0, height - 40)
            box = (
                int(x),
                int(y),
                int(x + random.integers(20, 90)),
                int(y + random.integers(20, 90)),
            )
            ImageDraw.Draw(picture).ellipse(box, fill=tuple(map(int, random.integers(0, 256, 3))))
        pictures.append(np.asarray(picture))
    return pictures


@pytest.fixture(scope="module")
def detector() -> SSD:
    built = build_detector(CONFIG, len(NAMES), seed=3)
    spread_predictions(built)
    return built


@pytest.fixture(scope="module")
def pictures() -> list[UInt8Image]:
    return drawn_pictures(6, seed=1)


@pytest.fixture(scope="module")
def expected(detector: SSD, pictures: list[UInt8Image]) -> list[Detections]:
    detect = detector.as_detect()
    return [detect(picture) for picture in pictures]


@pytest.fixture(scope="module")
def exported(detector: SSD, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("run") / "export"
    calibration = iter(drawn_pictures(12, seed=2))
    return export(detector, NAMES, TENSORFLOW, folder, calibration, "builtin", PASSPORT)


def test_files_have_the_names_people_rely_on(exported):
    folder = exported["pb"].parent
    assert {name: path.name for name, path in exported.items()} == {
        "pb": "frozen_inference_graph.pb",
        "saved_model": "saved_model",
        "tflite_fp32": "model.tflite",
        "tflite_fp16": "model_fp16.tflite",
        "tflite_dynamic": "model_dynamic.tflite",
        "tflite_int8": "model_int8.tflite",
    }
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*(path.name for path in exported.values()), "label_map.pbtxt", "labels.txt"]
    )


def test_labels_are_written_beside_the_files(exported):
    folder = exported["pb"].parent
    assert (folder / "labels.txt").read_text("utf-8") == "open\nclose\n엘리베이터\n"
    assert (folder / "label_map.pbtxt").read_text("utf-8") == (
        "item {\n  id: 1\n  name: 'open'\n}\n"
        "item {\n  id: 2\n  name: 'close'\n}\n"
        "item {\n  id: 3\n  name: '엘리베이터'\n}\n"
    )


def test_the_network_finds_enough_to_compare(expected):
    found = [each.above(0.2) for each in expected]
    assert all(10 <= len(each) <= 100 for each in found)
    assert {int(class_id) for each in found for class_id in each.classes} == {1, 2, 3}


@pytest.mark.parametrize("name", ["pb", "tflite_fp32"])
def test_float_files_do_what_the_network_does_in_a_fresh_process(
    name, exported, pictures, expected
):
    measured = measure(exported[name], pictures, runs=2, threads=2)
    compared = agreement(expected, measured.detections)
    assert (compared.within_tolerance, compared.unmatched) == (True, 0)


def test_a_saved_model_does_what_the_network_does(exported, pictures, expected):
    detector = load_detector(exported["saved_model"])
    compared = agreement(expected, [detector(picture) for picture in pictures])
    assert (compared.within_tolerance, compared.unmatched) == (True, 0)


def shares_found(expected: list[Detections], found: list[Detections], score: float) -> float:
    """Share of the expected detections of at least `score` with a box of their class on them."""
    hits = []
    for a, b in zip(expected, found, strict=True):
        sure = a.above(score)
        overlaps = pairwise_iou(sure.boxes, b.boxes)
        overlaps[sure.classes[:, None] != b.classes[None]] = 0
        hits.extend(overlaps.max(axis=1, initial=0) >= 0.5)
    return float(np.mean(hits))


@pytest.mark.parametrize(
    ("name", "share"), [("tflite_fp16", 0.98), ("tflite_dynamic", 0.9), ("tflite_int8", 0.8)]
)
def test_smaller_files_find_most_of_it(name, share, exported, pictures, expected):
    detector = load_detector(exported[name])
    assert shares_found(expected, [detector(picture) for picture in pictures], 0.2) >= share


@pytest.mark.parametrize("name", TENSORFLOW)
def test_every_file_carries_names_passport_and_input_size(name, exported):
    detector = load_detector(exported[name])
    assert detector.class_names == NAMES
    facts = {key: value for key, value in detector.passport.items() if not key.startswith("int8")}
    assert facts == {**PASSPORT, "format": name, "input_size": "128x160"}
    assert ("int8" in detector.passport) == (name == "tflite_int8")
    assert (detector.format, detector.input_size) == (name, (128, 160))


@pytest.mark.parametrize("name", [name for name in FORMATS if name.startswith("tflite")])
def test_class_ids_are_whole_numbers_within_the_names(name, exported, pictures):
    raw = load_detector(exported[name]).run_once(pictures[0])
    classes = raw["category"][: int(raw["number of detections"])]
    assert classes.dtype == np.float32
    assert set(classes.tolist()) <= {1.0, 2.0, 3.0}


# ---- frozen graph


def imported(file: Path) -> tf.Graph:
    """As a TensorFlow 1 notebook does it."""
    graph = tf.Graph()
    with graph.as_default():
        graph_def = tf.compat.v1.GraphDef()
        with tf.io.gfile.GFile(str(file), "rb") as stream:
            graph_def.ParseFromString(stream.read())
        tf.import_graph_def(graph_def, name="")
    return graph


def test_a_notebook_that_reads_image_tensor_works_unchanged(exported, pictures, expected):
    graph = imported(exported["pb"])
    with tf.compat.v1.Session(graph=graph) as session:
        names = (
            "detection_boxes:0",
            "detection_scores:0",
            "detection_classes:0",
            "num_detections:0",
        )
        boxes, scores, classes, number = session.run(
            names, feed_dict={"image_tensor:0": np.expand_dims(pictures[0], 0)}
        )
    assert [each.dtype for each in (boxes, scores, classes, number)] == [np.float32] * 4
    assert (boxes.shape, scores.shape, classes.shape, number.shape) == (
        (1, 100, 4), (1, 100), (1, 100), (1,)
    )  # fmt: skip
    assert classes[0, 0] == expected[0].classes[0]
    np.testing.assert_allclose(boxes[0, 0], expected[0].boxes[0], atol=1e-3)


def test_a_batch_gives_each_picture_what_it_gets_alone(exported, pictures):
    same_size = [np.asarray(Image.fromarray(each).resize((200, 120))) for each in pictures[:3]]
    graph = imported(exported["pb"])
    with tf.compat.v1.Session(graph=graph) as session:
        run = session.make_callable("detection_scores:0", feed_list=["image_tensor:0"])
        together = run(np.stack(same_size))
        alone = np.concatenate([run(each[None]) for each in same_size])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_graph_needs_nothing_newer_than_tensorflow_1_15(exported):
    graph = tf.compat.v1.GraphDef.FromString(exported["pb"].read_bytes())
    assert {node.op for node in graph.node} <= TF1_OPERATORS
    assert len(graph.library.function) == 0
    norms = [node for node in graph.node if node.op == "FusedBatchNormV3"]
    assert norms
    assert not [node for node in norms if "exponential_avg_factor" in node.attr]


# ---- SavedModel


def test_a_saved_model_can_be_called_as_tensorflow_2_tutorials_do(exported, pictures, expected):
    detect = tf.saved_model.load(str(exported["saved_model"]))
    found = detect(tf.constant(pictures[1][None]))
    assert found["detection_classes"][0, 0] == expected[1].classes[0]
    np.testing.assert_allclose(found["detection_scores"][0, 0], expected[1].scores[0], atol=1e-4)


# ---- .tflite


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("tflite_fp32", np.float32),
        ("tflite_fp16", np.float32),
        ("tflite_dynamic", np.float32),
        ("tflite_int8", np.uint8),
    ],
)
def test_a_tflite_has_the_classic_inputs_and_outputs(name, dtype, exported):
    interpreter = Interpreter(str(exported[name]))
    (image,) = interpreter.get_input_details()
    assert (image["name"], image["dtype"]) == ("normalized_input_image_tensor", dtype)
    assert image["shape"].tolist() == [1, 128, 160, 3]
    outputs = interpreter.get_output_details()
    assert [each["shape"].tolist() for each in outputs] == [[1, 100, 4], [1, 100], [1, 100], [1]]
    assert [each["dtype"] for each in outputs] == [np.float32] * 4


def test_a_tflite_can_be_run_by_its_signature(exported, pictures, expected):
    runner = Interpreter(str(exported["tflite_fp32"])).get_signature_runner()
    image = load_detector(exported["tflite_fp32"]).prepare(pictures[0])
    found = runner(normalized_input_image_tensor=image)
    assert sorted(found) == [
        "detection_boxes",
        "detection_classes",
        "detection_scores",
        "num_detections",
    ]
    assert found["detection_classes"][0, 0] + 1 == expected[0].classes[0]
    assert found["detection_scores"][0, 0] == pytest.approx(expected[0].scores[0], abs=1e-4)


def test_a_zip_reader_gets_class_names_out_of_a_tflite(exported):
    with zipfile.ZipFile(exported["tflite_int8"]) as archive:
        assert archive.namelist() == ["labels.txt", "passport.json"]
        assert archive.read("labels.txt").decode() == "open\nclose\n엘리베이터\n"


def weight_types(file: Path) -> set[int]:
    """Types of the tensors that hold more than a hundred numbers, one of them at most for boxes."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(file.read_bytes())))
    held = [t for t in model.subgraphs[0].tensors if model.buffers[t.buffer].data is not None]
    return {tensor.type for tensor in held if np.prod(tensor.shape) > 5000}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tflite_fp32", schema.TensorType.FLOAT32),
        ("tflite_fp16", schema.TensorType.FLOAT16),
        ("tflite_dynamic", schema.TensorType.INT8),
        ("tflite_int8", schema.TensorType.INT8),
    ],
)
def test_weights_have_the_formats_type(name, kind, exported):
    assert weight_types(exported[name]) == {kind}


def test_what_goes_into_the_detection_operator_is_read_as_the_network_gives_it(
    detector, pictures, tmp_path
):
    files = export(detector, NAMES, ["tflite_fp32"], tmp_path, [], "fast", {})
    operator = read_metadata(files["tflite_fp32"]).postprocess
    assert (operator.per_class, operator.num_classes) == (False, 3)
    read = raw_reader(load_detector(files["tflite_fp32"]))
    found = raw_difference(raw_of(detector, pictures), [read(each) for each in pictures])
    assert not_exact(found) is None


def test_the_detection_operator_loses_a_class_with_several_threads_and_its_proof_says_so(
    detector, pictures, tmp_path
):
    files = export(detector, NAMES, ["tflite_fp32"], tmp_path, [], "regular", {})
    assert read_metadata(files["tflite_fp32"]).postprocess.per_class
    box, of_first = np.float32([[0.1, 0.1, 0.4, 0.4]]), np.int32([1])
    truths = [GroundTruth(str(i), 9, 9, box, of_first) for i in range(len(pictures))]
    found = list(map(detector.as_detect(), pictures))
    timing = BenchmarkConfig(runs=1, threads=2)
    raw = raw_of(detector, pictures)
    (proof,) = prove(files, found, lambda file: raw, pictures, truths, NAMES, 1, timing)
    assert proof.measured.threads == 1
    assert proof.measured.threads_differ.startswith("finds other things with 2 threads: ")
    assert proof.failed == proof.measured.threads_differ


def test_the_checkpoint_is_run_once_beside_all_files_that_see_the_pictures(monkeypatch):
    runs = []
    monkeypatch.setattr(raw_outputs, "raw_of", lambda *given: runs.append(given) or [])
    raw = raw_outputs.raw_beside("detector", "pictures")
    assert [raw(Path(name)) for name in ("model.pb", "saved_model", "model.tflite")] == [[]] * 3
    assert runs == [("detector", "pictures")]


@pytest.mark.parametrize("name", [name for name in FORMATS if name.startswith("tflite")])
def test_every_tflite_finds_the_same_with_any_number_of_threads(name, exported, pictures):
    found = [
        [open_tflite(exported[name], threads, guarded=False)(each) for each in pictures]
        for threads in (1, 2, 3, 4)
    ]
    assert all(agreement(found[0], other) == (0, 0, 0) for other in found[1:])
    assert sum(map(len, found[0])) > 100


@pytest.mark.parametrize("name", ["pb", "saved_model", "tflite_fp32"])
def test_what_goes_into_suppression_is_what_the_network_says(name, exported, detector, pictures):
    read = raw_reader(load_detector(exported[name]))
    found = [read(each) for each in pictures]
    assert [each.boxes.shape for each in found] == [(len(detector.anchors), 4)] * len(pictures)
    assert not_exact(raw_difference(raw_of(detector, pictures), found)) is None


@pytest.mark.parametrize(("padded", "classes"), [(True, 3), (False, 90), (False, 1)])
def test_suppression_of_builtin_operators_keeps_what_the_network_keeps(padded, classes, tmp_path):
    config = replace(CONFIG, resize="pad") if padded else CONFIG
    built = build_detector(config, classes, seed=4)
    spread_predictions(built)
    names = [f"class {number}" for number in range(1, classes + 1)]
    files = export(built, names, ["tflite_fp32"], tmp_path, [], "builtin", {})
    found, detect = load_detector(files["tflite_fp32"]), built.as_detect()
    pictures = drawn_pictures(3, seed=7)
    compared = agreement([detect(each) for each in pictures], [found(each) for each in pictures])
    assert (compared.within_tolerance, compared.unmatched) == (True, 0)


def test_an_int8_file_suppresses_in_float(exported):
    content = exported["tflite_int8"].read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(content)))
    (graph,) = model.subgraphs
    codes = [model.operatorCodes[each.opcodeIndex].builtinCode for each in graph.operators]
    (place,) = np.flatnonzero(np.array(codes) == schema.BuiltinOperator.NON_MAX_SUPPRESSION_V4)
    assert schema.BuiltinOperator.CUSTOM not in codes
    boxes, scores, *_ = graph.operators[place].inputs
    types = [graph.tensors[index].type for index in (boxes, scores)]
    assert types == [schema.TensorType.FLOAT32] * 2


# ---- around it


def test_what_the_converter_prints_stays_off_the_terminal(detector, tmp_path, capfd):
    export(
        detector, NAMES, ["tflite_int8"], tmp_path, drawn_pictures(1, seed=2), "builtin", PASSPORT
    )
    assert capfd.readouterr() == ("", "")


def test_what_the_converter_printed_is_shown_where_it_fails(detector, tmp_path, capfd, monkeypatch):
    def fail(source, name, path):
        os.write(2, b"the converter's own words\n")
        raise RuntimeError("not converted")

    monkeypatch.setitem(WRITERS, "pb", fail)
    with pytest.raises(RuntimeError, match="not converted"):
        export(detector, NAMES, ["pb"], tmp_path, [], "builtin", PASSPORT)
    assert capfd.readouterr() == ("", "the converter's own words\n")


def test_exporting_again_replaces_what_was_there(detector, tmp_path):
    first = export(detector, NAMES, ["saved_model"], tmp_path, [], "builtin", {"run_id": "1"})
    (first["saved_model"] / "left.over").touch()
    export(detector, NAMES, ["saved_model"], tmp_path, [], "builtin", {"run_id": "2"})
    assert load_detector(first["saved_model"]).passport["run_id"] == "2"
    assert not (first["saved_model"] / "left.over").exists()


def test_a_network_trained_in_bfloat16_is_exported_in_float32(
    detector, pictures, expected, tmp_path
):
    trained = build_detector(CONFIG, len(NAMES), precision="bf16", frozen_stages=2)
    for name, variable in trained.variables_by_name().items():
        variable.assign(detector.variables_by_name()[name])
    files = export(trained, NAMES, ["pb"], tmp_path, [], "builtin", {})
    found = load_detector(files["pb"])
    compared = agreement(expected, [found(picture) for picture in pictures])
    assert (compared.within_tolerance, compared.unmatched) == (True, 0)


def test_a_network_whose_batch_norm_is_folded_is_exported_with_the_layers_of_its_architecture(
    detector, pictures, expected
):
    trained = build_detector(CONFIG, len(NAMES), batch_norm_trained=False)
    for name, variable in trained.variables_by_name().items():
        variable.assign(detector.variables_by_name()[name])
    copy = as_exported(trained)
    kinds = [type(layer) for layer in detector.network.layers]
    assert [type(layer) for layer in copy.network.layers] == kinds
    assert [type(layer) for layer in trained.network.layers] != kinds
    detect = copy.as_detect()
    compared = agreement(expected, [detect(picture) for picture in pictures])
    assert (compared.within_tolerance, compared.unmatched) == (True, 0)


@pytest.mark.parametrize(
    ("formats", "nms", "message"),
    [
        pytest.param(
            ["tflight"],
            "builtin",
            'export.formats: unknown "tflight".\n  Choose one of: onnx, onnx_raw, openvino_fp32, '
            "openvino_int8, pb, saved_model, tflite_dynamic, tflite_fp16, tflite_fp32, tflite_int8.",
            id="format",
        ),
        pytest.param(
            ["pb"],
            "slow",
            'export.nms: unknown "slow".\n  Choose one of: builtin, fast, regular.',
            id="suppression",
        ),
        pytest.param(
            ["tflite_int8"],
            "builtin",
            "export.formats: tflite_int8 is calibrated with training pictures, and there are none."
            "\n  Leave tflite_int8 out, or give the dataset training pictures.",
            id="nothing to calibrate with",
        ),
    ],
)
def test_what_cannot_be_exported_says_what_would_be_right(
    formats, nms, message, detector, tmp_path
):
    with pytest.raises(ConfigError) as caught:
        export(detector, NAMES, formats, tmp_path, [], nms, {})
    assert str(caught.value) == message


def test_real_weights_quantised_to_int8_see_the_same_objects(shared, tmp_path):
    name = "ssd_mobilenet_v1_0.75_depth_coco_dequantized"
    with tarfile.open(shared / "zoo" / f"{name}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    config = section(
        ModelConfig,
        name="coco",
        architecture="ssd_mobilenet_v1",
        input_size=300,
        depth_multiplier=0.75,
    )
    detector = build_detector(config, 90)
    checkpoint = tf.train.load_checkpoint(str(tmp_path / name / "model.ckpt"))
    for key, variable in detector.variables_by_name().items():
        variable.assign(checkpoint.get_tensor(key))
    files = sorted((shared / "data" / "raccoon").rglob("*.jpg"))
    images = [np.asarray(Image.open(file).convert("RGB")) for file in files[:30]]
    names = [f"class {number}" for number in range(1, 91)]
    exported = export(detector, names, ["tflite_int8"], tmp_path, images[10:], "builtin", {})
    detect, quantized = detector.as_detect(), load_detector(exported["tflite_int8"])
    found = [[each(image) for image in images[:10]] for each in (detect, quantized)]
    assert sum(len(each.above(0.4)) for each in found[0]) >= 20
    assert shares_found(*found, 0.4) == 1.0


@pytest.mark.parametrize(
    ("nms", "says"),
    [
        (
            "regular",
            "export.nms=regular loses a class with 2 threads or more (tensorflow#56058), so that no such "
            ".tflite is registered. export.nms=builtin does not.",
        ),
        (
            "fast",
            "export.nms=fast lets an object hide one of another class, which costs mAP where they overlap. "
            "export.nms=builtin does not.",
        ),
    ],
)
def test_what_a_kind_of_suppression_costs_is_said_where_there_are_several_classes(
    nms, says, detector, tmp_path, monkeypatch, said
):
    monkeypatch.setattr("odtrain.export.writers.WRITERS", dict.fromkeys(FORMATS, lambda *_: None))
    export(detector, NAMES, ["tflite_fp32"], tmp_path, [], nms, {})
    export(detector, NAMES[:1], ["tflite_fp32"], tmp_path, [], nms, {})
    export(detector, NAMES, ["pb"], tmp_path, [], nms, {})
    assert said == [says]
