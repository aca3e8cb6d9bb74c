"""What the data doctor finds: each kind has a code, a severity and a remedy, in one table."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from odtrain_runtime.plain import plain

SCREEN_LINES = 50
SHOWN_OF_EACH = (5, 3, 2, 1)
"""Findings of one code that a screen shows, as far as there is room."""
SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """One thing that is, or may be, wrong with a data set.

    Attributes:
        code: a row of `KINDS`.
        severity: `error` stops training, `warning` may cost accuracy, `info` is worth knowing.
        file: the picture, label file or list it is about.
        box: class and xmin, ymin, xmax, ymax in pixels as written, where it is about one box.
        cause: what is wrong, a sentence.
        remedy: what to do about it, a sentence.
        picture: that shows the box, where `file` is its label file; the other one, of two alike.
        seen: class and box, in the same form, that a model sees in place of `box`.
    """

    code: str
    severity: str
    file: str
    box: str | None
    cause: str
    remedy: str
    picture: str | None = None
    seen: str | None = None

    @classmethod
    def of(
        cls,
        code: str,
        file: Path | str,
        cause: str,
        box: str | None = None,
        remedy: str | None = None,
        picture: Path | None = None,
        seen: str | None = None,
    ) -> Finding:
        """A finding of the kind `code`, with the kind's remedy unless a better one is known."""
        kind = KINDS[code]
        shown = _printable(str(file)), box, _printable(cause)
        where = None if picture is None else _printable(str(picture))
        return cls(code, kind.severity, *shown, remedy or kind.remedy, where, seen)

    def as_dict(self) -> dict[str, str | None]:
        """Its attributes; without `seen` where no model was asked."""
        values = asdict(self)
        return values if self.seen else {key: values[key] for key in values if key != "seen"}

    def __str__(self) -> str:
        """The finding on one line."""
        return plain(f"{self.where}: {self.cause} {self.remedy}")

    @property
    def where(self) -> str:
        """How bad it is, its code, and what it is about."""
        return plain(f"{self.severity} {self.code} {self.file}{self.place}")

    @property
    def title(self) -> str:
        """What all findings of this code have in common."""
        return KINDS[self.code].title

    @property
    def place(self) -> str:
        """The box within the file, in brackets; empty where it is about the whole file."""
        return f" [{self.box}]" if self.box else ""


class Kind(NamedTuple):
    """What all findings of one code share."""

    severity: str
    title: str
    remedy: str


