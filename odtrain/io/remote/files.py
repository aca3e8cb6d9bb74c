"""Files wherever they lie: in a folder here, in an object store, on the web.

What is elsewhere has a path that was made of its address (`odtrain.addresses`). It is brought here when it is
first read, and known again by size and version.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from odtrain.addresses import is_in_store, is_remote
from odtrain.errors import DataError
from odtrain.io import atomic
from odtrain.io.remote import cache, store, web
from odtrain.io.remote.store import FileStat
from odtrain.io.remote.unpacked import is_archive, unpacked
from odtrain.system.workers import in_threads

TOGETHER = 16
"""Objects that are brought at the same time: a store answers slowly, and many at once."""
SHARE_BROUGHT_AHEAD = 0.5
"""Of the cache may be brought before it is asked for."""

_ROOTS: dict[str, Path] = {}
_BRINGING = [threading.Lock() for _ in range(16 * TOGETHER)]


def found(folder: Path) -> dict[Path, FileStat]:
    """Every object below an address in the order of a folder's walk, but hidden ones; its own, if it is one.

    Raises:
        DataError: the store refuses or is away, or one lies outside of where it says it does.
    """
    store.check_can_read(folder)
    files: dict[Path, FileStat] = {}
    for name, stat in store.listed(folder).items():
        file = folder / name if name else folder
        if ".." in file.parts or store.key_of(file) != f"{store.key_of(folder)}/{name}".rstrip("/"):
            raise DataError(file, "is a name that no file can have.", "Rename that object.")
        if any(part.startswith((".", "__MACOSX")) for part in file.relative_to(folder).parts):
            continue
        files[file] = stat
    return dict(sorted(files.items(), key=lambda item: item[0].parts))


def stat_of(file: Path) -> FileStat | None:
    """Size and version of a file anywhere; None where there is none.

    Raises:
        DataError: a store or a server refuses, or is away.
    """
    if is_in_store(file):
        store.check_can_read(file)
        return store.stat(file)
    if is_remote(file):
        return web.stat(file)
    if not file.is_file():
        return None
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def is_file(file: Path) -> bool:
    """Whether there is such a file, anywhere.

    Raises:
        DataError: a store or a server refuses, or is away.
    """
    return stat_of(file) is not None if is_remote(file) else file.is_file()


def local(file: Path, stat: FileStat | None = None, *, as_held: bool = False) -> Path:
    """The file itself, or the copy of what is elsewhere, brought here unless it is there already.

    Args:
        file: anywhere.
        stat: which version; None for that of now.
        as_held: a copy is taken as it is, for who knows by its content that it is the right one.

    Raises:
        FileNotFoundError: there is none.
        DataError: it is another one than `stat` says, or a store or a server refuses or is away.
    """
    if not is_remote(file):
        return file
    if not is_in_store(file):
        return web.brought(file)
    if (stat is not None or as_held) and (copy := cache.held(file, stat)):
        return copy
    stat = stat or stat_of(file)
    if stat is None:
        raise FileNotFoundError(2, "no such object", str(file))
    with _BRINGING[hash(file) % len(_BRINGING)]:  # once, however many threads ask
        return cache.held(file, stat) or cache.keep(
            cache.place_of(file), stat, partial(store.bring, file, known=stat)
        )


def read_bytes(file: Path, stat: FileStat | None = None, *, as_held: bool = False) -> bytes:
    """The content of a file anywhere; arguments and errors are those of `local`."""
    return local(file, stat, as_held=as_held).read_bytes()


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file of our own, anywhere; empty where it is missing or not whole.

    Raises:
        DataError: a store refuses, or is away.
    """
    try:
        return atomic.read_json(local(file))
    except FileNotFoundError:
        return {}


