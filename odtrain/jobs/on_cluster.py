"""A training whose workers Ray places; what each does is `odtrain.jobs.train` and `odtrain.jobs.workers`."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from odtrain.cluster.engine import Engine, Shares, joined, look_at, without_cluster
from odtrain.cluster.group import Ended, run_group
from odtrain.cluster.submit import RUN
from odtrain.config.schema import Config
from odtrain.errors import ConfigError, TrainingError
from odtrain.tracking.store import tracking_uri
from odtrain.tracking.tracker import raise_terminated

logger = logging.getLogger(__name__)

GOES_ON = "train.resume=auto"


def train_on_cluster(
    config: Config, overrides: Sequence[str], config_dir: str | None
) -> tuple[int, str]:
    """Train in a group of Ray's; where machines are lost, go on with those that are left.

    Returns:
        The exit status, and what worker 0 printed.

    Raises:
        OdtrainError: Ray or a machine is not as the training needs it; nothing was begun then.
        KeyboardInterrupt, Terminated: a signal ended training behind a checkpoint.
    """
    words = ["train", *without_cluster(overrides)]
    words += ["--config-dir", config_dir] if config_dir else []
    data = {"data.images": config.data.images, "data.annotations": config.data.annotations}
    with _terminating(), joined(config.cluster) as engine:
        shares = engine.shares(engine.nodes())
        usable = [node for node in engine.nodes() if node.room(shares.cpus, shares.gpus)]
        if not usable[0].here and (uri := tracking_uri(config.tracking)).startswith("sqlite"):
            raise ConfigError(
                f"tracking.uri={uri}",
                "is a file of this machine, which has no room for a worker, so that others own the run.",
                "Give the address of a server: tracking.uri=http://HOST:5000 (docs/team.md).",
            )
        if config.train.batch_size % shares.workers:
            raise ConfigError(
                f"train.batch_size={config.train.batch_size}",
                f"cannot be shared out evenly among {shares.workers} workers.",
                f"Give a multiple of {shares.workers}, or another cluster.workers.",
            )
        look_at(engine, usable, data)
        return _until_it_ends(engine, shares, words, config)


def _until_it_ends(
    engine: Engine, shares: Shares, words: list[str], config: Config
) -> tuple[int, str]:
    begun = _Begun()
    engine.remedy = (
        f"The last checkpoint is kept. Start Ray again and give the same command with {GOES_ON}."
    )
    for attempt in range(config.cluster.retries + 1):
        logger.info(
            f"Ray: {shares.workers} worker{'s' * (shares.workers > 1)} of {shares.cores} each."
        )
        ended = run_group(engine, shares, words, begun.hear)
        if not ended.lost:
            _tell(ended)
            return max(map(abs, (status or 0 for status in ended.statuses))), ended.printed
        if attempt < config.cluster.retries:
            shares = engine.fewer(shares, config.train.batch_size)
            if begun.run and GOES_ON not in words:
                words = [*words, GOES_ON]
            logger.info("A worker was lost; the others go on from the last checkpoint.")
    raise TrainingError(
        engine.where,
        f"workers were lost {config.cluster.retries + 1} times.",
        f"The last checkpoint is kept. Give the same command with {GOES_ON} to go on.",
    )


class _Begun:
    """Says what worker 0 says."""

    run = False

    def hear(self, rank: int, line: str) -> None:
        """Of the others what they say is kept for when they fail."""
        if rank == 0:
            self.run = self.run or line.startswith(RUN)
            logger.info(line)


def _tell(ended: Ended) -> None:
    """What failed workers said last, unless worker 0 failed too, which has said it."""
    if ended.statuses[0] == 0:
        return
    known = set(ended.said[0])
    for rank, status in enumerate(ended.statuses):
        for line in ended.said[rank] if status else ():
            if rank and line not in known:
                logger.info(f"worker {rank}: {line}")


@contextmanager
def _terminating() -> Iterator[None]:
    """SIGTERM ends this process as it ends a training."""
    before = signal.signal(signal.SIGTERM, raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