def _printable(text: str) -> str:
    """`text` with bytes of file names that are not UTF-8 written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def errors(findings: Sequence[Finding]) -> list[Finding]:
    """Those that must be put right before training."""
    return [finding for finding in findings if finding.severity == "error"]


def by_severity(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Errors first, then warnings; within each as they came."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))


def findings_json(findings: Sequence[Finding]) -> str:
    """The findings as a JSON list of objects."""
    return json.dumps([finding.as_dict() for finding in findings], indent=1)


def findings_annotations(findings: Sequence[Finding]) -> str:
    """Errors and warnings as GitHub's workflow commands, which a pull request shows at their files.

    Paths are made relative to the current folder, where they lie in it.
    """
    shown = (finding for finding in by_severity(findings) if finding.severity != "info")
    return "\n".join(
        f"::{finding.severity} file={_property(_from_here(finding.file))},"
        f"title={_property(f'{finding.code} {finding.title}')}::"
        f"{_data(plain(f'{finding.cause} {finding.remedy}'))}"
        for finding in shown
    )


def _from_here(file: str) -> str:
    here = Path.cwd()
    path = Path(os.path.normpath(here / file))
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else file


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(plain(text)).replace(":", "%3A").replace(",", "%2C")


def findings_table(findings: Sequence[Finding], of_each: int | None = None) -> str:
    """The findings for people: where, what, and below what to do.

    Args:
        findings: in the order to show them in.
        of_each: show at most so many of each code, and how many more there are.
    """
    numbers = Counter(finding.code for finding in findings)
    seen: Counter[str] = Counter()
    lines = []
    for finding in findings:
        seen[finding.code] += 1
        if of_each is None or seen[finding.code] <= of_each:
            lines.append(f"{finding.where}: {plain(finding.cause)}\n    {plain(finding.remedy)}")
        if of_each is not None and seen[finding.code] == numbers[finding.code] > of_each:
            more = numbers[finding.code] - of_each
            lines.append(f"{finding.severity} {finding.code}: {more} more, {finding.title}.")
    severities = Counter(finding.severity for finding in findings)
    summary = ", ".join(f"{severities[name]} {name}" for name in SEVERITIES)
    return "\n".join([*lines, summary])


def findings_screen(findings: Sequence[Finding]) -> str:
    """The findings on about a screen: every kind, of each as many as there is room for."""
    tables = (findings_table(findings, of_each) for of_each in SHOWN_OF_EACH)
    fitting = (table for table in tables if table.count("\n") < SCREEN_LINES)
    return next(fitting, None) or "\n".join(_a_line_each(findings))


def _a_line_each(findings: Sequence[Finding]) -> Iterator[str]:
    numbers = Counter(finding.code for finding in findings)
    first = {finding.code: finding for finding in reversed(findings)}
    for code in dict.fromkeys(finding.code for finding in findings):
        one = first[code]
        more = f" ({numbers[code] - 1:,} more)" if numbers[code] > 1 else ""
        yield f"{one.severity} {code} {one.file}{one.place}: {one.cause}{more}"
    yield "What to do about each: --html FILE, or docs/findings.md"
    yield findings_table(findings, of_each=0).splitlines()[-1]


KINDS: dict[str, Kind] = {
    "OD001": Kind("error", "no pictures", "Set data.images to the folder that holds them."),
    "OD002": Kind("error", "no labels", "Set data.annotations to the folder of the label files."),
    "OD003": Kind("error", "label file is not XML", "Save it again in labelImg, or delete it."),
    "OD004": Kind(
        "error",
        "label file is not Pascal VOC",
        "Save it in labelImg as PascalVOC, or move it out of the folder.",
    ),
    "OD005": Kind(
        "error",
        "label file declares entities or a DTD",
        "No label tool writes that: look at where the file comes from, and label the picture anew.",
    ),
    "OD006": Kind(
        "error",
        "object without name or box",
        "Complete it in labelImg, or delete its <object>.",
    ),
    "OD007": Kind(
        "error",
        "unknown class",
        "Correct the name in the label file, or add the class to the label map.",
    ),
    "OD008": Kind(
        "error", "box outside the picture", "Redraw it in labelImg, or delete its <object>."
    ),
    "OD009": Kind("error", "box without area", "Redraw it in labelImg, or delete its <object>."),
    "OD010": Kind(
        "error",
        "unreadable picture",
        "Replace it by an undamaged copy, or delete it with its label file.",
    ),
    "OD011": Kind(
        "error",
        "unsupported picture format",
        "Save it as JPEG or PNG under the same name, 8 bits a channel.",
    ),
    "OD012": Kind(
        "error",
        "label file without picture",
        "Put the picture back (its name without suffix must be the label file's), or delete the "
        "label file.",
    ),
    "OD013": Kind(
        "error",
        "two pictures with one name",
        "Rename one of them together with its label file, or delete it if it is a copy.",
    ),
    "OD014": Kind("error", "two label files for one picture", "Delete one of them."),
    "OD015": Kind(
        "error", "listed picture not found", "Correct the name in the list, or remove the line."
    ),
    "OD016": Kind("error", "picture in two lists", "Remove it from one of the lists."),
    "OD017": Kind("error", "empty split", "Label more pictures, or change the split."),
    "OD018": Kind(
        "error",
        "split without boxes",
        "Label objects in some of its pictures, or change the split.",
    ),
    "OD019": Kind("error", "picture too large", "Scale it down; detectors see far fewer pixels."),
    "OD030": Kind(
        "error",
        "label file cannot be read",
        "Save it again in the tool that wrote it, or delete it.",
    ),
    "OD031": Kind(
        "error",
        "label file of another format",
        "Set data.format to what it is, or move it out of the folder.",
    ),
    "OD032": Kind(
        "error",
        "object that cannot be used",
        "Correct it in the tool that wrote it, or delete it.",
    ),
    "OD033": Kind(
        "error",
        "class number without a name",
        "Give the list of classes that the labels were made with.",
    ),
    "OD034": Kind(
        "error",
        "no class names",
        "Put classes.txt, obj.names or data.yaml (for records: label_map.pbtxt) beside the labels.",
    ),
    "OD035": Kind(
        "error",
        "most pictures lose all their objects",
        "Draw a rectangle or a polygon around each object in the tool that wrote the labels.",
    ),
    "OD020": Kind("error", "label map cannot be used", "Each class is: item { id: 1 name: 'cat' }"),
    "OD101": Kind(
        "warning",
        "wrong extension",
        "Nothing to do: the bytes decide. Renaming it would help other programs.",
    ),
    "OD102": Kind(
        "warning",
        "picture without label file",
        "It is left out. Label it; if it shows nothing to find, save it in labelImg without boxes.",
    ),
    "OD103": Kind(
        "warning",
        "wrong <size>",
        "Boxes are taken in the picture's own pixels. If it was resized after labelling, label "
        "it anew.",
    ),
    "OD104": Kind(
        "warning", "box clipped", "Nothing to do: it was cut at the border, by at most a pixel."
    ),
    "OD105": Kind(
        "warning",
        "EXIF orientation ambiguous",
        "Boxes are taken as drawn on the picture shown upright. If the drawn labels look wrong, "
        "rotate the picture itself and label it anew.",
    ),
    "OD106": Kind(
        "warning",
        "same picture in two splits",
        "Keep one of them: scores on pictures that were trained on say too much.",
    ),
    "OD107": Kind("warning", "object labelled twice", "Nothing to do: one of them is kept."),
    "OD108": Kind(
        "warning", "class missing from a split", "Label more of it, or change the split."
    ),
    "OD109": Kind("warning", "animation", "Only its first frame is used."),
    "OD110": Kind(
        "warning",
        "nearly the same picture in two splits",
        "Move one of them to the other's split. Drawn splits keep such pictures together.",
    ),
    "OD111": Kind(
        "warning",
        "same picture, labelled differently",
        "Correct one of the label files, or delete one of the pictures.",
    ),
    "OD112": Kind(
        "warning",
        "nearly the same picture, labelled differently",
        "Look at both; correct one of the label files if an object was missed.",
    ),
    "OD113": Kind(
        "warning",
        "class name misspelt?",
        "Correct the name in the label file; if it is right, give a label map: data.label_map.",
    ),
    "OD114": Kind(
        "warning",
        "class in another spelling",
        "Write it alike in all label files; if both are meant, give a label map: data.label_map.",
    ),
    "OD115": Kind("warning", "class with few boxes", "Label more of it."),
    "OD116": Kind(
        "warning",
        "tiny box",
        "Raise model.input_size, cut the picture into tiles, or leave such objects unlabelled.",
    ),
    "OD117": Kind(
        "warning",
        "box that no anchor fits",
        "It is still learned, from its best anchor alone. Raise model.input_size, or set "
        "model.anchors to such sizes and shapes.",
    ),
    "OD118": Kind(
        "warning",
        "class share differs between splits",
        "Draw the split anew, or label more of the class where it is rare.",
    ),
    "OD119": Kind(
        "warning", "box labelled nearly twice", "Delete one of the two if they show one object."
    ),
    "OD120": Kind("warning", "one box, two classes", "Delete the wrong one of the two objects."),
    "OD121": Kind(
        "warning",
        "scene drawn into two splits",
        "Give the split by lists or folders, or add pictures of other scenes.",
    ),
    "OD122": Kind(
        "warning",
        "few validation pictures",
        "Raise data.validation_fraction, such as 0.2, or label more pictures.",
    ),
    "OD123": Kind(
        "warning",
        "validation after the last step alone",
        "Set evaluate.every to a tenth of train.steps.",
    ),
    "OD124": Kind(
        "warning", "tiles larger than the pictures", "Give a smaller data.tiles.size, or null."
    ),
    "OD125": Kind(
        "warning",
        "object larger than the tiles",
        "Raise data.tiles.size, or train on whole pictures too: data.tiles.whole=true.",
    ),
    "OD130": Kind(
        "warning",
        "labels in two formats",
        "Set data.format to the one that counts.",
    ),
    "OD131": Kind(
        "warning",
        "shapes left out",
        "Draw a rectangle or a polygon around each in the tool that wrote the file.",
    ),
    "OD132": Kind(
        "warning",
        "rotated boxes",
        "Nothing to do if looser boxes will do: detectors of this kind find upright ones.",
    ),
    "OD133": Kind(
        "warning",
        "picture loses all its objects",
        "It is taken for background. Draw a rectangle or a polygon around each object in the tool that "
        "wrote the labels.",
    ),
    "OD134": Kind(
        "warning",
        "label file not read whole",
        "Give each object one place of its own, as the tool's other files do, or delete what is too much.",
    ),
    "OD135": Kind(
        "warning",
        "regions without a label",
        "Give each a label in the tool that wrote the file.",
    ),
    "OD136": Kind(
        "warning", "picture left out with its boxes", "Correct its boxes to have it trained on."
    ),
    "OD141": Kind(
        "warning",
        "object overlooked?",
        "Draw a box around it; if there is nothing, leave the picture as it is.",
    ),
    "OD142": Kind(
        "warning", "box badly placed?", "Draw it as the object is; if it is right, leave it."
    ),
    "OD143": Kind(
        "warning", "wrong class?", "Correct the name of the object; if it is right, leave it."
    ),
    "OD201": Kind("info", "pictures left out", "Nothing to do if that is meant."),
    "OD202": Kind("info", "class never labelled", "Nothing to do if that is meant."),
    "OD203": Kind("info", "picture re-encoded", "Nothing to do: your file stays as it is."),
    "OD204": Kind("info", "grey picture", "Nothing to do: it is shown in three equal channels."),
    "OD205": Kind(
        "info", "scenes kept together", "Nothing to do: each group was drawn as a whole."
    ),
    "OD206": Kind("info", "same picture twice", "Nothing to do; one of them would be enough."),
    "OD207": Kind("info", "nearly the same picture", "Nothing to do: they are in one split."),
    "OD208": Kind("info", "flags of the labels", "Nothing to do: all boxes are trained on."),
    "OD209": Kind(
        "info",
        "anchor recall",
        "Nothing to do; where it is low, a larger model.input_size or other model.anchors may help.",
    ),
    "OD210": Kind(
        "info", "no test box of a size", "Nothing to do if such objects do not matter to you."
    ),
    "OD230": Kind(
        "info", "format of the labels", "Nothing to do if that is so; else set data.format."
    ),
    "OD231": Kind("info", "shapes taken by their bounds", "Nothing to do."),
    "OD232": Kind("info", "labels left out", "Nothing to do if that is meant."),
    "OD233": Kind(
        "info",
        "encoding guessed",
        "Nothing to do if the class names look right; else save it as UTF-8.",
    ),
    "OD234": Kind("info", "pictures unpacked", "Nothing to do: your records stay as they are."),
    "OD235": Kind("info", "pictures cut into tiles", "Nothing to do if that is meant."),
}
