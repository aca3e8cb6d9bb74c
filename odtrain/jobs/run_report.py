"""One HTML file that tells a run: it needs no network, and can be sent to people who have no MLflow."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from odtrain import __version__
from odtrain.config.schema import Runs
from odtrain.errors import ConfigError, OdtrainError, TrackingError, told_if_not_written
from odtrain.evaluation import matching
from odtrain.evaluation import saved_detections as detection_files
from odtrain.evaluation.error_analysis import MISTAKE_KINDS, Mistake, count_mistakes
from odtrain.evaluation.evaluate import Evaluation, evaluate
from odtrain.evaluation.saved_detections import EVALUATED, LABELS, read_kept, read_labelled
from odtrain.io.atomic import write_text
from odtrain.media.palette import css_colour
from odtrain.model_source import run_config, run_file, run_meant
from odtrain.reports import run_charts, shots
from odtrain.reports.evaluation_report import SHOWN, best_of, worst_of
from odtrain.reports.pages import as_jpeg, page
from odtrain.secrets import masked
from odtrain.structures import Detections, LabelledSplit
from odtrain.system.progress import doing
from odtrain.tracking.runs import EVAL_SPLIT, RunSummary, read_summary

RESAMPLES = 1000
"""Behind the intervals."""
WIDEST_PICTURE = 900
"""Pixels; drawn pictures are scaled down to it, so that the file can be mailed."""
EXPORT_METRICS = ("mAP", "mAP_50", "latency_ms_p50", "latency_ms_p90", "size_mb", "peak_memory_mb")
CARDS = (
    ("mAP_50", "mAP at IoU 0.50", "a box counts if it overlaps by half"),
    ("mAP_75", "mAP at IoU 0.75", "by three quarters"),
    ("AR_100", "average recall", "with 100 boxes a picture"),
)
"""Metric, and what it is in words."""
PICTURE_NOTES = {
    "Worst": "Those with the lowest F1, the harmonic mean of precision and recall.",
    "Best": "Those without mistakes that show the most objects.",
    "Some": "None has a mistake, and none shows an object that was found.",
}
SECTIONS = (
    ("pictures", "Pictures"),
    ("exports", "Files"),
    ("wrong", "Mistakes"),
    ("by-class", "Classes"),
    ("curves", "Curves"),
    ("confused", "Confusions"),
    ("data-set", "Data"),
)
"""Those that the header leads to."""


class Judgement(NamedTuple):
    """What the detections of a run come to.

    Attributes:
        evaluation: with intervals.
        intervals: (K,) 95 % interval of each class's AP; None where it has no box.
        mistakes: the most expensive first.
        points: (K,) threshold, precision and recall of each class; None where none is precise enough.
    """

    evaluation: Evaluation
    intervals: list[tuple[float, float] | None]
    mistakes: list[Mistake]
    points: list[tuple[float, float, float] | None]


@doing("Writing the report")
def write_report(run: str, runs: Runs, to: Path | None, precision: float) -> Path:
    """Write the report of a run, and return its file.

    Args:
        run: as `run_meant` takes it.
        runs: where they are.
        to: the file; by default report-ID.html in this folder.
        precision: share of what is shown that shall be right, for the thresholds.

    Raises:
        ConfigError: no run is named, or the precision is no share.
        TrackingError: there is no such run, or it kept no detections.
        DataError: the file cannot be written.
    """
    if not 0 < precision <= 1:
        problem = f"{precision:g} is not a share of what is shown."
        raise ConfigError("--precision", problem, "Give more than 0 and at most 1, such as 0.9.")
    run_id = run_meant(run, runs)
    summary = read_summary(run_id, runs.tracking)
    content = _page(summary, runs, precision)
    file = to or Path(f"report-{run_id[:8]}.html")
    with told_if_not_written(file, "Give another file: --to FILE."):
        write_text(file, content)
    return file


def _page(summary: RunSummary, runs: Runs, precision: float) -> str:
    split, found = _kept(summary.run_id, runs)
    judged = judge_run(split, found, precision)
    groups = _groups(summary.run_id, runs, split, found, judged.evaluation)
    drawn = [shot for group in groups for shot in group["shots"]]
    training, curves = run_charts.training(summary.metrics), run_charts.curves(judged.evaluation)
    return page(
        "report",
        title=summary.name,
        subtitle=_subtitle(summary, split, _model(summary.run_id, runs)),
        sections=SECTIONS,
        command=_command(summary),
        cards=list(_cards(summary, judged.evaluation)),
        groups=groups,
        sheets=[] if groups else list(_sheets(summary.run_id, runs)),
        exports=list(_exports(summary)),
        threshold=judged.evaluation.threshold,
        precision=f"{precision:.0%}",
        mistakes=[_mistake_row(mistake) for mistake in judged.mistakes],
        classes=list(_class_rows(judged)),
        training=training,
        curves=curves,
        confusions=run_charts.confusions(judged.evaluation),
        data=_data(summary, runs),
        config=_text(summary.run_id, "config/config.yaml", runs),
        footer=f"Run {summary.run_id}. Written by odtrain {__version__}.",
        shown={
            **shots.for_script(drawn, judged.evaluation.class_names),
            "charts": [*training, *curves["charts"]],
        },
    )


def judge_run(split: LabelledSplit, found: Sequence[Detections], precision: float) -> Judgement:
    """Everything that follows from what was found in a split.

    Args:
        split: the labelled pictures.
        found: in them, in their order.
        precision: 0 to 1, for the thresholds.
    """
    evaluation = evaluate(split.truths, found, split.class_names, RESAMPLES, seed=0)
    weights = matching.draw_resamples(len(split.truths), RESAMPLES, seed=0)
    intervals = [
        matching.interval(matching.average_precision(matches, weights).mean(axis=1))
        if matches.boxes.any() and len(split.truths) > 1
        else None
        for matches in evaluation.matches
    ]
    ids = list(range(1, len(split.class_names) + 1))
    return Judgement(
        evaluation,
        intervals,
        count_mistakes(split.truths, found, ids, evaluation.threshold),
        [matching.at_precision(matches, precision) for matches in evaluation.matches],
    )


def _kept(run_id: str, runs: Runs) -> tuple[LabelledSplit, list[Detections]]:
    """The labelled pictures that a run was evaluated on, and what it found in them."""
    folder = f"eval/{detection_files.FOLDER}"
    try:
        labels = run_file(run_id, f"{folder}/{LABELS}", runs)
        kept = read_kept(run_file(run_id, f"{folder}/{EVALUATED}.npz", runs))
    except TrackingError as error:
        raise TrackingError(
            f"run {run_id}",
            "kept no detections: it was not evaluated to the end, or by an older odtrain.",
            f"Run: odtrain evaluate source={run_id}",
        ) from error
    return read_labelled(labels.parent), kept.detections


# ---- what the page shows


def _model(run_id: str, runs: Runs) -> str:
    """The name of a run's model; empty where the run does not say."""
    try:
        return run_config(run_id, runs).model.name
    except OdtrainError:
        return ""


