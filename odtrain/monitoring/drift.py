"""`odtrain drift`: whether what a served model sees is still what it was judged on."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from odtrain.config.schema import Config
from odtrain.dataset.check import check
from odtrain.dataset.pairing import PictureNames
from odtrain.errors import ConfigError, DataError
from odtrain.evaluation.two_samples import (
    Values,
    chance_of_one_population,
    corrected,
    unlikeness,
)
from odtrain.io.atomic import write_text
from odtrain.io.markdown import table
from odtrain.jobs.context import say_run
from odtrain.jobs.kept_test import names_in_run
from odtrain.media.images import read_turned
from odtrain.model_source import open_source, run_config, run_meant
from odtrain.monitoring.usage import KINDS, Usage, read_usage
from odtrain.reports.drift_chart import drift_chart
from odtrain.system.progress import Bar
from odtrain.tracking.tracker import Tracker
from odtrain_runtime.seen.usage_log import seen_as_json

logger = logging.getLogger(__name__)

LEVEL = 0.05
"""Chance of an alarm, of any kind, where nothing has changed."""
FEWEST = 20
"""Pictures on either side: with fewer nothing is shown."""
MOST = 1000
"""Pictures of a side that are compared, evenly chosen: a test of more takes minutes and tells the same."""
DIFFERENT = 50
"""Pictures that are named for labelling."""
STATUS = 3
"""Exit status where something has changed, for whoever calls the command in a script."""
WORDS = {
    "light": "the light ({0:.0f} -> {1:.0f} of 255)",
    "contrast": "the contrast ({0:.0f} -> {1:.0f})",
    "sharpness": "the sharpness ({0:.1f} -> {1:.1f}, logarithm)",
    "layout": "the scene (colours by place)",
    "objects": "how many objects are found ({0:.1f} -> {1:.1f} a picture)",
    "scores": "how sure the model is ({0:.2f} -> {1:.2f})",
    "sizes": "the size of what is found (x {2:.2f})",
    "classes": "which classes are found",
}


@dataclass(frozen=True)
class Moved:
    """One kind of number on both sides.

    Attributes:
        kind: one of `usage.KINDS`.
        before: its mean on the pictures that the model was judged on; of vectors, of all their numbers.
        now: on those of the log.
        chance: p of one population, after correction for the number of kinds.
    """

    kind: str
    before: float
    now: float
    chance: float

    @property
    def shown(self) -> bool:
        """Whether it has changed."""
        return self.chance <= LEVEL

    def in_words(self) -> str:
        """What moved, and from where to where."""
        return WORDS[self.kind].format(self.before, self.now, 2 ** (self.now - self.before))


@dataclass(frozen=True)
class Drift:
    """The answer.

    Attributes:
        moved: each kind, in the order of `usage.KINDS`.
        said: for people.
    """

    moved: tuple[Moved, ...]
    said: str

    @property
    def shown(self) -> bool:
        """Whether anything has changed."""
        return any(each.shown for each in self.moved)


def drift(config: Config, folder: Path, against: str) -> Drift:
    """Compare a log with the validation pictures of the run that the model comes from, in a run of its own.

    Args:
        config: where runs and models are.
        folder: of the log.
        against: a run, or models:/NAME@ALIAS.

    Raises:
        DataError: there is no log, too few pictures, or the log is of other classes.
        TrackingError: there is no such run or model.
    """
    if not against:
        raise ConfigError("--against", "is not given.", "Name the run or the model that served.")
    run = run_meant(against, config.runs)
    usage, reference = read_usage(folder, run), _reference(config, against, run)
    if usage.class_names != reference.class_names:
        served = ", ".join(usage.class_names) or "classes without names"
        raise DataError(
            folder,
            f"was logged of a model of {served}; {against} knows {', '.join(reference.class_names)}.",
            "Name the run or model that served: --against RUN.",
        )
    for name, side in ((str(folder), usage), (against, reference)):
        if len(side.rows) < FEWEST:
            problem = f"has {len(side.rows)} different pictures; with fewer than {FEWEST} nothing is shown."
            raise DataError(name, problem, "Let it serve longer, or name a run with more pictures.")
    moved = compared(usage, reference, config.data.seed)
    tracker = Tracker(config.tracking, Path(config.outputs))
    with tracker.start("drift", f"drift of {folder.name} from {against}"):
        say_run(tracker)
        listed = _record(tracker, usage, reference, moved)
        said = _told(usage, reference, moved, against, listed)
        tracker.describe(said)
        return Drift(moved, said)


def compared(usage: Usage, reference: Usage, seed: int) -> tuple[Moved, ...]:
    """Each kind of number on both sides, chances corrected."""
    sides = {
        kind: tuple(_some(side.numbers(kind)) for side in (reference, usage)) for kind in KINDS
    }
    chances = corrected(
        {kind: chance_of_one_population(a, b, seed) for kind, (a, b) in sides.items()}
    )
    return tuple(Moved(kind, _mean(a), _mean(b), chances[kind]) for kind, (a, b) in sides.items())


def _mean(values: Values) -> float:
    return float(values.mean()) if values.size else 0.0


def _some(values: Values) -> Values:
    if len(values) <= MOST:
        return values
    evenly: Values = values[np.linspace(0, len(values) - 1, MOST).round().astype(int)]
    return evenly


def _reference(config: Config, against: str, run: str) -> Usage:
    """What the model sees in the validation pictures of its run, or the test pictures, where those are few.

    Those of the run that are still there: the data set may have grown since, and be split anew.
    """
    source = open_source(against, config, tiles=config.evaluate.tiles)
    images = check(run_config(run, config.runs).data).images
    pictures = PictureNames(image.image for image in images)
    name, files = "", set[Path]()
    for name in ("validation", "test"):
        names = names_in_run(run, name, config.runs)
        files = {file for each in names for file in pictures.find_path(each)}
        if len(files) >= FEWEST:
            break
    rows = []
    shown = [image for image in images if image.image in files]
    for image in Bar(shown, doing=f"look at the {name} pictures"):
        picture = read_turned(image.image, image.orientation)
        rows.append({"time": 0, **seen_as_json(picture, source.detect(picture))})
    return Usage(rows, {}, f"{name} pictures of run {run}", source.class_names, runs=(run,))


# ---- what is kept and said


def _record(
    tracker: Tracker, usage: Usage, reference: Usage, moved: Sequence[Moved]
) -> Path | None:
    """Numbers and chart into the run; the list of the pictures that differ most, where some were kept."""
    folder = tracker.folder / "drift"
    folder.mkdir(parents=True, exist_ok=True)
    for one in moved:
        values = {"chance": one.chance, "before": one.before, "now": one.now}
        tracker.log({f"drift/{one.kind}/{key}": value for key, value in values.items()}, 0)
    content: dict[str, Any] = {"moved": [asdict(one) for one in moved], "pictures": len(usage.rows)}
    tracker.log_text(json.dumps(content, indent=1), "drift/drift.json")
    chart = folder / "drift.png"
    drift_chart(chart, {one.kind: one.chance for one in moved}, usage, reference)
    tracker.log_file(chart, "drift")
    if not usage.kept:
        return None
    listed = folder / "pictures.txt"
    text = "".join(f"{file.resolve()}\n" for file in most_different(usage, reference))
    write_text(listed, text)
    tracker.log_file(listed, "drift")
    return listed


def most_different(usage: Usage, reference: Usage) -> list[Path]:
    """Kept pictures that look least like the reference, each number in its own standard deviations."""
    kinds = ("light", "contrast", "sharpness", "layout", "objects", "scores")
    places = list(usage.kept)
    far = np.zeros(len(places))
    for kind in kinds:
        here, there = usage.numbers(kind)[places], reference.numbers(kind)
        spread = np.maximum(there.std(axis=0), 1e-6) * np.sqrt(there.shape[1])
        far += unlikeness(here / spread, _some(there) / spread)
    return [usage.kept[places[number]] for number in np.argsort(-far, kind="stable")[:DIFFERENT]]


def _told(
    usage: Usage, reference: Usage, moved: Sequence[Moved], against: str, listed: Path | None
) -> str:
    changed = sorted((one for one in moved if one.shown), key=lambda one: one.chance)
    sides = f"{len(usage.rows)} pictures against {len(reference.rows)} {reference.model}"
    if changed:
        said = "; ".join(one.in_words() for one in changed)
        lines = [f"What the model sees has changed ({sides}): {said}."]
    else:
        lines = [f"No change is shown ({sides})."]
    if not {*reference.runs, ""} & set(usage.runs):
        other = f"The log is of another model, of run {', '.join(usage.runs)}"
        lines.append(f"{other}: what is found may differ by that alone.")
    if usage.thinned:
        lines.append(f"{usage.thinned} pictures were left out that repeat the one before.")
    if usage.broken:
        lines.append(f"{usage.broken} lines of the log could not be read.")
    rows = [[one.kind, f"{one.before:.3g}", f"{one.now:.3g}", f"{one.chance:.3f}"] for one in moved]
    lines += table(["what", "before", "now", "chance if nothing changed"], rows)
    if changed and listed:
        lines.append(f"  label what differs   odtrain prelabel source={against} input={listed}")
    elif changed:
        lines.append("  keep pictures too    odtrain serve serve.log=DIR serve.log_pictures=0.1")
    return "\n".join(lines)
