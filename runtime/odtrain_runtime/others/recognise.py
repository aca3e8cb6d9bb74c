"""How a model that was trained elsewhere is to be read: by what it says of itself, else by shapes.

Shapes say what a head can be, never how pictures were made ready: then there are several readings, which
odtrain tries on labelled pictures. `source.yaml` beside the file settles what it says.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from odtrain_runtime.detector import cannot_run
from odtrain_runtime.errors import ModelFileError
from odtrain_runtime.others import reading as keys
from odtrain_runtime.others.heads import Outputs, detection_outputs, detr_outputs
from odtrain_runtime.others.raw_model import LARGEST_SIDE, RawModel, outputs_of_grey
from odtrain_runtime.others.reading import AT_LEAST, SETTINGS_FILE, Reading, class_list
from odtrain_runtime.tflite_metadata import BOXES, CLASSES, SCORES

LONGEST_LIST = 1 << 20
GREY = (114, 114, 114)
OF_SIZED = {"boxes": keys.CORNERS, "unit": keys.PIXELS}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
UNIT = {"scale": 1 / 255, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
LEVELS = {"scale": 1.0, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
NANODET_INPUT = {
    "scale": 1.0,
    "mean": (103.53, 116.28, 123.675),
    "std": (57.375, 57.12, 58.395),
    "colours": keys.BGR,
}
"""Of nanodet's configurations, `normalize` of their pipelines."""
ULTRALYTICS = {"resize": keys.LETTERBOX, "colours": keys.RGB, "fill": GREY, "iou": 0.7, **UNIT}
PLAIN = {"resize": keys.STRETCH, "colours": keys.RGB, **UNIT}
SIGNED = {"scale": 1 / 127.5, "mean": (1.0, 1.0, 1.0), "std": (1.0, 1.0, 1.0)}
LIBREYOLO: dict[str, dict[str, Any]] = {
    "yolox": {
        **{"head": "yolox", "resize": keys.CORNER, "interpolation": keys.ANTIALIAS, "fill": GREY},
        **{"colours": keys.BGR, "iou": 0.45, **LEVELS},
    },
    "yolo9": {
        **{"head": "yolo", "resize": keys.CORNER, "fill": GREY, "boxes": keys.CORNERS},
        **{"colours": keys.RGB, "iou": 0.45, **UNIT},
    },
    "dfine": {"head": "detr", "interpolation": keys.ANTIALIAS, **PLAIN},
    "rtdetr": {"head": "detr", **PLAIN},
    "rtdetrv2": {"head": "detr", **PLAIN},
    "rfdetr": {"head": "detr", "interpolation": keys.UNROUNDED, **PLAIN, **IMAGENET},
}
"""By `model_family` in the metadata that LibreYOLO writes: what its own program does (`preprocess/`)."""
INPUTS = (UNIT, LEVELS, {**UNIT, **IMAGENET}, SIGNED)
"""How levels may be scaled where nobody says."""
MOST_END_TO_END = 1000
FEW = 2.0
"""Coordinates of boxes all over a picture are below it as fractions, and beyond it in pixels."""
ANCHORS_A_CELL = 3
"""Of YOLOv5's grids."""
GRIDS = ((8, 16, 32), (8, 16, 32, 64), (16, 32), (4, 8, 16, 32))
DISTANCES = (8, 11, 17)
"""Places that NanoDet's sides may have, `reg_max` and one more: of most, of NanoDet-G, by its default."""


@dataclass(frozen=True)
class Recognised:
    """What a file may be.

    Attributes:
        readings: the likeliest first.
        settled: whether the first is sure: the file or `source.yaml` says so.
    """

    readings: tuple[Reading, ...]
    settled: bool


class UnsettledError(ModelFileError):
    """It cannot be told from a file how it is to be read; `readings` are what it may be."""

    readings: tuple[Reading, ...] = ()


