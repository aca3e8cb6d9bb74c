"""`odtrain curve`: how many pictures are enough, from trainings on parts of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict

from odtrain.config.schema import Config
from odtrain.dataset.check import Checked, check
from odtrain.dataset.prepare import refuse_errors
from odtrain.dataset.splits import draw
from odtrain.errors import ConfigError, DataError
from odtrain.evaluation.learning_curve import TIMES, Curve, learning_curves
from odtrain.io.markdown import table
from odtrain.labels.annotations import LabelledImage, ground_truth
from odtrain.reports.curve_chart import curve_chart
from odtrain.studies.below import detect_below, study, with_split
from odtrain.tracking.tracker import Tracker

logger = logging.getLogger(__name__)

PARTS = (25, 50, 100)
"""Per cent of the training pictures."""
FEWEST = 8
"""Training pictures of the smallest part: with less a power law says nothing."""
SHOWN_CLASSES = 10
WORTH_SAYING = 0.01
"""A gain in mAP below it is no reason to label twice as much."""


def read_parts(text: str) -> tuple[int, ...]:
    """Per cents of a list such as `25,50,100`, ascending.

    Raises:
        ConfigError: it is no such list, or names fewer than two parts.
    """
    try:
        parts = sorted({int(each) for each in text.split(",")})
    except ValueError:
        parts = []
    if len(parts) < 2 or not 0 < parts[0] < parts[-1] == 100:
        raise ConfigError(
            f"--parts {text}",
            "is not two or more whole numbers from 1 to 100, the largest 100.",
            "Give per cents of the training pictures: --parts 25,50,100",
        )
    return tuple(parts)


def curve(config: Config, overrides: Sequence[str], parts: Sequence[int] = PARTS) -> str:
    """Train on each part of the training pictures, judge all on the same test pictures, and look ahead.

    Args:
        config: of the trainings.
        overrides: that it was composed of.
        parts: per cent of the training pictures.

    Returns:
        What more pictures would bring, for people.

    Raises:
        DataError: the data have errors, no test pictures, or too few to learn from.
        OdtrainError: as of any training.
    """
    checked = check(config.data, config.model)
    refuse_errors(config.data, checked.findings)
    drawn = _drawn(config, checked, parts)
    with study(config, "curve", f"curve of {config.data.name}") as tracker:
        tracker.log_config(config, overrides)
        curves = _curves(config, overrides, checked, drawn, tracker)
        _record(tracker, curves)
        return in_words(curves)


def _drawn(
    config: Config, checked: Checked, parts: Sequence[int]
) -> dict[int, list[LabelledImage]]:
    """The pictures of each training by their number, every class in proportion, scenes whole."""
    train = checked.splits["train"]
    if not checked.splits["test"]:
        remedy = "Give data.test_fraction, data.test_list, or a folder test/ beside train/."
        raise DataError(config.data.images, "has no test pictures.", remedy)
    drawn: dict[int, list[LabelledImage]] = {}
    for part in parts:
        salt, count = f"curve {config.data.seed}", round(len(train) * part / 100)
        chosen = set(draw(train, count, salt, checked.scenes.whole)) if part < 100 else None
        images = [image for image in train if chosen is None or image.image in chosen]
        drawn[len(images)] = images
    smallest = min(drawn)
    if smallest < max(FEWEST, config.train.batch_size) or len(drawn) < 2:
        raise DataError(
            config.data.images,
            f"has {len(train)} training pictures; {parts[0]} % of them, {smallest}, are too few to learn from.",
            f"Label more, take a larger part (--parts 50,100), or a smaller train.batch_size than "
            f"{config.train.batch_size}.",
        )
    return drawn


def _curves(
    config: Config,
    overrides: Sequence[str],
    checked: Checked,
    drawn: dict[int, list[LabelledImage]],
    tracker: Tracker,
) -> list[Curve]:
    test = checked.splits["test"]
    found = {}
    for place, (number, images) in enumerate(sorted(drawn.items()), start=1):
        logger.info(f"Training {place} of {len(drawn)}: on {number} pictures.")
        split = {"train": images, "validation": checked.splits["validation"], "test": test}
        own = with_split(config, checked, split, "parts")
        name = f"{config.data.name} on {number} pictures"
        found[number] = detect_below(own, overrides, tracker, name, test)
    truths = [ground_truth(image, checked.class_names) for image in test]
    settings = config.evaluate.bootstrap, config.data.seed
    return learning_curves(truths, found, checked.class_names, *settings)


def _record(tracker: Tracker, curves: Sequence[Curve]) -> None:
    overall = curves[0]
    for number, score in zip(overall.pictures, overall.scores, strict=True):
        tracker.log({"curve/mAP": score}, number)
    tracker.log({"curve/expected_mAP": overall.expected}, overall.pictures[-1] * TIMES)
    tracker.log_text(json.dumps([asdict(each) for each in curves], indent=1), "curve/curve.json")
    chart = tracker.folder / "curve" / "curve.png"
    curve_chart(chart, curves)
    tracker.log_file(chart, "curve")


def in_words(curves: Sequence[Curve]) -> str:
    """What was measured, and what twice the pictures would bring."""
    overall, classes = curves[0], curves[1:]
    last = overall.pictures[-1]
    rows = [_row(each) for each in curves[: SHOWN_CLASSES + 1]]
    header = ["", *(f"{number}" for number in overall.pictures), f"{last * TIMES}, expected"]
    lines = table(header, rows)
    if len(classes) > SHOWN_CLASSES:
        lines.append(f"and {len(classes) - SHOWN_CLASSES} classes that would gain less.")
    lines.append(_advice(overall, last))
    if len(classes) > 1 and classes[0].gain > WORTH_SAYING:
        lines.append(f"{classes[0].name} needs them most.")
    return "\n".join(lines)


def _row(one: Curve) -> list[str]:
    ends = "" if one.low is None or one.high is None else f" [{one.low:+.3f}, {one.high:+.3f}]"
    return [
        one.name,
        *(f"{score:.3f}" for score in one.scores),
        f"{one.expected:.3f} ({one.gain:+.3f}{ends})",
    ]


def _advice(overall: Curve, last: int) -> str:
    more = f"{last} more training pictures"
    if overall.gain < WORTH_SAYING:
        return f"{more} would bring next to nothing: other labels, network or training may."
    between = ""
    if overall.low is not None and overall.high is not None:
        between = f", between {100 * overall.low:.1f} and {100 * overall.high:.1f}"
    return f"{more} would bring {100 * overall.gain:.1f} points of mAP{between}."
