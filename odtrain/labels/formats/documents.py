"""JSON label files: read once, then told apart by their shape."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from odtrain.findings import Finding
from odtrain.labels.annotations import Entry, UnreadableError
from odtrain.labels.formats.reading import Reading, Sources, printable, read_bytes

SHOWN_KEYS = 12


class DocumentFormat(NamedTuple):
    """A format whose files are JSON.

    Attributes:
        markers: strings, of which a file of it has all; only such files are parsed.
        fits: whether a parsed document is of it.
        entries: what the document says; what it says wrongly goes into the `Reading`.
    """

    markers: tuple[bytes, ...]
    fits: Callable[[Any], bool]
    entries: Callable[[Path, Any, Reading], list[Entry]]


def read_documents(sources: Sources, formats: Mapping[str, DocumentFormat]) -> dict[str, Reading]:
    """What the .json files say that are of one of `formats`, by its name.

    Returns:
        A `Reading` for each format. A file that is none of them is passed over, unless it bears a
        picture's name, or the format is named and no file is of it.
    """
    readings = {name: Reading(crowd=sources.crowd) for name in formats}
    misfits: list[Path] = []
    for file in sources.with_suffix(".json"):
        likely = list(formats)
        try:
            data = read_bytes(file)
            likely = [name for name in formats if _resembles(data, formats[name])]
            likely = likely or (list(formats) if sources.named else [])
            document, twice = _parsed(file, data) if likely else (None, [])
        except UnreadableError as error:
            readings[likely[0]].refuse(error)
            continue
        fitting = next((name for name in likely if formats[name].fits(document)), None)
        if fitting is None:
            misfits.append(file)
        else:
            reading = readings[fitting]
            reading.files += 1
            reading.entries += formats[fitting].entries(file, document, reading)
            reading.unread(file, [f'"{printable(key)[:40]}" is there twice' for key in twice])
    none_fits = sources.named and not any(reading.files for reading in readings.values())
    for file in misfits:
        if none_fits or sources.of_picture(file):
            said = f"is JSON, but not {' or '.join(formats)}."
            readings[next(iter(formats))].fault(file, "OD031", said)
    return readings


def misfit(file: Path, formats: Mapping[str, DocumentFormat]) -> str:
    """Why a file is no document of one of `formats`: what is in it, and what is looked for.

    Raises:
        UnreadableError: OD030.
    """
    document, _ = _parsed(file, read_bytes(file))
    if isinstance(document, dict):
        keys = [printable(key)[:40] for key in list(document)[:SHOWN_KEYS]]
        found = f"an object with the keys {', '.join(keys)}" if keys else "an empty object"
    else:
        found = f"a list of {len(document):,}" if isinstance(document, list) else "one value"
    return f"is JSON, {found}, but not of {', '.join(formats)}."


def _resembles(data: bytes, kind: DocumentFormat) -> bool:
    return all(marker in data for marker in kind.markers)


def _parsed(file: Path, data: bytes) -> tuple[Any, list[str]]:
    """The document, and keys that one of its tables has twice: Python keeps the last value of each."""
    twice: dict[str, None] = {}

    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            twice.update(dict.fromkeys(key for key in counts if counts[key] > 1))
        return made

    try:
        return json.loads(data, object_pairs_hook=table), list(twice)
    except RecursionError:
        cause = "is nested too deep."
    except ValueError as error:
        cause = "is empty." if not data.strip() else f"is not JSON: {str(error)[:100]}."
    raise UnreadableError(Finding.of("OD030", file, cause))
