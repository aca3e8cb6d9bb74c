"""`odtrain prepare`, `check`, `convert` and `diff`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from odtrain.command import (
    Action,
    Command,
    Composed,
    Invocation,
    flag,
    prints,
    say,
    show,
    with_config,
)

if TYPE_CHECKING:
    from odtrain.dataset.check import Checked
    from odtrain.dataset.kept_check import Answer
    from odtrain.findings import Finding
    from odtrain.labelling.doubted import Doubted


def _prepare(given: Composed) -> int:
    from odtrain.dataset.prepare import prepare
    from odtrain.dataset.read import describe

    data, cluster, begin = given.config.data, given.config.cluster, None
    if cluster.engine:
        from odtrain.dataset.on_cluster import ray_workers

        begin = partial(ray_workers, cluster, data)
    dataset = prepare(data, begin)
    say(describe(dataset))
    if given.flags.pictures:
        from odtrain.reports.data_preview import write_pictures

        folder = Path(given.flags.pictures)
        seed = given.config.train.seed
        for file in write_pictures(dataset, folder, given.config.augment, given.config.model, seed):
            say(f"  {file}")
    return 0


def _check(given: Composed) -> int:
    from odtrain.dataset.check import check
    from odtrain.dataset.kept_check import answer, answer_of
    from odtrain.dataset.ways_out import ways_out
    from odtrain.findings import errors, findings_annotations, findings_json, findings_screen

    flags, config = given.flags, given.config
    if flags.by is not None:
        return _doubt(given)
    checked = None if flags.fix is None else check(config.data, config.model)
    found = answer_of(checked) if checked else answer(config.data, config.model)
    findings = found.findings
    if flags.json:
        Path(flags.json).write_text(findings_json(findings), encoding="utf-8")
    if flags.html:
        _write_page(config.data.name, Path(flags.html), found)
    if flags.annotations and (told := findings_annotations(findings)):
        show(told)
    say(findings_screen(findings))
    if checked:
        findings = _repair(given, checked)
    else:
        for line in ways_out(config.data, findings):
            say(line)
    return int(bool(errors(findings)))


def _doubt(given: Composed) -> int:
    """`check --with`: the labels that a model doubts; the exit status is that of no error."""
    from odtrain.errors import ConfigError
    from odtrain.findings import findings_annotations, findings_json
    from odtrain.labelling.doubted import doubted

    flags, config = given.flags, given.config
    if flags.fix is not None:
        raise ConfigError(
            "--with and --fix",
            "are two ways to ask: --fix repairs what is wrong with files, not with what they say.",
            "Give one of them.",
        )
    for file in (flags.json, flags.html):
        if file and not Path(file).absolute().parent.is_dir():
            raise ConfigError(file, "lies in no folder that is there.", "Make it, or name another.")
    result = doubted(config, given.overrides, flags.by)
    if flags.json:
        Path(flags.json).write_text(findings_json(result.findings), encoding="utf-8")
    if flags.html:
        _write_page(config.data.name, Path(flags.html), result, "the labels that a model doubts")
    if flags.annotations and (told := findings_annotations(result.findings)):
        show(told)
    say(result.said)
    return 0


def _write_page(
    name: str, file: Path, found: Answer | Doubted, what: str = "what the data check found"
) -> None:
    from odtrain.reports.findings_page import findings_page

    heading = f"{name}: {what}"
    page = findings_page(heading, found.findings, found.orientations, found.class_names)
    file.write_text(page, encoding="utf-8")


def _repair(given: Composed, checked: Checked) -> tuple[Finding, ...]:
    """What is still found in the repaired copy."""
    from odtrain.dataset.repair import describe, repair

    config = given.config
    output = given.flags.fix or config.output or f"{config.data.name}-repaired"
    repaired = repair(config.data, config.model, output, checked)
    say(describe(repaired))
    return repaired.findings


def _convert(given: Composed) -> str:
    from odtrain.dataset.convert import convert

    config, flags = given.config, given.flags
    return convert(
        config.data,
        flags.to,
        source=config.input,
        output=config.output,
        labels_only=flags.labels_only,
    )


def _diff(invocation: Invocation) -> int:
    from odtrain.dataset.diff import as_json, as_table, compare

    flags = invocation.flags
    diff = compare(Path(flags.first), Path(flags.second))
    if flags.json:
        Path(flags.json).write_text(as_json(diff), encoding="utf-8", errors="surrogateescape")
    say(as_table(diff))
    return 0


PREPARE = Action(
    with_config(_prepare),
    flags=(flag("--pictures", "draw charts, and what the network sees, to DIR", metavar="DIR"),),
    settings=("data", "model", "augment", "train.seed", "cluster"),
)
CHECK = Action(
    with_config(_check),
    flags=(
        flag(
            "--with",
            "ask for labels that a model doubts: a source, or folds, which trains some",
            dest="by",
            metavar="SOURCE",
        ),
        flag("--json", "write the findings to FILE", metavar="FILE"),
        flag("--html", "the same as a page with pictures", metavar="FILE"),
        flag("--annotations", "print them as GitHub shows them too", action="store_true"),
        flag(
            "--fix",
            "write a repaired copy to the new folder DIR, or to output=",
            nargs="?",
            const="",
            metavar="DIR",
        ),
    ),
    settings=(
        "data",
        "model",
        "output",
        "train",
        "augment",
        "evaluate",
        "tracking",
        "outputs",
    ),
)
CONVERT = Action(
    prints(_convert),
    flags=(
        flag("--to", "voc, yolo, coco or csv", metavar="FORMAT"),
        flag("--labels-only", "do not copy the pictures", action="store_true"),
    ),
    settings=("input", "output", "data"),
)
DIFF = Action(
    _diff,
    flags=(
        flag("first", "a folder that prepare wrote, or data/ of a run"),
        flag("second", "the same, later"),
        flag("--json", "write all that changed to FILE", metavar="FILE"),
    ),
)
COMMANDS = {
    "prepare": Command({"": PREPARE}),
    "check": Command({"": CHECK}),
    "convert": Command({"": CONVERT}),
    "diff": Command({"": DIFF}),
}
