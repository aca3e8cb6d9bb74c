"""Which operators of a step a GPU computes. TensorFlow's package has the kernels: no GPU is needed to ask."""

import pytest
import tensorflow as tf
from tensorflow.python.framework.kernels import get_registered_kernels_for_op

from odtrain.config.compose import section
from odtrain.config.schema import ModelConfig, TrainConfig
from odtrain.models.build import build_detector
from odtrain.training.optimizers import build_optimizer
from odtrain.training.schedules import learning_rate
from odtrain.training.task import DetectionTask

pytestmark = pytest.mark.slow

NOT_COMPUTED = {"Const", "NoOp", "Placeholder", "_Arg", "_Retval"}
CALLS = {
    "If",
    "PartitionedCall",
    "StatefulPartitionedCall",
    "StatelessIf",
    "StatelessWhile",
    "While",
}
ON_THE_HOST = {
    (
        "CombinedNonMaxSuppression",
        None,
    ): "hard mining's suppression: 3.9 ms of processor time for 24 pictures",
    ("TensorScatterUpdate", "bool"): "which anchors mining keeps: a bit each",
    ("Pad", "int64"): "the classes of a batch's boxes: some hundred numbers",
    ("ArgMax", "int8"): "the first of equal anchors: a number a box",
}
"""Operators, with their type, that TensorFlow 2.20 has for processors alone, and why that is no loss."""


def step_graph(architecture, loss, optimizer, precision):
    """The graph of a training step with all its functions."""
    model = section(
        ModelConfig,
        name="small",
        architecture=architecture,
        input_size=64,
        **({"depth_multiplier": 0.25, "min_depth": 8} if architecture.startswith("ssd") else {}),
    )
    train = section(
        TrainConfig, loss=loss, optimizer=optimizer, ema_decay=0.9, clip_norm=10.0, batch_size=8
    )
    detector = build_detector(model, 6, precision=precision)
    update = build_optimizer(train, learning_rate(train))
    update.build(detector.network.trainable_variables)
    task = DetectionTask(detector, train, None)
    batch = {
        "images": tf.TensorSpec((8, 64, 64, 3)),
        "boxes": tf.TensorSpec((8, None, 4)),
        "classes": tf.TensorSpec((8, None), tf.int64),
        "counts": tf.TensorSpec((8,), tf.int32),
        "source_ids": tf.TensorSpec((8,), tf.int64),
    }
    step = tf.function(lambda given: task.train_step(given, detector, update)["loss"])
    return step.get_concrete_function(batch).graph.as_graph_def()


def nodes(graph):
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def has_gpu_kernel(node):
    """Whether there is one for the types that the node has."""

    def fits(constraint):
        given = node.attr[constraint.name]
        is_type = given.WhichOneof("value") == "type"
        return not is_type or given.type in constraint.allowed_values.list.type

    kernels = get_registered_kernels_for_op(node.op).kernel
    return any(
        kernel.device_type in ("GPU", "DEFAULT") and all(map(fits, kernel.constraint))
        for kernel in kernels
    )


def named(node):
    """The operator, and its type where it has one."""
    given = node.attr["T"]
    kind = tf.as_dtype(given.type).name if given.WhichOneof("value") == "type" else None
    return node.op, kind


@pytest.mark.parametrize(
    ("architecture", "loss", "optimizer", "precision"),
    [
        ("ssd_mobilenet_v1", "hard_mining", "rmsprop", "fp32"),
        pytest.param("ssdlite_mobilenet_v2", "focal", "adam", "bf16", marks=pytest.mark.long),
        pytest.param(
            "retinanet_spinenet_mobile", "retinanet", "momentum", "fp32", marks=pytest.mark.long
        ),
    ],
)
def test_a_gpu_computes_all_but_a_few_operators_of_a_step(architecture, loss, optimizer, precision):
    computed = [
        node
        for node in nodes(step_graph(architecture, loss, optimizer, precision))
        if node.op not in NOT_COMPUTED | CALLS
    ]
    assert len(computed) > 1000
    assert "Conv2DBackpropFilter" in {node.op for node in computed}
    missing = {named(node) for node in computed if not has_gpu_kernel(node)}
    assert missing - set(ON_THE_HOST) == set()
