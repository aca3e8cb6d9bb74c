"""MLflow tells its makers how it is used, unless it is told not to."""

from __future__ import annotations

import os
import sys


def allow_telemetry(allowed: bool) -> None:
    """Let MLflow send its telemetry, or have it send none: this process and those that it starts.

    What the user has set in MLFLOW_DISABLE_TELEMETRY or DO_NOT_TRACK holds where it is allowed.
    """
    if allowed:
        return
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    begun = sys.modules.get("mlflow.telemetry.client")
    if begun is not None:  # whoever imported odtrain has imported MLflow first
        begun.set_telemetry_client()
