"""From a run's folder to its MLflow run: what waits in the spool arrives once, or stays."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from odtrain.errors import TrackingError
from odtrain.io.atomic import PRIVATE, append, write_json
from odtrain.secrets import without_secrets
from odtrain.tracking.names import LONGEST_TAG, key_name, text_value
from odtrain.tracking.reach import brief
from odtrain.tracking.spool import Spool, SpoolEntry
from odtrain.tracking.store import REFUSALS, check_said, experiment_id, open_client

logger = logging.getLogger(__name__)

MOST_IN_A_BATCH = {"metrics": 800, "tags": 100}
"""MLflow takes 100 tags and 1000 items in all in one log_batch."""

MADE_BY_ANOTHER = ("UniqueViolation", "UNIQUE constraint failed")
"""What PostgreSQL and SQLite say where two runs name a dataset for the first time at once: MLflow looks
first and inserts then, and hands the second one's refusal on."""


@dataclass(frozen=True)
class RunRecord:
    """What the run's folder knows of it (`run.json`): enough to find or make it on the server.

    Attributes:
        run_id: MLflow's id; None until the server has been reached.
        local_id: name of the folder: the run id, or `offline-...` if begun without a server.
        parent: run id, or local id, of the run it belongs under.
        stage: what the run does: train, evaluate, ...
        started: milliseconds since 1970.
        tags: those the run is created with.
    """

    uri: str
    experiment: str
    run_id: str | None
    local_id: str
    name: str | None
    parent: str | None
    stage: str
    started: int
    tags: dict[str, str]
    config_digest: str | None = None
    status: str = "RUNNING"

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """The record of a run's folder.

        Raises:
            TrackingError: the folder is not one of a run.
        """
        try:
            return cls(**json.loads((folder / "run.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as problem:
            raise TrackingError(
                folder,
                "is not the folder of a run (no readable run.json).",
                "Name a folder like outputs/EXPERIMENT/RUN_ID.",
            ) from problem

    def save(self, folder: Path) -> None:
        """Write `run.json`, for this user alone and without passwords.

        Raises:
            OSError: the disk refuses.
        """
        write_json(folder / "run.json", without_secrets(asdict(self)), mode=PRIVATE)


def create_run(client: MlflowClient, record: RunRecord, parent_id: str | None) -> RunRecord:
    """Create the run on the server, in its experiment, and fill in its id."""
    tags = {**record.tags, **({"mlflow.parentRunId": parent_id} if parent_id else {})}
    experiment = experiment_id(client, record.uri, record.experiment)
    run = client.create_run(experiment, start_time=record.started, tags=tags, run_name=record.name)
    check_said(run.info.run_id)
    run_id = str(run.info.run_id)
    return replace(
        record, run_id=run_id, local_id=record.local_id or run_id, name=run.info.run_name
    )


class Delivery:
    """Sends the spool of one run.

    Attributes:
        record: of the run; gets its run id when the server is first reached.
        resumed: whether the run had been worked on before; changed parameters are then noted.
    """

    def __init__(
        self,
        folder: Path,
        record: RunRecord,
        client: MlflowClient | None = None,
    ) -> None:
        """`say` is given each line meant for the user; `client` is opened here if there is none."""
        self.folder = folder
        self.record = record
        self.resumed = False
        self.spool = Spool(folder / "spool")
        self._client = client
        self._logged: dict[str, dict[int, float]] = {}
        self._mirrored: dict[str, set[str]] = {}
        self._mirroring = threading.Lock()
        self._nothing_logged_before = False

    @property
    def client(self) -> MlflowClient:
        """MLflow's client of this run's store, opened when first needed."""
        if self._client is None:
            self._client = open_client(self.record.uri, making=True)
        return self._client

    @property
    def run_id(self) -> str:
        """MLflow's id of the run, which is created if it has not been."""
        if self.record.run_id is None:
            self.record = self._created_once()
            self.record.save(self.folder)
        return str(self.record.run_id)

    def is_new(self) -> None:
        """The server has no metric of this run yet: nothing can arrive twice."""
        self._nothing_logged_before = True

    def _created_once(self) -> RunRecord:
        """Create the run, unless an earlier attempt has, whose answer got lost."""
        experiment = experiment_id(self.client, self.record.uri, self.record.experiment)
        own = f"tags.`odtrain.local_id` = '{self.record.local_id}'"
        if found := self.client.search_runs([experiment], own, max_results=1):
            return replace(self.record, run_id=str(found[0].info.run_id))
        self.is_new()
        return create_run(self.client, self.record, self._parent_id())

    def _parent_id(self) -> str | None:
        parent = self.record.parent
        if parent is None or not (self.folder.parent / parent / "run.json").exists():
            return parent
        return RunRecord.read(self.folder.parent / parent).run_id or parent

    def send(self) -> None:
        """Send all that waits.

        Raises:
            Exception: whatever the store threw; what has arrived is not sent again.
        """
        self.spool.sync()
        run_id = self.run_id
        while waiting := self.spool.waiting():
            some = _one_batch(waiting)
            try:
                DELIVER[some[0].kind](self, run_id, some)
            except Exception as problem:
                self._logged.clear()  # what arrived of it is unknown: ask before sending again
                self._nothing_logged_before = False
                if not isinstance(problem, MlflowException) or problem.error_code not in REFUSALS:
                    raise
                self._check_heard()
                self._set_aside(some, problem)
            else:
                self._check_heard()
            self.spool.arrived(len(some))
        for file in self.spool.files():
            self.upload(file.local, file.artifact)
            self.spool.file_arrived(file)

    def upload(self, local: Path, artifact: str) -> None:
        """Send one file now, to the posix path `artifact`, whose last part is the file's own name.

        Raises:
            Exception: whatever the store threw.
        """
        folder = PurePosixPath(artifact).parent.as_posix()
        self.client.log_artifact(self.run_id, str(local), None if folder == "." else folder)
        self._check_heard()

    def _check_heard(self) -> None:
        """Make sure that it was MLflow which took something: its thanks are `{}`, as anybody's may be."""
        if self.record.uri.startswith("http"):
            check_said(self.client.get_run(self.run_id).info.run_id)

    def values_on_server(self, key: str) -> dict[int, float]:
        """Of metric `key`, the last value of each step that has arrived."""
        history = self.client.get_metric_history(self.run_id, key)
        return {each.step: each.value for each in sorted(history, key=lambda each: each.timestamp)}

    def _set_aside(self, entries: Sequence[SpoolEntry], problem: MlflowException) -> None:
        """Keep what the server will never take where the user can find it."""
        refused = self.folder / "refused.jsonl"
        lines = [json.dumps({"kind": entry.kind, **entry.body}) + "\n" for entry in entries]
        append(refused, "".join(lines).encode())
        logger.warning(f"tracking: refused by MLflow, kept in {refused}: {brief(problem)}")

    def deliver_batch(self, run_id: str, entries: Sequence[SpoolEntry]) -> None:
        """Send metrics and tags in one request, without the metrics that arrived before."""
        metrics = self._new_metrics(entries)
        tags = {key: text for entry in entries for key, text in entry.body.get("tags", {}).items()}
        self.client.log_batch(
            run_id, metrics, tags=[RunTag(key, text) for key, text in tags.items()]
        )
        for metric in metrics:
            self._logged[metric.key][metric.step] = metric.value

    def _new_metrics(self, entries: Sequence[SpoolEntry]) -> list[Metric]:
        new: dict[tuple[str, int], Metric] = {}
        for entry in entries:
            for key, value, when, step in entry.body.get("metrics", ()):
                waits = new.get((key, step))
                there = self._values(key).get(step) if waits is None else waits.value
                if there is None or (entry.body["replace"] and there != value):
                    new[key, step] = Metric(key, value, when, step)
        return list(new.values())

    def _values(self, key: str) -> dict[int, float]:
        if key not in self._logged:
            self._logged[key] = {} if self._nothing_logged_before else self.values_on_server(key)
        return self._logged[key]

    def deliver_params(self, run_id: str, entries: Sequence[SpoolEntry]) -> None:
        """Send parameters that are not there yet; MLflow lets none be changed."""
        params: Mapping[str, str] = entries[0].body["params"]
        present = self.client.get_run(run_id).data.params
        new = [Param(key, text) for key, text in params.items() if key not in present]
        # On a first start what is present was logged by `mlflow run`, in the shell's quotes.
        changed = {
            key: text for key, text in params.items() if not _same(present.get(key, text), text)
        }
        tags = [
            RunTag(key_name(f"odtrain.changed.{key}"), text[:LONGEST_TAG])
            for key, text in changed.items()
        ]
        self.client.log_batch(run_id, params=new, tags=tags if self.resumed else [])

    def deliver_grown(self, run_id: str, entries: Sequence[SpoolEntry]) -> None:
        """Add to the JSON list or object that a tag holds, which others may have begun."""
        tag, more = entries[0].body["tag"], entries[0].body["more"]
        held = self.client.get_run(run_id).data.tags.get(tag, "")
        self.client.set_tag(run_id, tag, _grown(held, more))

    def deliver_dataset(self, run_id: str, entries: Sequence[SpoolEntry]) -> None:
        """Say which data was used."""
        tag = InputTag("mlflow.data.context", entries[0].body["context"])
        used = DatasetInput(Dataset(**entries[0].body["dataset"]), [tag])
        try:
            self.client.log_inputs(run_id, [used])
        except MlflowException as problem:
            if not any(word in str(problem) for word in MADE_BY_ANOTHER):
                raise
            self.client.log_inputs(run_id, [used])  # the dataset is there now

    def will_hold(self, folder: str, names: Iterable[str], *, alone: bool = False) -> None:
        """Say what a mirrored folder is going to hold, before it is sent; `alone`: no more."""
        with self._mirroring:
            before = set() if alone else self._mirrored.get(folder, set())
            self._mirrored[folder] = before | set(names)

    def deliver_prune(self, run_id: str, entries: Sequence[SpoolEntry]) -> None:
        """Delete what was logged below a folder and is no longer part of it."""
        folder = entries[0].body["folder"]
        later = [entry for entry in self.spool.waiting()[1:] if entry.kind == "prune"]
        if any(entry.body["folder"] == folder for entry in later):
            return  # what it would delete may have been sent since
        uri = str(self.client.get_run(run_id).info.artifact_uri)
        repository = get_artifact_repository(uri, tracking_uri=self.record.uri)
        for artifact in _artifacts_below(repository, folder):
            with self._mirroring:  # a file that is sent meanwhile was announced by `will_hold`
                keep = self._mirrored.get(folder, entries[0].body["keep"])
                if artifact.removeprefix(f"{folder}/") not in keep:
                    repository.delete_artifacts(artifact)  # type: ignore[no-untyped-call]

    def deliver_status(self, run_id: str, entries: Sequence[SpoolEntry]) -> None:
        """Begin again, or end."""
        status = entries[0].body["status"]
        if status == "RUNNING":
            self.client.update_run(run_id, status=status)
        else:
            self.client.set_terminated(run_id, status, entries[0].body["end"])


DELIVER: dict[str, Callable[[Delivery, str, Sequence[SpoolEntry]], None]] = {
    "metrics": Delivery.deliver_batch,
    "tags": Delivery.deliver_batch,
    "params": Delivery.deliver_params,
    "grown": Delivery.deliver_grown,
    "prune": Delivery.deliver_prune,
    "dataset": Delivery.deliver_dataset,
    "status": Delivery.deliver_status,
}


def _artifacts_below(repository: ArtifactRepository, folder: str) -> list[str]:
    found = []
    for item in repository.list_artifacts(folder):
        found += _artifacts_below(repository, item.path) if item.is_dir else [item.path]
    return found


def _grown(held: str, more: list[Any] | dict[str, Any]) -> str:
    """The JSON text of what a tag holds and what is added to it, as far as a tag has room."""
    try:
        before = json.loads(held)
    except ValueError:  # there is none, or one that was cut
        before = type(more)()
    if isinstance(more, dict):
        whole = list({**before, **more, **before}.items())
    else:
        whole = [*before, *(one for one in more if one not in before)]
    while len(text := _json(type(more)(whole))) > LONGEST_TAG:
        whole.pop()
    return text


def _json(value: object) -> str:
    return text_value(json.dumps(value, ensure_ascii=False))


def _one_batch(waiting: Sequence[SpoolEntry]) -> Sequence[SpoolEntry]:
    """The oldest entries that fit in one request; at least one."""
    room = dict(MOST_IN_A_BATCH)
    for count, entry in enumerate(waiting):
        if entry.kind not in room:
            return waiting[: max(count, 1)]
        room[entry.kind] -= len(entry.body[entry.kind])
        if room[entry.kind] < 0:
            return waiting[: max(count, 1)]
    return waiting


def _same(old: str, new: str) -> bool:
    try:
        return old == new or float(old) == float(new)
    except ValueError:
        return False
