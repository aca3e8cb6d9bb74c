"""What a version must pass to become the champion, judged by what its files do.

`judge_version` is given what each file of the version found in the test pictures, run from disk in a process of
its own, and says of every check whether it holds and by how much. Nothing here trusts what was written
down about a file: the recorded numbers are one of the things that are checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from odtrain.config.schema import RegistryConfig
from odtrain.evaluation.evaluate import quick_map
from odtrain.evaluation.paired_bootstrap import (
    POINTS,
    Comparison,
    Difference,
    Least,
    compare_detections,
)
from odtrain.evaluation.saved_detections import Kept, under_names
from odtrain.export.benchmark import Agreement, agreement
from odtrain.export.parity import EXACT_MAP_DROP, not_exact
from odtrain.export.raw_outputs import RawDifference
from odtrain.export_formats import EXACT_FORMATS
from odtrain.io import markdown
from odtrain.model_files.thresholds import EVERYWHERE, Thresholds
from odtrain.promotion import floor
from odtrain.promotion.class_ids import likely_order, of_known_classes, strange_class
from odtrain.structures import Detections, LabelledSplit
from odtrain_runtime.plain import plain_lines

RECORDED_TOLERANCE = 0.005
"""A file's mAP may differ by this much from the one recorded: processors round differently."""
BETTER_BY = 0.05
"""Boxes or classes exchanged must score so much more mAP before the order is called wrong."""
TRAIN_MORE = "Train longer or on more pictures: odtrain check says what the data lack."
MORE_PICTURES = "Give more: data.test_fraction, data.test_list."

FILES = (
    "checksums",
    "runs",
    "labels",
    "metadata",
    "box order",
    "class order",
    "agreement",
    "threads",
    "numbers",
    "floor",
)
"""The checks that say whether the files are what they should be and find anything; the others say whether
they are wanted."""


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: such as `agreement`.
        problem: what is wrong and by how much; None if it holds.
        says: what was looked at and found.
    """

    name: str
    problem: str | None
    says: str

    def cells(self) -> tuple[str, str, str]:
        """Its row in the report."""
        mark = "holds" if self.problem is None else "**fails**"
        return self.name, mark, markdown.escaped(self.problem or self.says)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What there is to judge by.

    Attributes:
        split: the labelled test pictures.
        reference: what the checkpoint found in them; ids are those of `split.class_names`.
        found: format -> what its file found; or why it could not be run.
        names: format -> file name.
        label_files: name of a label file beside the exports -> its class names.
        expected: what every passport must say, key by key.
        recorded: format -> mAP that the version's tags state.
        left_out: format -> why its file did not come into the version.
        damaged: why the files are not those that were registered; None if the checksums hold.
        judged: the format that the version serves, by which it is compared.
        max_map_drop: `export.max_map_drop` of the run.
        champion: the number of the champion, if there is one.
        champion_found: what the champion's file found in the same pictures, and its class names; a text
            says why it could not be run.
        thresholds: at which prediction shows what the judged file finds.
        foreign: whether the files were trained elsewhere: there is no checkpoint, and they say nothing of a
            run.
    """

    split: LabelledSplit
    reference: Sequence[Detections]
    found: Mapping[str, Kept | str]
    names: Mapping[str, str]
    label_files: Mapping[str, tuple[str, ...]]
    expected: Mapping[str, tuple[str, ...]]
    recorded: Mapping[str, float]
    left_out: Mapping[str, str]
    damaged: str | None
    judged: str
    max_map_drop: float
    champion: str | None = None
    champion_found: Kept | str | None = None
    thresholds: Thresholds = EVERYWHERE
    foreign: bool = False


@dataclass(frozen=True)
class Verdict:
    """What the gate found.

    Attributes:
        checks: in the order in which they were made.
        files: format -> mAP, latency_ms_p50, size_mb, max_box_diff, max_score_diff, as measured.
        against: number of the champion that the version was compared with; None if there was none.
        pictures: how many were looked at.
        difference: of the mAP, champion first; None without a champion.
    """

    checks: tuple[Check, ...]
    files: dict[str, dict[str, float]] = field(default_factory=dict)
    against: str | None = None
    pictures: int = 0
    difference: Difference | None = None

    @property
    def failed(self) -> list[Check]:
        """The checks that do not hold."""
        return [check for check in self.checks if check.problem is not None]

    @property
    def passed(self) -> bool:
        """Whether all hold."""
        return not self.failed

    @property
    def sound(self) -> bool:
        """Whether the files are what they should be and find anything, wanted or not."""
        return not any(check.name in FILES for check in self.failed)

    def reasons(self) -> str:
        """Why it did not pass, a line for each check."""
        return "\n".join(f"{check.name}: {check.problem}" for check in self.failed)

    def markdown(self, title: str) -> str:
        """The report."""
        outcome = "passed" if self.passed else "not passed"
        lines = [f"# {title}: {outcome}", ""]
        lines += markdown.table(("check", "", ""), (check.cells() for check in self.checks))
        if self.files:
            columns = list(next(iter(self.files.values())))
            rows = (
                [name, *(f"{numbers[column]:.4g}" for column in columns)]
                for name, numbers in self.files.items()
            )
            lines += ["", *markdown.table(["file", *columns], rows)]
        return plain_lines("\n".join(lines)) + "\n"

    def as_dict(self) -> dict[str, object]:
        """The report for programs."""
        return {"passed": self.passed, "sound": self.sound, **asdict(self)}


