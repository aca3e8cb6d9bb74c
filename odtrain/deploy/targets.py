"""Where a registered file can be brought to, and which of its formats each place takes."""

from __future__ import annotations

from dataclasses import dataclass

from odtrain.export_formats import FORMATS, INT8

LITE = tuple(name for name, each in FORMATS.items() if each.lite)


@dataclass(frozen=True)
class Target:
    """One place.

    Attributes:
        formats: that it takes, the best first.
        why: what it needs, for who has none of them.
        kits: folders of `kits/` whose files it gets; a later one's win.
        place: folder of the registered files in the kit.
        form: whether outputs are taken by position, pictures as uint8: no other file will do.
        runtime: whether `odtrain_runtime` comes along, and looks as the model was judged.
        squares: whether a square of the picture is stretched to the input.
        edge_tpu: whether the file is looked through, and compiled where that can be, for an Edge TPU.
    """

    formats: tuple[str, ...]
    why: str
    kits: tuple[str, ...]
    place: str = "."
    form: bool = False
    runtime: bool = False
    squares: bool = False
    edge_tpu: bool = False


TARGETS = {
    "frigate": Target(
        (INT8,),
        "Frigate gives pictures as uint8, and reads boxes, classes, scores and count by position",
        ("lite", "frigate"),
        form=True,
        squares=True,
    ),
    "coral": Target(
        (INT8,),
        "an Edge TPU computes with whole numbers of 8 bits alone",
        ("lite", "coral"),
        form=True,
        edge_tpu=True,
    ),
    "raspberry-pi": Target(
        (INT8, *(name for name in LITE if name != INT8)),
        "the runtime for boards runs .tflite files",
        ("raspberry-pi",),
        runtime=True,
    ),
    "android": Target(
        (INT8, *(name for name in LITE if name != INT8)),
        "MediaPipe Tasks runs .tflite files",
        ("lite", "android"),
        place="app/src/main/assets",
    ),
    "tf-serving": Target(
        ("saved_model",), "TensorFlow Serving serves SavedModels", ("tf-serving",)
    ),
}
