"""What the user's own pictures are called where nobody says: by their folder, never as odtrain's own."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from odtrain.addresses import is_remote
from odtrain.config.shipped import shipped

logger = logging.getLogger(__name__)

DEMO = "panels"
"""The name of the pictures that come with odtrain."""
GENERAL = {"data", "images", "imgs", "jpegimages", "photos", "pictures", "train"}
"""Folders that are called after what is in all such folders: the one above tells more."""
LONGEST = 60
FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
"""What no file of Windows may have in its name, or no file at all."""
DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows keeps for itself, whatever the suffix."""
MOST_BYTES = 200
"""Of a name: file systems take 255, and locks and parts of files add to it."""


def name_own_data(node: DictConfig, aloud: bool) -> None:
    """Name the data set of a composed configuration after its folder, if nobody has; `aloud` says so."""
    data = node.data
    if OmegaConf.is_missing(data, "images") or not isinstance(data.images, str):
        return
    if is_shipped(data.images) or not (OmegaConf.is_missing(data, "name") or data.name == DEMO):
        return
    data.name = name_of(data.images)
    if aloud:
        logger.info(
            f'Your data set is called "{data.name}" after its folder, and so are its prepared files and '
            f'its model: "{DEMO}" are those that come with odtrain. Another name: data.name=NAME.'
        )


def is_shipped(images: str) -> bool:
    """Whether pictures are those that come with odtrain."""
    return Path(os.path.realpath(images)).is_relative_to(shipped("data/panels").resolve())


def name_of(images: str) -> str:
    """What the pictures in a folder are called: a single folder name that is safe everywhere."""
    folder = Path(os.path.realpath(Path(images).expanduser()))
    if is_remote(images):  # an archive is called like a file
        folder = Path(re.sub(r"(\.tar)?\.\w+$", "", re.sub(r"^\w+:/|[?#].*", "", images)))
    candidates = [place.name for place in (folder, *folder.parents)]
    telling = [name for name in candidates if name and name.lower() not in GENERAL]
    name = re.sub(r"[^\w.\- ]+", "_", next(iter(telling), folder.name))[:LONGEST].strip(" ._-")
    return name if is_folder_name(name) and name.lower() != DEMO else f"my_{name or 'data'}"


def is_folder_name(name: str) -> bool:
    """Whether a name is that of one folder, below another, on any system."""
    return (
        name not in ("", ".", "..")
        and name == name.strip().rstrip(".")
        and not FORBIDDEN.search(name)
        and not DEVICE.fullmatch(name)
        and len(name.encode("utf-8", "surrogateescape")) <= MOST_BYTES
    )
