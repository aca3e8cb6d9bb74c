"""The Ray that does a command's work: joined, or begun here, and its machines looked at."""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from odtrain import __version__
from odtrain.cluster.keeper import QUIET, kept
from odtrain.cluster.probe import join
from odtrain.config.schema import ClusterConfig
from odtrain.errors import ConfigError, TrainingError, first_line
from odtrain.system.progress import doing
from odtrain.system.workers import cores, search_path
from odtrain_runtime.plain import plain

logger = logging.getLogger(__name__)

PULSE_SECONDS = 2.0
"""Between looks at whether the head still answers."""
MOST_SILENT = 3
"""Looks without an answer before the head counts as gone."""
INSTALL = "pip install '.[ray]'"


@dataclass(frozen=True)
class Node:
    """A machine of the cluster.

    Attributes:
        id: Ray's.
        name: host and address.
        host: its name.
        address: without a port.
        resources: in all, by Ray's names.
        here: whether it is the machine of this process.
    """

    id: str
    name: str
    host: str
    address: str
    resources: Mapping[str, float]
    here: bool

    def holds(self, resource: str) -> int:
        """Whole units of a resource."""
        return int(self.resources.get(resource, 0))

    def room(self, cpus: int, gpus: int) -> int:
        """How many workers of that size it has room for."""
        by_gpus = self.holds("GPU") // gpus if gpus else self.holds("CPU")
        return min(self.holds("CPU") // cpus, by_gpus)

    @property
    def alone(self) -> dict[str, Any]:
        """As Ray's options take it: once, here and nowhere else, beside what is at work."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        strategy = NodeAffinitySchedulingStrategy(self.id, soft=False)
        return {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": strategy}


@dataclass(frozen=True)
class Shares:
    """How the work is divided: so many workers, each with so many cores and GPUs."""

    workers: int
    cpus: int
    gpus: int

    @property
    def cores(self) -> str:
        """Of each, in words."""
        return f"{self.cpus} core{'s' * (self.cpus > 1)}"

    @property
    def resources(self) -> dict[str, float]:
        """As Ray's options take them."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus}


@dataclass(eq=False)
class Engine:
    """A Ray that this process has joined.

    Attributes:
        settings: `cluster`.
        where: the address, as errors name it.
        remedy: what to do when the head is gone.
        lost: is set when the head does not answer any more.
    """

    settings: ClusterConfig
    where: str
    remedy: str = "What is finished is kept. Start Ray again and give the same command to go on."
    lost: threading.Event = field(default_factory=threading.Event)

    def nodes(self) -> list[Node]:
        """The machines that are there now, this one first."""
        import ray

        mine = ray.get_runtime_context().get_node_id()
        alive = [one for one in ray.nodes() if one["Alive"]]
        nodes = [
            Node(
                one["NodeID"],
                f"{one['NodeManagerHostname']} ({one['NodeManagerAddress']})",
                one["NodeManagerHostname"],
                one["NodeManagerAddress"],
                one["Resources"],
                one["NodeManagerHostname"] == socket.gethostname(),
            )
            for one in alive
        ]
        return sorted(nodes, key=lambda node: (node.id != mine, not node.here, node.id))

    def check(self) -> None:
        """Raise a TrainingError if the head is gone."""
        if self.lost.is_set():
            raise TrainingError(self.where, "its head does not answer any more.", self.remedy)

    def shares(self, nodes: Sequence[Node], cpus: int | None = None) -> Shares:
        """How the work is divided among machines.

        Args:
            nodes: that may work.
            cpus: of each worker where nobody asks for another number; None: the cores are divided.

        Raises:
            ConfigError: there is no room for so many.
        """
        asked, gpus = self.settings, self.settings.gpus_per_worker
        cpus = asked.cpus_per_worker or cpus or _even_share(nodes, asked.workers, gpus)
        room = sum(node.room(cpus, gpus) for node in nodes)
        if room < (asked.workers or 1):
            each = f"{cpus} core{'s' * (cpus > 1)}"
            each += f" and {gpus} GPU{'s' * (gpus > 1)}" if gpus else ""
            raise ConfigError(
                f"cluster.workers={asked.workers or 'null'}",
                f"each takes {each}, and {self.where} has room for {room}.",
                "Ask for less, or have more machines join it.",
            )
        return Shares(asked.workers or room, cpus, gpus)

    def fewer(self, before: Shares, whole: int) -> Shares:
        """Shares as large as before, of the machines that are left; so many that they divide `whole`.

        Raises:
            TrainingError: there is no room for one.
        """
        room = sum(node.room(before.cpus, before.gpus) for node in self.nodes())
        fitting = (n for n in range(min(before.workers, room), 0, -1) if whole % n == 0)
        if (workers := next(fitting, 0)) == 0:
            raise TrainingError(
                self.where,
                "no machine is left that has room for a worker.",
                "What is finished is kept. Give the same command when more have joined.",
            )
        return replace(before, workers=workers)


def _even_share(nodes: Sequence[Node], workers: int | None, gpus: int) -> int:
    """The most cores that each of so many workers can have; without a number, those of the least machine."""
    with_cores = [node for node in nodes if node.holds("CPU")]
    largest = max((node.holds("CPU") for node in with_cores), default=1)
    if workers is None:
        sizes = (
            node.holds("CPU") // max(1, node.holds("GPU") // gpus) if gpus else node.holds("CPU")
            for node in with_cores
            if not gpus or node.holds("GPU") >= gpus
        )
        return max(1, min(sizes, default=1))
    sizes = (n for n in range(largest, 0, -1) if sum(one.room(n, gpus) for one in nodes) >= workers)
    return next(sizes, 1)


def without_cluster(overrides: Sequence[str]) -> list[str]:
    """Overrides for the processes that do the work: each is on one machine."""
    own = ("cluster=", "cluster.")
    return [text for text in overrides if not text.lstrip("+~").startswith(own)]


# ---- joining


def check_installed(where: str) -> None:
    """Raise a ConfigError, of what needs it, if Ray is not there."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(where, "Ray is not installed.", f"Install it: {INSTALL}")


@contextmanager
def joined(settings: ClusterConfig) -> Iterator[Engine]:
    """The Ray at `cluster.address`, or one of this machine's own, which is gone afterwards.

    Raises:
        ConfigError: Ray is not installed, or nothing that can be joined is at the address.
        TrainingError: it cannot begin here.
    """
    check_installed("cluster=ray")
    os.environ.update(QUIET)
    with ExitStack() as stack:
        if settings.address is None:
            # Ray keeps strangers out by a token, which is for this one alone.
            os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(16))
            with doing("Starting Ray"):
                address = stack.enter_context(kept(cores(), _gpus(settings)))
            where = "this machine"
        else:
            address, where = _found(settings), f"cluster.address={settings.address}"
        yield stack.enter_context(_connected(settings, address, where))


def _gpus(settings: ClusterConfig) -> int:
    """Of this machine; looked for where they are asked for."""
    if not settings.gpus_per_worker:
        return 0
    return len([one for one in Path("/dev").glob("nvidia[0-9]*") if one.name[6:].isdigit()])


def _found(settings: ClusterConfig) -> str:
    """`cluster.address`, where a Ray can be joined; asked by a process of its own, as Ray waits for minutes."""
    where, address = f"cluster.address={settings.address}", str(settings.address)
    host, _, port = address.rpartition(":")
    if address != "auto" and ("/" in address or not host or not port.isdigit()):
        raise ConfigError(
            where, "is no host:port.", "Give that of the head, such as head:6379, or auto."
        )
    command = [sys.executable, "-m", "odtrain.cluster.probe", address]
    try:
        with doing("Looking for Ray"):
            found = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, search_path()))},
                timeout=settings.patience,
                encoding="utf-8",
                errors="replace",
                check=False,
            )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            where,
            f"no Ray that can be joined answers there within {settings.patience:g} seconds.",
            "Give host:port of the head as ray start printed it; with RAY_AUTH_MODE=token, its token too.",
        ) from error
    if found.returncode:
        raise _refused(where, found.stderr)
    return address


@contextmanager
def _connected(settings: ClusterConfig, address: str, where: str) -> Iterator[Engine]:
    import ray

    with doing("Joining Ray"):
        join(address)
    engine, ended = Engine(settings, where), threading.Event()
    head = ray.get_runtime_context().gcs_address
    pulse = threading.Thread(target=_watch, args=(engine, head, ended), daemon=True)
    pulse.start()
    try:
        with redirect_stdout(_RaysWords()):
            yield engine
    finally:
        ended.set()
        if not engine.lost.is_set():  # else it waits for the head
            ray.shutdown()


class _RaysWords(io.TextIOBase):
    """What Ray prints about machines, for who looks for a fault."""

    def write(self, text: str) -> int:
        """Say it at the level of a fault's traces."""
        if text.strip():
            logger.debug(plain(text.strip()))
        return len(text)


def _refused(where: str, said: str) -> ConfigError:
    last = plain(([line for line in said.splitlines() if line.strip()] or ["no message"])[-1])
    if "ersion mismatch" in last:
        return ConfigError(where, last, "Install the same Ray and Python on all machines.")
    remedy = "This machine must be a node of it: ray start --address=HEAD:6379. odtrain submit needs none."
    return ConfigError(where, f"cannot be joined: {last}", remedy)


def _watch(engine: Engine, address: str, ended: threading.Event) -> None:
    host, _, port = address.rpartition(":")
    silent = 0
    while not ended.wait(PULSE_SECONDS):
        try:
            with socket.create_connection((host, int(port)), timeout=PULSE_SECONDS):
                silent = 0
        except OSError:
            silent += 1
        if silent >= MOST_SILENT:
            engine.lost.set()
            return


# ---- before anything is begun


@doing("Looking at the machines")
def look_at(engine: Engine, nodes: Sequence[Node], paths: Mapping[str, str | None]) -> None:
    """See that each machine can do the work.

    Args:
        engine: joined.
        nodes: that are to work.
        paths: setting -> file or folder that is here, and must be there too; None where it is not set.

    Raises:
        ConfigError: one does not answer, has another version, or no such folder.
    """
    import ray

    needed = {"the folder of this command": str(Path.cwd())}
    needed |= {f"{key}={path}": path for key, path in paths.items() if path and Path(path).exists()}

    def look(folder: str, needed: dict[str, str]) -> dict[str, Any]:
        # Travels by value: odtrain may not be there.
        from pathlib import Path

        try:
            from odtrain import __version__ as version
        except ImportError:
            version = ""
        here = [key for key, path in needed.items() if not Path(folder, path).exists()]
        return {"version": version, "missing": here}

    asked = []
    for node in nodes:
        task = ray.remote(look).options(**node.alone)
        asked.append((node, task.remote(str(Path.cwd()), needed)))
    until = time.monotonic() + max(engine.settings.patience, 2 * len(nodes))
    for node, answer in asked:
        _judge(engine, node, answer, until)


def _judge(engine: Engine, node: Node, answer: Any, until: float) -> None:
    import ray

    where = f"{engine.where}: {node.name}"
    try:
        found = ray.get(answer, timeout=max(0.1, until - time.monotonic()))
    except ray.exceptions.RayError as error:
        engine.check()
        problem = f"does not answer: {first_line(error)}."
        remedy = "ray status says which machines are there; cluster.patience waits longer."
        raise ConfigError(where, problem, remedy) from error
    if not found["version"]:
        raise ConfigError(where, "has no odtrain.", f"Install the same version there: {INSTALL}")
    if found["version"] != __version__:
        problem = f"has odtrain {found['version']}, this machine {__version__}."
        raise ConfigError(where, problem, "Install the same version on all machines.")
    if missing := found["missing"]:
        remedy = "Give the command on a disk that all machines share, or put the same there."
        raise ConfigError(where, f"does not have {missing[0]}.", remedy)
