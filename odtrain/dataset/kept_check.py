"""What a check said of a prepared data set, kept beside it: while nothing changes, nothing is read again.

`prepare` knows that nothing changed by the sizes and dates in `state.json`; this goes by the same.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from odtrain import __version__
from odtrain.config.schema import DataConfig, ModelConfig
from odtrain.dataset.check import Checked, check
from odtrain.dataset.look import STATE_FILE
from odtrain.dataset.prepare import unchanged_dataset
from odtrain.errors import DataError
from odtrain.findings import Finding
from odtrain.io.remote.files import read_bytes, read_json, write_text

CHECK_FILE = "check.json"


class Answer(NamedTuple):
    """What `odtrain check` shows.

    Attributes:
        findings: errors first.
        class_names: the first has id 1.
        orientations: path of a picture -> the EXIF orientation that its boxes ask to apply.
    """

    findings: tuple[Finding, ...]
    class_names: tuple[str, ...]
    orientations: dict[str, int]


def answer(config: DataConfig, model: ModelConfig) -> Answer:
    """As `check` finds it, or found it when the data set, the network and odtrain were what they are now.

    Raises:
        DataError: a folder or list cannot be read at all.
    """
    folder = Path(config.prepared)
    unchanged, files = unchanged_dataset(config, folder)
    if unchanged is None:
        return answer_of(check(config, model, files=files))
    network = json.dumps([__version__, asdict(model)]).encode()
    of = hashlib.sha256(network + read_bytes(folder / STATE_FILE)).hexdigest()
    kept = read_json(folder / CHECK_FILE)
    if kept.get("of") == of:
        findings = tuple(Finding(**finding) for finding in kept["findings"])
        return Answer(findings, tuple(kept["class_names"]), kept["orientations"])
    found = answer_of(check(config, model, files=files))
    values = found._asdict() | {"of": of, "findings": [one.as_dict() for one in found.findings]}
    with suppress(OSError, DataError):  # who may only read the folder waits once more
        write_text(folder / CHECK_FILE, json.dumps(values), durable=False)
    return found


def answer_of(checked: Checked) -> Answer:
    """What there is to show of a check."""
    orientations = {str(file): held.orientation for file, held in checked.pictures.items()}
    return Answer(checked.findings, checked.class_names, orientations)
