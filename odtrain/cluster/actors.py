"""Objects of one class in processes of a Ray, which take calls in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import cycle, islice
from types import TracebackType
from typing import Any

from odtrain.cluster.engine import Engine, Shares
from odtrain.cluster.tasks import got


class Actors:
    """So many objects as there are shares; Ray makes those anew whose machine is lost. A context manager."""

    def __init__(
        self, engine: Engine, shares: Shares, kind: type[Any], given: tuple[Any, ...]
    ) -> None:
        """`kind(*given)` makes each; it is a class of a module."""
        import ray

        retries = engine.settings.retries
        made = ray.remote(kind).options(
            max_restarts=retries, max_task_retries=retries, **shares.resources
        )
        self._engine = engine
        self._actors = [made.remote(*given) for _ in range(shares.workers)]

    def __enter__(self) -> Actors:
        """They are begun already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End them."""
        import ray

        if not self._engine.lost.is_set():
            for actor in self._actors:
                ray.kill(actor)

    def in_order(self, calls: Iterable[tuple[str, tuple[Any, ...]]], ahead: int) -> Iterator[Any]:
        """What calls of a method return, in order.

        Args:
            calls: name of the method, and what it is given.
            ahead: calls an object that may be waiting, or done and not asked for yet.
        """
        turns = cycle(self._actors)
        begun = (getattr(next(turns), name).remote(*given) for name, given in calls)
        pending = deque(islice(begun, ahead * len(self._actors)))
        while pending:
            result = got(self._engine, pending.popleft())
            pending.extend(islice(begun, 1))
            yield result
