from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CI = ("PYTEST_CURRENT_TEST", "CI", "GITHUB_ACTIONS", "JENKINS_URL", "RUNNER_ID")
ASK = "from mlflow.telemetry.client import get_telemetry_client as c; print(c() is not None)"


def sends(program: str, folder: Path) -> str:
    """Whether MLflow's telemetry is on behind `program`, as it is outside of tests; nothing is sent."""
    unset = ("MLFLOW_", "DO_NOT_TRACK")
    kept = {k: v for k, v in os.environ.items() if k not in CI and not k.startswith(unset)}
    # What it would send to: a port of this machine where nobody listens.
    no_way_out = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\n{ASK}"],
        cwd=folder,
        env={**kept, **no_way_out},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("program", "on"),
    [
        pytest.param("import mlflow", "True", id="mlflow alone"),
        pytest.param("import odtrain; odtrain.compose()", "False", id="odtrain"),
        pytest.param("import mlflow, odtrain; odtrain.compose()", "False", id="mlflow was first"),
        pytest.param(
            "import odtrain; odtrain.compose(['tracking.telemetry=true'])", "True", id="allowed"
        ),
        pytest.param(
            "from odtrain.cli.main import main; main(['models', 'list'])", "False", id="a command"
        ),
    ],
)
def test_mlflow_sends_no_telemetry_unless_it_is_allowed(program, on, tmp_path):
    assert sends(program, tmp_path) == on


def test_what_a_process_starts_sends_none_either(tmp_path):
    child = f"subprocess.run([sys.executable, '-c', {ASK!r}])"
    program = f"import subprocess, sys, odtrain; odtrain.compose(); {child}"
    assert sends(program, tmp_path) == "False"
