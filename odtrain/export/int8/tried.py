"""What each rung came to, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from odtrain.io import markdown

WORDS = {"coral": "Coral", "hexagon": "Hexagon", "xnnpack": "XNNPACK"}
"""Accelerators, as a table's head has them."""


@dataclass(frozen=True)
class Tried:
    """A rung, and its file.

    Attributes:
        rung: its name.
        said: `passed`, or why the file did not, or was not looked at.
        takes: accelerator -> how many of the network's operators it takes, as `taken/all`.
        latency_ms_p50: with the threads of every file's; None where the file was not run.
        size_mb: in 10^6 bytes.
        map: mAP on the pictures of the proof; None where the file was not scored.
        map_50: the same at IoU 0.5.
        kept: whether it is the run's int8 file.
    """

    rung: str
    said: str
    takes: Mapping[str, str]
    latency_ms_p50: float | None = None
    size_mb: float | None = None
    map: float | None = None
    map_50: float | None = None
    kept: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def rungs_table(rungs: Sequence[Tried]) -> str:
    """The rungs as a Markdown table, one row each, and what its counts are."""
    columns = ("int8", "mAP", "mAP_50", "latency p50", "size", *WORDS.values(), "checked")
    lines = markdown.table(columns, map(_cells, rungs))
    return "\n".join(
        [*lines, "", "Coral, Hexagon, XNNPACK: operators of the network that each takes."]
    )


def _cells(tried: Tried) -> list[str]:
    said = f"**kept**, {tried.said}" if tried.kept else tried.said
    return [
        tried.rung,
        _number(tried.map, "{:.3f}"),
        _number(tried.map_50, "{:.3f}"),
        _number(tried.latency_ms_p50, "{:.1f} ms"),
        _number(tried.size_mb, "{:.1f} MB"),
        *(tried.takes.get(name, "") for name in WORDS),
        said,
    ]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
