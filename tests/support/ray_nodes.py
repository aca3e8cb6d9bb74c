"""Several nodes of one Ray on this machine, each of which can be killed."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress

import psutil

TOKEN = secrets.token_hex(16)
"""Keeps others of this machine out; Ray reads it once a process."""


class Nodes:
    """A head without cores, and nodes with as many as are said."""

    def __init__(self, *cores: int, jobs: bool = False) -> None:
        """`jobs`: whether the head takes jobs."""
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN, RAY_USAGE_STATS_ENABLED="0")
        from ray.cluster_utils import Cluster

        self._before = set(psutil.Process().children(recursive=True))
        self._begun: list[psutil.Process] = []
        head = {"num_cpus": 0, "include_dashboard": jobs, "dashboard_port": 0}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self.add(each) for each in cores]

    @property
    def address(self) -> str:
        """Of the head."""
        return str(self.cluster.address)

    @property
    def jobs(self) -> str:
        """Where the head takes jobs."""
        return f"http://{self.cluster.head_node.webui_url}"

    def add(self, cores: int, **resources: float):
        """One more node."""
        node = self.cluster.add_node(num_cpus=cores, resources=resources, wait=False)
        self._remember()
        return node

    def kill(self, node) -> None:
        """As if its machine were switched off."""
        self._remember()
        self.cluster.remove_node(node, allow_graceful=False)

    def kill_head(self) -> None:
        """Of all its processes."""
        self._remember()
        self.cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)

    def end(self) -> None:
        """End all of it; agents of nodes that were killed stay otherwise."""
        self._remember()
        with suppress(Exception):
            self.cluster.shutdown()
        for one in self._begun:
            with suppress(psutil.Error):
                one.kill()
        psutil.wait_procs(self._begun, timeout=10)

    def _remember(self) -> None:
        for one in set(psutil.Process().children(recursive=True)) - self._before:
            with suppress(psutil.Error):
                if "resource_tracker" not in " ".join(
                    one.cmdline()
                ):  # Python's own, of this process
                    self._begun.append(one)
