"""What a program that reads a .tflite by position finds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from odtrain.errors import TrackingError
from odtrain.model_files.operators import TYPES
from odtrain_runtime import provenance, resizing
from odtrain_runtime.tflite_metadata import ROLES, read_metadata

MOST_THREADS = 4


@dataclass(frozen=True)
class Form:
    """What is seen of a .tflite from outside.

    Attributes:
        size: (height, width) of its input in pixels.
        dtype: of its input.
        outputs: shapes, in the file's order.
        roles: what each output is, by metadata; empty where the file does not say.
        loses: whether it loses a class with several threads (tensorflow#56058).
        resize: how it was shown pictures of any shape, a word of `resizing`.
    """

    size: tuple[int, int]
    dtype: str
    outputs: tuple[tuple[int, ...], ...]
    roles: tuple[str, ...]
    loses: bool
    resize: str


def form_of(file: Path) -> Form:
    """The form of a .tflite that odtrain wrote."""
    model = schema.Model.GetRootAs(file.read_bytes())
    graph, metadata = model.Subgraphs(0), read_metadata(file)
    image = graph.Tensors(graph.Inputs(0))
    _, height, width, _ = (int(side) for side in image.ShapeAsNumpy())
    outputs = [graph.Tensors(index).ShapeAsNumpy() for index in graph.OutputsAsNumpy()]
    operator = metadata.postprocess
    return Form(
        (height, width),
        TYPES[image.Type()],
        tuple(tuple(int(side) for side in np.atleast_1d(shape)) for shape in outputs),
        metadata.output_names,
        operator is not None and operator.safe_threads(MOST_THREADS) < MOST_THREADS,
        metadata.passport.get(provenance.RESIZE, resizing.STRETCH),
    )


def check_form(uri: str, form: Form) -> None:
    """Refuse a file that a program which reads it by position would misread.

    Raises:
        TrackingError: the input is not uint8, an output is not in its place, or threads change what it finds.
    """
    rows = form.outputs[0][1] if len(form.outputs[0]) == 3 else 0
    wanted = ((1, rows, 4), (1, rows), (1, rows), (1,))
    problem = None
    if form.dtype != "uint8":
        problem = f"takes {form.dtype} pictures, where uint8 is given."
    elif form.outputs != wanted or form.roles not in ((), ROLES):
        problem = f"does not give boxes, classes, scores and count in this order: {form.outputs}."
    elif form.loses:
        problem = "loses a class where it runs with several threads (tensorflow#56058)."
    if problem:
        raise TrackingError(uri, problem, "odtrain export source=RUN writes files that fit.")


def check_square(uri: str, form: Form) -> None:
    """Refuse a file that learned pictures in proportion, where squares are stretched to its input.

    Raises:
        TrackingError: it pads pictures to an input that is no square.
    """
    height, width = form.size
    if form.resize in resizing.FILLS and height != width:
        raise TrackingError(
            uri,
            f"keeps the sides of a picture in proportion (model.resize={form.resize}) and takes "
            f"{width} x {height} pixels, to which squares would be stretched.",
            "Train with a square model.input_size, or with model.resize=stretch.",
        )
