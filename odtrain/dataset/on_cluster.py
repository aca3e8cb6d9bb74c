"""A data set prepared by the machines of a Ray, which share a disk or a store; its files are as of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from odtrain.addresses import is_in_store
from odtrain.cluster.engine import joined, look_at
from odtrain.cluster.tasks import RayWorkers
from odtrain.config.schema import ClusterConfig, DataConfig
from odtrain.system.workers import Workers


@contextmanager
def ray_workers(cluster: ClusterConfig, data: DataConfig) -> Iterator[Workers]:
    """Processes of Ray's that look into pictures and write records.

    Raises:
        OdtrainError: Ray or a machine is not as it is needed, or does not share the folders.
    """
    prepared = Path.cwd() / "prepared" if is_in_store(data.prepared) else Path(data.prepared)
    prepared.parent.mkdir(parents=True, exist_ok=True)
    seen = prepared.parent / f".{prepared.name}-{os.getpid()}"  # there if the disk is shared
    with joined(cluster) as engine:
        nodes = engine.nodes()
        shares = engine.shares(nodes, cpus=1)
        seen.touch()
        try:
            paths = {"data.images": data.images, "data.annotations": data.annotations}
            usable = [node for node in nodes if node.holds("CPU")]
            shared = {} if is_in_store(data.prepared) else {"data.prepared": str(seen)}
            look_at(engine, usable, {**paths, **shared})
        finally:
            seen.unlink()
        with RayWorkers(engine, shares) as workers:
            yield workers