def judge_version(evidence: Evidence, limits: RegistryConfig) -> Verdict:
    """Make every check.

    Args:
        evidence: what there is to judge by.
        limits: `registry.max_*`.
    """
    as_found = {name: kept for name, kept in evidence.found.items() if isinstance(kept, Kept)}
    ran = {name: _in_classes_of_data(evidence, kept) for name, kept in as_found.items()}
    scores = {
        name: quick_map(evidence.split.truths, kept.detections, evidence.split.class_names)
        for name, kept in ran.items()
    }
    agreed = {name: agreement(evidence.reference, kept.detections) for name, kept in ran.items()}
    compared = _against_champion(evidence, ran, limits)
    checks = [
        Check("checksums", evidence.damaged, "every file is the one that was registered"),
        _runs(evidence),
        _labels(evidence, as_found),
        _metadata(evidence, ran),
        *_orders(evidence, ran),
        _agreement(evidence, ran, scores),
        _threads(evidence, ran),
        _recorded(evidence, scores),
        _floor(evidence, ran.get(evidence.judged), limits),
        _accuracy(evidence, compared, limits),
        _limit(evidence, ran, "latency", "latency_ms_p50", "ms", limits.max_latency_ms),
        _limit(evidence, ran, "size", "size_mb", "MB", limits.max_size_mb),
    ]
    files = {name: _numbers(kept, scores[name], agreed[name]) for name, kept in ran.items()}
    pictures = len(evidence.split.truths)
    difference = compared.overall["mAP"] if compared else None
    return Verdict(tuple(checks), files, evidence.champion, pictures, difference)


def _in_classes_of_data(evidence: Evidence, kept: Kept) -> Kept:
    """What a file found with the class ids of the data; files of others by the names of their classes."""
    wanted = evidence.split.class_names
    if evidence.foreign and kept.class_names:
        kept = replace(kept, detections=under_names(kept.detections, kept.class_names, wanted))
    return of_known_classes(kept, len(wanted))


def _numbers(kept: Kept, scores: Mapping[str, float], agreed: Agreement) -> dict[str, float]:
    return {
        "mAP": scores.get("mAP", float("nan")),
        "latency_ms_p50": float(kept.facts["latency_ms_p50"]),
        "size_mb": float(kept.facts["size_mb"]),
        "max_box_diff": agreed.max_box_diff,
        "max_score_diff": agreed.max_score_diff,
    }


# ---- are the files what they should be


def _runs(evidence: Evidence) -> Check:
    problems = [
        f"{evidence.names[name]}: {why}"
        for name, why in evidence.found.items()
        if isinstance(why, str)
    ]
    if not evidence.found:
        problems = ["the version lists no exported file"]
    said = f"{len(evidence.found)} files ran, each in a process of its own"
    return Check("runs", "; ".join(problems) or None, said)


def _labels(evidence: Evidence, ran: Mapping[str, Kept]) -> Check:
    carried = {
        evidence.names[name]: kept.class_names
        for name, kept in ran.items()
        if kept.class_names or not evidence.foreign  # whose names the label files beside them say
    }
    wanted = evidence.split.class_names
    problems = [
        f"{file} {_other_names(names, wanted)}"
        for file, names in {**evidence.label_files, **carried}.items()
        if names != wanted
    ]
    problems += [
        f"{evidence.names[name]} finds class {strange}; the data have {len(wanted)} classes: {_listed(wanted)}"
        for name, kept in ran.items()
        if (strange := strange_class(kept.detections, len(wanted))) is not None
    ]
    count = len(evidence.label_files) + len(carried)
    said = f"{count} label lists are those of the data: {_listed(wanted)}"
    return Check("labels", "; ".join(problems) or None, said)


