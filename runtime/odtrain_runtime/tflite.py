"""TensorFlow Lite files as detectors, ours or a stranger's: LiteRT and numpy, no TensorFlow."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odtrain_runtime import provenance, resizing, tflite_metadata
from odtrain_runtime.detector import DETECTORS_ONLY, FileDetector, Raw, cannot_run
from odtrain_runtime.errors import ModelFileError
from odtrain_runtime.native_stderr import stderr_into
from odtrain_runtime.others.raw_model import RawModel, picture_input
from odtrain_runtime.resizing import pad, resize
from odtrain_runtime.structures import FloatArray, UInt8Image
from odtrain_runtime.tflite_metadata import BOXES, CLASSES, COUNT, SCORES


def open_tflite(path: Path, threads: int, *, guarded: bool = True) -> FileDetector | RawModel:
    """A TensorFlow Lite detector; without post-processing inside a model whose outputs are still to be read.

    Args:
        path: the file.
        threads: of its interpreter.
        guarded: whether a file that loses detections with so many threads is given one.
    """
    from ai_edge_litert.interpreter import Interpreter

    try:
        with _quiet():
            _verify(path)  # before its metadata is read by code that trusts every offset
            metadata = tflite_metadata.read_metadata(path)
            if metadata.postprocess and guarded:
                threads = metadata.postprocess.safe_threads(threads)
            interpreter = Interpreter(str(path), num_threads=threads)
            interpreter.allocate_tensors()
    except Exception as error:
        cannot_run(path, error)
    image = _image_input(path, interpreter.get_input_details())
    size = (int(image["shape"][1]), int(image["shape"][2]))
    outputs = _Outputs(interpreter.get_output_details(), metadata)
    if outputs.roles is None:
        return _raw_model(path, interpreter, image, metadata, threads)
    how = metadata.passport.get(provenance.RESIZE, resizing.STRETCH)
    padded = how in resizing.FILLS

    def frame(picture: UInt8Image) -> FloatArray:
        return pad(picture, size, how) if padded else resize(picture, size)

    return FileDetector(
        path=path,
        format="tflite",
        prepare=lambda picture: _input_tensor(frame(picture), image, metadata),
        run=_interpreter_run(interpreter, image["index"], outputs),
        threads=threads,
        class_names=metadata.class_names,
        num_classes=metadata.postprocess.num_classes if metadata.postprocess else None,
        input_size=size,
        passport=metadata.passport,
        extent=lambda picture: resizing.extent(picture.shape, size, how) if padded else 1.0,
    )


def _raw_model(
    path: Path,
    interpreter: Any,
    image: Mapping[str, Any],
    metadata: tflite_metadata.Metadata,
    threads: int,
) -> RawModel:
    outputs = interpreter.get_output_details()

    def compute(tensor: NDArray[Any]) -> dict[str, NDArray[Any]]:
        interpreter.set_tensor(image["index"], tensor)
        interpreter.invoke()
        return {each["name"]: _real(interpreter, each) for each in outputs}

    scale, zero = image["quantization"]
    return RawModel(
        path=path,
        format="tflite",
        takes=picture_input(
            path, tuple(map(int, image["shape"])), image["dtype"], (scale, zero) if scale else None
        ),
        compute=compute,
        threads=threads,
        passport=metadata.passport,
        class_names=metadata.class_names,
    )


def _real(interpreter: Any, output: Mapping[str, Any]) -> NDArray[Any]:
    """An output's values, brought back from whole numbers."""
    value: NDArray[Any] = interpreter.get_tensor(output["index"])
    scale, zero = output["quantization"]
    real: NDArray[Any] = (value.astype(np.float32) - zero) * scale if scale else value
    return real


