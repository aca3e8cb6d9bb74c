"""Graphs that reach beyond computing: refused before TensorFlow is given any of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from odtrain.cli.commands import COMMANDS
from odtrain.cli.commands import load as load_command
from odtrain.config.compose import compose_config
from odtrain.export.benchmark import measure
from odtrain.model_source import open_source
from odtrain_runtime import load
from odtrain_runtime.errors import ModelFileError
from odtrain_runtime.graph_operators import ONLY_IF_TRUSTED
from odtrain_runtime.model_files import load_detector

v1 = tf.compat.v1
PICTURE = np.zeros((4, 6, 3), np.uint8)


def outputs(batch: tf.Tensor) -> dict[str, tf.Tensor]:
    """One box in every picture, under the Object Detection API's names."""
    none = 0 * tf.cast(tf.reduce_sum(batch), tf.float32)
    values = {
        "detection_boxes": [[[0.0, 0.0, 1.0, 1.0]]],
        "detection_classes": [[1.0]],
        "detection_scores": [[0.5]],
        "num_detections": [1.0],
    }
    return {name: tf.add(none, value, name=name) for name, value in values.items()}


def frozen(file: Path, effect: Callable[[], object]) -> Path:
    with tf.Graph().as_default() as graph:
        batch = v1.placeholder(tf.uint8, (None, None, None, 3), "image_tensor")
        with tf.control_dependencies([effect()]):
            outputs(tf.identity(batch))
    file.write_bytes(graph.as_graph_def().SerializeToString())
    return file


def of_objects(folder: Path, effect: Callable[[], object]) -> Path:
    """A SavedModel of TensorFlow 2 with a variable of its own."""

    class Model(tf.Module):
        def __init__(self) -> None:
            self.weight = tf.Variable(1.0)

        @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])
        def detect(self, input_tensor: tf.Tensor) -> dict[str, tf.Tensor]:
            effect()
            return {key: self.weight * value for key, value in outputs(input_tensor).items()}

    model = Model()
    tf.saved_model.save(model, str(folder), signatures=model.detect)
    return folder


def of_sessions(
    folder: Path,
    when_run: Callable[[], object] = tf.no_op,
    when_loaded: Callable[[], object] | None = None,
) -> Path:
    """A SavedModel of TensorFlow 1 with a variable of its own."""
    with tf.Graph().as_default(), v1.Session() as session:
        batch = v1.placeholder(tf.uint8, (None, None, None, 3), "image_tensor")
        weight = v1.get_variable("weight", initializer=1.0, use_resource=False)
        with tf.control_dependencies([when_run()]):
            found = {key: value * weight for key, value in outputs(tf.identity(batch)).items()}
        session.run(v1.global_variables_initializer())
        signature = v1.saved_model.predict_signature_def({"inputs": batch}, found)
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {"serving_default": signature},
            main_op=when_loaded() if when_loaded else None,
        )
        builder.save()
    return folder


def refused(path: Path, *operators: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        load_detector(path)
    names = ", ".join(operators)
    assert str(caught.value) == (
        f"{path}: holds operators that may do more than compute: {names}.\n  {ONLY_IF_TRUSTED}"
    )


def writing(file: Path) -> Callable[[], object]:
    return lambda: tf.raw_ops.WriteFile(filename=str(file), contents="x")


def in_a_function(effect: Callable[[], object]) -> Callable[[], object]:
    """The effect in a function that a branch of another one calls."""
    inner = tf.function(lambda: (effect(), tf.constant(1))[1])
    outer = tf.function(lambda: tf.cond(tf.random.uniform(()) < 2, inner, lambda: tf.constant(0)))
    return outer


EFFECTS = {
    "ReadFile": lambda: tf.io.read_file("/etc/hostname"),
    "MatchingFiles": lambda: tf.io.matching_files("/*"),
    "PyFunc": lambda: v1.py_func(lambda: 1, [], tf.int64),
    "EagerPyFunc": lambda: tf.py_function(lambda: 1, [], tf.int64),
    "PrintV2": lambda: tf.print("x", output_stream="file:///tmp/never"),
    "RestoreV2": lambda: tf.raw_ops.RestoreV2(
        prefix="x", tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32]
    )[0],
    "ImmutableConst": lambda: tf.raw_ops.ImmutableConst(
        dtype=tf.uint8, shape=(1,), memory_region_name="/etc/hostname"
    ),
}


@pytest.mark.parametrize("operator", EFFECTS)
def test_a_frozen_graph_that_does_more_than_compute_is_refused_by_name(operator, tmp_path):
    refused(frozen(tmp_path / "graph.pb", EFFECTS[operator]), operator)


