"""The runs that odtrain has left on this machine and on the server: found again, resumed, sent."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from odtrain.config.compose import as_dict, flattened, without_newer
from odtrain.config.schema import Config, Runs, TrackingConfig, replaced
from odtrain.errors import TrackingError
from odtrain.io.locks import alone
from odtrain.secrets import HIDDEN, forget, masked, without_secrets
from odtrain.system.progress import doing
from odtrain.tracking.reach import StoreAwayError, cause, hurried
from odtrain.tracking.sender import Delivery, RunRecord
from odtrain.tracking.store import (
    REFUSALS,
    check_answers,
    check_said,
    experiments_of,
    is_made,
    is_outage,
    of_who_asks,
    open_client,
    reaching,
    told,
    tracking_uri,
)

logger = logging.getLogger(__name__)

EVAL_SPLIT = "odtrain.eval_split"
"""Tag: the split that a run was judged by, which `eval/*` and `export/*` are of."""
UNFINISHED = ("RUNNING", "FAILED", "KILLED")

NOT_OF_THE_RESULT = (
    "train.resume",
    "train.max_minutes",
    "train.devices",
    "tracking",
    "predict",
    "sweep",
    "cluster",
    "outputs",
    "source",
    "trust_source",
    "input",
    "labels",
    "output",
)
"""Keys in which a run and its continuation may differ."""


@dataclass(frozen=True)
class RunSummary:
    """What the store knows of a run.

    Attributes:
        run_id: MLflow's id.
        name: of the run.
        status: FINISHED, RUNNING, ...
        started: local time.
        tags: as set; `mlflow.note.content` is the description.
        metrics: name -> (step, value), in the order of the steps; `system/` ones are left out.
    """

    run_id: str
    name: str
    status: str
    started: datetime
    tags: dict[str, str]
    metrics: dict[str, list[tuple[int, float]]]


@doing("Reading the run")
def read_summary(run_id: str, config: TrackingConfig) -> RunSummary:
    """Read a run with the history of its metrics.

    Raises:
        TrackingError: there is no such run, or the store cannot be reached.
    """
    uri = tracking_uri(config)
    with reaching(uri) as client:
        run = existing_run(client, uri, run_id)
        names = [name for name in run.data.metrics if not name.startswith("system/")]
        metrics = {name: _history(client, run_id, name) for name in sorted(names)}
    return RunSummary(
        run_id=run_id,
        name=run.info.run_name or run_id,
        status=run.info.status,
        started=datetime.fromtimestamp(run.info.start_time / 1000),
        tags=dict(run.data.tags),
        metrics=metrics,
    )


@dataclass(frozen=True)
class RunOrigin:
    """Where a run is, and what it is marked with.

    Attributes:
        experiment: its name.
        tags: as set; none while the server is away.
    """

    experiment: str
    tags: dict[str, str]

    @property
    def split(self) -> str:
        """The split that the run was judged by."""
        return self.tags.get(EVAL_SPLIT, "test")


def origin_of(run: str, runs: Runs) -> RunOrigin:
    """Where a run is, by its run id or local id.

    Raises:
        TrackingError: there is no such run.
    """
    uri, folder = tracking_uri(runs.tracking), run_folder(Path(runs.outputs), run)
    known = RunRecord.read(folder) if folder is not None else None
    run_id = known.run_id if known is not None else run
    offline = RunOrigin(known.experiment if known else runs.tracking.experiment, {})
    if run_id is None:
        return offline
    try:
        with reaching(uri) as client:
            found = existing_run(client, uri, run_id)
            experiment = client.get_experiment(found.info.experiment_id).name
    except StoreAwayError:
        return offline
    return RunOrigin(experiment, dict(found.data.tags))


def _history(client: MlflowClient, run_id: str, name: str) -> list[tuple[int, float]]:
    """(step, value), the last value of each step."""
    points = sorted(client.get_metric_history(run_id, name), key=lambda point: point.timestamp)
    return sorted({point.step: point.value for point in points}.items())


def config_digest(config: Config) -> str:
    """Equal for configurations of which one may continue the other's run."""
    values = without_newer(flattened(without_secrets(as_dict(config))))
    result = {key: value for key, value in values.items() if not may_differ(key)}
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()[:16]


def resumable_digests(config: Config) -> list[str]:
    """Of the configurations whose run may be gone on with: `auto` has become one or the other precision."""
    asked = config.train.precision
    precisions = ["fp32", "bf16"] if asked == "auto" else [asked]
    return [config_digest(replaced(config, {"train.precision": one})) for one in precisions]


def may_differ(key: str, groups: Sequence[str] = NOT_OF_THE_RESULT) -> bool:
    """Whether a dotted key is one of these, or lies inside one."""
    return any(key == group or key.startswith(f"{group}.") for group in groups)


