"""Registered models: a version for each run, holding every file that it exported."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import tempfile
import uuid
import warnings
from dataclasses import asdict, dataclass
from importlib.metadata import version as installed
from pathlib import Path

import mlflow
import mlflow.pyfunc
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus, Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS
from mlflow.utils.validation import MAX_METRICS_PER_BATCH

import odtrain_runtime
from odtrain.errors import TrackingError
from odtrain.export_formats import FORMATS, served_format
from odtrain.io.atomic import sync, write_json
from odtrain.io.checksums import SUMS, checksums
from odtrain.registry.lock import alone_at
from odtrain.registry.model_card import CARD, write_card
from odtrain.registry.versions import (
    FILES,
    FILES_DIGEST,
    LABEL_FILES,
    LATENCY,
    ORIGIN,
    SERVED_BY,
    SETTINGS,
    Version,
    quoted,
    refresh_aliases,
    versions_of,
)
from odtrain.secrets import without_secrets
from odtrain.tracking.names import LONGEST_NAME, key_name
from odtrain.tracking.reach import brief
from odtrain.tracking.runs import EVAL_SPLIT
from odtrain.tracking.sender import RunRecord
from odtrain.tracking.store import (
    check_said,
    failure,
    is_outage,
    mlflow_uses,
    open_client,
    registry_uri,
)
from odtrain.tracking.tracker import Tracker
from odtrain_runtime.provenance import read_labels

logger = logging.getLogger(__name__)

PYFUNC_MODEL = Path(__file__).with_name("pyfunc_model.py")
RUNTIME = Path(odtrain_runtime.__file__).parent
"""Which a version carries: it may be loaded where odtrain is not, and where no index has the runtime."""

NO_STEP = -1
"""Model.log copies a step's metrics from run to model, without the data that they are of; this one has none."""
PENDING = "register.json"

SIGNATURE = ModelSignature(
    # None of what comes in: MLflow would take it for a table, and refuse a path, a PIL picture or an array.
    outputs=Schema(
        [
            ColSpec(Array(Array(DataType.double)), "boxes"),
            ColSpec(Array(DataType.double), "scores"),
            ColSpec(Array(DataType.long), "classes"),
            ColSpec(Array(DataType.string), "class_names"),
        ]
    ),
    params=ParamSchema([ParamSpec("score_threshold", DataType.double, 0.5)]),
)


FORBIDDEN_IN_NAMES = r"[/:.%\"']"
"""Characters that MLflow takes in no model's name; the zoo's `0.75` has one."""


@dataclass(frozen=True)
class ModelCandidate:
    """A model to register.

    Attributes:
        name: the registered model's.
        architecture: names the model of this one run.
        files: format -> exported file or folder, beside `labels.txt` and `label_map.pbtxt`.
        metrics: of the run, under their names in MLflow, such as `export/pb/latency_ms_p50`.
        failed: format -> why it must not be promoted.
        data_digest: of the dataset.
        step: at which the run logged its final metrics; MLflow then shows them with the model.
        data: name of the dataset.
        pictures: of the split that the metrics are of.
        format: that is served if it is among the files and has not failed; None for the best by rank.
        origin: of files that were trained elsewhere: where from, licence, sha256 by file.
    """

    name: str
    architecture: str
    files: dict[str, str]
    metrics: dict[str, float]
    failed: dict[str, str]
    data_digest: str
    step: int
    data: str = ""
    pictures: int = 0
    format: str | None = None
    origin: dict[str, str] | None = None

    @property
    def served(self) -> str:
        """The format that stands for the model, wherever one file of it is run, timed or judged."""
        sound = [name for name in self.files if name not in self.failed]
        chosen = served_format(sound or list(self.files), self.format)
        return chosen or next(iter(self.files))


def register(tracker: Tracker, candidate: ModelCandidate) -> str | None:
    """Log the model in the run and register it as the newest version, the challenger.

    The same files of the same run are registered once, however often this is called.

    Returns:
        The version; None while the server is away: `odtrain track sync` registers it later.

    Raises:
        TrackingError: the store refuses, there is no file, or the name is none.
    """
    check_name(candidate.name)
    if not candidate.files:
        raise TrackingError(
            f"models:/{candidate.name}",
            "no exported file is fit to be registered.",
            "The run's tags odtrain.export.* say what each lacks.",
        )
    if tracker.flush(insist=True):
        try:
            return _register(tracker.client, tracker.uri, str(tracker.run_id), candidate)
        except Exception as problem:
            if not is_outage(tracker.uri, problem):
                raise failure(tracker.uri, problem) from problem
    postpone(tracker.folder, candidate)
    return None


