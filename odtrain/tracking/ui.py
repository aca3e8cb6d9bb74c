"""`odtrain ui`: MLflow's pages on the runs, told when they are there."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Experiment

from odtrain.config.schema import TrackingConfig
from odtrain.system.progress import ready
from odtrain.tracking.mlflow_process import check_port, served, stopped_by_signals
from odtrain.tracking.store import (
    UI,
    check_answers,
    experiments_of,
    pages,
    reaching,
    tracking_uri,
    ui_command,
)
from odtrain.tracking.views import RUNS, SHARED, Pages

QUIET = {
    "PYTHONWARNINGS": "ignore",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


def run_ui(config: TrackingConfig, port: int = 5000) -> int:
    """Print the URLs that compare the runs and, for a database, serve them until interrupted.

    Returns:
        The exit status.

    Raises:
        ConfigError: the port is taken.
        TrackingError: the store cannot be used, or MLflow does not start.
    """
    uri = tracking_uri(config)
    shown = _to_open(uri, config, port)
    plain = ui_command(uri, port)
    if plain is None:
        return _told(shown)
    check_port("127.0.0.1", port, UI)
    # Everybody here can read the arguments of a process, and nobody its environment.
    environment = {**os.environ, **QUIET, "MLFLOW_BACKEND_STORE_URI": uri}
    command = [sys.executable, "-m", "mlflow", "ui", "--port", str(port)]
    with stopped_by_signals(), tempfile.TemporaryDirectory(prefix="odtrain-ui-") as folder:
        log, remedy = Path(folder, "mlflow.log"), f"To see all that it says: {plain}"
        health = f"{shown.root}/health"
        with served(command, environment, health, log, Path.cwd(), remedy) as server:
            ready()
            _told(shown, " (Ctrl-C ends it)")
            return server.wait()
    return 0


def _to_open(uri: str, config: TrackingConfig, port: int) -> Pages:
    with reaching(uri) as client:
        experiment = _to_look_at(client, config)
        if experiment is None or not experiment.experiment_id:
            check_answers(client, uri)
    known = f"{SHARED}{RUNS}" in experiment.tags if experiment else False
    number = str(experiment.experiment_id) if experiment else None
    return pages(uri, number, RUNS if known else None, port)


def _told(shown: Pages, how_to_end: str = "") -> int:
    print(f"Open {shown.charts}{how_to_end}", flush=True)
    if shown.experiment is not None:
        print(f"  or {shown.table}", flush=True)
    return 0


def _to_look_at(client: MlflowClient, config: TrackingConfig) -> Experiment | None:
    """The configured experiment, or where it has no run yet the one that older versions used."""
    found = experiments_of(client, config)
    held = [
        one
        for one in found
        if one.experiment_id and client.search_runs([one.experiment_id], max_results=1)
    ]
    return next(iter(held or found), None)
