"""Pictures whose objects were all left out by a rule: they would be taught as background."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from odtrain.findings import Finding
from odtrain.labels.annotations import Entry
from odtrain.labels.formats.reading import CROWD, UNUSABLE, counted

MOST = 0.5
"""Share of the labelled pictures above which the rule, and no object, is the odd one out."""
EXPORT = (
    "Export boxes or polygons in place of masks (CVAT marks masks as crowds), or take the crowd "
    "regions: data.crowd=take"
)


def left_out_findings(root: Path, entries: Mapping[Path, Entry]) -> Iterator[Finding]:
    """OD133 for each picture that loses all its objects, and OD035 where most do.

    Args:
        root: where the label files lie.
        entries: what is said of each picture that is used.
    """
    with_objects = [entry for entry in entries.values() if entry.objects or entry.left_out]
    lost = {
        file: entry
        for file, entry in entries.items()
        if set(entry.left_out) - {UNUSABLE} and not entry.objects
    }
    for file, entry in lost.items():
        cause = entry.about(
            f"all that is labelled is left out: {_listed(Counter(entry.left_out))}."
        )
        remedy = f"It is taken for background. {EXPORT}" if CROWD in entry.left_out else None
        yield Finding.of("OD133", entry.label_file, cause, remedy=remedy, picture=file)
    if len(lost) > MOST * len(with_objects):
        reasons = Counter(what for entry in lost.values() for what in entry.left_out)
        cause = f"{len(lost):,} of {len(with_objects):,} labelled pictures lose all their objects: "
        remedy = EXPORT if CROWD in reasons else None
        yield Finding.of("OD035", root, f"{cause}{_listed(reasons)}.", remedy=remedy)


def _listed(reasons: Counter[str]) -> str:
    return ", ".join(counted(what, number) for what, number in sorted(reasons.items()))
