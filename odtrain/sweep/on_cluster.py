"""A sweep's trainings on the machines of a Ray: each is a task, which Ray does again where its machine is lost.

The study stays with the driver, who alone speaks to its database; a machine is sent what to train, and
answers what came of it.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from odtrain.cluster.engine import Engine, Node, Shares, joined, look_at
from odtrain.cluster.tasks import done_there, each_machine
from odtrain.cluster.timed import environment_of_timing
from odtrain.config.schema import Config, DataConfig
from odtrain.dataset.prepare import prepare
from odtrain.errors import ConfigError
from odtrain.sweep.queue import machine_folder
from odtrain.sweep.trial_process import Request, TrialOutcome
from odtrain.sweep.worker import Job, train_in_process
from odtrain.tracking.store import tracking_uri

logger = logging.getLogger(__name__)


@contextmanager
def trains_there(
    config: Config, job: Job
) -> Iterator[tuple[Job, Callable[..., TrialOutcome], Callable[[], None]]]:
    """The job of a driver whose trainings Ray does, what has one done, and what raises if the head is gone.

    Raises:
        OdtrainError: Ray or a machine is not as the trainings need it.
    """
    data = {"data.images": config.data.images, "data.annotations": config.data.annotations}
    with joined(config.cluster) as engine:
        nodes = engine.nodes()
        shares = engine.shares(nodes)
        usable = [node for node in nodes if node.room(shares.cpus, shares.gpus)]
        timing = _timing(config, nodes)
        _check_store(config, usable)
        look_at(engine, [*usable, *timing], data)
        _check_data(engine, usable, config.data)
        hosts = {node.host for node in (timing or usable)}
        job = replace(
            job,
            at_once=shares.workers,
            threads=shares.cpus,
            timed_on=hosts.pop() if len(hosts) == 1 else "",
        )
        where = f", timed on {job.timed_on}" if timing else ""
        logger.info(f"Ray: {shares.workers} trainings at once, {shares.cores} each{where}.")
        variables = {"MLFLOW_TRACKING_URI": job.uri} if job.uri else {}
        if timing:
            variables |= environment_of_timing(str(config.cluster.timing))

        def train(job: Job, request: Request, heard: Callable[[str], None]) -> TrialOutcome:
            given = (str(Path.cwd()), job, request, variables)
            return _there(engine, shares, given, heard, job.timed_on)

        yield job, train, engine.check


def _timing(config: Config, nodes: list[Node]) -> list[Node]:
    """The machine that is kept for timing; none where none is asked for."""
    name = config.cluster.timing
    if name is None:
        return []
    kept = [node for node in nodes if node.resources.get(name)]
    if len(kept) == 1 and not kept[0].holds("CPU"):
        return kept
    having = (
        f"{len(kept)} machines have" if len(kept) != 1 else f"{kept[0].name} trains too and has"
    )
    raise ConfigError(
        f"cluster.timing={name}",
        f"{having} that resource; one that does nothing else shall.",
        f"ray start --num-cpus=0 --resources='{{\"{name}\": 1}}' there, and there alone.",
    )


def _check_store(config: Config, usable: list[Node]) -> None:
    uri = tracking_uri(config.tracking)
    elsewhere = [node for node in usable if not node.here]
    if elsewhere and uri.startswith("sqlite"):
        raise ConfigError(
            f"tracking.uri={uri}",
            f"is a file of this machine, and {elsewhere[0].name} trains too.",
            "Give the address of a server: tracking.uri=http://HOST:5000 (docs/team.md).",
        )


def _check_data(engine: Engine, usable: list[Node], data: DataConfig) -> None:
    """That all machines have the same pictures and labels; they prepare them now."""
    mine = prepare(data).digest
    others = [node for node in usable if not node.here]
    for node, digest in each_machine(engine, others, _digest_of, (str(Path.cwd()), data)):
        if digest != mine:
            raise ConfigError(
                f"{engine.where}: {node.name}",
                f"has other data in {data.images}: their digest is {digest[:8]}, here {mine[:8]}.",
                "Have the same pictures and labels on all machines.",
            )


def _there(
    engine: Engine, shares: Shares, given: tuple[Any, ...], heard: Callable[[str], None], timed: str
) -> TrialOutcome:
    outcome: TrialOutcome = done_there(engine, _train, given, lambda: heard(""), **shares.resources)
    return replace(outcome, host=timed) if timed else outcome


# ---- on each machine


def _digest_of(folder: str, data: DataConfig) -> str:
    os.chdir(folder)
    return prepare(data).digest


def _train(folder: str, job: Job, request: Request, variables: dict[str, str]) -> TrialOutcome:
    os.chdir(folder)
    os.environ.update(variables)
    machine = str(machine_folder())
    program = [sys.executable, *job.program[1:]]
    own = replace(request, machine=machine, process=os.getpid())
    outcome = train_in_process(replace(job, program=program), own)
    return replace(outcome, host=socket.gethostname())
