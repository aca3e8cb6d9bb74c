"""How a detector that was trained elsewhere is read: what its pictures look like, and what its outputs mean.

Most of this stands in no file in a common form. `source.yaml` beside a model says it; docs/other_models.md
describes each key. Keys that it leaves out are recognised (`recognise`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from odtrain_runtime.errors import ModelFileError
from odtrain_runtime.structures import FloatArray

SETTINGS_FILE = "source.yaml"
LARGEST_SETTINGS = 1 << 24
"""Bytes: room for the anchors of a network of a hundred thousand."""
STRETCH, LETTERBOX, CORNER = "stretch", "letterbox", "corner"
BILINEAR, UNROUNDED, ANTIALIAS, TF1 = "bilinear", "unrounded", "antialias", "tf1"
RGB, BGR = "rgb", "bgr"
PIXELS, FRACTIONS = "pixels", "fractions"
CENTRES, CORNERS = "cxcywh", "xyxy"
NONE, SIGMOID, SOFTMAX = "none", "sigmoid", "softmax"


@dataclass(frozen=True)
class Reading:
    """How a file is read; every field is a key of `source.yaml`.

    Attributes:
        head: which of `heads.HEADS` the outputs are.
        classes: names, index 0 = class id 1; empty where nobody says.
        num_classes: columns of scores, without the background.
        size: (height, width) in pixels that pictures are brought to.
        resize: `stretch`, `letterbox` (aspect kept, in the middle), `corner` (aspect kept, at the top left).
        interpolation: `bilinear` (half-pixel centres, whole levels), `unrounded` (the same, in fractions of
            levels), `antialias` (Pillow's bilinear), `tf1` (TensorFlow 1's, whole levels).
        fill: levels 0-255, RGB, of what a picture that keeps its aspect does not fill.
        colours: `rgb` or `bgr`.
        scale: levels are multiplied by it.
        mean: of the three channels, in the order of `colours`, taken from scaled levels.
        std: by which the difference is divided.
        boxes: `cxcywh` or `xyxy`, where a head has both; of `detections` ymin, xmin, ymax, xmax as fractions,
            unless it is `xyxy`.
        unit: `pixels` of the input or `fractions` of it.
        activation: what makes probabilities of the scores: `none`, `sigmoid`, `softmax`.
        iou: at which a box hides a worse one of its class.
        strides: of the grids, finest first.
        cell_offset: of a cell's point from its corner, in cells.
        background: whether the first column of scores is the background.
        box_scales: that y, x, height and width of encodings are divided by.
        anchors: (A, 4) yxyx fractions of the input.
    """

    head: str
    classes: tuple[str, ...] = ()
    num_classes: int = 0
    size: tuple[int, int] = (0, 0)
    resize: str = STRETCH
    interpolation: str = BILINEAR
    fill: tuple[int, ...] = (114, 114, 114)
    colours: str = RGB
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    boxes: str = CENTRES
    unit: str = PIXELS
    activation: str = NONE
    iou: float = 0.6
    strides: tuple[int, ...] = (8, 16, 32)
    cell_offset: float = 0.0
    background: bool = False
    box_scales: tuple[float, ...] = (10.0, 10.0, 5.0, 5.0)
    anchors: tuple[tuple[float, ...], ...] = ()

    def anchor_array(self) -> FloatArray:
        """(A, 4) yxyx fractions of the input."""
        return np.asarray(self.anchors, np.float32).reshape(-1, 4)

    def as_json(self) -> str:
        """All of it, as JSON, which is YAML too."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Reading:
        """What `as_json` wrote."""
        return replace(cls(""), **checked(Path(SETTINGS_FILE), json.loads(text)))

    def with_settings(self, given: Mapping[str, Any]) -> Reading:
        """The same with what `source.yaml` says."""
        return replace(self, **given)

    def lines(self) -> str:
        """What of it is worth writing into `source.yaml`, a line a key."""
        told = ("head", "resize", "colours", "scale", "mean", "std")
        kept = {"fill": self.resize != STRETCH, "interpolation": self.interpolation != BILINEAR}
        kept |= {"boxes": self.head == "yolo" or self.boxes == CORNERS, "unit": self.unit != PIXELS}
        names = (*told, *(name for name, wanted in kept.items() if wanted))
        return "\n".join(f"{name}: {_plain(getattr(self, name))}" for name in names)


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def read_settings(folder: Path) -> dict[str, Any]:
    """What `source.yaml` in a folder says, checked; empty where there is none.

    Raises:
        ModelFileError: it cannot be read, or has a key or value that is not known.
    """
    file = folder / SETTINGS_FILE
    if not file.is_file():
        return {}
    if file.stat().st_size > LARGEST_SETTINGS:
        raise ModelFileError(file, f"has more than {LARGEST_SETTINGS:,} bytes.", DESCRIBED)
    return settings_of(file, file.read_text(encoding="utf-8", errors="replace"))


def settings_beside(model: Path) -> dict[str, Any]:
    """What `source.yaml` beside a model file says, or in or beside the folder that is a model.

    Raises:
        ModelFileError: as `read_settings`.
    """
    return read_settings(model) or read_settings(model.parent)


def settings_of(file: Path, text: str) -> dict[str, Any]:
    """What the text of a `source.yaml` says, checked; `file` is where it stands.

    Raises:
        ModelFileError: it cannot be read, or has a key or value that is not known.
    """
    try:
        table = _load(text)
    except (ValueError, RecursionError) as error:
        reason = (str(error).strip().splitlines() or ["it is no YAML"])[0]
        raise ModelFileError(file, f"cannot be read: {reason}", DESCRIBED) from None
    if not isinstance(table, dict):
        raise ModelFileError(file, "is no table of keys and values.", DESCRIBED)
    return checked(file, table)


