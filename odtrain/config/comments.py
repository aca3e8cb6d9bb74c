"""What the comments in `conf/` say of each key and group; the files are read as text, without Hydra."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

LINE = re.compile(r"^(?P<indent> *)(?P<key>[\w.]+):(?P<value>.*?)(?:(?:^|\s)# (?P<said>.*))?$")
GOES_ON = re.compile(r"^ {8,}# (.*)$")
"""A line of nothing but a comment, below that of a key."""
GROUP = re.compile(r"^  - (\w+): (\S+) +# (.*)$")


def key_comments(folder: Path) -> dict[str, str]:
    """What is said of each dotted key, by the first file that says something of it.

    Args:
        folder: `conf/`.
    """
    said: dict[str, str] = {}
    for prefix, file in _files(folder):
        for key, comment in _of_file(file):
            said.setdefault(f"{prefix}{key}", comment)
    return said


def group_comments(folder: Path) -> dict[str, tuple[str, str]]:
    """Of each group: the choice that is taken by default, and what is said of it."""
    lines = (folder / "config.yaml").read_text(encoding="utf-8").splitlines()
    matches = [match for line in lines if (match := GROUP.match(line))]
    return {match[1]: (match[2], match[3]) for match in matches}


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Those that explain keys, with the section that they are about."""
    yield "", folder / "config.yaml"
    for group, (choice, _) in group_comments(folder).items():
        for file in (folder / f"{group}_defaults.yaml", folder / group / f"{choice}.yaml"):
            if file.is_file():
                everywhere = file.read_text(encoding="utf-8").startswith("# @package _global_")
                yield "" if everywhere else f"{group}.", file


def _of_file(file: Path) -> Iterator[tuple[str, str]]:
    sections: list[tuple[int, str]] = []
    key, said = "", ""
    for line in [*file.read_text(encoding="utf-8").splitlines(), "end:"]:
        if said and (more := GOES_ON.match(line)):
            said += f" {more[1]}"
        elif match := LINE.match(line):
            if said:
                yield key, said
            indent = len(match["indent"])
            sections = [*(each for each in sections if each[0] < indent), (indent, match["key"])]
            key, said = ".".join(name for _, name in sections), match["said"] or ""
