"""`odtrain models compare A B`: two of anything that detects, on the same pictures.

A run or a registered version brings what it found in its test pictures along
(`odtrain.evaluation.saved_detections`);
a file, or whatever was not evaluated on the same pictures, is run now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from odtrain.config.compose import given_keys, names_section
from odtrain.config.differing import left_out
from odtrain.config.schema import Config, DataConfig, Runs
from odtrain.dataset.prepare import prepare
from odtrain.dataset.read import Dataset
from odtrain.dataset.read import read_labelled as labels_of
from odtrain.errors import ConfigError, DataError, TrackingError
from odtrain.evaluation import saved_detections as detection_files
from odtrain.evaluation.paired_bootstrap import (
    POINTS,
    Comparison,
    Difference,
    Least,
    compare_detections,
)
from odtrain.evaluation.saved_detections import Kept, read_kept, read_labelled, under_names
from odtrain.export.benchmark import measure
from odtrain.export.parity import keep
from odtrain.export_formats import FORMATS
from odtrain.io import markdown
from odtrain.io.checksums import fingerprint
from odtrain.jobs.comparing.compare_page import compare_page, pictures_of
from odtrain.media.draw import printable_label
from odtrain.model_source import (
    RUN_FILE,
    RUN_ID,
    is_there,
    open_source,
    run_config,
    run_file,
    run_meant,
    run_of_source,
)
from odtrain.registry.download import file_of_version
from odtrain.registry.versions import find_version
from odtrain.reports import charts
from odtrain.structures import Detections, LabelledSplit
from odtrain.system.progress import Bar, doing
from odtrain.tracking.runs import existing_run
from odtrain.tracking.store import reaching, tracking_uri
from odtrain.tracking.tracker import Tracker
from odtrain.training.input_pipeline import Pictures
from odtrain_runtime.others.reading import Reading
from odtrain_runtime.plain import plain_lines

NUMBERS = ("mAP", "latency_ms_p50", "size_mb")
"""What is shown of each exported file."""
FILE_COLUMNS = ("file", "mAP A", "mAP B", "ms A", "ms B", "MB A", "MB B")
NUMBER_COLUMNS = ("number", "A", "B", "B - A", "low", "high", "B better in", "shown", "boxes")


@dataclass(frozen=True, eq=False)
class ComparedModel:
    """One of the two.

    Attributes:
        given: as the user named it.
        what: the same for people, in a line.
        run_id: the run it comes from, if it is known.
        file: the exported file that is compared; None for a checkpoint.
        kept: what it found in `split`, if that was kept with the run.
        split: the labelled pictures of `kept`.
        numbers: format -> mAP, latency_ms_p50, size_mb of its files, as far as they are known.
        reading: how its file is read, where that does not end in detections.
    """

    given: str
    what: str
    run_id: str | None = None
    file: Path | None = None
    kept: Kept | None = None
    split: LabelledSplit | None = None
    numbers: dict[str, dict[str, float]] | None = None
    reading: Reading | None = None


@dataclass(frozen=True, eq=False)
class ComparedModels:
    """What came of it.

    Attributes:
        a: the first side.
        b: the second.
        comparison: of their detections.
        notes: what to know when reading the numbers, a sentence each.
        split: the pictures that both have looked at.
        found: by each side in them, with the ids of the split's classes.
    """

    a: ComparedModel
    b: ComparedModel
    comparison: Comparison
    notes: tuple[str, ...]
    split: LabelledSplit
    found: tuple[list[Detections], list[Detections]]

    @property
    def answer(self) -> str:
        """In words."""
        return self.comparison.in_words()


@dataclass(frozen=True, eq=False)
class Asked:
    """How two are to be compared.

    Attributes:
        config: says where they are, on which pictures, and how.
        overrides: that the user gave.
        format: of the exported file to compare; None for the checkpoint of a run, or the served file.
        again: whether both are run now.
    """

    config: Config
    overrides: Sequence[str]
    format: str | None
    again: bool

    @property
    def named_data(self) -> bool:
        """Whether the user says which pictures are meant."""
        named = names_section(self.overrides, "data")
        return named or "evaluate.split" in given_keys(self.overrides)


def compare_models(
    config: Config,
    overrides: Sequence[str],
    a: str,
    b: str,
    format: str | None = None,
    again: bool = False,
) -> str:
    """Compare two runs, versions or files, log it as a run of its own, and say who is better.

    Args:
        config: `data.*` is looked at where nothing says which pictures are meant, or where
            `overrides` name some; `evaluate.*` says how.
        overrides: that the user gave.
        a: a run, `models:/NAME@ALIAS`, or a file.
        b: another.
        format: of the exported file to compare; without it a run is its checkpoint, and a version the
            file that it serves.
        again: run both now, one after the other, whatever is kept.

    Returns:
        The answer in words, and tables.

    Raises:
        ConfigError, TrackingError, ModelFileError: one of them is not there or cannot be run.
        DataError: they have no test picture or no class in common.
    """
    if format is not None and format not in FORMATS:
        choices = f"Choose one of: {', '.join(FORMATS)}."
        raise ConfigError(f"--format {format}", "no such format.", choices)
    asked = Asked(config, overrides, format, again)
    sides = [_side(name, asked) for name in (a, b)]
    result = _compared(asked, sides)
    text = f"{result.answer}\n\n{comparison_report(result)}"
    tracker = Tracker(config.tracking, Path(config.outputs))
    with tracker.start("compare", f"compare {a} and {b}"):
        _record(tracker, asked, result, text)
    return f"{text}\n\nLogged as run {tracker.name}: page, figure and tables in compare/."


def comparison_report(result: ComparedModels) -> str:
    """Who A and B are, the numbers side by side, and what to know of them, in Markdown."""
    comparison = result.comparison
    rows = map(_row, (*comparison.overall.values(), *_by_class(comparison)))
    numbers = markdown.table(("", "A", "B", "B - A, 95 %", "B better in", "boxes"), rows)
    sides = zip("AB", (result.a, result.b), strict=True)
    named = [f"- {letter}: {side.what}" for letter, side in sides]
    notes = [f"- {note}" for note in result.notes]
    parts = [named, numbers, _files_table(result.a, result.b), notes]
    return plain_lines("\n\n".join("\n".join(part) for part in parts if part))


# ---- who is meant


def _side(name: str, asked: Asked) -> ComparedModel:
    runs = asked.config.runs
    if name.startswith("models:/"):
        return _version_side(name, runs, asked.format)
    run = RUN_FILE.fullmatch(name)
    if run is None and (RUN_ID.fullmatch(name) or not is_there(name)):
        return _run_side(name, run_of_source(name, runs), runs, asked.format)
    source = open_source(name, asked.config)
    where = source.file.name if source.file else "a checkpoint"
    of_run = run_meant(run[1], runs) if run else None
    reading = source.opened.reading if source.opened else None
    return ComparedModel(
        name, f"{name} ({where})", run_id=of_run, file=source.file, reading=reading
    )


def _run_side(name: str, run_id: str, runs: Runs, format: str | None) -> ComparedModel:
    store = tracking_uri(runs.tracking)
    with reaching(store) as client:
        run = existing_run(client, store, run_id)
    kept, split = _kept_by(run_id, format or detection_files.EVALUATED, runs)
    file = None
    if format is not None and kept is None:
        file = run_file(run_id, f"export/{FORMATS[format].file}", runs)
    part = f", {format}" if format else ""
    what = f"run {run.info.run_name} ({run_id[:8]}){part}"
    return ComparedModel(name, what, run_id, file, kept, split, _numbers(run.data.metrics))


def _version_side(name: str, runs: Runs, format: str | None) -> ComparedModel:
    store = tracking_uri(runs.tracking)
    version = find_version(name, store)
    chosen, file = file_of_version(version, store, format)
    kept, split = _kept_by(version.run_id, chosen, runs)
    if kept is not None and kept.facts.get("sha256") != fingerprint(file):
        kept = split = None  # the run was exported again since
    numbers = {
        key: float(text)
        for key, text in version.tags.items()
        if key.startswith("export/") and key.rpartition("/")[2] in NUMBERS
    }
    what = f"models:/{version.name}/{version.number}, {file.name}"
    if version.aliases:
        what += f" ({', '.join(f'@{alias}' for alias in version.aliases)})"
    return ComparedModel(name, what, version.run_id, file, kept, split, _numbers(numbers))


def _kept_by(run_id: str, what: str, runs: Runs) -> tuple[Kept, LabelledSplit] | tuple[None, None]:
    """What a run keeps of a detector, and on which pictures; None if it keeps nothing whole."""
    folder = f"eval/{detection_files.FOLDER}"
    try:
        kept = read_kept(run_file(run_id, f"{folder}/{what}.npz", runs))
        split = read_labelled(run_file(run_id, f"{folder}/{detection_files.LABELS}", runs).parent)
    except (DataError, TrackingError):
        return None, None
    return (kept, split) if kept.split == split.digest else (None, None)


def _numbers(metrics: dict[str, float]) -> dict[str, dict[str, float]]:
    """By format: mAP, latency and size, from metrics named `export/<format>/<name>`."""
    found: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        group, _, rest = key.partition("/")
        name, _, number = rest.partition("/")
        if group == "export" and number in NUMBERS:
            found.setdefault(name, {})[number] = value
    return found


# ---- on the same pictures


@doing("Comparing")
def _compared(asked: Asked, sides: Sequence[ComparedModel]) -> ComparedModels:
    notes: list[str] = []
    config = asked.config
    if asked.again or asked.named_data or any(side.kept is None for side in sides):
        sides = _evaluated(asked, sides)
    split, found = _aligned(sides, notes)
    a, b = (
        _renamed(letter, side, detections, split, notes)
        for letter, side, detections in zip("AB", sides, found, strict=True)
    )
    comparison = compare_detections(
        split.truths,
        a,
        b,
        split.class_names,
        config.evaluate.bootstrap,
        config.data.seed,
        Least(config.registry.min_pictures, config.registry.min_objects),
    )
    if not asked.again:
        notes.append(
            "Latencies are those measured when each was made; `--again` runs and times both now."
        )
    return ComparedModels(sides[0], sides[1], comparison, tuple(notes), split, (a, b))


def _evaluated(asked: Asked, sides: Sequence[ComparedModel]) -> list[ComparedModel]:
    """The sides with what they find in the same pictures; what is kept of those is not done again."""
    dataset, name = prepare(_data(asked, sides)), asked.config.evaluate.split
    split = labels_of(dataset, name)
    if not split.truths:
        raise DataError(
            f"the {name} split of {dataset.name}",
            "holds no pictures.",
            "Choose another: evaluate.split=train|validation|test, or other data: data.images=DIR.",
        )
    return [
        side
        if not asked.again and side.kept is not None and side.kept.split == split.digest
        else _run_now(side, asked, dataset, split)
        for side in sides
    ]


def _data(asked: Asked, sides: Sequence[ComparedModel]) -> DataConfig:
    """The data the user names, else those of the first side that was trained."""
    runs = [side.run_id for side in sides if side.run_id is not None]
    if asked.named_data or not runs:
        return asked.config.data
    return run_config(runs[0], asked.config.runs).data


def _run_now(
    side: ComparedModel, asked: Asked, dataset: Dataset, split: LabelledSplit
) -> ComparedModel:
    config = asked.config
    pictures = Pictures(dataset.records(config.evaluate.split))
    if side.file is None:
        source = open_source(side.given, config, tiles=config.evaluate.tiles)
        shown = Bar(pictures, doing=f"run {side.given[:24]}")
        found = [source.detect(image) for image in shown]
        return replace(side, kept=Kept(split.digest, found, source.class_names), split=split)
    shown = Bar(pictures, doing=f"run {side.file.name}")
    timing, trusted = config.benchmark, config.trust_source
    measured = measure(
        side.file, shown, timing.runs, timing.threads, trusted=trusted, reading=side.reading
    )
    timed = {"latency_ms_p50": measured.latency_ms_p50, "size_mb": measured.size_mb}
    kept = keep(measured, split.digest, side.file)
    format = measured.passport.get("format", side.file.name)
    known = side.numbers or {}
    numbers = {**known, format: {**known.get(format, {}), **timed}}
    return replace(side, kept=kept, split=split, numbers=numbers)


def _aligned(
    sides: Sequence[ComparedModel], notes: list[str]
) -> tuple[LabelledSplit, list[list[Detections]]]:
    """The pictures that both have looked at, and what each found in them.

    Raises:
        DataError: there is no such picture.
    """
    (a, kept_a), (b, kept_b) = map(_seen, sides)
    place = {key: row for row, key in enumerate(b.keys)}
    rows = [row for row, key in enumerate(a.keys) if key in place]
    sizes = f"A's has {len(a.keys)} pictures (digest {a.digest[:12]}), B's {len(b.keys)} ({b.digest[:12]})"
    if not rows:
        raise DataError(
            "models compare",
            f"the test sets differ and have no picture in common: {sizes}.",
            "Name pictures that neither was trained on, and both are run on them: data.images=DIR.",
        )
    if a.digest != b.digest:
        notes.append(
            f"Warning: the test sets differ: {sizes}. What is compared is found in the "
            f"{len(rows)} that both hold."
        )
    found_b = [kept_b.detections[place[a.keys[row]]] for row in rows]
    return a.part(rows), [[kept_a.detections[row] for row in rows], found_b]


def _seen(side: ComparedModel) -> tuple[LabelledSplit, Kept]:
    assert side.split is not None and side.kept is not None  # `_evaluated` saw to it
    return side.split, side.kept


def _renamed(
    letter: str,
    side: ComparedModel,
    detections: Sequence[Detections],
    split: LabelledSplit,
    notes: list[str],
) -> list[Detections]:
    """The detections with the ids that the pictures' labels give to their class names.

    Raises:
        DataError: the side knows none of the classes.
    """
    names = _seen(side)[1].class_names
    if not names:
        notes.append(f"{letter} carries no class names: its class ids are taken for the data's.")
        return list(detections)
    unknown = [name for name in split.class_names if name not in names]
    if len(unknown) == len(split.class_names):
        raise DataError(
            side.given,
            f"knows the classes {', '.join(names[:10])}; the pictures have "
            f"{', '.join(split.class_names[:10])}.",
            "Compare it with something of its own classes.",
        )
    if unknown:
        notes.append(f"{letter} does not know the class {', '.join(unknown)}, and has AP 0 there.")
    return under_names(detections, names, split.class_names)


# ---- shown


def _by_class(comparison: Comparison) -> tuple[Difference, ...]:
    """The rows of the classes; with one class alone they would repeat the mAP."""
    return comparison.classes if len(comparison.classes) > 1 else ()


def _row(row: Difference) -> tuple[object, ...]:
    cells = [f"{value:.3f}" if value is not None else "-" for value in (row.a, row.b)]
    change = "-" if row.change is None else f"{row.change:+.3f}"
    if row.low is not None and row.high is not None:
        change += f" [{row.low:+.3f}, {row.high:+.3f}]{' *' * row.shown}"
    better = "-" if row.b_better is None else f"{row.b_better:.0%}"
    return (row.name, *cells, change, better, row.boxes)


def _files_table(a: ComparedModel, b: ComparedModel) -> list[str]:
    formats = [name for name in FORMATS if name in {**(a.numbers or {}), **(b.numbers or {})}]
    strange = sorted({*(a.numbers or {}), *(b.numbers or {})} - {*formats})
    if not (formats or strange):
        return []
    rows = ([name, *_file_cells(a, b, name)] for name in [*formats, *strange])
    return markdown.table(FILE_COLUMNS, rows)


def _file_cells(a: ComparedModel, b: ComparedModel, format: str) -> list[str]:
    digits = dict(zip(NUMBERS, (3, 2, 1), strict=True))
    values = [
        ((side.numbers or {}).get(format, {}).get(number), digits[number])
        for number in NUMBERS
        for side in (a, b)
    ]
    return ["-" if value is None else f"{value:.{places}f}" for value, places in values]


def _record(tracker: Tracker, asked: Asked, result: ComparedModels, text: str) -> None:
    comparison = result.comparison
    tracker.log_config(asked.config, asked.overrides)
    tracker.set_tags({"odtrain.answer": result.answer})
    for letter, side in zip("ab", (result.a, result.b), strict=True):
        tracker.set_tags({f"odtrain.compare.{letter}": side.given})
        if side.run_id is not None:
            tracker.set_tags({f"odtrain.compare.{letter}.run": side.run_id})
    tracker.log(comparison.metrics(), 0)
    tracker.describe("\n\n".join(filter(None, (text, left_out(asked.config)))))
    tracker.log_text(f"{text}\n", "compare/report.md")
    rows = (*comparison.overall.values(), *comparison.classes)
    tracker.log_table(NUMBER_COLUMNS, map(_cells, rows), "compare/numbers.json")
    formats = sorted({*(result.a.numbers or {}), *(result.b.numbers or {})})
    files = [[name, *_file_cells(result.a, result.b, name)] for name in formats]
    tracker.log_table(FILE_COLUMNS, files, "compare/files.json")
    shown = compare_page(
        result.answer,
        (result.a.what, result.b.what),
        comparison,
        result.split,
        result.found,
        pictures_of((result.a.run_id, result.b.run_id), result.split, asked.config.runs),
        {"columns": FILE_COLUMNS, "rows": files},
        result.notes,
    )
    tracker.log_text(shown, "compare/report.html")
    _draw(tracker, result)


def _cells(row: Difference) -> tuple[object, ...]:
    change = (row.a, row.b, row.change, row.low, row.high, row.b_better)
    return (row.name, *change, row.shown, row.boxes)


def _draw(tracker: Tracker, result: ComparedModels) -> None:
    comparison = result.comparison
    rows = [*comparison.overall.values(), *_by_class(comparison)]
    names = [*comparison.overall, *(row.name for row in _by_class(comparison))]
    lines = [
        charts.Interval(
            printable_label(names, place), row.change * POINTS, row.low * POINTS, row.high * POINTS
        )
        for place, row in enumerate(rows, start=1)
        if row.change is not None and row.low is not None and row.high is not None
    ]
    if not lines:
        return
    file = tracker.folder / "differences.png"
    axis = "B - A in points, with its 95 % interval; grey is not shown"
    title = f"{result.answer}\nA: {result.a.what}\nB: {result.b.what}"
    charts.differences(file, lines, title, axis)
    tracker.log_file(file, "compare")
    with Image.open(file) as picture:
        tracker.log_image(np.asarray(picture.convert("RGB")), "compare/differences", 0)
