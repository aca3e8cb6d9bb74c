"""Functions called on the machines of a Ray: one at a time, one a machine, or one for each of many items."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from odtrain.cluster.engine import Engine, Node, Shares
from odtrain.errors import TrainingError, first_line
from odtrain.system.progress import Bar
from odtrain.system.workers import CHUNK, Workers, in_chunks

LOOK_SECONDS = 1.0
AHEAD = 4
"""Chunks a worker that may be waiting, or done and not asked for yet: what bounds memory."""

T = TypeVar("T")
R = TypeVar("R")


def done_there(
    engine: Engine,
    function: Callable[..., R],
    given: tuple[Any, ...],
    look: Callable[[], None] = lambda: None,
    **resources: Any,
) -> R:
    """`function(*given)` on a machine that has the resources; again on another where that one is lost.

    Args:
        engine: joined.
        function: of a module; may be begun several times.
        given: its arguments.
        look: called every second; what it raises ends the task.
        resources: Ray's options.

    Raises:
        TrainingError: machine after machine was lost, or the head is.
    """
    import ray

    task = _remote(function).options(max_retries=engine.settings.retries, **resources)
    reference = task.remote(*given)
    try:
        while not ray.wait([reference], timeout=LOOK_SECONDS)[0]:
            engine.check()
            look()
    except BaseException:
        if not engine.lost.is_set():
            ray.cancel(reference, force=True)
        raise
    result: R = got(engine, reference)
    return result


def each_machine(
    engine: Engine, nodes: Sequence[Node], function: Callable[..., R], given: tuple[Any, ...]
) -> Iterator[tuple[Node, R]]:
    """`function(*given)` on each of these machines."""
    task = _remote(function)
    begun = [(node, task.options(**node.alone).remote(*given)) for node in nodes]
    for node, reference in begun:
        yield node, got(engine, reference)


@cache
def _remote(function: Callable[..., Any]) -> Any:
    """As a task; the head is sent each function once, and a call waits for no head that is gone."""
    import ray

    return ray.remote(function)


def got(engine: Engine, reference: Any) -> Any:
    """What a task returned; what it raised is raised here.

    Raises:
        TrainingError: machine after machine was lost, or the head is.
    """
    import ray

    try:
        while not ray.wait([reference], timeout=LOOK_SECONDS)[0]:
            engine.check()
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, Exception) else error from None
    except ray.exceptions.RayError as error:
        engine.check()
        problem = f"machine after machine was lost: {first_line(error)}"
        remedy = "What is finished is kept: the same command goes on."
        raise TrainingError(engine.where, problem, remedy) from error


def in_order(engine: Engine, begun: Iterator[Any], ahead: int) -> Iterator[Any]:
    """What tasks return, in order.

    Args:
        engine: joined.
        begun: begins a task each time that it is asked for one.
        ahead: tasks that may be waiting, or done and not asked for yet.
    """
    pending = deque(islice(begun, ahead))
    while pending:
        result = got(engine, pending.popleft())
        pending.extend(islice(begun, 1))
        yield result


class RayWorkers(Workers):
    """As `Workers`, with Ray's processes in place of this machine's."""

    here = False

    def __init__(self, engine: Engine, shares: Shares) -> None:
        super().__init__(shares.workers)
        self._engine, self._shares = engine, shares

    def start(self, function: Callable[[T], R], pictures: int) -> None:
        """Ray starts processes by itself."""

    def map(
        self,
        function: Callable[[T], R],
        items: Sequence[T],
        doing: str,
        *,
        chunk: int = CHUNK,
        pictures: int | None = None,
    ) -> Iterator[R]:
        """`function` of each item, in order, wherever there is room."""
        options = {"max_retries": self._engine.settings.retries, "num_cpus": 1}
        task = _remote(_each).options(**options)
        folder = str(Path.cwd())
        tasks = (task.remote(folder, function, part) for part in in_chunks(items, chunk))
        with Bar[None](doing=doing, total=len(items), delay=1, leave=False) as progress:
            for results in in_order(self._engine, tasks, AHEAD * self._shares.workers):
                yield from results
                progress.update(len(results))


def _each(folder: str, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    os.chdir(folder)
    return [function(item) for item in items]
