"""The files of real labelling tools, and what is read of them."""

from __future__ import annotations

import shutil
from pathlib import Path

from support.labelled import make

from odtrain.config.compose import section
from odtrain.config.schema import DataConfig
from odtrain.dataset.check import check

LABELLED = Path(__file__).with_name("labelled")


EVERYTHING = {
    name: {(" ".join(word.split()), *corners, difficult) for word, *corners, difficult in objects}
    for name, (_, objects) in make.OBJECTS.items()
}
"""Picture: class, xmin, ymin, xmax, ymax and whether it is difficult, of each object."""


ABOUT_LABELS = (
    "OD002",
    "OD003",
    "OD004",
    "OD005",
    "OD006",
    "OD012",
    "OD013",
    "OD014",
    "OD102",
    "OD103",
)
"""Beside all of OD03x, OD13x and OD23x. Four pictures give findings about how few they are too."""


def data(tmp_path, *folders, **values):
    """A data set of the pictures and the label files of some tools."""
    shutil.copytree(LABELLED / "pictures", tmp_path / "data/images")
    for folder in folders:
        shutil.copytree(LABELLED / folder, tmp_path / "data/labels", dirs_exist_ok=True)
    return section(
        DataConfig,
        name="d",
        **{
            "images": str(tmp_path / "data/images"),
            "annotations": str(tmp_path / "data/labels"),
            "prepared": str(tmp_path / "prepared"),
            "validation_fraction": 0,
            **values,
        },
    )


def read(config):
    """Picture -> its objects as in `EVERYTHING`; and the findings."""
    checked = check(config)
    splits, findings = checked.splits, checked.findings
    images = [image for part in splits.values() for image in part]
    objects = {
        image.image.name: {
            (item.name, *(round(float(side), 2) for side in image.corners(item)), item.difficult)
            for item in image.objects
        }
        for image in images
    }
    return objects, findings


def told(findings):
    """Code, file and cause of each finding about label files and what is in them."""
    return [
        (finding.code, Path(finding.file).name, finding.cause)
        for finding in findings
        if finding.code in ABOUT_LABELS or finding.code[2:4] in ("03", "13", "23")
    ]


def easy(objects):
    """The same with nothing difficult, for formats that have no such thing."""
    return {name: {(*item[:-1], False) for item in items} for name, items in objects.items()}
