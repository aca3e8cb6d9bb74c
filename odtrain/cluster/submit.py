"""Commands as jobs of a Ray that runs elsewhere: sent with their configuration, followed, called off."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from odtrain.cluster.engine import check_installed
from odtrain.cluster.keeper import QUIET
from odtrain.config.schema import Config
from odtrain.errors import ConfigError, TrainingError, first_line
from odtrain.secrets import masked

logger = logging.getLogger(__name__)

RUN = "Run "
"""How the line begins that says which run has begun."""
OWN = ("cluster.jobs=", "cluster.folder=")
"""Settings that say where a command is sent, and are not for it."""
CONFIGS = "conf"
"""Folder of the user's own configs, in what is sent."""
STOP_SECONDS = "60"
"""How long a job that is called off has to keep a checkpoint."""
LOOK_SECONDS = 1.0


def submit(
    config: Config, command: str, overrides: Sequence[str], config_dir: str | None, follows: bool
) -> int:
    """Send a command to the cluster; say its run and where its log is.

    Args:
        config: composed here, so that what is wrong with it is told before anything is sent.
        command: as `odtrain` takes it.
        overrides: of the command.
        config_dir: folder of the user's own configs, which is sent along.
        follows: whether to stay until it ends.

    Returns:
        The exit status: of the command, where it was followed.

    Raises:
        ConfigError: nothing that takes jobs answers at the address, or the run would be lost with the job.
    """
    _check_place(config)
    with _told(config) as client, tempfile.TemporaryDirectory() as folder:
        if config_dir:
            shutil.copytree(config_dir, Path(folder, CONFIGS))
        line = _entrypoint(config, command, overrides, bool(config_dir))
        Path(folder, "command.txt").write_text(f"{masked(line)}\n", encoding="utf-8")
        name = client.submit_job(
            entrypoint=line,
            runtime_env={"working_dir": folder, "env_vars": _variables()},
        )
        logger.info(f"Job {name}: {client.get_address()}/#/jobs/{name}")
        logger.info(f"  its log: {client.get_address()}/api/jobs/{name}/logs")
        logger.info(f"  odtrain submit follow {name} | odtrain submit stop {name}")
        return _listen(client, name, until_run=not follows)


def follow(config: Config, name: str) -> int:
    """Say what a job says until it ends; its exit status."""
    with _told(config) as client:
        _known(client, name)
        return _listen(client, name)


def stop(config: Config, name: str) -> str:
    """Call a job off; it has a minute to keep a checkpoint."""
    with _told(config) as client:
        _known(client, name)
        client.stop_job(name)
        while not client.get_job_status(name).is_terminal():
            time.sleep(LOOK_SECONDS)
        return f"Job {name}: {client.get_job_status(name).value.lower()}."


def _check_place(config: Config) -> None:
    """What a job writes without a folder of its own goes with it."""
    uri = config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or ""
    if config.cluster.folder is None and not uri.startswith(("http://", "https://", "postgresql")):
        raise ConfigError(
            "odtrain submit",
            "the run would be kept in a folder of the job, which goes when the cluster does.",
            "Give cluster.folder=DIR, a folder of the cluster, or tracking.uri=http://HOST:5000.",
        )


def _entrypoint(config: Config, command: str, overrides: Sequence[str], own: bool) -> str:
    cluster = config.cluster
    given = [text for text in overrides if not text.lstrip("+~").startswith(OWN)]
    words = ["python", "-m", "odtrain", command, *given]
    if cluster.engine and cluster.address is None:
        words.append("cluster.address=auto")
    line = shlex.join(words)
    if cluster.folder is not None:
        line = f"cd {shlex.quote(cluster.folder)} && {line}"
    if own:
        line = f'ODTRAIN_CONF="$PWD/{CONFIGS}"; {line} --config-dir "$ODTRAIN_CONF"'
    return line


def _variables() -> dict[str, str]:
    own = {key: value for key, value in os.environ.items() if key.startswith("MLFLOW_")}
    return {**own, **QUIET, "RAY_JOB_STOP_WAIT_TIME_S": STOP_SECONDS, "PYTHONUNBUFFERED": "1"}


@contextmanager
def _told(config: Config) -> Iterator[Any]:
    """A client of the cluster; what fails is told with its address."""
    check_installed("odtrain submit")
    from ray.job_submission import JobSubmissionClient

    address = config.cluster.jobs or os.environ.get("RAY_API_SERVER_ADDRESS")
    where = f"cluster.jobs={address}"
    if not address:
        problem = "is not set, and odtrain does not know where to send the job."
        raise ConfigError("cluster.jobs", problem, "Give cluster.jobs=http://HEAD:8265.")
    try:
        client = JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        problem = f"takes no jobs: {first_line(error)}"
        raise ConfigError(
            where, problem, "ray start --head prints it as the dashboard's."
        ) from error
    try:
        yield client
    except (ConnectionError, RuntimeError) as error:
        raise TrainingError(
            where,
            f"does not answer as it should: {first_line(error)}",
            "Is the cluster still there?",
        ) from error


def _known(client: Any, name: str) -> None:
    names = [one.submission_id for one in client.list_jobs() if one.submission_id]
    if name not in names:
        there = f"There are: {', '.join(names)}." if names else "There is none."
        raise ConfigError(f"job {name}", "is not known to the cluster.", there)


def _listen(client: Any, name: str, until_run: bool = False) -> int:
    """Say each line of a job; its exit status once it has ended, 0 where it goes on."""
    goes_on = asyncio.run(_each_line(client, name, lambda line: until_run and line.startswith(RUN)))
    if goes_on:
        return 0
    status = client.get_job_status(name)
    while not status.is_terminal():
        time.sleep(LOOK_SECONDS)
        status = client.get_job_status(name)
    code = client.get_job_info(name).driver_exit_code
    logger.info(f"Job {name}: {status.value.lower()}.")
    return 0 if status.value == "SUCCEEDED" else abs(code or 1)


async def _each_line(client: Any, name: str, enough: Callable[[str], bool]) -> bool:
    rest = ""
    async for part in client.tail_job_logs(name):
        *lines, rest = (rest + part).split("\n")
        for line in lines:
            logger.info(line)
            if enough(line):
                return True
    return False
