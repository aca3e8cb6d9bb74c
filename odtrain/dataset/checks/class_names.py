"""Names of classes that look like slips: other spellings of one name, and misspellings."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache

from odtrain.findings import Finding
from odtrain.labels.annotations import LabelledImage

RARE = 2
"""A class of more boxes than these is meant: nobody slips so often in one way."""
TIMES_AS_FREQUENT = 10
"""A slip is of a class that has so many times as many boxes."""
SHORTEST = 4
"""Names of fewer letters differ from each other by one of them: cat, car, bat."""
LONGEST = 200
"""Letters of a name that is compared with others: longer ones are no slips of the hand."""
MOST_COMPARED = 2_000
"""Names that are compared with each other: labels of more classes were not typed by hand."""
LONG = 9
"""Names of so many letters may differ in two."""


def name_findings(images: Sequence[LabelledImage], known: Collection[str]) -> Iterator[Finding]:
    """OD113 and OD114, one for each box of a name that looks like a slip.

    Args:
        images: all that are used.
        known: names of the user's label map, which are meant as they are.
    """
    meant = slips(images, known)
    for image in images:
        for item in image.objects:
            if item.name in meant:
                code, name = meant[item.name]
                spelling = "another spelling of" if code == "OD114" else "a misspelling of"
                cause = f'class "{item.name}" looks like {spelling} "{name}".'
                file = image.label_file or image.image
                yield Finding.of(code, file, cause, image.describe(item), picture=image.image)


def slips(images: Sequence[LabelledImage], known: Collection[str]) -> dict[str, tuple[str, str]]:
    """Name -> code (OD113 or OD114) and the name that is probably meant."""
    counts = Counter(item.name for image in images for item in image.objects)
    candidates = sorted(counts.keys() - set(known))
    other = _other_spellings(counts, known)
    meant = {name: ("OD114", other[name]) for name in candidates if name in other}
    rare = [name for name in candidates if counts[name] <= RARE and name not in meant]
    for name in rare if len(counts) <= MOST_COMPARED else []:
        frequent = [n for n in counts if counts[n] >= TIMES_AS_FREQUENT * counts[name]]
        near = [n for n in frequent if n not in meant and _one_slip(name, n)]
        if near:
            meant[name] = ("OD113", max(near, key=lambda n: (counts[n], n)))
    return meant


def probable(name: str, known: Collection[str]) -> str | None:
    """The one of `known` that `name` is another spelling or a misspelling of; None if not just one."""
    spelled = [other for other in known if letters(other) == letters(name)]
    near = spelled or [other for other in known if _one_slip(name, other)]
    return near[0] if len(near) == 1 else None


def _other_spellings(counts: Counter[str], known: Collection[str]) -> dict[str, str]:
    """Name -> the one of the label map, or the most frequent one, that differs in no letter from it."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for name in {*counts, *known}:
        spellings[letters(name)].append(name)
    return {
        name: best
        for key, names in spellings.items()
        if len(key) > 1  # single letters: "a" and "A" are two signs
        for best in [max(names, key=lambda name: (name in known, counts[name], name))]
        for name in names
        if name != best
    }


@lru_cache(10_000)
def letters(name: str) -> str:
    """What is left of a name without case, blanks and punctuation."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())


def _one_slip(name: str, other: str) -> bool:
    """Whether one letter, or two of a long name, was left out, added, changed or swapped.

    Numbers are never slips: `floor 1` is not `floor 2`.
    """
    one, two = letters(name), letters(other)
    if abs(len(one) - len(two)) > 2 or len(one) > LONGEST:
        return False
    if min(len(one), len(two)) < SHORTEST or re.findall(r"\d+", one) != re.findall(r"\d+", two):
        return False
    return edits(one, two) <= (2 if min(len(one), len(two)) >= LONG else 1)


def edits(one: str, other: str) -> int:
    """Letters left out, added, changed or swapped with a neighbour to make `other` of `one`.

    The optimal string alignment distance, also known as the restricted one of Damerau (1964).
    """
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        row = [i]
        for j, b in enumerate(other, start=1):
            row.append(min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b)))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                row[j] = min(row[j], before[j - 2] + 1)
        before, last = last, row
    return last[-1]
