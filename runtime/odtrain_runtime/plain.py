"""Strangers' texts for people's eyes: what a terminal or a browser would act on is shown, not done.

File names, class names, tags, servers' answers: each may hold what moves the cursor, ends a line or turns
the reading direction, and so makes other words appear than were written.
"""

from __future__ import annotations

import re

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""C0 and C1 controls, ends of line and paragraph, and overrides of direction."""
UNSEEN = re.compile(rf"{CONTROL.pattern}|[\ud800-\udfff\ufffe\uffff]")
"""These, and what is no Unicode: bytes of file names."""
UNSEEN_IN_LINES = re.compile(rf"(?![\n\t])(?:{UNSEEN.pattern})")


def plain(text: object) -> str:
    r"""A text on one line, unseen characters as `\x1b`, `\n` or `\u202e`."""
    return UNSEEN.sub(_escaped, str(text))


def plain_lines(text: object) -> str:
    """A text of several lines, with its own ends of lines and tabs."""
    return UNSEEN_IN_LINES.sub(_escaped, str(text))


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