def write_text(file: Path, text: str, *, durable: bool = True) -> None:
    """Write a file anywhere, whole or not at all.

    Raises:
        OSError, DataError: the disk or the store refuses.
    """
    if is_in_store(file):
        store.write(file, text.encode("utf-8", "surrogateescape"))
    else:
        atomic.write_text(file, text, durable=durable)


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """As `write_text`, an object."""
    write_text(file, json.dumps(content, indent=1))


def local_model(name: str) -> str:
    """What a name of a file, a folder or a checkpoint's prefix stands for here; others stay as they are.

    Raises:
        DataError: there is none, or a store or a server refuses or is away.
    """
    if not is_remote(name):
        return name
    file = Path(name)
    if not is_in_store(file):
        return str(_named(file))
    store.check_can_read(file)
    # A file may have others beside it that belong to it, called alike: a checkpoint's parts, weights, labels.
    beside = [each for each in found(file.parent) if _belongs(each, file)]
    inside = [each for each in beside if each != file and file in each.parents]
    if not beside:
        raise _missing(file)
    for each in inside or beside:
        local(each)
    return str(cache.place_of(file))


def _belongs(each: Path, file: Path) -> bool:
    return file in each.parents or (
        each.parent == file.parent
        and (each.name.startswith(file.stem) or each.name in ("checkpoint", "labels.txt"))
    )


def root_of(place: str, *, again: bool = False) -> Path:
    """The folder or file that a setting names: of an archive the folder of what is in it.

    Args:
        place: the setting.
        again: it is looked whether an archive is still the one that this process knows.

    Raises:
        DataError: it cannot be had, or an archive is damaged.
    """
    path = Path(place)
    if not is_remote(path) or (is_in_store(path) and not is_archive(path)):
        return path
    if again or not _ROOTS.get(place, path).exists():
        here = _named(path)
        _ROOTS[place] = unpacked(path, here) if is_archive(path) else here
    return _ROOTS[place]


def _named(file: Path) -> Path:
    try:
        return local(file)
    except FileNotFoundError:
        raise _missing(file) from None


def _missing(file: Path) -> DataError:
    return DataError(file, "is not there.", "Is the address right?")


@contextmanager
def brought_ahead(files: Mapping[Path, FileStat]) -> Iterator[None]:
    """Bring objects in their order, many at a time, while they are worked on, if the cache holds all."""
    wanted = {file: stat for file, stat in files.items() if is_in_store(file)}
    if sum(size for size, _ in wanted.values()) > SHARE_BROUGHT_AHEAD * cache.bound():
        wanted = {}
    stopped = threading.Event()

    def bring(item: tuple[Path, FileStat]) -> None:
        if not stopped.is_set():
            try:
                local(*item)
            except (OSError, DataError):  # whoever asks for it is told
                stopped.set()

    pool = ThreadPoolExecutor(TOGETHER, thread_name_prefix="odtrain-bring")
    try:
        for item in wanted.items():
            pool.submit(bring, item)
        yield
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)


def bring(files: Mapping[Path, FileStat], doing: str) -> None:
    """Bring those of the files that are objects, many at a time, and wait for them.

    Raises:
        FileNotFoundError, DataError: one is gone or changed, or a store refuses or is away.
    """
    wanted = [item for item in files.items() if is_in_store(item[0])]
    for _ in in_threads(lambda item: local(*item), wanted, doing, TOGETHER, unit="file"):
        pass


def take_there(files: Mapping[Path, Path], doing: str) -> None:
    """Write files that are here to objects: there -> here of each.

    Raises:
        DataError: a store refuses, or is away.
    """
    pairs = list(files.items())
    for _ in in_threads(
        lambda pair: store.upload(pair[1], pair[0]), pairs, doing, TOGETHER, unit="file"
    ):
        pass


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """As `atomic.replacing`, of a file anywhere."""
    if not is_in_store(file):
        with atomic.replacing(file) as part:
            yield part
        return
    with TemporaryDirectory(prefix="odtrain-") as folder:
        part = Path(folder, file.name)
        yield part
        store.upload(part, file)
