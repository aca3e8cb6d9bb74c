"""A function of many items, in order: in processes where there are many, else in threads."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import odtrain
import odtrain_runtime
from odtrain.system.progress import Bar

ROOTS = tuple(
    str(Path(package.__path__[0]).resolve().parent) for package in (odtrain, odtrain_runtime)
)
"""Where this odtrain is, and the runtime that it uses."""
CHUNK = 32
"""Items that a process is given at once."""
WORTH_PROCESSES = 400
"""Pictures. Starting a process takes as long as looking at about a hundred of them."""
AHEAD = 4
"""Chunks a worker that may be waiting, or done and not asked for yet: what bounds memory."""

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of `size`; the last one may be shorter."""
    source = iter(items)
    while chunk := list(islice(source, size)):
        yield chunk


class Workers:
    """Processes that are started when they are first worth it, and end with this one, killed or not.

    A context manager. Interrupting is this process's business: they do not hear of Ctrl-C.

    Attributes:
        here: whether they are this machine's.
    """

    here = True

    def __init__(self, count: int | None = None) -> None:
        """`count` None: as many as this process may use cores."""
        self.count = count or cores()
        self._pool: _Processes | None = None

    def __enter__(self) -> Workers:
        """Nothing is started yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the processes; what they have begun is not waited for longer than a chunk takes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def start(self, function: Callable[[T], R], pictures: int) -> None:
        """Begin to start processes for `function`, if so many pictures are worth it; waits for nothing."""
        if self._worth(pictures):
            for _ in range(self.count):
                self._started().submit(_each, (function, []))

    def map(
        self,
        function: Callable[[T], R],
        items: Sequence[T],
        doing: str,
        *,
        chunk: int = CHUNK,
        pictures: int | None = None,
    ) -> Iterator[R]:
        """`function` of each item, in order.

        Args:
            function: of a module, not a closure: it travels to the processes by name.
            items: travel too.
            doing: for the progress bar.
            chunk: items to send at once.
            pictures: how many the items are; None: as many as items.
        """
        if not self._worth(len(items) if pictures is None else pictures):
            yield from in_threads(function, items, doing, self.count, finish=True)
            return
        tasks = ((function, part) for part in in_chunks(items, chunk))
        with _progress(len(items), doing) as progress:
            for results in _ahead(self._started(), _each, tasks, AHEAD * self.count):
                yield from results
                progress.update(len(results))

    def _worth(self, pictures: int) -> bool:
        return self.count > 1 and pictures >= WORTH_PROCESSES

    def _started(self) -> _Processes:
        if self._pool is None:
            # Not forked: TensorFlow's threads, if it is loaded, would be missing in a fork.
            spawn = multiprocessing.get_context("spawn")
            self._pool = _Processes(self.count, spawn, _follow_parent)
        return self._pool


class _Processes(ProcessPoolExecutor):
    """Processes that find this odtrain; they are started by `submit`, as they are needed."""

    def submit(self, function: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        """As the executor's own."""
        with _this_odtrain_first():
            return super().submit(function, *args, **kwargs)


@contextmanager
def _this_odtrain_first() -> Iterator[None]:
    """Processes are given the `sys.path` that this one has when they start."""
    before = list(sys.path)
    sys.path[:] = search_path()
    try:
        yield
    finally:
        sys.path[:] = before


def search_path() -> list[str]:
    """Where this process finds packages, for those it starts; this odtrain comes before any other.

    A model that MLflow loaded into this process has put its runtime before that, an old one a part of odtrain.
    """
    others = (
        i
        for i, place in enumerate(sys.path)
        for package in (odtrain, odtrain_runtime)
        if Path(place, package.__name__).is_dir()
    )
    first = next(others, len(sys.path))
    return [*sys.path[:first], *ROOTS, *sys.path[first:]]


def _follow_parent() -> None:
    """End when the process that started this one ends, also if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel
        threading.Thread(target=lambda: (wait([sentinel]), os._exit(1)), daemon=True).start()


def _each(task: tuple[Callable[[T], R], Sequence[T]]) -> list[R]:
    function, items = task
    return [function(item) for item in items]


def in_threads(
    function: Callable[[T], R],
    items: Iterable[T],
    doing: str | None = None,
    threads: int | None = None,
    *,
    ahead: int | None = None,
    finish: bool = False,
    unit: str = "picture",
) -> Iterator[R]:
    """`function` of each item in order, a few items ahead; Pillow and hashlib let threads run.

    Items are taken in the caller's thread. Leaving the iterator early drops what has not begun.

    Args:
        function: of an item.
        items: may be without end.
        doing: for the progress bar; None: there is none.
        threads: None for as many as there are cores.
        ahead: items begun before the result that is waited for; None for as many as keep threads busy.
        finish: leaving early waits for what has begun.
        unit: what an item is, for the progress bar.
    """
    threads = threads or cores()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="odtrain-work")
    total = len(items) if isinstance(items, Sized) else None
    try:
        with _progress(total, doing, unit) as progress:
            for result in _ahead(pool, function, items, ahead or 2 * AHEAD * threads):
                progress.update()
                yield result
    finally:
        pool.shutdown(wait=finish, cancel_futures=True)


def _ahead(
    pool: Executor, function: Callable[[T], R], items: Iterable[T], number: int
) -> Iterator[R]:
    """`function` of each item in order, so many items begun before they are asked for."""
    rest = iter(items)
    pending: deque[Future[R]] = deque()
    pending.extend(pool.submit(function, item) for item in islice(rest, number))
    while pending:
        result = pending.popleft().result()
        pending.extend(pool.submit(function, item) for item in islice(rest, 1))
        yield result


def _progress(total: int | None, doing: str | None, unit: str = "picture") -> Bar[None]:
    return Bar(doing=doing or "", total=total, unit=unit, delay=1, leave=False)
