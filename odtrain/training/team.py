"""The devices that train together, seen from one of their processes: tf.distribute's strategies.

Several devices of one process are mirrored. Several processes are workers, told of each other by TF_CONFIG (Ray
Train, Kubernetes and Vertex set it) or by Slurm's variables; worker 0 is their chief. `join` comes before
anything else that touches TensorFlow: the devices cannot be changed any more then.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from odtrain.errors import ConfigError, OdtrainError, TrainingError, first_line
from odtrain.structures import FloatArray

logger = logging.getLogger(__name__)

TF_CONFIG = "TF_CONFIG"
ENDED = "ended"
"""What the chief says in place of what the others wait for, with the reason."""
LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
    tf.errors.UnknownError,
)
"""What TensorFlow raises in the workers that are left when one is gone."""
HEARTBEAT_SECONDS = 10
"""A worker that is silent for so long counts as lost."""
LEAVING_SECONDS = 60
"""How long workers wait for each other where they part."""
LEAVES, DONE = "odtrain/leaves", "odtrain/done"
"""What they note on the board that the chief keeps: who is ready to part, and that all are."""
FIRST_PORT, LAST_PORT, PORTS_A_JOB = 10_000, 32_000, 32
"""Of Slurm's workers: below those that Linux gives to who asks for any, which begin at 32768."""
JOINING_SECONDS = 600
"""How long the workers that are there wait for the others."""


class DisagreementError(ConfigError):
    """Workers were given different things; each of them raises this."""


