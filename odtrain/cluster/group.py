"""Processes of one command on several machines, which find each other by TF_CONFIG.

Each is begun by an actor on its machine: a process of its own hears signals, and needs no thread of Ray's.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from odtrain.cluster.engine import Engine, Shares
from odtrain.cluster.followed import BEGUN_BY
from odtrain.errors import TrainingError, first_line
from odtrain.system.progress import doing

LOOK_SECONDS = 0.5
LAST_LINES = 3
"""Of what a process said, that are kept for when it fails."""
LOST = None
"""Status of a process whose machine is gone."""
PARTING_SECONDS = 45
"""How long the others have to end by themselves after one has failed: they notice within half a minute."""


@dataclass
class Member:
    """A process of the group.

    Attributes:
        actor: that begins it.
        node: id of its machine.
        ended: whether it has.
        status: with which it ended; `LOST` if nobody knows.
        last: of what it said.
    """

    actor: Any
    node: str
    address: str
    ended: bool = False
    status: int | None = LOST
    last: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ended:
    """How a group ended.

    Attributes:
        statuses: by rank; `LOST` of those whose machine is gone.
        said: by rank, the last lines.
        printed: by rank 0 on its standard output.
    """

    statuses: Sequence[int | None]
    said: Sequence[Sequence[str]]
    printed: str

    @property
    def lost(self) -> bool:
        """Whether a machine or a process was lost, rather than failed."""
        return any(status is LOST or status < 0 for status in self.statuses)


def run_group(
    engine: Engine,
    shares: Shares,
    words: Sequence[str],
    heard: Callable[[int, str], None],
) -> Ended:
    """Run an odtrain command in a group of processes, one a share, until all have ended.

    Args:
        engine: joined.
        shares: how many processes, and what each may use.
        words: the command, as `odtrain` takes it.
        heard: is told the rank and each line of standard error.

    Raises:
        TrainingError: the head is gone.
        KeyboardInterrupt, SystemExit: a signal to this process; the group has ended behind a checkpoint.
    """
    with _gathered(engine, shares) as members:
        printed = _Printed()
        events: queue.Queue[tuple[int, str | int | None]] = queue.Queue()
        addresses = [one.address for one in members]
        for rank, member in enumerate(members):
            variables = _variables(addresses, rank, shares)
            streaming = member.actor.run.options(num_returns="streaming")
            said = streaming.remote(str(Path.cwd()), list(words), variables)
            listens = (rank, said, events, printed)
            threading.Thread(target=_listen, args=listens, daemon=True).start()
        try:
            _follow(engine, members, events, heard)
        except (KeyboardInterrupt, SystemExit):
            _stop(members)
            with suppress(TrainingError):
                _follow(engine, members, events, heard)
            raise
        return Ended([one.status for one in members], [one.last for one in members], printed.text)


class _Printed:
    """What rank 0 printed."""

    text = ""


def _variables(addresses: Sequence[str], rank: int, shares: Shares) -> dict[str, str]:
    """What a process finds in its environment: the others, the store, and how many cores are its own."""
    own = {key: value for key, value in os.environ.items() if key.startswith("MLFLOW_")}
    if rank:
        own.pop("MLFLOW_RUN_ID", None)
    cores = {
        name: str(shares.cpus)
        for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    }
    if len(addresses) == 1:
        return {**own, **cores}
    task = {"type": "worker", "index": rank}
    return {
        **own,
        **cores,
        "TF_CONFIG": json.dumps({"cluster": {"worker": list(addresses)}, "task": task}),
    }


@contextmanager
def _gathered(engine: Engine, shares: Shares) -> Iterator[list[Member]]:
    """One actor a process, that on this machine first; gone afterwards."""
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    each: dict[str, float] = {"CPU": shares.cpus, "GPU": shares.gpus}
    bundles = [dict(each) for _ in range(shares.workers)]
    own = (node for node in engine.nodes() if node.here and node.room(shares.cpus, shares.gpus))
    if first := next(own, None):  # the run is kept where it was asked for
        bundles[0][f"node:{first.address}"] = 0.001
    group = placement_group(bundles, strategy="PACK")
    try:
        with doing("Waiting for the cluster, which others use"):
            while not group.wait(1):
                engine.check()
        begin = ray.remote(max_restarts=0, max_concurrency=2)(_Begins)
        actors = [
            begin.options(
                **shares.resources,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, rank),
            ).remote()
            for rank in range(shares.workers)
        ]
        places = ray.get([actor.place.remote() for actor in actors])
        mine = ray.get_runtime_context().get_node_id()
        members = [
            Member(actor, node, address)
            for actor, (node, address) in zip(actors, places, strict=True)
        ]
        yield sorted(members, key=lambda one: one.node != mine)
    except ray.exceptions.RayError as error:
        engine.check()
        raise TrainingError(
            engine.where,
            f"a machine was lost before the first step: {first_line(error)}",
            "Give the command again.",
        ) from error
    finally:
        if not engine.lost.is_set():
            remove_placement_group(group)


def _listen(rank: int, lines: Any, events: queue.Queue[Any], printed: _Printed) -> None:
    """Hand on what an actor's process says; last its status."""
    status: int | None = LOST
    try:
        import ray

        for reference in lines:
            kind, value = ray.get(reference)
            if kind == "line":
                events.put((rank, value))
            elif kind == "printed" and rank == 0:
                printed.text = value
            elif kind == "status":
                status = value
    except Exception as error:  # of many kinds: its machine or the head is gone
        events.put((rank, f"lost: {first_line(error)}"))
    finally:
        events.put((rank, status))


def _follow(
    engine: Engine,
    members: Sequence[Member],
    events: queue.Queue[tuple[int, str | int | None]],
    heard: Callable[[int, str], None],
) -> None:
    """Until all have ended; those that do not after one has failed are ended."""
    patience = PARTING_SECONDS / LOOK_SECONDS
    while not all(one.ended for one in members):
        engine.check()
        failed = any(one.ended and one.status != 0 for one in members)
        try:
            rank, event = events.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            patience -= failed
            if patience == 0:
                _stop(members, signal.SIGKILL)
            continue
        member = members[rank]
        if isinstance(event, str):
            member.last = [*member.last, event][-LAST_LINES:]
            heard(rank, event)
        else:
            member.ended, member.status = True, event


def _stop(members: Sequence[Member], number: int = signal.SIGTERM) -> None:
    for one in members:
        if not one.ended:
            one.actor.signal.remote(number)


# ---- on each machine


class _Begins:
    """Begins one process, hands on what it says, and ends with it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def place(self) -> tuple[str, str]:
        """Id of the machine, and host:port where the process can listen."""
        import ray

        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        return ray.get_runtime_context().get_node_id(), f"{ray.util.get_node_ip_address()}:{port}"

    def run(
        self, folder: str, words: Sequence[str], variables: Mapping[str, str]
    ) -> Iterator[tuple[str, str | int]]:
        """Lines of its standard error, then what it printed, then its status."""
        inherited = {key: one for key, one in os.environ.items() if not key.startswith("RAY_")}
        environment = {**inherited, **variables, BEGUN_BY: str(os.getpid())}
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as printed:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "odtrain.cluster.followed", *words],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
            )
            assert self._process.stderr is not None
            for line in self._process.stderr:
                yield "line", line.rstrip("\n")
            status = self._process.wait()
            printed.seek(0)
            yield "printed", printed.read()
            yield "status", status

    def signal(self, number: int) -> None:
        """Send the process a signal."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
