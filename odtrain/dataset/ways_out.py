"""The one command that repairs what can be repaired of a data set, for whoever is told what is wrong."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from odtrain.addresses import is_remote
from odtrain.config.schema import DataConfig
from odtrain.dataset.faulty import LEAVABLE
from odtrain.findings import Finding
from odtrain.io.free_names import numbered

REPAIRED = (*LEAVABLE, "OD013", "OD103", "OD104", "OD106", "OD107", "OD113", "OD114", "OD119")
"""Errors and warnings that `check --fix` puts right in its copy, or leaves out of it."""
PATHS = ("images", "annotations", "label_map", "train_list", "validation_list", "test_list")
PLAIN = {"format": "auto", "crowd": "ignore"}
"""Keys that change what is found, and the value that need not be said."""


def ways_out(config: DataConfig, findings: Sequence[Finding]) -> list[str]:
    """Lines that say how to go on; none where nothing can be repaired."""
    mended = [each for each in findings if each.code in REPAIRED]
    faults = sum(each.severity == "error" for each in mended)
    warned = len(mended) - faults
    if not mended:
        return []
    counted = " and ".join(
        f"{count:,} {what}{'s' if count > 1 else ''}"
        for count, what in ((faults, "error"), (warned, "warning"))
        if count
    )
    lines = [f"To put right or leave out what can be in a copy ({counted}):", f"  {_fix(config)}"]
    leave = any(each.code in LEAVABLE and each.severity == "error" for each in mended)
    return [*lines, *(["Without a copy: data.faulty=leave_out"] if leave else [])]


def _fix(config: DataConfig) -> str:
    return f"odtrain check {shlex.join(_settings(config))} --fix {shlex.quote(str(_copy(config)))}"


def _settings(config: DataConfig) -> Iterator[str]:
    for key in PATHS:
        if (path := getattr(config, key)) is not None:
            yield f"data.{key}={_absolute(path)}"
    for key, plain in PLAIN.items():
        if (value := getattr(config, key)) != plain:
            yield f"data.{key}={value}"
    yield f"data.name={config.name}"


def _copy(config: DataConfig) -> Path:
    """A new folder beside the data set, as it may not lie inside."""
    roots = [
        _absolute(root)
        for root in (config.images, config.annotations)
        if root and not is_remote(root)
    ]
    folders = [root if root.is_dir() else root.parent for root in roots] or [Path.cwd() / "data"]
    beside = Path(os.path.commonpath(folders)).parent
    places = numbered(beside / f"{config.name}-repaired")
    return next(place for place in places if not place.exists())


def _absolute(path: str) -> Path:
    if is_remote(path):
        return Path(path)
    return Path(os.path.normpath(Path(path).absolute()))
