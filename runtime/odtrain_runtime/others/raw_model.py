"""A model that ends before detections as a detector: what its `Reading` says is done before and behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from odtrain_runtime.detector import FileDetector, Raw
from odtrain_runtime.errors import ModelFileError
from odtrain_runtime.others import reading as keys
from odtrain_runtime.others.heads import Candidates, Outputs, detections
from odtrain_runtime.others.reading import AT_LEAST, Reading
from odtrain_runtime.resizing import centred, resize, whole_levels
from odtrain_runtime.structures import FloatArray, UInt8Image
from odtrain_runtime.tflite_metadata import BOXES, CLASSES, COUNT, SCORES

ONE_PICTURE = (
    "Only detectors that take one RGB picture, (1, 3, height, width) or (1, height, width, 3), and at most its "
    "size beside it, (1, 2), called so."
)
LARGEST_SIDE = 8192


@dataclass(frozen=True)
class PictureInput:
    """What a model takes.

    Attributes:
        channels_first: (1, 3, height, width), not (1, height, width, 3).
        size: (height, width); None in a direction of any length.
        dtype: of its values.
        quantization: (scale, zero) of whole numbers; None where values are as they are.
        sized: type of a second input, the picture's size; None where there is none.
    """

    channels_first: bool
    size: tuple[int | None, int | None]
    dtype: Any
    quantization: tuple[float, float] | None = None
    sized: Any = None

    def inputs(self, tensor: NDArray[Any]) -> list[NDArray[Any]]:
        """All that a model is given: a picture, and its width and height as RT-DETR's exports take them.

        They are the input's own, so that boxes come back in its pixels.
        """
        if self.sized is None:
            return [tensor]
        height, width = tensor.shape[2:] if self.channels_first else tensor.shape[1:3]
        return [tensor, np.array([[width, height]], self.sized)]


@dataclass(frozen=True, eq=False)
class RawModel:
    """A file that computes, whatever its outputs mean.

    Attributes:
        path: the file.
        format: `onnx`, `openvino_fp32`, `openvino_int8`, `tflite`, `pb` or `saved_model`.
        takes: its input.
        compute: the outputs for an input, by name, with their batch.
        threads: it runs with.
        metadata: texts that it says of itself.
        passport: where it says it comes from; empty in a stranger's.
        class_names: that it carries, index 0 = class id 1.
    """

    path: Path
    format: str
    takes: PictureInput
    compute: Callable[[NDArray[Any]], dict[str, NDArray[Any]]]
    threads: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    passport: Mapping[str, str] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()


class Port(NamedTuple):
    """An input of a model.

    Attributes:
        name: of it.
        kind: of its values, as its runtime calls it.
        dtype: the same as numpy's; None where it has none.
        shape: None stands for any length.
    """

    name: str
    kind: str
    dtype: Any
    shape: tuple[int | None, ...]


PICTURES = (np.float32, np.float16, np.float64, np.uint8, np.int8)
SIZES = (np.int64, np.int32, np.float32)


def taken(path: Path, ports: Sequence[Port]) -> PictureInput:
    """What a model with these inputs takes: a picture, and perhaps its size.

    Raises:
        ModelFileError: something else.
    """
    image, *others = ports or [Port("", "nothing", None, ())]
    if image.dtype not in PICTURES or len(others) > 1 or not all(map(_is_size, others)):
        shown = ", ".join(
            f"{each.name}: {each.kind}".removeprefix(": ") for each in [image, *others]
        )
        raise ModelFileError(path, f"takes {shown}, not one picture.", ONE_PICTURE)
    takes = picture_input(path, image.shape, image.dtype)
    return replace(takes, sized=others[0].dtype) if others else takes


def _is_size(port: Port) -> bool:
    fits = len(port.shape) == 2 and port.shape[0] in (None, 1) and port.shape[1] in (None, 2)
    return fits and port.dtype in SIZES and "size" in port.name.lower()


def picture_input(
    path: Path, shape: tuple[int | None, ...], dtype: Any, quantization: Any = None
) -> PictureInput:
    """What a model with an input of that shape takes; None stands for any length.

    Raises:
        ModelFileError: no single picture.
    """
    shown = ", ".join("any" if side is None else str(side) for side in shape)
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise ModelFileError(path, f"takes ({shown}), not one RGB picture.", ONE_PICTURE)
    if shape[0] not in (None, 1):
        problem = f"takes {shape[0]} pictures at once: ({shown})."
        raise ModelFileError(path, problem, "Export it for a batch of 1, or of any number.")
    first = shape[1] == 3
    size = (shape[2], shape[3]) if first else (shape[1], shape[2])
    if any(side is not None and side > LARGEST_SIDE for side in size):
        raise ModelFileError(path, f"takes ({shown}), not one RGB picture.", ONE_PICTURE)
    return PictureInput(first, size, np.dtype(dtype), quantization)


def unbatched(path: Path, outputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The outputs of one picture, without their batch and axes of length 1 behind it.

    Raises:
        ModelFileError: an output has no batch of one.
    """
    found = {}
    for name, value in outputs.items():
        if value.ndim and value.shape[0] != 1:
            problem = f"its output {name} has the shape {value.shape}, not (1, ...)."
            raise ModelFileError(path, problem, "Export it for one picture at a time.")
        found[name] = value[0] if value.ndim else value
        if found[name].ndim > 2:
            found[name] = _flat(found[name])
    return found


