"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from odtrain_runtime.plain import plain


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a table: its header, the rule below it, and one a row."""
    header = f"| {' | '.join(columns)} |".replace("|  ", "| ")  # a column without a name
    rule = "|" + "---|" * len(columns)
    return [header, rule, *(f"| {' | '.join(map(plain, cells))} |" for cells in rows)]


def escaped(text: str) -> str:
    """Any text as the content of a cell."""
    return plain(text.replace("|", "\\|").replace("\n", " "))
