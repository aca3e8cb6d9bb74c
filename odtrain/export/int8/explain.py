"""Why an int8 file loses: its layers beside those in float32, and the pictures in which most changed."""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

from PIL import Image

from odtrain.export.benchmark import change
from odtrain.export.int8.layers import Layer, compare_layers
from odtrain.export.lite import LiteWriter, told_only_of_failures
from odtrain.io import atomic, markdown
from odtrain.io.cells import write_rows
from odtrain.media.draw import draw, fit, side_by_side
from odtrain.models.form import Form
from odtrain.reports.evaluation_report import DRAWN_SIZE, file_stem
from odtrain.reports.int8_chart import layers_chart
from odtrain.structures import Detections, GroundTruth, UInt8Image
from odtrain.system.progress import doing

FOLDER = "int8"
"""In the folder of the files."""
LAYERS_TABLE, LAYERS_PAGE, LAYERS_CHART, CHANGED = (
    "layers.csv",
    "layers.md",
    "layers.png",
    "changed",
)
PICTURES = 8
"""Run through both files, layer by layer; and drawn."""
ROWS = 25
"""Of the table to read; the CSV has all."""
SHOWN_SCORE = 0.3
"""From which detections are drawn."""
SHOWN_NAME = 60
"""Letters of a layer's name in tables and charts: the converter joins the names of all that it merged."""


@doing("Looking why the int8 file loses")
def explain(
    writer: LiteWriter,
    file: Path,
    class_names: Sequence[str],
    images: Sequence[UInt8Image],
    truths: Sequence[GroundTruth],
    reference: Sequence[Detections],
    found: Sequence[Detections],
    folder: Path,
) -> str:
    """Write `layers.csv`, `layers.md`, `layers.png` and `changed/` into `folder`; the worst layers in words.

    Args:
        writer: of the checkpoint that the file is of.
        file: the int8 .tflite.
        class_names: index 0 = class id 1.
        images: pictures of a split.
        truths: what is in each.
        reference: what the checkpoint found in each.
        found: what the file found.
        folder: made if it is missing.
    """
    changes = [change(a, b) for a, b in zip(reference, found, strict=True)]
    worst = sorted(range(len(changes)), key=lambda i: -changes[i])[:PICTURES]
    with tempfile.TemporaryDirectory() as scratch:
        exact = Path(scratch) / "model.tflite"
        with told_only_of_failures():
            exact.write_bytes(writer.content("tflite_fp32", class_names, {}, Form.LITE_INT8))
        layers = compare_layers(exact, file, (images[i] for i in worst))
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_text(folder / LAYERS_TABLE, _as_csv(layers))
    atomic.write_text(folder / LAYERS_PAGE, layers_table(layers[:ROWS]) + "\n")
    layers_chart(folder / LAYERS_CHART, [(short(each.name), each.snr_db) for each in layers[:ROWS]])
    drawn = folder / CHANGED
    drawn.mkdir(exist_ok=True)
    for place, i in enumerate((i for i in worst if changes[i] > 0), start=1):
        picture = fit(images[i], *DRAWN_SIZE)
        sides = [
            draw(picture, each[i], class_names, SHOWN_SCORE, truths[i])
            for each in (reference, found)
        ]
        titles = (f"checkpoint, score ≥ {SHOWN_SCORE:g}", f"{file.name}: {truths[i].name}")
        name = f"{place:03d}_{file_stem(truths[i].name)}.jpg"
        Image.fromarray(side_by_side(sides[0], sides[1], titles)).save(drawn / name, quality=88)
    return layers_table(layers[:5])


def layers_table(layers: Sequence[Layer]) -> str:
    """Layers as a Markdown table."""
    columns = (
        "layer",
        "signal to noise",
        "cosine",
        "lost channels",
        "range of the file",
        "in float32",
        "saturated",
    )
    return "\n".join(markdown.table(columns, map(_cells, layers)))


def short(name: str) -> str:
    """The end of the first of a layer's names."""
    first = name.split(";")[0]
    return first if len(first) <= SHOWN_NAME else f"…{first[1 - SHOWN_NAME :]}"


def _cells(layer: Layer) -> list[str]:
    ranged = "float32" if math.isnan(layer.low) else f"{layer.low:.3g} to {layer.high:.3g}"
    return [
        markdown.escaped(short(layer.name)),
        f"{layer.snr_db:.1f} dB",
        f"{layer.cosine:.4f}",
        f"{layer.lost_channels:.0%}",
        ranged,
        f"{layer.used_low:.3g} to {layer.used_high:.3g}",
        f"{layer.saturated:.2%}",
    ]


def _as_csv(layers: Sequence[Layer]) -> str:
    text = io.StringIO()
    write_rows(text, [[each.name for each in fields(Layer)], *map(astuple, layers)])
    return text.getvalue()