def is_begun(config: TrackingConfig, run_id: str | None) -> bool:
    """Whether odtrain has worked on this run; one that `mlflow run` just made is not begun."""
    uri = tracking_uri(config)
    if run_id is None or not is_made(uri):
        return False
    try:
        return "odtrain.stage" in open_client(uri).get_run(run_id).data.tags
    except Exception as problem:
        if is_outage(uri, problem) or isinstance(problem, MlflowException):
            return False
        raise


def find_resumable(
    config: TrackingConfig, outputs: Path, digests: Sequence[str], stage: str = "train"
) -> str | None:
    """The newest unfinished run of the same configuration, on the server or begun here without one.

    Args:
        config: which store and experiment.
        outputs: the folder of all runs' folders.
        digests: of the configuration, as `config_digest` gives them; any of them will do.
        stage: what the run does.

    Returns:
        What `Tracker.start` takes as `resume`; None if there is no such run.

    Raises:
        TrackingError: a process on this machine is working on it, and there is no other.
    """
    uri = tracking_uri(config)
    here = [run for run in run_folders(outputs) if masked(run[1].uri) == masked(uri)]
    unfinished = [
        (folder, record)
        for folder, record in here
        if record.config_digest in digests
        and record.stage == stage
        and record.status in UNFINISHED
        and not (record.run_id and _is_deleted(uri, record.run_id))
    ]
    busy = [record.local_id for folder, record in unfinished if in_use(folder)]
    open_here = [
        (record.started, record.local_id) for _, record in unfinished if record.local_id not in busy
    ]
    known_here = {record.run_id for _, record in here}
    on_server = [
        run for digest in digests for run in _unfinished_on_server(uri, config, digest, stage)
    ]
    candidates = open_here + [run for run in on_server if run[1] not in known_here]
    if busy and not candidates:
        raise at_work(busy[-1])
    return max(candidates)[1] if candidates else None


def _is_deleted(uri: str, run_id: str) -> bool:
    """Whether the server holds the run as deleted; not while it is away, nor where it never was."""
    if not is_made(uri):
        return False
    try:
        return bool(open_client(uri).get_run(run_id).info.lifecycle_stage != "active")
    except Exception as problem:
        if is_outage(uri, problem) or isinstance(problem, MlflowException):
            return False
        raise


def _unfinished_on_server(
    uri: str, config: TrackingConfig, digest: str, stage: str
) -> list[tuple[int, str]]:
    """(start in milliseconds, run id) of each; none while the server is away."""
    if not is_made(uri):
        return []
    same = f"tags.`odtrain.config_digest` = '{digest}' and tags.`odtrain.stage` = '{stage}'"
    try:
        client = open_client(uri)
        experiments = _experiments_to_search(client, config)
        runs = client.search_runs(experiments, same, max_results=1000) if experiments else []
    except Exception as problem:
        if is_outage(uri, problem):
            return []
        raise
    own = os.environ.get("MLFLOW_RUN_ID")
    left = [run.info for run in runs if run.info.status in UNFINISHED and run.info.run_id != own]
    return [(info.start_time, info.run_id) for info in left]


def _experiments_to_search(client: MlflowClient, config: TrackingConfig) -> list[str]:
    """The experiment `mlflow run` works in, else the configured one; and where older versions left runs."""
    if own := os.environ.get("MLFLOW_RUN_ID"):
        works_in = client.get_experiment(client.get_run(own).info.experiment_id)
        config = replace(config, experiment=works_in.name)
    return [str(each.experiment_id) for each in experiments_of(client, config)]


def sync(folder: Path, uri: str | None = None) -> list[str]:
    """Send what runs have left behind.

    Args:
        folder: of a run, of an experiment, or of all.
        uri: the store, where it is no longer at the address that the run knew.

    Returns:
        The ids of the runs that are complete now.

    Raises:
        TrackingError: there is no run, or a store cannot be reached.
    """
    runs = sorted(run_folders(folder), key=lambda run: run[1].started)
    if not runs:
        raise TrackingError(
            folder,
            "holds no run's folder.",
            "Name a folder like outputs or outputs/EXPERIMENT/RUN_ID.",
        )
    complete = []
    for run, record in runs:
        if (run / "spool").exists() and not in_use(run):
            complete.append(_sync_run(run, replace(record, uri=store_of(record, uri))))
    return [run_id for run_id in complete if run_id is not None]


