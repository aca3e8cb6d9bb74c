"""Objects of one class in processes of a Ray, which take calls in turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Any

from odtrain.cluster.engine import Engine, Shares
from odtrain.cluster.tasks import in_order


class Actors:
    """So many objects as there are shares; Ray makes those anew whose machine is lost."""

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

    def in_order(self, calls: Iterable[tuple[str, tuple[Any, ...]]], ahead: int) -> Iterator[Any]:
        """What calls of a method return, in order.

        Args:
            calls: name of the method, and what it is given.
            ahead: calls an object that may be waiting, or done and not asked for yet.
        """
        turns = cycle(self._actors)
        begun = (getattr(next(turns), name).remote(*given) for name, given in calls)
        return in_order(self._engine, begun, ahead * len(self._actors))

    def end(self) -> None:
        """End their processes."""
        import ray

        if not self._engine.lost.is_set():
            for actor in self._actors:
                ray.kill(actor)


@contextmanager
def begun(engine: Engine, shares: Shares, kind: type[Any], *given: Any) -> Iterator[Actors]:
    """Objects that are gone afterwards; `kind(*given)` makes each."""
    actors = Actors(engine, shares, kind, given)
    try:
        yield actors
    finally:
        actors.end()