@dataclass(frozen=True, eq=False)
class Team:
    """One process's place among all replicas, the devices of which each computes its share of a batch.

    Attributes:
        strategy: tf.distribute's; None for one device, where nothing is shared.
        here: replicas of this process.
        workers: processes.
        rank: of this process; 0 is the chief, who alone owns run, checkpoints and registry.
    """

    strategy: tf.distribute.Strategy | None = None
    here: int = 1
    workers: int = 1
    rank: int = 0

    @property
    def chief(self) -> bool:
        """Whether this process owns the run."""
        return self.rank == 0

    @property
    def total(self) -> int:
        """Replicas of all processes."""
        return self.here * self.workers

    @property
    def first(self) -> int:
        """Number of this process's first replica."""
        return self.here * self.rank

    @property
    def name(self) -> str:
        """This worker, as the others are told of it."""
        return f"worker {self.rank} of {self.workers} ({socket.gethostname()})"

    def pictures(self, batch_size: int, passes: int = 1) -> int:
        """How many of a batch each replica computes, in so many passes.

        Raises:
            ConfigError: the batch cannot be shared out evenly.
        """
        parts = self.total * passes
        each, left = divmod(batch_size, parts)
        if left:
            lower, upper = each * parts, (each + 1) * parts
            among = f"{self.total} devices" + (f" of {passes} passes" if passes > 1 else "")
            raise ConfigError(
                f"train.batch_size={batch_size}",
                f"cannot be shared out evenly among {among}.",
                f"Give {upper}{f' or {lower}' if lower else ''}.",
            )
        return each * passes

    def scope(self) -> AbstractContextManager[object]:
        """Variables made inside are the same in all replicas."""
        return nullcontext() if self.strategy is None else self.strategy.scope()

    def distribute(self, batches: Callable[[], tf.data.Dataset]) -> Any:
        """This process's shares of the batches, handed to its replicas in turn."""
        if self.strategy is None:
            return batches()
        return self.strategy.distribute_datasets_from_function(lambda context: batches())

    def rows(self, values: FloatArray) -> FloatArray:
        """The (n, C) float32 rows of all workers, in the order of their ranks; n may differ."""
        if self.workers == 1:
            return values
        gathered = np.concatenate(self._of_all(values.ravel()))
        return gathered.reshape(-1, values.shape[1])

    def said(self, text: str) -> list[str]:
        """What each worker says, by rank. It is also the heartbeat: who is gone is noticed here.

        Raises:
            tf.errors.OpError: one of `LOST`, where a worker is gone.
        """
        if self.workers == 1:
            return [text]
        codes = np.frombuffer(text.encode(), np.uint8).astype(np.int32)
        return [part.astype(np.uint8).tobytes().decode() for part in self._of_all(codes)]

    def hear(self, word: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What the chief says; `word` is what this one says, if it is the chief.

        Raises:
            TrainingError: the chief has ended before the first step.
        """
        said: dict[str, Any] = json.loads(self.said(json.dumps(word or {}))[0])
        if why := said.get(ENDED):
            self.leave()
        if why and not self.chief:
            problem = f"worker 0 ended before the first step: {why}"
            raise TrainingError(self.name, problem, "Put that right, and start all workers again.")
        return said

    @contextmanager
    def telling(self) -> Iterator[None]:
        """What ends the chief inside ends the others too, with its words, when they next `hear`."""
        try:
            yield
        except OdtrainError as error:
            if self.chief and self.workers > 1 and not isinstance(error, DisagreementError):
                self.hear({ENDED: str(error)})
            raise

    def take_over(self, variables: Iterable[tf.Variable]) -> None:
        """Give the variables of every worker the chief's values; no shared disk is needed."""
        if self.workers == 1:
            return
        for variable in variables:
            value = variable.numpy()
            # The sum of one value and zeros is that value, to the bit.
            flat = (value if self.chief else np.zeros_like(value)).ravel()
            variable.assign(self._sum(flat).reshape(value.shape))

    def _of_all(self, values: NDArray[Any]) -> list[NDArray[Any]]:
        """The (n,) values of each worker, by rank; n may differ."""
        lengths = np.zeros(self.workers, np.int32)
        lengths[self.rank] = len(values)
        ends = np.cumsum(self._sum(lengths))
        everything = np.zeros(ends[-1], values.dtype)
        everything[ends[self.rank] - len(values) : ends[self.rank]] = values
        return np.split(self._sum(everything), ends[:-1])

    def _sum(self, values: NDArray[Any]) -> NDArray[Any]:
        """The sum of the (n,) values of all workers, n being the same for all."""
        if not len(values):
            return values
        total: NDArray[Any] = self._add(tf.constant(values)).numpy()
        return total

    @cached_property
    def _add(self) -> Any:
        strategy = self.strategy
        assert strategy is not None

        def add(values: tf.Tensor) -> tf.Tensor:
            def of_replica() -> tf.Tensor:
                context = tf.distribute.get_replica_context()
                mine = tf.equal(context.replica_id_in_sync_group, self.first)
                share = tf.where(mine, values, tf.zeros_like(values))
                return context.all_reduce(tf.distribute.ReduceOp.SUM, share)

            return strategy.experimental_local_results(strategy.run(of_replica))[0]

        return tf.function(add, autograph=False, reduce_retracing=True)

    def leave(self) -> None:
        """End what is done together: none goes before all have heard what was said last.

        What a worker says is fetched from it by the others, so that it cannot end as soon as it has said it.
        """
        if self.workers == 1:
            return
        from tensorflow.python.eager import context

        board, patience = context.context(), 1000 * LEAVING_SECONDS
        with suppress(tf.errors.OpError):  # another has ended meanwhile
            board.set_config_key_value(f"{LEAVES}/{self.rank}", "")
            for rank in range(self.workers) if self.chief else ():
                board.get_config_key_value(f"{LEAVES}/{rank}", patience)
            if self.chief:
                board.set_config_key_value(DONE, "")
            board.get_config_key_value(DONE, patience)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Inside, a worker that is lost ends this one with a message.

        Raises:
            TrainingError: a worker is gone, or does not answer.
        """
        try:
            yield
        except LOST as error:
            if self.workers == 1:
                raise
            logger.debug(str(error))
            raise TrainingError(
                self.name,
                "lost another worker.",
                "The last checkpoint is kept. Give every worker the same command with train.resume=auto: any "
                "number of workers goes on from it.",
            ) from error


ALONE = Team()


# ---- joining


def join(devices: str | int, environment: Mapping[str, str] = os.environ) -> Team:
    """Take this process's place among those that train.

    Args:
        devices: of this process: `auto` for all GPUs, else one CPU; or how many.
        environment: that says which processes take part.

    Raises:
        ConfigError: what the environment says cannot be read, or there are fewer devices.
        TrainingError: the others are not there.
    """
    cluster = _cluster(environment)
    gpus = tf.config.list_physical_devices("GPU")
    names = _devices(devices, gpus)
    if cluster is None or cluster.workers == 1:
        strategy = tf.distribute.MirroredStrategy(names) if len(names) > 1 else None
        return Team(strategy, len(names))
    if len(names) > 1 and not gpus:
        problem = "divides this process's CPU, which several workers do already."
        raise ConfigError(f"train.devices={devices}", problem, "Leave it out.")
    return _joined(cluster)


def _devices(wanted: str | int, gpus: list[Any]) -> list[str]:
    """Names of this process's devices."""
    if gpus:
        count = len(gpus) if wanted == "auto" else int(wanted)
        if count > len(gpus):
            there = f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''}"
            raise ConfigError(
                f"train.devices={wanted}", f"here are {there}.", f"Give {len(gpus)} or less."
            )
        _before_start(lambda: _choose_gpus(gpus, count), "GPU", count)
        return [f"GPU:{number}" for number in range(count)]
    count = 1 if wanted == "auto" else int(wanted)
    if count > 1:
        _before_start(lambda: _divide_cpu(count), "CPU", count)
    return [f"CPU:{number}" for number in range(count)]


def _choose_gpus(gpus: list[Any], count: int) -> None:
    """Take the first so many, and of their memory what is needed: TensorFlow would take all of it."""
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    tf.config.set_visible_devices(gpus[:count], "GPU")