def _verify(path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    Interpreter(str(path), experimental_op_resolver_type=plain)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """LiteRT announces its delegate on the process's standard error, and has no setting for it."""
    with Path(os.devnull).open("w") as nowhere, stderr_into(nowhere):
        yield


def _image_input(path: Path, inputs: Sequence[Any]) -> Any:
    shapes = [tuple(int(side) for side in each["shape"]) for each in inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][0] != 1 or shapes[0][3] != 3:
        shown = ", ".join(str(shape) for shape in shapes)
        problem = f"takes {shown}, not one RGB picture (1, height, width, 3)."
        raise ModelFileError(path, problem, DETECTORS_ONLY)
    return inputs[0]


def _input_tensor(
    pixels: FloatArray, image: Mapping[str, Any], metadata: tflite_metadata.Metadata
) -> NDArray[Any]:
    if image["dtype"] == np.uint8:
        return np.rint(pixels, out=pixels).astype(np.uint8)[None]
    mean = np.asarray(metadata.mean or tflite_metadata.MEAN, np.float32)
    std = np.asarray(metadata.std or tflite_metadata.STD, np.float32)
    normal: FloatArray = ((pixels - mean) / std)[None]
    if image["dtype"] == np.float32:
        return normal
    scale, zero = image["quantization"]
    limits = np.iinfo(image["dtype"])
    quantized: NDArray[Any] = np.clip(np.rint(normal / scale) + zero, limits.min, limits.max)
    return quantized.astype(image["dtype"])


def _interpreter_run(
    interpreter: Any, image: int, outputs: _Outputs
) -> Callable[[NDArray[Any]], Raw]:
    def run(tensor: NDArray[Any]) -> Raw:
        interpreter.set_tensor(image, tensor)
        interpreter.invoke()
        return outputs.read(interpreter)

    return run


class _Outputs:
    """Which output of a .tflite is which; `roles` is None where they are no detections.

    The post-processing operator's ports say so, else metadata, else tensor names, else shapes, and
    values where classes and scores have nothing else to tell them apart.
    """

    def __init__(self, outputs: Sequence[Any], metadata: tflite_metadata.Metadata) -> None:
        self.outputs = {int(each["index"]): each for each in outputs}
        found = (self._ports(metadata), self._described(metadata), self._named(), self._shaped())
        self.roles = next((roles for roles in found if self._plausible(roles)), None)

    def read(self, interpreter: Any) -> Raw:
        """The outputs of the run that has just ended."""
        values = {index: self._value(interpreter, index) for index in self.outputs}
        roles = dict(self.roles or {})
        if CLASSES not in roles:
            roles |= _tell_apart(values, roles)
        raw: Raw = {role: values[index] for role, index in roles.items()}
        raw[CLASSES] = raw[CLASSES] + 1
        raw.setdefault(COUNT, np.asarray(len(raw[SCORES])))
        raw[COUNT] = raw[COUNT].reshape(())
        return raw

    def _value(self, interpreter: Any, index: int) -> NDArray[Any]:
        real = _real(interpreter, self.outputs[index])
        return real[0] if self._rank(index) > 1 else real.reshape(())

    def _rank(self, index: int) -> int:
        return len(self.outputs[index]["shape"])

    def _ports(self, metadata: tflite_metadata.Metadata) -> dict[str, int]:
        ports = metadata.postprocess.outputs if metadata.postprocess else ()
        return dict(zip(tflite_metadata.ROLES, ports, strict=False))

    def _described(self, metadata: tflite_metadata.Metadata) -> dict[str, int]:
        named = zip(metadata.output_names, self.outputs, strict=False)
        return {name: index for name, index in named if name in tflite_metadata.ROLES}

    def _named(self) -> dict[str, int]:
        names = {index: each["name"].lower() for index, each in self.outputs.items()}
        return {
            role: index
            for role, hint in NAME_HINTS.items()
            for index, name in names.items()
            if hint in name
        }

    def _shaped(self) -> dict[str, int]:
        boxes = [(BOXES, index) for index in self.outputs if self._rank(index) == 3]
        counts = [(COUNT, index) for index in self.outputs if self._rank(index) < 2]
        return dict(boxes + counts)

    def _plausible(self, roles: Mapping[str, int]) -> bool:
        """Whether `roles` fit the shapes: boxes (1, M, 4), classes and scores (1, M).

        Classes and scores may be left unnamed if just two outputs have their shape.
        """
        shapes = {index: tuple(map(int, each["shape"])) for index, each in self.outputs.items()}
        boxes = shapes.get(roles.get(BOXES, -1), ())
        if len(boxes) != 3 or boxes[2] != 4:
            return False
        rows = {index for index, shape in shapes.items() if shape == boxes[:2]}
        named = {roles[role] for role in (CLASSES, SCORES) if role in roles}
        return len(rows) == 2 and named in (set(), rows)


def _tell_apart(values: Mapping[int, NDArray[Any]], roles: Mapping[str, int]) -> dict[str, int]:
    """Classes are whole numbers, scores lie between 0 and 1."""
    rows = [index for index, value in values.items() if value.ndim == 1]
    first, second = (index for index in rows if index not in roles.values())
    whole = np.array_equal(values[first], np.rint(values[first]))
    unit = values[second].max(initial=0) <= 1
    classes, scores = (first, second) if whole and unit else (second, first)
    return {CLASSES: classes, SCORES: scores}


NAME_HINTS = {BOXES: "boxes", CLASSES: "classes", SCORES: "scores", COUNT: "num_detections"}