def check_name(name: str) -> None:
    """Refuse a name that no registered model can have; cheap enough to ask before training.

    Raises:
        TrackingError: the name is empty, too long, is . or begins with .., or has one of / : @, a letter
            that is not printed or both kinds of quotes in it.
    """
    known = "without / : @," if not name.strip() or re.search(r"[/:@]", name) else None
    unseen = re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", name) or name == "." or name[:2] == ".."
    if unseen or len(name) > LONGEST_NAME or {"'", '"'} <= {*name}:
        known = known or f"of at most {LONGEST_NAME} letters, dots and quotes aside,"
    if known:
        raise TrackingError(
            f'registry.name="{name}"',
            "cannot name a registered model.",
            f"Give one {known} such as registry.name=raccoon.",
        )


def check_registry(client: MlflowClient, uri: str, name: str) -> None:
    """Have the registry take something of `name` and drop it again; cheap enough to ask before training.

    Raises:
        TrackingError: it takes nothing.
    """
    try:
        if name in [
            model.name for model in client.search_registered_models(f"name={quoted(name)}")
        ]:
            with alone_at(client, name):
                return
        probe = f"odtrain-probe-{uuid.uuid4().hex}"
        client.create_registered_model(probe)
        client.delete_registered_model(probe)
    except Exception as problem:
        if not is_outage(uri, problem):
            raise _takes_nothing(uri, name, problem) from problem


def _takes_nothing(uri: str, name: str, problem: Exception) -> TrackingError:
    return TrackingError(
        f"models:/{name}",
        f"the registry {registry_uri(uri)} takes no version of it: {brief(problem)}",
        "Have it made writable, give another (tracking.uri=, MLFLOW_REGISTRY_URI), or a name that is yours: "
        "registry.name=NAME.",
    )


def postpone(folder: Path, candidate: ModelCandidate) -> None:
    """Leave in a run's folder what is to be registered and judged when the server is back."""
    sync(*map(Path, candidate.files.values()))
    write_json(folder / PENDING, asdict(candidate))
    logger.info(
        f"registry: the server is away; the model is registered by: odtrain track sync {folder}"
    )


def register_postponed(folder: Path, record: RunRecord, uri: str) -> tuple[str, str]:
    """Register what `postpone` left in a run's folder, where it stays: the name and the version.

    Raises:
        TrackingError: a file of it is gone, or the store refuses or is away.
    """
    candidate = ModelCandidate(**json.loads((folder / PENDING).read_text(encoding="utf-8")))
    try:
        return candidate.name, _register(open_client(uri), uri, str(record.run_id), candidate)
    except TrackingError:
        raise
    except Exception as problem:
        raise failure(uri, problem) from problem


def _register(client: MlflowClient, uri: str, run_id: str, candidate: ModelCandidate) -> str:
    _write_card(candidate, run_id)
    tops = [*candidate.files.values(), *_beside(candidate).values()]
    sums = checksums(map(Path, tops))
    digest = _digest(sums)
    _ensure_registered_model(client, candidate.name)
    before = _registered_before(client, candidate.name, run_id, digest)
    run = client.get_run(run_id)
    logged = _logged_before(client, run, digest, before.source if before else "")
    number = before.number if before else None
    if number is None:
        model_id = logged or _log_model(client, uri, run, candidate, sums)
        _show_numbers(client, run, model_id, candidate)
        with mlflow_uses(uri):
            made = client.create_model_version(
                candidate.name,
                source=f"models:/{model_id}",
                run_id=run_id,
                tags={**_version_tags(run_id, candidate), FILES_DIGEST: digest},
                model_id=model_id,
            )
        check_said(made.version)
        number = str(made.version)
        shown_there = json.dumps([{"name": candidate.name, "version": number}])
        client.set_logged_model_tags(model_id, {MLFLOW_MODEL_VERSIONS: shown_there})
    with alone_at(client, candidate.name) as lease:
        refresh_aliases(client, candidate.name, lease)
    return number