def _load(text: str) -> Any:
    """JSON as such, so that a registered model needs no YAML reader; else YAML."""
    if text.lstrip().startswith("{"):
        return json.loads(text)
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


DESCRIBED = f"docs/other_models.md describes the keys of {SETTINGS_FILE}."


def checked(file: Path, table: Mapping[Any, Any]) -> dict[str, Any]:
    """The values of a table, each of its key's type."""
    unknown = [str(key) for key in table if key not in CHECKS]
    if unknown:
        raise ModelFileError(
            file, f"has no key {unknown[0]}.", f"Keys are: {', '.join(sorted(CHECKS))}."
        )
    values = {}
    for key, value in table.items():
        try:
            values[key] = CHECKS[key](value, file.parent)
        except (TypeError, ValueError, OverflowError, OSError) as error:
            raise ModelFileError(file, f"{key}: {error}", DESCRIBED) from None
    if "classes" in values and "num_classes" not in values:
        values["num_classes"] = len(values["classes"])
    return values


Check = Callable[[Any, Path], Any]
"""(value, the folder that paths are relative to) -> the value of the field."""


def _one_of(*choices: str) -> Check:
    def check(value: Any, folder: Path) -> str:
        if value not in choices:
            raise ValueError(f"{value} is not one of {', '.join(choices)}.")
        return str(value)

    return check


def _number(low: float, high: float) -> Check:
    def check(value: Any, folder: Path) -> float:
        if isinstance(value, bool) or not low <= float(value) <= high:
            raise ValueError(f"{value} is not from {low:g} to {high:g}.")
        return float(value)

    return check


def _whole(low: int, high: int) -> Check:
    number = _number(low, high)

    def check(value: Any, folder: Path) -> int:
        if float(value) != int(value):
            raise ValueError(f"{value} is no whole number.")
        return int(number(value, folder))

    return check


def _several(check: Check, *counts: int) -> Check:
    """As many as one of `counts`; a single value stands for all of the first of them."""

    def checked(value: Any, folder: Path) -> tuple[Any, ...]:
        values = value if isinstance(value, list) else [value] * counts[0]
        if len(values) not in counts:
            raise ValueError(f"{len(values)} values; there are {' or '.join(map(str, counts))}.")
        return tuple(check(each, folder) for each in values)

    return checked


def _names(value: Any, folder: Path) -> tuple[str, ...]:
    return class_list(value)


def class_list(value: Any) -> tuple[str, ...]:
    """Class names of a list, or of a mapping from numbers that begin at 0.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, Mapping):
        named = {int(key): str(name) for key, name in value.items()}
        if sorted(named) != list(range(len(named))):
            raise ValueError("the numbers of classes begin at 0 and have no gaps.")
        return tuple(named[number] for number in range(len(named)))
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError("is no list of class names.")
    return tuple(str(name) for name in value)


def _anchors(value: Any, folder: Path) -> tuple[tuple[float, ...], ...]:
    """Rows of yxyx fractions, or the name of a text file with four numbers a line."""
    if isinstance(value, str):
        file = folder / value
        inside = file.resolve().parent == folder.resolve()
        if not inside or not file.is_file() or file.stat().st_size > LARGEST_SETTINGS:
            raise ValueError(f"there is no {value} beside it.")
        lines = file.read_text(encoding="utf-8").split("\n")
        value = [line.replace(",", " ").split() for line in lines if line.strip()]
    rows = tuple(tuple(float(number) for number in row) for row in value)
    if any(len(row) != 4 for row in rows):
        raise ValueError("an anchor has four numbers: ymin, xmin, ymax, xmax.")
    return rows


def _truth(value: Any, folder: Path) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value} is neither true nor false.")
    return value


HEADS = (
    "detections",
    "yolo",
    "yolov5",
    "yolox",
    "yolox_raw",
    "end_to_end",
    "detr",
    "ssd",
    "nanodet",
)
"""Names of `heads.DECODERS`."""
AT_LEAST = ("detections", "end_to_end")
"""Heads whose outputs give classes by number: there may be more than are found."""
LEVEL = 1e6
CHECKS: dict[str, Check] = {
    "head": _one_of(*HEADS),
    "classes": _names,
    "num_classes": _whole(1, 100_000),
    "size": _several(_whole(1, 8192), 2),
    "resize": _one_of(STRETCH, LETTERBOX, CORNER),
    "interpolation": _one_of(BILINEAR, UNROUNDED, ANTIALIAS, TF1),
    "fill": _several(_whole(0, 255), 3),
    "colours": _one_of(RGB, BGR),
    "scale": _number(1e-9, LEVEL),
    "mean": _several(_number(-LEVEL, LEVEL), 3),
    "std": _several(_number(1e-9, LEVEL), 3),
    "boxes": _one_of(CENTRES, CORNERS),
    "unit": _one_of(PIXELS, FRACTIONS),
    "activation": _one_of(NONE, SIGMOID, SOFTMAX),
    "iou": _number(0, 1),
    "strides": _several(_whole(1, 1024), *range(1, 9)),
    "cell_offset": _number(0, 1),
    "background": _truth,
    "box_scales": _several(_number(1e-3, 1e3), 4),
    "anchors": _anchors,
}
"""Key of `source.yaml` -> its check: every field of `Reading`."""

assert {each.name for each in fields(Reading)} == set(CHECKS)
