"""A new version of a model is judged on the test pictures of the one that it starts from.

They stay the test split, and what was labelled since joins training and validation. The split that comes of
it is written as lists, which the run keeps in its configuration: it is the same whenever the gate asks.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from odtrain.config.schema import Config, Runs, replaced
from odtrain.dataset.check import Checked, check
from odtrain.dataset.near_duplicates import Group
from odtrain.dataset.pairing import PictureNames
from odtrain.dataset.prepare import refuse_errors
from odtrain.dataset.shards import write_lists
from odtrain.dataset.splits import SPLITS, read_list
from odtrain.errors import DataError, TrackingError
from odtrain.io.atomic import replacing_folder
from odtrain.labels.annotations import LabelledImage
from odtrain.model_source import run_file
from odtrain.registry.versions import Version, find_version
from odtrain.tracking.store import tracking_uri

logger = logging.getLogger(__name__)

SHOWN = 5
"""Names of pictures that a message gives."""
FOLDER = "lists"
"""In the folder of the runs: the splits, each in a folder named by its digest."""
Split = Mapping[str, list[LabelledImage]]
"""Of every split, its pictures."""


def with_kept_test(config: Config) -> Config:
    """The configuration with `kept_split`.

    Raises:
        DataError, TrackingError: as `kept_split`.
    """
    return replaced(config, kept_split(config))


def kept_split(config: Config) -> dict[str, str]:
    """The split as lists, where `train.checkpoint` is a version of the model that is to be registered.

    Returns:
        Settings such as `data.test_list`; none where there is no such version, or a test split is given.

    Raises:
        DataError: test pictures of the version are not among the data, or the data have errors.
        TrackingError: there is no such version.
    """
    version = _same_model(config)
    names = {} if version is None else _names_by_split(version, config.runs)
    if version is None or not names["test"]:
        return {}
    checked = check(config.data)
    refuse_errors(config.data, checked.findings)
    pictures = PictureNames(image.image for image in checked.images)
    uri = f"models:/{version.name}/{version.number}"
    kept = _kept(uri, names["test"], pictures, config.data.images)
    known = {file for each in names.values() for name in each for file in pictures.find_path(name)}
    alike = alike_to(kept, checked.scenes.whole) - known
    split = split_around(kept, alike, checked)
    logger.info(_words(uri, split, known, alike))
    return as_lists(split, checked, Path(config.outputs) / FOLDER)


def _same_model(config: Config) -> Version | None:
    """The version that is trained on, if the run would register the next one and no test split is given."""
    name = config.train.checkpoint or ""
    if not name.startswith("models:/") or config.data.test_list is not None:
        return None
    if config.train.resume not in (None, "auto"):  # the run has its split
        return None
    version = find_version(name, tracking_uri(config.tracking))
    return version if version.name == config.registry.name else None


def _names_by_split(version: Version, runs: Runs) -> dict[str, list[str]]:
    """The pictures that the version's run had in each split, by name."""
    return {split: names_in_run(version.run_id, split, runs) for split in SPLITS}


def names_in_run(run_id: str, split: str, runs: Runs) -> list[str]:
    """Pictures of a run's split: as its list says, in older runs the table of its labels; none without one."""
    for file in (f"{split}_list.txt", f"{split}_labels.csv"):
        try:
            return read_list(run_file(run_id, f"data/{file}", runs))
        except TrackingError:
            continue
    return []


def _kept(uri: str, names: Collection[str], pictures: PictureNames, folder: str) -> set[Path]:
    """The test pictures where they are now.

    Raises:
        DataError: some are not there.
    """
    names = dict.fromkeys(names)
    missing = [name for name in names if not pictures.find_path(name)]
    if missing:
        problem = (
            f"{len(missing)} of the {len(names)} test pictures of {uri} are not among its labelled "
            f"pictures: {_shown(missing)}."
        )
        remedy = (
            "Put them back with their labels, beside the new ones: a new version is judged on what the "
            "old one was judged on.\n  To judge it on other pictures: data.test_list=FILE"
        )
        raise DataError(folder, problem, remedy)
    return {file for name in names for file in pictures.find_path(name)}


def _shown(names: Collection[str]) -> str:
    return ", ".join(list(names)[:SHOWN]) + ", ..." * (len(names) > SHOWN)


def alike_to(kept: Collection[Path], scenes: Sequence[Group]) -> set[Path]:
    """The other pictures of the scenes that `kept` show."""
    shown = [scene for scene in scenes if not set(scene).isdisjoint(kept)]
    return {file for scene in shown for file in scene} - set(kept)


def split_around(kept: Collection[Path], left_out: Collection[Path], checked: Checked) -> Split:
    """`kept` as test split and the rest as it is given, else as training pictures.

    Args:
        kept: test pictures, wherever they are given.
        left_out: pictures that are not to be learned from.
        checked: the data.
    """
    split: dict[str, list[LabelledImage]] = {part: [] for part in SPLITS}
    for image in checked.images:
        given = "test" if image.image in kept else checked.given.get(image.image, "train")
        if given == "test" or image.image not in left_out:
            split[given].append(image)
    return split


def as_lists(split: Split, checked: Checked, folder: Path) -> dict[str, str]:
    """The lists of a split, in a folder of their own, as settings."""
    names = [[part, str(image.image)] for part in split for image in split[part]]
    place = folder / hashlib.sha256(repr(names).encode()).hexdigest()[:16]
    if not place.exists():
        with replacing_folder(place) as new:
            write_lists(new, checked._replace(splits=dict(split)))
    return {f"data.{part}_list": str(place / f"{part}_list.txt") for part in split if split[part]}


def _words(uri: str, split: Split, known: Collection[Path], alike: Collection[Path]) -> str:
    new = sum(image.image not in known for part in split for image in split[part] if part != "test")
    said = (
        f"{uri} was judged on {len(split['test'])} test pictures, and so is what is trained now; {new} new "
        "pictures join training and validation."
    )
    names = sorted(file.name for file in alike)
    out = f"\nWhat shows the same as a test picture stays out of them: {_shown(names)}"
    return said + (out if names else "")
