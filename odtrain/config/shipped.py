"""Where configuration files lie, and what may be chosen among them; answers without Hydra."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def shipped(name: str) -> Path:
    """A folder that comes with odtrain: inside the installed package, else beside it in a checkout."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name


def conf() -> Path:
    """The folder that configurations are composed from."""
    return Path(os.environ.get("ODTRAIN_CONF", shipped("conf")))


def conf_folders(config_dir: str | None = None) -> list[Path]:
    """The folder that configurations are composed from, and the user's own beside it."""
    return [conf(), *([Path(config_dir)] if config_dir else [])]


def choices(group: str, folders: Sequence[Path]) -> list[str]:
    """What `group=` may be, by name."""
    return sorted({file.stem for folder in folders for file in (folder / group).glob("*.yaml")})


def groups(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Every group, as overrides name it, and its choices."""
    names = {
        file.parent.relative_to(folder).as_posix()
        for folder in folders
        for file in folder.glob("*/**/*.yaml")
    }
    return {name: choices(name, folders) for name in sorted(names)}