def _other_names(names: Sequence[str], wanted: Sequence[str]) -> str:
    if not names:
        return "carries no class names"
    if sorted(names) != sorted(wanted):
        return f"has the class names {_listed(names)}; the data have {_listed(wanted)}"
    place = next(i for i, (a, b) in enumerate(zip(names, wanted, strict=True)) if a != b)
    return (
        f"has the class names in another order: its class {place + 1} is {names[place]}, the data's is "
        f"{wanted[place]}"
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more


def _metadata(evidence: Evidence, ran: Mapping[str, Kept]) -> Check:
    if evidence.foreign:
        return Check("metadata", None, "the version says where its files come from")
    problems = []
    for name, kept in ran.items():
        passport = {**kept.facts.get("passport", {})}
        for key, allowed in {**evidence.expected, "format": (name,)}.items():
            if allowed and passport.get(key) not in allowed:
                problems.append(
                    f"{evidence.names[name]} says {key} {passport.get(key)}, the version {allowed[0]}"
                )
    said = f"every file names {', '.join([*evidence.expected, 'format'])} as the version does"
    return Check("metadata", "; ".join(problems) or None, said)


def _orders(evidence: Evidence, ran: Mapping[str, Kept]) -> list[Check]:
    """Whether boxes or classes come out in another order than they should, file by file."""
    boxes, classes = [], []
    for name, kept in ran.items():
        file = evidence.names[name]
        if problem := _boxes_exchanged(evidence.split, kept.detections):
            boxes.append(f"{file} {problem}")
        elif problem := _classes_exchanged(evidence.split, kept.detections):
            classes.append(f"{file} {problem}")
    return [
        Check("box order", "; ".join(boxes) or None, "exchanging x and y makes no file better"),
        Check("class order", "; ".join(classes) or None, "no other order of classes fits better"),
    ]


def _boxes_exchanged(split: LabelledSplit, found: Sequence[Detections]) -> str | None:
    turned = [Detections(each.boxes[:, [1, 0, 3, 2]], each.scores, each.classes) for each in found]
    before, after = (_map(split, each) for each in (found, turned))
    if after - before <= BETTER_BY:
        return None
    return (
        f"gives boxes with x and y exchanged: mAP {before:.3f} as they are, {after:.3f} exchanged"
    )


def _classes_exchanged(split: LabelledSplit, found: Sequence[Detections]) -> str | None:
    order = likely_order(split, found)
    if order is None:
        return None
    ids = np.array([0, *order], np.int64)
    moved = [Detections(each.boxes, each.scores, ids[each.classes]) for each in found]
    before, after = (_map(split, each) for each in (found, moved))
    if after - before <= BETTER_BY:
        return None
    names = split.class_names
    swapped = [
        f"{names[i]} for {names[order[i] - 1]}" for i in range(len(order)) if order[i] != i + 1
    ]
    return (
        f"gives other classes than it finds ({_listed(swapped)}): mAP {before:.3f} as they are, {after:.3f} "
        "in their right order"
    )


def _map(split: LabelledSplit, found: Sequence[Detections]) -> float:
    return quick_map(split.truths, found, split.class_names).get("mAP", 0.0)


def _agreement(
    evidence: Evidence, ran: Mapping[str, Kept], scores: Mapping[str, Mapping[str, float]]
) -> Check:
    if evidence.foreign:
        return Check("agreement", None, "trained elsewhere: there is no checkpoint to agree with")
    checkpoint = _map(evidence.split, evidence.reference)
    problems = [
        f"{name} was left out: {why}"
        for name, why in evidence.left_out.items()
        if name in EXACT_FORMATS
    ]
    for name, kept in ran.items():
        drop = checkpoint - scores[name].get("mAP", 0.0)
        problem = not_exact(RawDifference(*kept.facts["raw"])) if name in EXACT_FORMATS else None
        most = EXACT_MAP_DROP if name in EXACT_FORMATS else evidence.max_map_drop
        if problem is None and drop > most:
            allows = (
                "such a file may lose" if name in EXACT_FORMATS else "export.max_map_drop allows"
            )
            problem = (
                f"loses {drop * POINTS:.1f} of the checkpoint's {checkpoint * POINTS:.1f} mAP; "
                f"{allows} {most * POINTS:g}"
            )
        if problem is not None:
            problems.append(f"{evidence.names[name]}: {problem}")
    said = f"every file does what the checkpoint does, with mAP {checkpoint * POINTS:.1f}"
    return Check("agreement", "; ".join(problems) or None, said)


def _threads(evidence: Evidence, ran: Mapping[str, Kept]) -> Check:
    problems = [
        f"{evidence.names[name]} {differ}"
        for name, kept in ran.items()
        if (differ := kept.facts["threads_differ"])
    ]
    said = "every .tflite finds the same with 1, 2, 3 and 4 threads"
    return Check("threads", "; ".join(problems) or None, said)


def _recorded(evidence: Evidence, scores: Mapping[str, Mapping[str, float]]) -> Check:
    """The promise: the numbers in the registry are those of the files in the registry."""
    problems = []
    for name, stated in evidence.recorded.items():
        measured = scores.get(name, {}).get("mAP")
        if measured is not None and abs(measured - stated) > RECORDED_TOLERANCE:
            problems.append(
                f"{evidence.names[name]} has mAP {measured:.4f}, the version says {stated:.4f}"
            )
    said = (
        f"the mAP that the version states is that of the file, for {len(evidence.recorded)} files"
    )
    return Check("numbers", "; ".join(problems) or None, said)


# ---- are they wanted


def _floor(evidence: Evidence, kept: Kept | None, limits: RegistryConfig) -> Check:
    """What a version must find at all, whether there is a champion or not."""
    if kept is None or not limits.min_recall:
        return Check("floor", None, "registry.min_recall=0" if kept else "not measured")
    found = floor.recall(evidence.split, list(map(evidence.thresholds.keep, kept.detections)))
    low = floor.lower_end(evidence.split, kept.detections)
    said = f"finds {found:.0%} of the objects at score {evidence.thresholds} and IoU {floor.RECALL_IOU}"
    if found < limits.min_recall:
        return Check(
            "floor", f"{said}; registry.min_recall={limits.min_recall:g}. {TRAIN_MORE}", said
        )
    if low is None and evidence.champion is None:
        problem = f"{_pictures(len(evidence.split.truths))} no interval of the mAP. {MORE_PICTURES}"
        return Check("floor", problem, said)
    if low is not None and low <= 0:
        problem = f"its mAP may be 0: the 95 % interval begins there. {TRAIN_MORE}"
        return Check("floor", problem, said)
    return Check("floor", None, said)


def _pictures(count: int) -> str:
    return "1 test picture gives" if count == 1 else f"{count} test pictures give"


def _against_champion(
    evidence: Evidence, ran: Mapping[str, Kept], limits: RegistryConfig
) -> Comparison | None:
    ours, theirs = ran.get(evidence.judged), evidence.champion_found
    if ours is None or not isinstance(theirs, Kept):
        return None
    names = evidence.split.class_names
    champion = under_names(theirs.detections, theirs.class_names or names, names)
    least = Least(limits.min_pictures, limits.min_objects)
    return compare_detections(
        evidence.split.truths, champion, ours.detections, names, floor.RESAMPLES, 0, least
    )


def _accuracy(evidence: Evidence, compared: Comparison | None, limits: RegistryConfig) -> Check:
    if limits.format not in (None, evidence.judged):
        asked = f"registry.format={limits.format}"
        served = evidence.judged or "nothing"
        return Check("accuracy", f"{asked} is not what the version serves, which is {served}", "")
    if evidence.champion is None:
        return Check("accuracy", None, "there is no champion to compare with")
    if isinstance(evidence.champion_found, str):
        said = (
            f"the champion, version {evidence.champion}, cannot be run: {evidence.champion_found}"
        )
        return Check("accuracy", None, said)
    if compared is None:
        return Check("accuracy", "its file could not be run", "")
    champion = {"a": f"the champion, version {evidence.champion}, is", "b": "this version is"}
    said = compared.in_words(champion)
    change = compared.overall["mAP"].change
    if change is not None and change < -limits.max_map_loss - 1e-9:
        return Check(
            "accuracy",
            f"{said}; registry.max_map_loss allows {limits.max_map_loss * POINTS:g}",
            said,
        )
    return Check("accuracy", None, said)


def _limit(
    evidence: Evidence,
    ran: Mapping[str, Kept],
    name: str,
    fact: str,
    unit: str,
    most: float | None,
) -> Check:
    kept = ran.get(evidence.judged)
    if kept is None:
        return Check(
            name, "its file could not be run" if most is not None else None, "not measured"
        )
    value = float(kept.facts[fact])
    said = f"{evidence.names[evidence.judged]} has {value:.4g} {unit}"
    key = f"registry.max_{'latency_ms' if unit == 'ms' else 'size_mb'}"
    if most is not None and value > most:
        over = f"{value - most:.3g} {unit} more than {key}={most:g}"
        return Check(name, f"{said}, {over}", said)
    return Check(name, None, said if most is None else f"{said}; {key}={most:g}")