def store_of(record: RunRecord, uri: str | None) -> str:
    """Where a run is to be sent: to the store given now, else to its own, which it keeps without a password.

    Args:
        record: of the run.
        uri: `tracking.uri` of now.

    Raises:
        TrackingError: the password is missing.
    """
    if uri or HIDDEN not in record.uri:
        return uri or record.uri
    around = os.environ.get("MLFLOW_TRACKING_URI", "")
    if masked(around) != record.uri:
        raise TrackingError(
            record.uri,
            "its password is not kept with the run.",
            "Give the address again: export MLFLOW_TRACKING_URI=..., or tracking.uri=...",
        )
    return around


def _sync_run(folder: Path, record: RunRecord) -> str | None:
    """Send what one run has left; its id, or None if there was nothing."""
    with alone(folder / ".lock", busy=at_work(record.local_id)):
        delivery = Delivery(folder, record)
        try:
            if record.status == "RUNNING":  # nobody works on it any more
                delivery.record = replace(record, status="KILLED")
                delivery.spool.append("status", {"status": "KILLED", "end": now()})
            if delivery.spool.empty:
                return None
            with hurried(delivery.record.uri):
                check_answers(delivery.client, delivery.record.uri)
            entries, files = len(delivery.spool.waiting()), len(delivery.spool.files())
            delivery.send()
            delivery.record.save(folder)
        except StoreAwayError as problem:
            where, why, _ = problem.args
            raise TrackingError(
                where, why, f"{folder} keeps everything; try again later."
            ) from None
        except Exception as problem:
            forget(problem)
            kept = f"{folder} keeps everything; try again later."
            why = (f"cannot be reached: {cause(problem)}.", kept)
            about_people = of_who_asks(problem)
            if about_people is not None:
                why = (about_people[0], f"{about_people[1]} {folder} keeps everything till then.")
            raise TrackingError(delivery.record.uri, *why) from problem
        finally:
            delivery.spool.close(discard=delivery.record.status == "FINISHED")
    logger.info(f"{folder}: {entries} entries and {files} files sent to run {delivery.run_id}.")
    return delivery.run_id


def drop_artifacts(config: TrackingConfig, run_id: str, artifacts: Sequence[str]) -> None:
    """Delete artifacts of a run; what is not there any more is left out.

    Raises:
        TrackingError: the run is not there, or the store refuses or cannot be reached.
    """
    uri = tracking_uri(config)
    folders = {artifact.rpartition("/")[0] for artifact in artifacts}
    with told(uri):
        run = existing_run(open_client(uri), uri, run_id)
        repository = get_artifact_repository(str(run.info.artifact_uri), tracking_uri=uri)
        there = {item.path for folder in folders for item in repository.list_artifacts(folder)}
        for artifact in there & set(artifacts):
            repository.delete_artifacts(artifact)  # type: ignore[no-untyped-call]


def run_folders(folder: Path) -> Iterator[tuple[Path, RunRecord]]:
    """Every run's folder at `folder` or up to two levels below it, with its record, if readable."""
    for pattern in ("run.json", "*/run.json", "*/*/run.json"):
        for file in sorted(folder.glob(pattern)):
            with contextlib.suppress(TrackingError):
                yield file.parent, RunRecord.read(file.parent)


def run_folder(outputs: Path, run: str) -> Path | None:
    """The folder of a run, by its run id or local id; None if it was not worked on here."""
    for folder, record in run_folders(outputs):
        if run in (record.local_id, record.run_id):
            return folder
    return None


def in_use(folder: Path) -> bool:
    """Whether a process on this machine is working on the run of this folder."""
    try:
        with alone(folder / ".lock", busy=at_work(folder.name)):
            return False
    except TrackingError:
        return True


class AtWorkError(TrackingError):
    """Another process is working on a run."""


def at_work(run: str) -> AtWorkError:
    """What is said of a run that another process is working on."""
    remedy = "Wait until it is done, or stop it."
    return AtWorkError(f"run {run}", "another process is working on it.", remedy)


def deleted_run(run: str) -> TrackingError:
    """What is said of a run that is to be gone on with and was deleted."""
    return TrackingError(
        f"run {run}",
        "it has been deleted, and MLflow takes nothing for it.",
        f"Restore it (mlflow runs restore --run-id {run}), or begin a new run.",
    )


def existing_run(client: MlflowClient, uri: str, run_id: str) -> Run:
    """The run of that id.

    Raises:
        TrackingError: there is none; the message names the newest.
    """
    try:
        run = client.get_run(run_id)
        check_said(run.info.run_id)
        return run
    except MlflowException as problem:
        if problem.error_code not in REFUSALS:
            raise
        raise TrackingError(
            f"run {run_id}", f"there is none in {uri}.", _newest_runs(client)
        ) from None


def _newest_runs(client: MlflowClient) -> str:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, order_by=["attributes.start_time DESC"], max_results=5)
    names = [f"{run.info.run_id} ({run.info.run_name})" for run in runs]
    return f"The newest are: {', '.join(names)}." if names else "It holds no runs yet."


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
