"""Work on many things at a time, with the results in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

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


def in_order(work: Callable[[T], R], items: Iterable[T], threads: int, ahead: int) -> Iterator[R]:
    """`work` of each item, in the order of the items, by several threads.

    Items are taken in the caller's thread, at most `ahead` before the result that is waited for.
    Leaving the iterator early drops what has not begun, and waits for what has.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="odtrain-work")
    source = iter(items)
    pending: deque[Future[R]] = deque()
    try:
        pending.extend(pool.submit(work, item) for item in islice(source, ahead))
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(work, item) for item in islice(source, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