def recognise(model: RawModel, given: Mapping[str, Any], names: Sequence[str]) -> Recognised:
    """How a model is to be read.

    Args:
        model: it.
        given: of `source.yaml`.
        names: index 0 = class id 1, where somebody says them beside the file.

    Raises:
        ModelFileError: it is no detector whose head is known, or does not fit what is said of it.
    """
    said = _publisher(model)
    classes = tuple(given.get("classes") or said.get("classes") or names)
    size = input_size(model, given)
    try:
        outputs = outputs_of_grey(model, size)
    except ModelFileError:
        raise
    except Exception as error:
        cannot_run(model.path, error)
    known = {**said, **given, "size": size}
    heads = _heads(outputs, size, known, len(classes))
    if model.takes.sized is not None:  # it is for boxes in pixels of the picture
        heads = [each | OF_SIZED for each in heads if each["head"] == "detections"]
    if not heads:
        raise _no_head(model, outputs, known)
    fitting = [head for head in heads if not classes or _fits(head, len(classes))]
    if not fitting:
        raise _other_count(model, heads[0]["num_classes"], classes)
    sure = "resize" in known and "scale" in known and len({h["head"] for h in fitting}) == 1
    whole = model.takes.dtype.kind in "iu" and model.takes.quantization is None
    ways: list[dict[str, Any]] = [{}] if sure else list(_ways(fitting[0]["head"], whole))
    readings = [
        Reading(**{**head, **way, **_fields(known), **_counted(head, classes)})
        for head in (fitting[:1] if sure else fitting)
        for way in ways
    ]
    if readings[0].head == "ssd" and not readings[0].anchors:
        raise ModelFileError(model.path, "has an SSD's outputs, and no anchors.", ANCHORS_NEEDED)
    if readings[0].head == "detections" and readings[0].boxes != keys.CORNERS:
        return Recognised(tuple(readings[:1]), True)
    return Recognised(tuple(readings), sure or len(readings) == 1)


def _fits(head: Mapping[str, Any], classes: int) -> bool:
    count: int = head["num_classes"]
    return count <= classes if head["head"] in AT_LEAST else count == classes


def _counted(head: Mapping[str, Any], classes: tuple[str, ...]) -> dict[str, Any]:
    return {"classes": classes, "num_classes": len(classes) or head["num_classes"]}


ANCHORS_NEEDED = (
    f"Say in {SETTINGS_FILE} beside it: anchors: FILE, a text file there with ymin, xmin, ymax, xmax of each "
    "anchor, as fractions, a line."
)


def settled(model: RawModel, given: Mapping[str, Any], names: Sequence[str]) -> Reading:
    """How a model is read.

    Raises:
        UnsettledError: that cannot be told.
        ModelFileError: as `recognise`.
    """
    found = recognise(model, given, names)
    if found.settled:
        return found.readings[0]
    heads = list(dict.fromkeys(each.head for each in found.readings))
    may = f"its outputs may be those of {' or '.join(heads)}"
    error = UnsettledError(
        model.path,
        f"does not say how its pictures are made ready; {may}.",
        f"Name labelled pictures to try it on (data.images=DIR data.annotations=DIR), or write what is true "
        f"into {SETTINGS_FILE} beside it, such as:\n{found.readings[0].lines()}",
    )
    error.readings = found.readings
    raise error


# ---- what files say of themselves


def _publisher(model: RawModel) -> dict[str, Any]:
    """What the program that wrote a file is known to do; empty where nobody says which it was.

    Raises:
        ModelFileError: it says that it is no detector of boxes.
    """
    texts = model.metadata
    task = texts.get("task", "detect")
    if task != "detect":
        problem = f"says that it is made to {task}, not to detect."
        raise ModelFileError(model.path, problem, "Give a detector of boxes.")
    said: dict[str, Any] = {}
    if keys.SETTINGS_FILE in texts:
        said = keys.settings_of(model.path, texts[keys.SETTINGS_FILE])
    elif "model_family" in texts:
        said = dict(LIBREYOLO.get(texts["model_family"], {}))
        if texts.get("letterbox_pad") == "center":
            said["resize"] = keys.LETTERBOX
        if texts.get("nms") == "true":
            said["head"] = "end_to_end"
    elif "names" in texts and "stride" in texts:
        said = dict(ULTRALYTICS)
    names = model.class_names or _names(texts.get("names", ""))
    return {**said, "classes": names} if names else said


def _names(text: str) -> tuple[str, ...]:
    """Class names in JSON, or as Python writes a mapping; empty where they are neither."""
    if not text or len(text) > LONGEST_LIST:
        return ()
    for read in (json.loads, ast.literal_eval):
        try:
            return class_list(read(text))
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
    return ()


def _fields(known: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in known.items() if key not in ("num_classes", "classes")}


