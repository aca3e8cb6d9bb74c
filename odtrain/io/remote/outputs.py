"""A folder of a store that a command writes: it writes one here, and its files are taken there at the end."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from odtrain.addresses import told_as
from odtrain.io.archives import cache_folder
from odtrain.io.atomic import write_text
from odtrain.io.locks import alone
from odtrain.io.remote import store
from odtrain.io.remote.files import TOGETHER, found, take_there
from odtrain.io.remote.store import FileStat
from odtrain.system.workers import in_threads


def written_there(address: str, job: str, run: Callable[[str], int]) -> tuple[int, str]:
    """Run a command that writes a folder of a store.

    What is in the folder already is brought first, so that the command finds it. What a stopped one has written
    stays here, and so does what could not be taken there: the same command goes on with it.

    Args:
        address: of the folder.
        job: the command, to be known again.
        run: given the folder here, returns the exit status.

    Returns:
        the status, and what to say of the folder.

    Raises:
        DataError: the store refuses, or is away.
    """
    there = Path(address)
    store.check_can_read(there)
    folder = cache_folder().parent / "outputs" / hashlib.sha256(address.encode()).hexdigest()[:16]
    here, done = folder / there.name, folder / "done"
    with alone(folder.with_name(f"{folder.name}.lock")):
        waits = done.is_file() and done.read_text(encoding="utf-8") == job
        if done.is_file() and not waits:
            shutil.rmtree(folder)
        known = found(there)
        if not waits:
            _bring(known, there, here)
            before = _stats(here)
            with told_as(here, address.rstrip("/")):
                status = run(str(here))
            if status:
                return status, ""
            write_text(done, job)
        else:
            before = {}
        now = _stats(here)
        changed = {there / name: here / name for name in now if now[name] != before.get(name)}
        gone = [there / name for name in before.keys() - now.keys()]
        take_there(changed, f"writing {address}")
        store.remove(gone)
        shutil.rmtree(folder)
    return 0, f"{len(changed)} files are in {address}."


def _bring(known: dict[Path, FileStat], there: Path, here: Path) -> None:
    """What is there and not here; what is here was written by a command that was stopped."""
    missing = [file for file in known if not (here / file.relative_to(there)).is_file()]

    def bring(file: Path) -> None:
        copy = here / file.relative_to(there)
        copy.parent.mkdir(parents=True, exist_ok=True)
        store.bring(file, copy, known[file])

    for _ in in_threads(bring, missing, "fetching what is there", TOGETHER, unit="file"):
        pass


def _stats(folder: Path) -> dict[str, FileStat]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    stats = ((file.relative_to(folder).as_posix(), file.stat()) for file in files)
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats}
