"""How a run begins or is gone on with: on the server or without it, in a folder that is its own."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from mlflow import MlflowClient
from mlflow.tracking.context.registry import resolve_tags

from odtrain.config.schema import TrackingConfig
from odtrain.errors import TrackingError
from odtrain.io.atomic import make_folder
from odtrain.io.locks import alone
from odtrain.secrets import masked
from odtrain.system.progress import doing
from odtrain.tracking.names import file_name
from odtrain.tracking.reach import brief
from odtrain.tracking.runs import at_work, deleted_run, existing_run, run_folder
from odtrain.tracking.sender import RunRecord, create_run
from odtrain.tracking.store import (
    check_active,
    experiment_id,
    failure,
    is_outage,
    open_client,
    tracking_uri,
)
from odtrain.tracking.views import dress

logger = logging.getLogger(__name__)

RANDOM_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")
"""What MLflow calls a run that was given no name."""


@dataclass(frozen=True)
class Begun:
    """A run that was begun, or is gone on with.

    Attributes:
        record: of the run.
        client: of the server; None where it cannot be reached.
        lost: what kept it from being reached.
        resumed: the run had been worked on before.
    """

    record: RunRecord
    client: MlflowClient | None = None
    lost: Exception | None = None
    resumed: bool = False


def run_made_by_mlflow(config: TrackingConfig, uri: str) -> str | None:
    """The run that `mlflow run` made for this process, if it is in the store `uri`; asked once."""
    inherited = os.environ.pop("MLFLOW_RUN_ID", None)
    its_store = tracking_uri(replace(config, uri=None))
    if inherited and uri != its_store:
        logger.warning(
            f"tracking: `mlflow run` made its run in {masked(its_store)}, not in tracking.uri."
        )
        return None
    return inherited


def _say_passed_over(experiment: str) -> None:
    """Warn of what MLflow's own programs would heed and odtrain does not."""
    number = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if number and not os.environ.get("MLFLOW_EXPERIMENT_NAME"):
        logger.warning(
            f"tracking: MLFLOW_EXPERIMENT_ID={number} is passed over: the run goes into the experiment "
            f"{experiment}. Name another: tracking.experiment=NAME or MLFLOW_EXPERIMENT_NAME."
        )


@doing("Beginning the run")
def begin_run(draft: RunRecord, wanted: str | None, outputs: Path) -> Begun:
    """Create a run as drafted, or take up the one of the id `wanted`; without a server, on disk alone.

    Args:
        draft: of the run.
        wanted: its id, or the name of its folder, if it is to be gone on with.
        outputs: the folder of all runs' folders.

    Raises:
        TrackingError: the store refuses, or the run is not there.
    """
    if wanted is None and draft.parent is None:
        _say_passed_over(draft.experiment)
    try:
        client = open_client(draft.uri, making=True)
        if wanted is not None:
            return _taken_up(client, wanted, draft, outputs)
        draft = replace(draft, tags={**_tags_of_origin(), **draft.tags})
        return Begun(create_run(client, draft, draft.parent), client)
    except Exception as problem:
        if is_outage(draft.uri, problem):
            return _offline(wanted, draft, outputs, problem)
        if isinstance(problem, TrackingError):
            raise
        raise failure(draft.uri, problem) from problem


def _taken_up(client: MlflowClient, wanted: str, draft: RunRecord, outputs: Path) -> Begun:
    folder = run_folder(outputs, wanted)
    if folder is not None and RunRecord.read(folder).run_id is None:
        known = RunRecord.read(folder)
        experiment_id(client, draft.uri, known.experiment)  # which may have been deleted
        return Begun(_reopened(known, draft), client, resumed=True)
    run_id = str(RunRecord.read(folder).run_id) if folder else wanted
    run = existing_run(client, draft.uri, run_id)
    experiment = client.get_experiment(run.info.experiment_id)
    check_active(experiment)
    dress(client, experiment)
    if run.info.lifecycle_stage != "active":
        raise deleted_run(run_id)
    client.set_tag(
        run_id, "odtrain.went_on", f"{datetime.now():%Y-%m-%d %H:%M:%S}"
    )  # can it be written?
    resumed = "odtrain.stage" in run.data.tags
    name = run.info.run_name
    if not resumed and draft.name and RANDOM_NAME.fullmatch(name or ""):
        name = draft.name
        client.update_run(run_id, name=name)
    record = replace(
        draft,
        experiment=experiment.name,
        run_id=run_id,
        local_id=folder.name if folder else run_id,
        name=name,
        started=run.info.start_time,
        stage=run.data.tags.get("odtrain.stage", draft.stage),
        config_digest=run.data.tags.get("odtrain.config_digest", draft.config_digest),
        status=run.info.status,
    )
    return Begun(_reopened(record, draft), client, resumed=resumed)


def _offline(wanted: str | None, draft: RunRecord, outputs: Path, lost: Exception) -> Begun:
    if wanted is None:
        local_id = f"offline-{uuid.uuid4().hex[:12]}"
        tags = {**_tags_of_origin(), **draft.tags, "odtrain.local_id": local_id}
        return Begun(replace(draft, local_id=local_id, tags=tags), lost=lost)
    folder = run_folder(outputs, wanted)
    if folder is not None:
        return Begun(_reopened(RunRecord.read(folder), draft), lost=lost, resumed=True)
    return Begun(replace(draft, run_id=wanted, local_id=wanted), lost=lost)


def claim_folder(record: RunRecord, outputs: Path, stack: ExitStack) -> Path:
    """The run's folder, which no other process works in until `stack` is left.

    Raises:
        TrackingError: one does, or the folder cannot be written.
    """
    fresh = outputs / file_name(record.experiment) / record.local_id
    folder = run_folder(outputs, record.local_id) or fresh
    busy = at_work(record.local_id)
    try:
        stack.enter_context(alone(make_folder(folder) / ".lock", busy=busy))
    except OSError as problem:
        raise TrackingError(
            folder,
            f"cannot be written: {brief(problem)}",
            "Choose another folder with outputs=DIR.",
        ) from problem
    return folder


def _tags_of_origin() -> dict[str, str]:
    tags = {key: masked(str(value)) for key, value in resolve_tags().items()}
    commit = _git_commit()
    return tags if commit is None else {"mlflow.source.git.commit": commit, **tags}


def _git_commit() -> str | None:
    """The commit of the current folder's git tree; None where there is none."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "--verify", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _reopened(record: RunRecord, draft: RunRecord) -> RunRecord:
    """The record of a run that is gone on with; its folder keeps no password of the store."""
    record = replace(record, uri=draft.uri)
    return replace(record, status="RUNNING") if record.stage == draft.stage else record