def _subtitle(summary: RunSummary, split: LabelledSplit, model: str) -> str:
    boxes = sum(len(truth.classes) for truth in split.truths)
    which = summary.tags.get(EVAL_SPLIT, "test")
    return (
        f"{summary.started:%Y-%m-%d %H:%M}, {summary.status.lower()}. {model + ', m' if model else 'M'}easured "
        f"on {len(split.truths)} {which} pictures with {boxes} objects."
    )


def _command(summary: RunSummary) -> str:
    found = re.match(r"`(odtrain [^`]*)`", summary.tags.get("mlflow.note.content", ""))
    return masked(found[1]) if found else ""


def _cards(summary: RunSummary, evaluation: Evaluation) -> Iterator[dict[str, str]]:
    values = evaluation.metrics
    if "mAP" in values:
        low, high = values.get("mAP_lo"), values.get("mAP_hi")
        note = "" if low is None or high is None else f"95 % interval {low:.3f} to {high:.3f}"
        yield _card("mAP", f"{values['mAP']:.3f}", note or "IoU 0.50 to 0.95")
    for key, name, note in CARDS:
        if key in values:
            yield _card(name, f"{values[key]:.3f}", note)
    latency = {
        row["format"]: summary.metrics[f"export/{row['format']}/latency_ms_p50"][-1][1]
        for row in _exports(summary)
        if row["verdict"] == "passed"
        and f"export/{row['format']}/latency_ms_p50" in summary.metrics
    }
    if latency:
        quickest = min(latency, key=lambda name: latency[name])
        yield _card("quickest file", f"{latency[quickest]:.1f} ms", quickest)


def _card(name: str, value: str, note: str) -> dict[str, str]:
    return {"name": name, "value": value, "note": note}