@pytest.mark.parametrize("make", [frozen, of_objects, of_sessions])
@pytest.mark.parametrize("deep", [False, True])
def test_a_graph_that_writes_when_it_is_run_is_refused(make, deep, tmp_path):
    written = tmp_path / "written"
    effect = in_a_function(writing(written)) if deep else writing(written)
    refused(make(tmp_path / "graph.pb", effect), "WriteFile")
    assert not written.exists()


def test_a_saved_model_that_writes_when_it_is_loaded_is_refused(tmp_path):
    written = tmp_path / "written"
    refused(of_sessions(tmp_path / "saved", when_loaded=writing(written)), "WriteFile")
    assert not written.exists()


def test_a_signature_that_saves_the_variables_somewhere_is_refused(tmp_path):
    saves = lambda: tf.raw_ops.SaveV2(  # noqa: E731
        prefix=str(tmp_path / "written"), tensor_names=["a"], shape_and_slices=[""], tensors=[1.0]
    )
    refused(of_sessions(tmp_path / "saved", saves), "SaveV2")
    refused(of_objects(tmp_path / "objects", saves), "SaveV2")


def test_a_saver_that_restores_from_another_file_is_refused(tmp_path):
    folder = of_sessions(tmp_path / "saved")
    saved = saved_model(folder)
    graph = saved.meta_graphs[0].graph_def
    other = graph.node.add()
    other.CopyFrom(next(node for node in graph.node if node.name == "save/Const"))
    other.name = "other"
    restoring = next(node for node in graph.node if node.op == "RestoreV2")
    restoring.input[0] = "other"
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
    refused(folder, "RestoreV2")


def saved_model(folder: Path):
    from tensorflow.core.protobuf import saved_model_pb2

    return saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())


@pytest.mark.parametrize("make", [of_objects, of_sessions])
def test_a_saved_model_restores_its_own_variables(make, tmp_path):
    folder = make(tmp_path / "saved", tf.no_op)
    kept = {node.op for node in all_nodes(folder)}
    assert {"SaveV2", "RestoreV2"} <= kept
    assert load_detector(folder)(PICTURE).scores.tolist() == [0.5]


def all_nodes(folder: Path):
    graph = saved_model(folder).meta_graphs[0].graph_def
    return [*graph.node, *(node for each in graph.library.function for node in each.node_def)]


def test_a_trusted_graph_runs_and_the_warning_says_what_it_may_do(tmp_path, caplog):
    written = tmp_path / "written"
    file = frozen(tmp_path / "graph.pb", writing(written))
    assert len(load(file, trusted=True).predict(PICTURE)[0]) == 1
    assert written.read_text() == "x"
    assert caplog.messages == [
        f"{file}: holds operators that may do more than compute: WriteFile. It is trusted, and run."
    ]


def test_a_function_cannot_hide_behind_the_name_of_an_operator(tmp_path):
    file = frozen(tmp_path / "graph.pb", tf.no_op)
    graph = v1.GraphDef.FromString(file.read_bytes())
    graph.library.function.add().signature.name = "ReadFile"
    graph.node.add(name="read", op="ReadFile", input=["num_detections"])
    file.write_bytes(graph.SerializeToString())
    refused(file, "ReadFile")


def test_trust_source_lets_a_graph_through_wherever_source_is_read(tmp_path):
    written = tmp_path / "written"
    file = frozen(tmp_path / "graph.pb", writing(written))
    labels = tmp_path / "labels.txt"
    labels.write_text("thing\n")
    asked = [f"source={file}", f"predict.label_map={labels}"]
    with pytest.raises(ModelFileError):
        open_source(str(file), compose_config(asked))
    source = open_source(str(file), compose_config([*asked, "trust_source=true"]))
    assert not written.exists()
    assert len(source.detect(PICTURE)) == 1


@pytest.mark.slow
def test_a_file_is_trusted_in_a_process_of_its_own_only_where_the_user_does(tmp_path):
    file = frozen(tmp_path / "graph.pb", writing(tmp_path / "written"))
    with pytest.raises(ModelFileError) as caught:
        measure(file, [PICTURE], 1, 1)
    assert caught.value.args[1].endswith("may do more than compute: WriteFile.")
    assert len(measure(file, [PICTURE], 1, 1, trusted=True).detections[0]) == 1


def test_every_command_that_reads_source_reads_whether_it_is_trusted():
    for name in COMMANDS:
        for action in load_command(name).actions.values():
            assert ("source" in action.settings) <= (
                "trust_source" in action.settings or name in ("export", "submit")
            )
