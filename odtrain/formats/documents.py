"""JSON label files: read once, then told apart by their shape."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from odtrain.annotations import Entry, UnreadableError, normalised
from odtrain.findings import found
from odtrain.formats.reading import Reading, Sources, read_bytes


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
        A `Reading` for each format. A file that is none of them is passed over, unless the format is
        named or the file bears a picture's name: then it is a finding of the first that it resembles.
    """
    readings = {name: Reading() for name in formats}
    for file in sources.with_suffix(".json"):
        expected = sources.named or normalised(file.stem) in sources.stems
        try:
            data = read_bytes(file)
            resembled = [name for name, kind in formats.items() if _resembles(data, kind)]
            if not resembled and not sources.named:
                continue
            document = _parsed(file, data)
        except UnreadableError as error:
            readings[(resembled or list(formats))[0]].refuse(error)
            continue
        name = next((name for name in resembled if formats[name].fits(document)), None)
        if name is not None:
            readings[name].files += 1
            readings[name].entries += formats[name].entries(file, document, readings[name])
        elif expected:
            reading = readings[next(iter(formats))]
            reading.fault(file, "OD031", f"is JSON, but not {' or '.join(formats)}.")
    return readings


def _resembles(data: bytes, kind: DocumentFormat) -> bool:
    return all(marker in data for marker in kind.markers)


def _parsed(file: Path, data: bytes) -> Any:
    try:
        return json.loads(data)
    except RecursionError:
        cause = "is nested too deep."
    except ValueError as error:
        cause = "is empty." if not data.strip() else f"is not JSON: {str(error)[:100]}."
    raise UnreadableError(found("OD030", file, cause))