def _ensure_registered_model(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as problem:
        if problem.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _registered_before(client: MlflowClient, name: str, run_id: str, digest: str) -> Version | None:
    for version in versions_of(client, name):
        if version.run_id == run_id and version.tags.get(FILES_DIGEST) == digest:
            return version
    return None


def _logged_before(client: MlflowClient, run: Run, digest: str, source: str) -> str | None:
    """The id of the model that holds these files of a run; what a kill left beside it is deleted.

    Args:
        client: of the store.
        run: whose model it is.
        digest: of the files.
        source: of the version that has them already, whose model stays.
    """
    found = client.search_logged_models(
        [run.info.experiment_id], filter_string=f"source_run_id = '{run.info.run_id}'"
    )
    whole = [
        model.model_id
        for model in found
        if model.status == LoggedModelStatus.READY and model.tags.get(FILES_DIGEST) == digest
    ]
    kept = source.removeprefix("models:/") or (whole[0] if whole else None)
    for model in found:
        unfinished = model.status != LoggedModelStatus.READY
        if model.model_id != kept and (unfinished or model.model_id in whole):
            client.delete_logged_model(model.model_id)
    return kept


def _log_model(
    client: MlflowClient, uri: str, run: Run, candidate: ModelCandidate, sums: str
) -> str:
    """Log the model in its run; returns its id."""
    model_id = _create_logged_model(client, run, candidate, _digest(sums))
    with tempfile.TemporaryDirectory() as scratch, mlflow_uses(uri), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*An input example was not provided")
        sums_file = Path(scratch, SUMS)
        sums_file.write_text(sums, encoding="utf-8")
        Model.log(
            artifact_path=None,
            flavor=mlflow.pyfunc,
            run_id=run.info.run_id,
            model_id=model_id,
            step=NO_STEP,
            python_model=str(PYFUNC_MODEL),
            code_paths=[str(RUNTIME)],
            artifacts={**candidate.files, **_beside(candidate), "sums": str(sums_file)},
            model_config={"detector": candidate.served},
            signature=SIGNATURE,
            pip_requirements=[
                f"{name}=={installed(name)}" for name in FORMATS[candidate.served].needs
            ],
        )
    return model_id


def _show_numbers(client: MlflowClient, run: Run, model_id: str, candidate: ModelCandidate) -> None:
    """Show the run's final numbers with the model, as numbers of the split that they are of."""
    run_id = run.info.run_id
    split = run.data.tags.get(EVAL_SPLIT, "")
    used = run.inputs.dataset_inputs if run.inputs else []
    data = {tag.value: one.dataset for one in used for tag in one.tags}.get(split)
    metrics = [
        Metric(
            *(found.key, found.value, found.timestamp, found.step),
            model_id=model_id,
            dataset_name=data.name if data else None,
            dataset_digest=data.digest if data else None,
            run_id=run_id,
        )
        for key, value in candidate.metrics.items()
        for found in client.get_metric_history(run_id, key_name(key))
        if (found.step, found.value) == (candidate.step, value)
    ]
    for start in range(0, len(metrics), MAX_METRICS_PER_BATCH):
        client.log_batch(run_id, metrics[start : start + MAX_METRICS_PER_BATCH])


def _digest(sums: str) -> str:
    return hashlib.sha256(sums.encode()).hexdigest()


def _create_logged_model(
    client: MlflowClient, run: Run, candidate: ModelCandidate, digest: str
) -> str:
    # Left to itself, Model.log puts the model into the default experiment instead of the run's.
    model = client.create_logged_model(
        run.info.experiment_id,
        name=re.sub(FORBIDDEN_IN_NAMES, "_", candidate.architecture),
        source_run_id=run.info.run_id,
        tags={
            "odtrain.data_digest": candidate.data_digest,
            SERVED_BY: candidate.served,
            FILES_DIGEST: digest,
        },
        params=without_secrets(run.data.params),
        model_type="detector",
    )
    check_said(model.model_id)
    return str(model.model_id)


def _beside(candidate: ModelCandidate) -> dict[str, str]:
    """The label files, the card and, where there is one, `source.yaml`, which lie beside the files."""
    folder = Path(next(iter(candidate.files.values()))).parent
    names = {**LABEL_FILES, "card": CARD}
    if (folder / SETTINGS).is_file():
        names["settings"] = SETTINGS
    return {key: str(folder / name) for key, name in names.items()}


def _write_card(candidate: ModelCandidate, run_id: str) -> None:
    """Write the card beside the exported files; the same candidate has the same card."""
    files = _beside(candidate)
    names = read_labels(Path(files["labels"]).read_text(encoding="utf-8"))
    card = write_card(
        name=candidate.name,
        architecture=candidate.architecture,
        run_id=run_id,
        files=list(candidate.files),
        metrics=candidate.metrics,
        class_names=names,
        data=candidate.data,
        data_digest=candidate.data_digest,
        pictures=candidate.pictures,
        served=candidate.served,
        origin=candidate.origin,
    )
    Path(files["card"]).write_text(card, encoding="utf-8")


def _version_tags(run_id: str, candidate: ModelCandidate) -> dict[str, str]:
    tags = {key_name(name): f"{value:.6g}" for name, value in candidate.metrics.items()}
    tags |= {f"export/{name}/failed": why for name, why in candidate.failed.items()}
    tags |= {
        "odtrain.run": run_id,
        "odtrain.architecture": candidate.architecture,
        "odtrain.data_digest": candidate.data_digest,
        FILES: json.dumps({key: Path(file).name for key, file in candidate.files.items()}),
        SERVED_BY: candidate.served,
    }
    if candidate.origin is not None:
        tags[ORIGIN] = json.dumps(candidate.origin, ensure_ascii=False)
    latency = candidate.metrics.get(f"export/{candidate.served}/latency_ms_p50")
    return tags if latency is None else {**tags, LATENCY: f"{latency:.6g}"}
