"""How long the stages of a job take, where somebody waits for all of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from odtrain.system.progress import duration


class Stages:
    """Times what is done inside, stage by stage.

    Attributes:
        seconds: of each stage that has ended, in their order.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Inside, time passes that counts for a stage."""
        began = time.monotonic()
        yield
        self.seconds[stage] = time.monotonic() - began

    def metrics(self) -> dict[str, float]:
        """`seconds/<stage>`."""
        return {f"seconds/{stage}": seconds for stage, seconds in self.seconds.items()}


def stages_in_words(seconds: Mapping[str, float]) -> str:
    """Where the time went, in a line."""
    parts = ", ".join(f"{stage} {duration(each)}" for stage, each in seconds.items())
    return f"It took {duration(sum(seconds.values()))}: {parts}."