def _exports(summary: RunSummary) -> Iterator[dict[str, Any]]:
    for tag, verdict in sorted(summary.tags.items()):
        if not tag.startswith("odtrain.export."):
            continue
        name = tag.removeprefix("odtrain.export.")
        yield {
            "format": name,
            "cells": [_metric(summary, f"export/{name}/{metric}") for metric in EXPORT_METRICS],
            "verdict": verdict,
        }


def _metric(summary: RunSummary, name: str) -> str:
    points = summary.metrics.get(name)
    if not points:
        return ""
    digits = 3 if name.endswith(("mAP", "mAP_50")) else 1
    return f"{points[-1][1]:.{digits}f}"


def _mistake_row(mistake: Mistake) -> dict[str, str]:
    return {
        "kind": mistake.kind,
        "count": str(mistake.count),
        "cost": f"{mistake.cost:.3f}",
        "meaning": MISTAKE_KINDS[mistake.kind],
    }


def _class_rows(judged: Judgement) -> Iterator[dict[str, Any]]:
    rows = zip(judged.evaluation.per_class, judged.intervals, judged.points, strict=True)
    for class_id, (row, interval, point) in enumerate(rows, start=1):
        counts = [_number(row.ap_50), row.boxes, row.images]
        yield {
            "name": row.name,
            "colour": css_colour(class_id),
            "ap": _number(row.ap),
            "interval": f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "–",
            "range": (row.ap, *(interval or (None, None))),
            "cells": [*counts, *map(_number, point or (None, None, None))],
        }


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _groups(
    run_id: str,
    runs: Runs,
    split: LabelledSplit,
    found: Sequence[Detections],
    evaluation: Evaluation,
) -> list[dict[str, Any]]:
    """The pictures that the run kept, with what was found in them: worst, best, or else any."""
    kept = shots.kept_pictures(_optional(run_id, f"eval/{shots.FOLDER}", runs))
    kept = {row: file for row, file in kept.items() if row < len(split.truths)}
    worst, best = worst_of(evaluation.images), best_of(evaluation.images)
    chosen = {
        title: [row for row in rows if row in kept][:SHOWN]
        for title, rows in {"Worst": worst, "Best": best}.items()
    }
    if not any(chosen.values()):
        chosen["Some"] = sorted(kept)[:SHOWN]
    groups, number = list[dict[str, Any]](), 0
    for title, rows in chosen.items():
        made = [
            shots.shot(
                number + place,
                split.truths[row].name,
                kept[row],
                split.truths[row],
                found[row],
                evaluation.threshold,
            )
            for place, row in enumerate(rows)
        ]
        number += len(made)
        if made:
            groups.append({"title": title, "note": PICTURE_NOTES[title], "shots": made})
    return groups


def _sheets(run_id: str, runs: Runs) -> Iterator[dict[str, Any]]:
    """Pictures of a run before pictures were kept without boxes."""
    for title in ("Worst", "Best"):
        where = _optional(run_id, f"eval/{title.lower()}", runs)
        files = sorted(where.iterdir())[:SHOWN] if where is not None else []
        if files:
            shown = [
                {"name": file.stem.partition("_")[2], "source": _scaled(file)} for file in files
            ]
            yield {"title": title, "note": PICTURE_NOTES[title], "pictures": shown}


def _scaled(file: Path) -> str:
    with Image.open(file) as image:
        image.thumbnail((WIDEST_PICTURE, WIDEST_PICTURE))
        return as_jpeg(image.convert("RGB"), quality=82)


def _data(summary: RunSummary, runs: Runs) -> dict[str, Any]:
    values = json.loads(_text(summary.run_id, "data/dataset.json", runs) or "{}")
    counts: Mapping[str, Mapping[str, int]] = values.get("counts", {})
    severities = Counter(finding["severity"] for finding in values.get("findings", ()))
    told = ", ".join(f"{number} {severity}" for severity, number in severities.items())
    return {
        "name": values.get("name", "?"),
        "digest": values.get("digest", "?"),
        "findings": f"The data check said: {told}."
        if told
        else "The data check had nothing to say.",
        "splits": [{"name": split, **count} for split, count in counts.items()],
    }


def _text(run_id: str, artifact: str, runs: Runs) -> str:
    file = _optional(run_id, artifact, runs)
    return "" if file is None else masked(file.read_text(encoding="utf-8"))


def _optional(run_id: str, artifact: str, runs: Runs) -> Path | None:
    """A file of the run; None where it has none, as a run without validation has no curve."""
    try:
        return run_file(run_id, artifact, runs)
    except TrackingError:
        return None