def input_size(model: RawModel, given: Mapping[str, Any]) -> tuple[int, int]:
    """(height, width): the model's own, else what `source.yaml` or the metadata say.

    Raises:
        ModelFileError: nobody says, or it is another.
    """
    wanted = given.get("size") or _said_size(model.metadata.get("imgsz", "")) or (None, None)
    sides = [own or other for own, other in zip(model.takes.size, wanted, strict=True)]
    if None in sides:
        raise ModelFileError(
            model.path,
            "takes pictures of any size.",
            f"Say in {SETTINGS_FILE} beside it at which it was trained: size: [640, 640]",
        )
    asked = given.get("size")
    if asked and tuple(sides) != tuple(asked):
        problem = (
            f"takes {sides[0]} x {sides[1]}, and {SETTINGS_FILE} says {asked[0]} x {asked[1]}."
        )
        raise ModelFileError(model.path, problem, "Leave size out: the file says it.")
    return int(sides[0] or 0), int(sides[1] or 0)


def _said_size(text: str) -> tuple[int, int] | None:
    try:
        value = json.loads(text)
        height, width = value if isinstance(value, list) else (value, value)
        sides = int(height), int(width)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    return sides if 0 < min(sides) and max(sides) <= LARGEST_SIDE else None


# ---- what shapes say


def _heads(
    outputs: Outputs, size: tuple[int, int], known: Mapping[str, Any], classes: int
) -> list[dict[str, Any]]:
    """What the outputs can be, the likeliest first: head, number of classes, and what follows from values."""
    found = list(
        _of_one(outputs, size, classes) if len(outputs) == 1 else _of_several(outputs, size)
    )
    if "head" in known:
        found = [each for each in found if each["head"] == known["head"]]
    return found


def _of_one(outputs: Outputs, size: tuple[int, int], classes: int) -> Iterator[dict[str, Any]]:
    ((table),) = outputs.values()
    if table.ndim != 2:
        return
    cells = {strides: _cells(size, strides) for strides in GRIDS}
    named = [side in (4 + classes, 5 + classes) for side in table.shape]
    first = named[0] if classes and named[0] != named[1] else table.shape[0] < table.shape[1]
    columns, rows = table.shape if first else table.shape[::-1]
    on_grid = [strides for strides, count in cells.items() if count == rows]
    by_anchor = any(rows == ANCHORS_A_CELL * count for count in cells.values())
    values = table.T if first else table
    four = {"unit": _unit(values[:, :4])}
    listed = columns == 6 and not first and rows <= MOST_END_TO_END
    if listed and not on_grid and not by_anchor:
        yield {"head": "end_to_end", "num_classes": _end_to_end_classes(values), **four}
        return
    if by_anchor and columns > 5:
        yield {"head": "yolov5", "num_classes": columns - 5, **four}
        return
    if not first:
        for strides in on_grid:
            yield from _on_grid(columns, strides, values)
    if columns > 4:
        yield {"head": "yolo", "num_classes": columns - 4, **four}


def _on_grid(columns: int, strides: tuple[int, ...], values: Any) -> Iterator[dict[str, Any]]:
    """A row a cell: YOLOX, its boxes placed or not, and NanoDet."""
    if columns > 5:
        placed = np.abs(values[:, :2]).max() > FEW
        for head in ("yolox", "yolox_raw") if placed else ("yolox_raw", "yolox"):
            yield {"head": head, "num_classes": columns - 5, "strides": strides}
    for places in DISTANCES:
        if columns > 4 * places:
            yield {
                "head": "nanodet",
                "num_classes": columns - 4 * places,
                **_nanodet(strides, values[:, : columns - 4 * places]),
            }


def _nanodet(strides: tuple[int, ...], scores: Any) -> dict[str, Any]:
    """Newer networks have four grids, and points at the corners of cells (NanoDet-Plus)."""
    likely = bool(scores.min() >= 0 and scores.max() <= 1)
    return {
        "strides": strides,
        "cell_offset": 0.0 if len(strides) == 4 else 0.5,
        "activation": keys.NONE if likely else keys.SIGMOID,
    }


def _of_several(outputs: Outputs, size: tuple[int, int]) -> Iterator[dict[str, Any]]:
    named = detection_outputs(outputs)
    if {BOXES, CLASSES, SCORES} <= set(named) and named[CLASSES].ndim == 1:
        highest = int(np.rint(named[CLASSES]).max(initial=0)) + 1
        called = any("label" in name.lower() for name in outputs)  # not by TensorFlow's programs
        corners = {"boxes": keys.CORNERS, "unit": _unit(named[BOXES])}
        yield {"head": "detections", "num_classes": highest, **(corners if called else {})}
        return
    tables = list(outputs.values())
    if any(table.ndim != 2 for table in tables):
        return
    if len(tables) == 2 and len({len(table) for table in tables}) == 1:
        yield from _of_two(outputs)
    elif len(tables) > 2 and len(tables) % 2 == 0:
        yield from _of_grids(tables, size)


