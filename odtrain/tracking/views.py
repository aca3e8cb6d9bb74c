"""How MLflow's pages open: on training runs, with the columns, charts and pictures that people ask for.

A view is kept where MLflow's own "Share" button keeps one: in a tag of the experiment, which an address names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException

from odtrain.secrets import masked

KIND = "mlflow.experimentKind"
TRAINING = "custom_model_development"
"""What MLflow's pages call training runs, as opposed to language models."""
NOBODYS = ("", "no_inferred_type")
"""Kinds that MLflow's pages note where nobody has chosen one."""
SHARED = "mlflow.sharedViewState."
"""What the tags of views begin with."""
RUNS = "odtrain"
"""The view of all runs."""
INT8 = "export/tflite_int8"
COLUMNS = ("eval/mAP", "eval/mAP_50", f"{INT8}/latency_ms_p50", f"{INT8}/size_mb")
CURVES = (("train/loss", "LINE"), ("val/mAP", "LINE"), ("val/mAP_50", "LINE"))
RESULTS = tuple((name, "BAR") for name in COLUMNS)
WIDE = {"Detections": {"columns": 2, "cardHeight": 480}, "Training": {}, "Results": {}}
"""How large the charts of a section are, where it is not as MLflow has it."""
WIDTH = 230
"""Pixels in which the name of a file's number is whole."""
LONGEST_VIEW = 5000
"""Of a tag of an experiment, in MLflow."""


@dataclass(frozen=True)
class Pages:
    """Addresses of MLflow's pages.

    Attributes:
        root: of the server, without passwords.
        experiment: its id; None for the list of experiments.
        view: name of the view that charts and table open with; None for MLflow's own.
    """

    root: str
    experiment: str | None = None
    view: str | None = None

    @property
    def charts(self) -> str:
        """Losses and mAP of the runs, side by side."""
        return self._runs("CHART")

    @property
    def table(self) -> str:
        """The runs, a line each."""
        return self._runs("TABLE")

    def run(self, run_id: str, part: str = "") -> str:
        """The page of a run, or a part of it, such as `artifacts/front.html`."""
        below = f"/{quote(part)}" if part else ""
        return self._at(f"experiments/{self.experiment}/runs/{run_id}{below}")

    def version(self, name: str, number: str) -> str:
        """The page of a registered version."""
        return self._at(f"models/{quote(name, safe='')}/versions/{number}")

    def _runs(self, mode: str) -> str:
        if self.experiment is None:
            return self._at("experiments")
        view = f"&viewStateShareKey={self.view}" if self.view else ""
        return self._at(f"experiments/{self.experiment}/runs") + f"&compareRunsMode={mode}{view}"

    def _at(self, path: str) -> str:
        return f"{masked(self.root)}/#/{path}?workflowType=machine_learning"


def dress(client: MlflowClient, experiment: Experiment) -> None:
    """Have MLflow's pages open an experiment on training runs, unless its user has chosen its kind."""
    if experiment.tags.get(KIND, "") in NOBODYS:
        _tag(client, experiment, KIND, TRAINING)
    share(client, experiment, view())


def share(client: MlflowClient, experiment: Experiment, content: str) -> str | None:
    """Keep a view in the experiment: the name by which an address opens it; None where MLflow takes none."""
    name = RUNS
    if content != view():
        name += f"-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    fits = len(content) <= LONGEST_VIEW
    return name if fits and _tag(client, experiment, f"{SHARED}{name}", content) else None


def _tag(client: MlflowClient, experiment: Experiment, key: str, value: str) -> bool:
    """Set a tag that is not so yet; False where the store refuses: a run does without."""
    if experiment.tags.get(key) == value:
        return True
    with suppress(MlflowException):
        client.set_experiment_tag(experiment.experiment_id, key, value)
        return True
    return False


def view(pictures: Mapping[str, int] | None = None, below: str | None = None) -> str:
    """A view as MLflow's pages read it: `COLUMNS`, the curves of training, and what comes of it.

    Args:
        pictures: keys of logged pictures, shown above the charts, and the step of each.
        below: id of the run whose nested ones alone are shown.
    """
    sections = {
        "Detections": [_picture(*one) for one in (pictures or {}).items()],
        "Training": [_chart(*one) for one in CURVES],
        "Results": [_chart(*one) for one in RESULTS],
    }
    state: dict[str, Any] = {
        "selectedColumns": [f"metrics.`{name}`" for name in COLUMNS],
        "columnOrder": [f"metrics.`{name}`" for name in COLUMNS],
        "columnWidths": {f"metrics.`{name}`": WIDTH for name in COLUMNS if "/tflite" in name},
        "compareRunCharts": [
            {**chart, **_own(f"odtrain-{title}-{place}"), "metricSectionId": title}
            for title, charts in sections.items()
            for place, chart in enumerate(charts)
        ],
        "compareRunSections": [
            {**_own(title), "name": title, "display": True, "isReordered": True, **WIDE[title]}
            for title, charts in sections.items()
            if charts
        ],
        "isAccordionReordered": True,  # or MLflow sorts its own sections in between
    }
    if below is not None:
        state["searchFilter"] = f"tags.`mlflow.parentRunId` = '{below}'"
    return json.dumps(state, separators=(",", ":"))


def _own(name: str) -> dict[str, Any]:
    return {"uuid": name, "deleted": False, "isGenerated": False}


def _chart(metric: str, kind: str) -> dict[str, Any]:
    chosen = {"selectedMetricKeys": [metric], "xAxisKey": "step"} if kind == "LINE" else {}
    return {"type": kind, "metricKey": metric, **chosen}


def _picture(key: str, step: int) -> dict[str, Any]:
    return {"type": "IMAGE", "imageKeys": [key], "step": step}
