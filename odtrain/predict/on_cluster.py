"""Pictures looked at by the machines of a Ray; what they see is written and noted here."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from odtrain.cluster.actors import Actors, begun
from odtrain.cluster.engine import joined, look_at
from odtrain.config.schema import Config
from odtrain.media.find import Medium
from odtrain.model_source import open_source
from odtrain.predict.predict import predict
from odtrain.predict.runner import FrameTask, PredictionRunner, Seen
from odtrain.system import logs
from odtrain.system.workers import in_chunks

logger = logging.getLogger(__name__)

CHUNK = 8
"""Pictures that a process is given at once."""
AHEAD = 3
"""Chunks a process that may be waiting, or done and not asked for yet."""


def predict_there(config: Config) -> str:
    """As `predict`; videos and cameras are looked at here.

    Raises:
        OdtrainError: as `predict`, and where Ray or a machine is not as it is needed.
    """
    with joined(config.cluster) as engine:
        nodes = engine.nodes()
        shares = engine.shares(nodes, cpus=1)
        usable = [node for node in nodes if node.holds("CPU")]
        look_at(engine, usable, {"input": config.input, "source": config.source})
        with begun(engine, shares, Looker, str(Path.cwd()), config) as actors:
            return predict(config, runner=partial(RayRunner, actors=actors))


@dataclass(eq=False)
class RayRunner(PredictionRunner):
    """Has pictures looked at elsewhere.

    Attributes:
        actors: each a `Looker`.
    """

    actors: Actors = field(kw_only=True)

    def at_pictures(self, media: Sequence[Medium]) -> None:
        """Look at pictures, but for those that an interrupted run has done."""
        chunks = in_chunks(self._undone(media), CHUNK)
        calls = (("look", (several, *self._needed(several))) for several in chunks)
        for looked in self.actors.in_order(calls, AHEAD):
            for line in looked.said:
                logger.warning(line)
            for file, content in looked.files:
                self._write(file, content)
            for seen in looked.seen:
                self._note(seen)
                self.advance(1)
                if seen.found is not None:
                    self.whole.append(seen.task.medium)

    def _needed(self, tasks: Sequence[FrameTask]) -> tuple[Any, ...]:
        """Of what this one has, for these pictures."""
        names = {task.medium.file: self.names[task.medium.file] for task in tasks}
        return self.thresholds, self.config, self.folder, names


@dataclass(frozen=True, eq=False)
class Looked:
    """What came of some pictures: what was seen, files to write, and what is to be said."""

    seen: list[Seen]
    files: list[tuple[Path, bytes]]
    said: list[str]


class Looker:
    """A model in a process of Ray's."""

    def __init__(self, folder: str, config: Config) -> None:
        os.chdir(folder)
        self._source = open_source(config.source, config, 1, config.predict.threads)

    def look(
        self, tasks: list[FrameTask], thresholds: Any, config: Any, folder: Path, names: Any
    ) -> Looked:
        """Look at some pictures; nothing is written."""
        files: list[tuple[Path, bytes]] = []
        runner = _Collects(self._source, thresholds, config, folder, names, 1, None)  # type: ignore[arg-type]
        runner.files = files
        with logs.collected() as said:
            seen = [
                each
                for several in in_chunks(tasks, self._source.batch)
                for each in runner._look(several)
            ]
        return Looked(seen, files, said)


class _Collects(PredictionRunner):
    files: list[tuple[Path, bytes]]

    def _write(self, file: Path, content: bytes) -> None:
        self.files.append((file, content))
