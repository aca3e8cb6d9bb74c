"""Draws `docs/pictures/rooms.svg`, the rooms of odtrain in the order of the data, from the contracts.

    python docs/draw_rooms.py

The rooms and their order are those of the contract "layers" in pyproject.toml; what a room is for is the
first line of its package. A test draws it again and compares.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from html import escape
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs/pictures/rooms.svg"
WIDTH, ROW, TOP = 860, 34, 64
NAME_WIDTH = 150


def rooms() -> list[list[str]]:
    """Names of the rooms from the ground up; rooms of one row import nothing from each other."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = [
        each for each in settings["tool"]["importlinter"]["contracts"] if each["type"] == "layers"
    ]
    return [[name.strip() for name in row.split("|")] for row in reversed(contract["layers"])]


def purpose(room: str) -> str:
    """The first line of the docstring of a package or module."""
    place = ROOT / "odtrain" / room
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return said.partition("\n")[0]


def drawing(rows: Sequence[Sequence[str]]) -> str:
    """The picture as SVG: a line for each room, readable on light and dark pages."""
    lines = [name for row in rows for name in row]
    height = TOP + ROW * len(lines) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="14">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        '<text x="16" y="26" font-size="17" font-weight="bold" fill="#1b1f24">The rooms of odtrain</text>',
        '<text x="16" y="48" fill="#57606a">A room imports only from rooms above it; '
        "rooms joined by a line at the left do not know each other.</text>",
    ]
    at = TOP
    for row in rows:
        if len(row) > 1:
            end = at + ROW * len(row) - 8
            parts.append(f'<rect x="8" y="{at}" width="3" height="{end - at}" fill="#0969da"/>')
        for name in row:
            parts += _line(name, at)
            at += ROW
    return "\n".join([*parts, "</svg>", ""])


def _line(name: str, at: int) -> list[str]:
    package = (ROOT / "odtrain" / name).is_dir()
    fill = "#ddf4ff" if package else "#eaeef2"
    shown = f"{name}/" if package else f"{name}.py"
    return [
        f'<rect x="16" y="{at}" width="{NAME_WIDTH}" height="{ROW - 8}" rx="5" fill="{fill}"/>',
        f'<text x="26" y="{at + 18}" font-weight="bold" fill="#1b1f24">{escape(shown)}</text>',
        f'<text x="{NAME_WIDTH + 32}" y="{at + 18}" fill="#1b1f24">{escape(purpose(name))}</text>',
    ]


if __name__ == "__main__":
    PICTURE.write_text(drawing(rooms()), encoding="utf-8")