def _divide_cpu(count: int) -> None:
    (cpu,) = tf.config.list_physical_devices("CPU")
    parts = [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
    tf.config.set_logical_device_configuration(cpu, parts)


def _before_start(configure: Callable[[], None], kind: str, count: int) -> None:
    """Configure devices; where TensorFlow is at work already, it must have just these.

    Raises:
        ConfigError: it has others.
    """
    try:
        configure()
    except RuntimeError as error:
        if len(tf.config.list_logical_devices(kind)) != count:
            problem = "TensorFlow is at work in this process with other devices."
            raise ConfigError(
                f"train.devices={count}", problem, "Train in a new process."
            ) from error


@dataclass(frozen=True)
class _Cluster:
    """Who takes part, as TF_CONFIG says it."""

    spec: dict[str, list[str]]
    job: str
    index: int
    where: str

    @property
    def workers(self) -> int:
        return sum(map(len, self.spec.values()))

    @property
    def leader(self) -> str:
        job = "chief" if "chief" in self.spec else "worker"
        return f"/job:{job}/replica:0/task:0"


def _cluster(environment: Mapping[str, str]) -> _Cluster | None:
    if text := environment.get(TF_CONFIG):
        return _of_tf_config(text)
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return _of_slurm(environment)
    return None


def _of_tf_config(text: str) -> _Cluster | None:
    """As https://www.tensorflow.org/guide/distributed_training describes it."""
    example = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
    try:
        said = json.loads(text)
        if "cluster" not in said:  # one process, as some launchers say it
            return None
        spec = {str(job): [str(one) for one in tasks] for job, tasks in said["cluster"].items()}
        job, index = str(said["task"]["type"]), int(said["task"]["index"])
        there = index in range(len(spec[job]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"cannot be read: {type(error).__name__}: {first_line(error)}."
        raise ConfigError(TF_CONFIG, problem, f"Set it to JSON such as {example}.") from error
    if not there or not set(spec) <= {"chief", "worker"}:
        problem = f"has {job} {index} of {', '.join(sorted(spec))}, which is none that trains."
        raise ConfigError(TF_CONFIG, problem, f"Set it to JSON such as {example}.")
    return _Cluster(spec, job, index, TF_CONFIG)


def _of_slurm(environment: Mapping[str, str]) -> _Cluster:
    tasks = int(environment["SLURM_STEP_NUM_TASKS"])
    try:
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=_port_of(int(environment["SLURM_JOB_ID"])),
            gpus_per_node=tasks,
            gpus_per_task=1,
            auto_set_gpu=False,
        )
        spec = resolver.cluster_spec().as_dict()
    except (KeyError, ValueError, RuntimeError, OSError) as error:
        raise ConfigError(
            "Slurm's variables",
            f"do not say who takes part: {first_line(error)}.",
            "Start the workers by srun, or set TF_CONFIG for each.",
        ) from error
    return _Cluster(spec, resolver.task_type, resolver.task_id, "srun")


def _port_of(job: int) -> int:
    """From where on the workers of a job listen on each node: jobs that share a node do not meet."""
    return FIRST_PORT + PORTS_A_JOB * (job % ((LAST_PORT - FIRST_PORT) // PORTS_A_JOB))


def _joined(cluster: _Cluster) -> Team:
    from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
    from tensorflow.python.eager import context

    _check_port(cluster)
    logger.info(f"Waiting for {cluster.workers} workers, as {cluster.where} says.")
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader=cluster.leader,
        cluster_register_timeout_in_ms=1000 * JOINING_SECONDS,
        heartbeat_timeout_in_ms=1000 * HEARTBEAT_SECONDS,
        coordinated_jobs=[
            coordination_config_pb2.CoordinatedJob(name=job, num_tasks=len(tasks))
            for job, tasks in cluster.spec.items()
        ],
    )
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(cluster.spec),
        task_type=cluster.job,
        task_id=cluster.index,
        rpc_layer="grpc",
    )
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except (tf.errors.OpError, RuntimeError) as error:
        raise TrainingError(
            cluster.where,
            f"{cluster.workers} workers did not come together: {first_line(error)}",
            "Start all of them, and see that each reaches the addresses of the others.",
        ) from error
    chiefs = len(cluster.spec.get("chief", ()))
    rank = cluster.index + (chiefs if cluster.job == "worker" else 0)
    here = strategy.num_replicas_in_sync // cluster.workers
    return Team(strategy, here, cluster.workers, rank)


def _check_port(cluster: _Cluster) -> None:
    """TensorFlow would end the process without a word that people understand."""
    address = cluster.spec[cluster.job][cluster.index]
    port = address.rpartition(":")[2]
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", int(port)))
        except (OSError, ValueError, OverflowError) as error:
            raise ConfigError(
                f"{cluster.where}: {address}",
                f"this worker cannot listen there: {first_line(error)}.",
                "End what uses the port, or give another one.",
            ) from error
