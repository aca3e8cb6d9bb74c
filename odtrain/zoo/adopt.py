"""Checkpoints of graphs that were frozen: the constants of their variables, under the variables' names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray

from odtrain.errors import CheckpointError
from odtrain.io.archives import cache_folder, unpack
from odtrain.io.atomic import copy, replacing_folder
from odtrain.io.checksums import sha256_of
from odtrain.io.locks import alone
from odtrain.system.progress import doing
from odtrain.zoo.tfjs import read_model, unfolded_variables

FROZEN = "frozen_inference_graph.pb"
"""The name of a frozen graph beside a TensorFlow 1 checkpoint."""
PREFIX = "model.ckpt"
MODEL = "model.json"
"""The graph of a TensorFlow.js model."""
READS = ("/read", "/Read/ReadVariableOp")
"""How the names of the operations end that hand a variable's value on: TensorFlow 1's, and a resource's."""


def adopt(file: Path, folder: Path) -> int:
    """Write a checkpoint and its graph into the new folder; of networks unknown here the graph alone.

    Args:
        file: a frozen graph, or the model.json of a TensorFlow.js graph model.
        folder: not there yet, or empty.

    Returns:
        How many variables it has; 0 of a TensorFlow.js graph model in which none is known.

    Raises:
        CheckpointError: no such file, no frozen graph, or one without variables.
        OSError: the disk refuses.
    """
    if not file.is_file():
        raise CheckpointError(
            file,
            "no such file.",
            "Give a frozen .pb, or the model.json of a TensorFlow.js graph model.",
        )
    of_tfjs = file.suffix == ".json"
    graph = read_model(file) if of_tfjs else read_graph(file)
    variables = variables_of(graph) or unfolded_variables(graph)
    if not variables and not of_tfjs:
        raise CheckpointError(
            file,
            "no constant in it stands for a variable.",
            "Give a graph as TensorFlow 1 freezes it: NAME and NAME/read of each variable. Of graphs whose "
            "batch norm\n  is folded, FPNLite's of TensorFlow 2 are known.",
        )
    with replacing_folder(folder) as part:
        if variables:
            write_checkpoint(part / PREFIX, variables)
        if of_tfjs:
            (part / FROZEN).write_bytes(graph.SerializeToString())
        else:
            copy(file, part / FROZEN)
        pipeline = file.with_name("pipeline.config")
        if pipeline.is_file():
            copy(pipeline, part / pipeline.name)
    return len(variables)


@doing("Making a checkpoint of the graph")
def adopted(file: Path) -> Path:
    """A folder of the cache with the checkpoint of a frozen graph; made once, however many ask.

    Raises:
        CheckpointError: see `adopt`; or the cache cannot be written.
    """
    try:
        folder = cache_folder() / f"{sha256_of(file)[:16]}-checkpoint"
        with alone(folder.with_name(f"{folder.name}.lock")):
            if not folder.is_dir():
                adopt(unpack(file) / MODEL if file.suffix == ".tar" else file, folder)
    except OSError as error:
        raise CheckpointError(
            file,
            f"its checkpoint cannot be written into {cache_folder()}: {error}.",
            "Make room or give permission there, or set XDG_CACHE_HOME to another folder.",
        ) from error
    return folder


def is_graph(file: Path) -> bool:
    """Whether a checkpoint is to be made of what lies there: a .pb, or a .tar of a TensorFlow.js model."""
    if file.suffix == ".tar" and file.is_file():
        return (unpack(file) / MODEL).is_file()
    return file.is_file() and file.suffix == ".pb"


def read_graph(file: Path) -> Any:
    """The GraphDef in a frozen .pb.

    Raises:
        CheckpointError: there is none.
    """
    try:
        return tf.compat.v1.GraphDef.FromString(file.read_bytes())
    except (OSError, DecodeError) as error:
        raise CheckpointError(
            file,
            f"no frozen graph: {error}",
            "Give a frozen_inference_graph.pb as the Object Detection API exports it.",
        ) from error


def variables_of(graph: Any) -> dict[str, NDArray[Any]]:
    """The constants that stand for variables, by the variables' names."""
    constants = {node.name: node for node in graph.node if node.op == "Const"}
    names = [
        node.input[0]
        for node in graph.node
        if node.op == "Identity" and node.input and node.input[0] in constants
        if node.name in {node.input[0] + end for end in READS}
    ]
    return {name: tf.make_ndarray(constants[name].attr["value"].tensor) for name in names}


def write_checkpoint(prefix: Path, variables: Mapping[str, NDArray[Any]]) -> None:
    """Write a TensorFlow 1 checkpoint."""
    names = sorted(variables)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[np.ascontiguousarray(variables[name]) for name in names],
    )


def input_size_of(graph: Any) -> list[int] | None:
    """[height, width] that a graph of the Object Detection API resizes pictures to; None where it has none."""
    for node in graph.node:
        if node.op == "Const" and node.name.endswith("/ResizeImage/stack"):
            return [int(side) for side in tf.make_ndarray(node.attr["value"].tensor)]
    return None
