"""odtrain's commands as users run them, and the settings of a tiny training."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TINY_RUN = (
    "data.name=shapes",
    "model.input_size=64",
    "model.depth_multiplier=0.1",
    "train.steps=14",
    "train.batch_size=2",
    "train.precision=fp32",
    "train.log_every=1",
    "train.checkpoint_every=3",
    "train.trace_batches=true",
    "evaluate.every=5",
    "evaluate.bootstrap=20",
    "evaluate.drawn=2",
    "benchmark.runs=2",
    "export.int8_ladder=false",
    "registry.min_recall=0",
    "tracking.system_metrics=false",
    "model=panels_ssd_mobilenet_v1",
)
"""Settings of a training that takes seconds: checkpoints at 3, 5, 6, 9, 10, 12, 14, validated at 5, 10, 14."""


LASTING = re.compile(r"^[^,\n]+(?: \.\.\.|: \d+ (?:s|min) so far)\n", re.MULTILINE)
"""Lines such as `Loading MLflow ...` and `Working: 8 s so far`."""


def odtrain(
    arguments: Sequence[str],
    cwd: Path,
    program: Sequence[str] = ("-m", "odtrain"),
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, as a user would in the folder `cwd`.

    What is said of things that last depends on the machine, and is left out.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    done = subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=cwd,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    done.stderr = LASTING.sub("", done.stderr)
    return done


@dataclass(frozen=True)
class TrainedRun:
    """A training that went from pictures to a registered model without interruption.

    Attributes:
        folder: where the command was run; holds outputs/, datasets/ and mlflow.db.
        overrides: it was given.
        done: its exit status, and what it said.
        run: the run's own folder, named by its id.
    """

    folder: Path
    overrides: tuple[str, ...]
    done: subprocess.CompletedProcess[str]
    run: Path

    @property
    def uri(self) -> str:
        """The store that holds the run."""
        return f"sqlite:///{self.folder}/mlflow.db"