def _flat(value: NDArray[Any]) -> NDArray[Any]:
    """(A, 1, 4), (1, A, 4) as (A, 4)."""
    longer = [side for side in value.shape if side != 1]
    return value.reshape(longer) if len(longer) == 2 else value


def raw_detector(model: RawModel, how: Reading) -> FileDetector:
    """The detector of a model that is read so."""
    padded = how.resize != keys.STRETCH

    def run(tensor: NDArray[Any]) -> Raw:
        return as_raw(detections(unbatched(model.path, model.compute(tensor)), how))

    return FileDetector(
        path=model.path,
        format=model.format,
        prepare=lambda image: tensor_of(image, how, model.takes),
        run=run,
        threads=model.threads,
        class_names=how.classes,
        num_classes=how.num_classes if how.head not in AT_LEAST else None,
        input_size=how.size,
        passport=dict(model.passport),
        extent=lambda image: share_of(image.shape, how) if padded else 1.0,
        origin=lambda image: corner_of(image.shape, how) if padded else 0.0,
        reading=how,
    )


def as_raw(found: Candidates) -> Raw:
    """Detections by role."""
    return {
        BOXES: found.boxes,
        CLASSES: found.classes.astype(np.float32),
        SCORES: found.scores,
        COUNT: np.asarray(float(len(found.scores))),
    }


# ---- pictures


def tensor_of(image: UInt8Image, how: Reading, takes: PictureInput) -> NDArray[Any]:
    """What a model takes, of an (H, W, 3) picture."""
    levels = framed(image, how)
    if how.colours == keys.BGR:
        levels = levels[..., ::-1]
    mean, std = (np.asarray(each, np.float32) for each in (how.mean, how.std))
    scaled: FloatArray = levels / np.float32(
        1 / how.scale
    )  # as others divide by 255, to the last bit
    values: FloatArray = (scaled - mean) / std
    if takes.channels_first:
        values = values.transpose(2, 0, 1)
    return np.ascontiguousarray(_typed(values, takes))[None]


def _typed(values: FloatArray, takes: PictureInput) -> NDArray[Any]:
    if takes.quantization is not None:
        scale, zero = takes.quantization
        quantized: FloatArray = values / np.float32(scale) + np.float32(zero)
        values = quantized
    if not np.issubdtype(takes.dtype, np.integer):
        return values.astype(takes.dtype)
    limits = np.iinfo(takes.dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(takes.dtype)


def framed(image: UInt8Image, how: Reading) -> FloatArray:
    """(H, W, 3) levels 0-255 of a picture brought to the input's size."""
    if how.resize == keys.STRETCH:
        return _resized(image, how.size, how.interpolation)
    height, width = fitted(image.shape, how)
    top, left = _corner(height, width, how)
    frame = np.full((*how.size, 3), how.fill, np.float32)
    inner = _resized(image, (height, width), how.interpolation)
    frame[top : top + height, left : left + width] = inner
    return frame


def _resized(image: UInt8Image, size: tuple[int, int], interpolation: str) -> FloatArray:
    if image.shape[:2] == size:
        return image.astype(np.float32)
    if interpolation == keys.ANTIALIAS:
        smooth = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
        return np.asarray(smooth, np.float32)
    if interpolation == keys.TF1:
        return np.rint(resize(image, size))
    return (centred if interpolation == keys.UNROUNDED else whole_levels)(image, size)


def fitted(shape: tuple[int, ...], how: Reading) -> tuple[int, int]:
    """(height, width) at which a picture of that shape fits into the input: in a corner rounded down."""
    ratio = _ratio(shape, how)
    whole = int if how.resize == keys.CORNER else round
    height, width = (max(whole(side * ratio), 1) for side in shape[:2])
    return height, width


def _ratio(shape: tuple[int, ...], how: Reading) -> float:
    return min(how.size[0] / shape[0], how.size[1] / shape[1])


def _corner(height: int, width: int, how: Reading) -> tuple[int, int]:
    """Where the picture begins; of an odd rest the smaller half is before it."""
    if how.resize == keys.CORNER:
        return 0, 0
    return (how.size[0] - height) // 2, (how.size[1] - width) // 2


def share_of(shape: tuple[int, ...], how: Reading) -> FloatArray:
    """(4,) of yxyx: which part of the input the picture takes."""
    ratio = _ratio(shape, how)
    sides = np.array(shape[:2], np.float64) * ratio / np.array(how.size, np.float64)
    return np.tile(sides, 2).astype(np.float32)


def corner_of(shape: tuple[int, ...], how: Reading) -> FloatArray:
    """(4,) of yxyx: where in the input the picture begins, as fractions of it."""
    begin = np.array(_corner(*fitted(shape, how), how), np.float64)
    return np.tile(begin / np.array(how.size, np.float64), 2).astype(np.float32)


def outputs_of_grey(model: RawModel, size: tuple[int, int]) -> Outputs:
    """What a model says of a grey picture: of which shapes its outputs are."""
    height, width = size
    how = Reading("detections", size=size)
    grey = np.full((height, width, 3), 127, np.uint8)
    return unbatched(model.path, model.compute(tensor_of(grey, how, model.takes)))