def _of_two(outputs: Outputs) -> Iterator[dict[str, Any]]:
    if not any(table.shape[1] == 4 for table in outputs.values()):
        return
    boxes, scores = detr_outputs(outputs)
    columns = scores.shape[1]
    likely = bool(scores.min() >= 0 and scores.max() <= 1)
    ssd: dict[str, Any] = {"head": "ssd", "activation": keys.NONE if likely else keys.SIGMOID}
    if any("encoding" in name.lower() for name in outputs):
        yield {**ssd, "num_classes": columns}
        return
    detr = {"head": "detr", "unit": _unit(boxes)}
    yield {**detr, "num_classes": columns, "activation": keys.SIGMOID}
    yield {**detr, "num_classes": columns - 1, "activation": keys.SIGMOID}
    yield {**detr, "num_classes": columns - 1, "activation": keys.SOFTMAX}
    yield {**ssd, "num_classes": columns}
    yield {**ssd, "num_classes": columns - 1, "background": True}


def _of_grids(tables: Sequence[Any], size: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """NanoDet's, a table of scores and one of sides a grid."""
    lengths = tuple(sorted({len(table) for table in tables}, reverse=True))
    widths = sorted({table.shape[1] for table in tables})
    strides = [each for each in GRIDS if tuple(_cells(size, (s,)) for s in each) == lengths]
    if not strides or len(widths) != 2:
        return
    for places in DISTANCES:
        if 4 * places in widths:
            (classes,) = (width for width in widths if width != 4 * places)
            scores = np.concatenate([table for table in tables if table.shape[1] == classes])
            yield {"head": "nanodet", "num_classes": classes, **_nanodet(strides[0], scores)}


def _cells(size: tuple[int, int], strides: Sequence[int]) -> int:
    return sum(-(-size[0] // stride) * -(-size[1] // stride) for stride in strides)


def _unit(four: Any) -> str:
    return keys.FRACTIONS if np.abs(four).max(initial=0) <= FEW else keys.PIXELS


def _end_to_end_classes(rows: Any) -> int:
    """At least as many as the highest class that is found; 0 where none is."""
    return int(np.rint(rows[:, 5]).max(initial=-1)) + 1


# ---- what may be tried


def _ways(head: str, whole: bool) -> Iterator[dict[str, Any]]:
    """How pictures may be made ready, the usual way of a head first."""
    usual: dict[str, Any] = USUAL.get(head, ULTRALYTICS)
    inputs = (LEVELS,) if whole else INPUTS
    yield {**usual, **(LEVELS if whole else {})}
    if head == "nanodet":
        yield {**NANODET_INPUT, "resize": keys.LETTERBOX}
    for resize in (keys.LETTERBOX, keys.STRETCH, keys.CORNER):
        for colours in (keys.RGB, keys.BGR):
            for values in inputs:
                yield {"resize": resize, "colours": colours, **values}


USUAL: dict[str, dict[str, Any]] = {
    "detections": {**PLAIN, "interpolation": keys.ANTIALIAS},
    "detr": PLAIN,
    "ssd": {"resize": keys.STRETCH, "colours": keys.RGB, **SIGNED},
    "yolox": {"resize": keys.CORNER, "colours": keys.BGR, **LEVELS},
    "yolox_raw": {"resize": keys.CORNER, "colours": keys.BGR, **LEVELS},
    "nanodet": {"resize": keys.STRETCH, **NANODET_INPUT},
}


def _no_head(model: RawModel, outputs: Outputs, known: Mapping[str, Any]) -> ModelFileError:
    shapes = ", ".join(f"{name} {value.shape}" for name, value in outputs.items())
    wanted = f"not those of {known['head']}" if "head" in known else "of no detector that is known"
    problem = f"its outputs, without the batch, are {shapes}: {wanted}."
    return ModelFileError(model.path, problem, f"Known heads are: {', '.join(keys.HEADS)}.")


def _other_count(model: RawModel, count: int, classes: Sequence[str]) -> ModelFileError:
    problem = f"tells {count} classes apart, and {len(classes)} names are given."
    return ModelFileError(model.path, problem, "Give the list that the model was made with.")
