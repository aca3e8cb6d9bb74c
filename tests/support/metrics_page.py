"""The metrics that docs/metrics.md tells."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs/metrics.md"
DIFFERENCE = re.compile(r"^compare/(.+?)(_lo|_hi)?$")


def untold(names: Iterable[str]) -> list[str]:
    """Those among the names that no row of the page is about."""
    rows = re.findall(r"^\| `([^`]+)`", PAGE.read_text(encoding="utf-8"), re.M)
    told = [re.sub(r"<\w+>", ".+", re.escape(row)) for row in rows]
    whole = (DIFFERENCE.sub(r"compare/\1", name) for name in names)
    return [name for name in whole if not any(re.fullmatch(row, name) for row in told)]
