"""Words that people give to classes, pictures and settings, of every kind that a store may refuse."""

from __future__ import annotations

import functools
import sys
import unicodedata
from collections.abc import Iterator

AWKWARD = (
    *(
        "*",
        "_2a",
        "▲",
        "▲▲",
        "C++",
        "C--",
        "C#",
        "cup (blue)",
        "don't",
        "100%",
        "%41",
        "a,b",
        "x:y",
        "..",
        ".",
    ),
    *(
        "",
        " ",
        "a/b",
        "a//b",
        "/a",
        "a/",
        "a/./b",
        "..a",
        "a?b",
        "a#b",
        "a\\b",
        "엘리베이터",
        "हिन्दी",
        "val/AR@100",
    ),
    *(
        "l" * 300,
        "l" * 299 + "m",
        "▲" * 300,
        "x" * 249,
        "é",
        "e\u0301",
        "ab",
        "ab\n",
        "a\nb",
        "a~b",
    ),
)


@functools.cache
def words() -> tuple[str, ...]:
    """The awkward ones, and one with the first and the last letter of each Unicode category."""
    return tuple(dict.fromkeys([*AWKWARD, *_of_each_category()]))


def _of_each_category() -> Iterator[str]:
    first: dict[str, str] = {}
    last: dict[str, str] = {}
    for letter in map(chr, range(sys.maxunicode + 1)):
        kind = unicodedata.category(letter)
        first.setdefault(kind, letter)
        last[kind] = letter
    for letter in (*first.values(), *last.values()):
        yield f"n{letter}"
