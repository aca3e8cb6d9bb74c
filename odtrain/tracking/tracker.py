"""One MLflow run per job, of which nothing is lost when the server is away.

Everything is kept in the run's folder first (`odtrain.tracking.spool`) and sent from there in the background
(`odtrain.tracking.sender`), so that a training step waits for nothing, and what a killed run or an
unreachable server has left behind is sent later.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import signal
import tempfile
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import FrameType, TracebackType
from typing import Any

import yaml
from mlflow import MlflowClient
from PIL import Image

from odtrain import __version__
from odtrain.addresses import is_in_store, scheme_of, with_slashes
from odtrain.config.compose import as_yaml
from odtrain.config.differing import left_out, worth_logging
from odtrain.config.schema import Config, TrackingConfig
from odtrain.errors import OdtrainError, TrackingError
from odtrain.secrets import masked, without_secrets
from odtrain.structures import UInt8Image
from odtrain.system.logs import also_in
from odtrain.system.progress import doing
from odtrain.tracking.begin import begin_run, claim_folder, run_made_by_mlflow
from odtrain.tracking.names import (
    LONGEST_DIGEST,
    LONGEST_NAME,
    LONGEST_PARAM,
    LONGEST_TAG,
    MOST_PARAMS,
    SHOWN_DIGEST,
    artifact_path,
    image_key,
    key_name,
    portions,
    text_value,
)
from odtrain.tracking.reach import brief, cause
from odtrain.tracking.runs import config_digest, now
from odtrain.tracking.sender import MOST_IN_A_BATCH, Delivery, RunRecord
from odtrain.tracking.spool import Outbox
from odtrain.tracking.store import download, tracking_uri
from odtrain.tracking.system_metrics import EVERY_SECONDS, MachineMetrics
from odtrain_runtime.plain import plain_lines

logger = logging.getLogger(__name__)

LOG = "run.log"
"""What was said in the run, in its folder and among its artifacts."""
THUMBNAIL = 640
"""Longest side of the smaller copies that MLflow's image grid shows, up to the whole window."""


class Terminated(SystemExit):
    """SIGTERM arrived: the program ends, once the run is marked KILLED."""

    def __init__(self) -> None:
        """End with the status that a shell expects."""
        super().__init__(128 + signal.SIGTERM)


class Tracker:
    """The MLflow run of one job; leaving it as a context manager ends the run and sends the rest.

    Nothing but `start` raises; what cannot be sent waits in `folder/spool`.

    Attributes:
        uri: the store.
        folder: the run's own folder, `outputs/<experiment>/<run id>`.
        resumed: whether the run had been worked on before this process.
        shown: keys of the pictures that were logged, as MLflow shows them, and the last step of each.
    """

    folder: Path

    def __init__(self, config: TrackingConfig, outputs: Path) -> None:
        """`outputs` holds the folders of all runs; `say` is given each line meant for the user."""
        self.uri = tracking_uri(config)
        self.resumed = False
        self._config = config
        self._outputs = outputs
        self._told: set[tuple[str, str]] = set()
        self.shown: dict[str, int] = {}
        self._old_handler: Any = None
        self._finished = False
        self._alone = ExitStack()

    def start(
        self,
        stage: str,
        run_name: str | None = None,
        *,
        parent: str | None = None,
        resume: str | None = None,
        digest: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Tracker:
        """Begin a run, or go on with one.

        The run that `mlflow run` made (MLFLOW_RUN_ID) is taken over, unless this one has a parent.
        A run whose own stage is another is only visited: it keeps its stage and its status, so that
        evaluating a killed training does not pass it off as finished.

        Args:
            stage: what is done (train, evaluate, sweep, ...): the tag `odtrain.stage`.
            run_name: what the runs table shows.
            parent: id of the run to fold this one under.
            resume: id of the run to go on with, as `find_resumable` gives it.
            digest: of its configuration, by which a run is found that was killed before it said more.
            tags: further tags.

        Raises:
            TrackingError: the store refuses, or the run to resume is not there or in use.
        """
        given = None if parent else run_made_by_mlflow(self._config, self.uri)
        wanted, name = resume or given, (parent is None and self._config.run_name) or run_name
        name = name and text_value(masked(name), LONGEST_NAME)
        known = {"odtrain.config_digest": digest} if digest else {}
        own = {"odtrain.version": __version__, "odtrain.stage": stage, **known}
        draft = RunRecord(
            *(self.uri, self._config.experiment, None, "", name, parent, stage, now(), own),
            config_digest=digest,
        )
        begun = begin_run(draft, wanted, self._outputs)
        client, record = begun.client, begun.record
        self.resumed = begun.resumed
        try:
            self.folder = claim_folder(record, self._outputs, self._alone)
        except TrackingError:
            if client is not None and wanted is None:
                client.set_terminated(str(record.run_id), "FAILED")
            raise
        if self.resumed and client is not None and not (self.folder / LOG).exists():
            with suppress(TrackingError):  # runs of before have none
                download(f"runs:/{record.run_id}/{LOG}", self.folder, self.uri)
        self._alone.enter_context(also_in(self.folder / LOG))
        logger.debug(
            f"odtrain {__version__}: {stage} in run {record.local_id} at {masked(self.uri)}"
        )
        self._delivery = Delivery(self.folder, record, client)
        self._delivery.resumed = self.resumed
        if wanted is None and client is not None:
            self._delivery.is_new()
        every = self._config.flush_seconds
        self._outbox = Outbox(self._delivery.send, every, self._went_away, self._came_back)
        self._save(record)
        if begun.lost is not None:
            self._outbox.note_lost(begun.lost)
        self._visiting = self.resumed and record.stage != stage
        if wanted is not None and not self._visiting:
            self._append("status", {"status": "RUNNING", "end": None})
        taken_up = wanted is not None and not self._visiting  # a new one was made with them
        self.set_tags({**(own if taken_up else {}), **(tags or {})})
        if client is not None and given and given != wanted:
            client.set_tag(given, "odtrain.continued_in", wanted)
        self._start_helpers()
        return self

    def _start_helpers(self) -> None:
        self._outbox.flush()
        self._outbox.start()
        self._machine = MachineMetrics(self.log, self._delivery.record.started, EVERY_SECONDS)
        if self._config.system_metrics:
            self._machine.start()
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            self._old_handler = signal.signal(signal.SIGTERM, raise_terminated)

    def finish(self, status: str = "FINISHED") -> bool:
        """End the run: FINISHED, FAILED or KILLED. False if something still waits to be sent."""
        if self._finished:
            return self._delivery.spool.empty
        self._finished = True
        self._machine.stop()
        if not self._visiting:
            self._save(replace(self._delivery.record, status=status))
            self._append("status", {"status": status, "end": now()})
        if (self.folder / LOG).is_file():
            self.log_file(self.folder / LOG)
        sent = self._outbox.close()
        self._delivery.spool.close(discard=self._delivery.record.status == "FINISHED")
        self._alone.close()
        if self._old_handler is not None:
            signal.signal(signal.SIGTERM, self._old_handler)
        if not sent:
            logger.warning(
                f"tracking: what could not be sent waits. Later: odtrain track sync {self.folder}"
            )
        return sent

    def __enter__(self) -> Tracker:
        """The tracker itself; `start` has begun the run."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the run: KILLED by SIGTERM or Ctrl-C, FAILED by any other exception."""
        if problem is not None:
            bug = not isinstance(problem, OdtrainError | KeyboardInterrupt | Terminated)
            logger.debug(f"ended by {type(problem).__name__}: {problem}", exc_info=bug)
        with doing("Ending the run"):
            self.finish(_status_after(problem))

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run; None as long as the server has not been reached."""
        return self._delivery.record.run_id

    @property
    def name(self) -> str:
        """What `resume` takes: the run id, or the name of the folder while there is none."""
        return self.run_id or self._delivery.record.local_id

    @property
    def experiment(self) -> str:
        """The experiment's name."""
        return self._delivery.record.experiment

    @property
    def online(self) -> bool:
        """Whether the server answered when last asked."""
        return not self._outbox.down

    @property
    def client(self) -> MlflowClient:
        """MLflow's own client, for what a tracker does not do; it raises what MLflow raises."""
        return self._delivery.client

    def logged_steps(self, key: str) -> set[int]:
        """The steps at which metric `key` was logged, before a resume or after."""
        key = key_name(key)
        entries = [entry for entry in self._delivery.spool.journal() if entry.kind == "metrics"]
        steps = {
            step for entry in entries for name, _, _, step in entry.body["metrics"] if name == key
        }
        if self.run_id is not None and self.online:
            try:
                steps |= self._delivery.values_on_server(key).keys()
            except Exception as problem:
                self._outbox.note_lost(problem)
        return steps

    def log(self, metrics: Mapping[str, float], step: int, *, replace: bool = False) -> None:
        """Log metrics of one step; costs no more than a line in a file.

        Values that are not finite are left out and named in the tag `odtrain.not_finite`. What is
        logged already at this step stays as it is (a resumed run repeats steps), unless `replace`, and
        is not logged twice where it is the same.
        """
        when, keys = now(), self._keys(metrics)
        values = {keys[name]: float(value) for name, value in metrics.items()}
        kept = [
            [key, number, when, int(step)]
            for key, number in values.items()
            if math.isfinite(number)
        ]
        odd = {
            key: f"{number} at step {step}"
            for key, number in values.items()
            if not math.isfinite(number)
        }
        self._note("odtrain.not_finite", odd)
        most = MOST_IN_A_BATCH["metrics"]
        for start in range(0, len(kept), most):
            self._append("metrics", {"metrics": kept[start : start + most], "replace": replace})

    def _keys(self, names: Iterable[str]) -> dict[str, str]:
        """By name, the key that MLflow takes; those renamed are found in the tag `odtrain.renamed`."""
        keys = {name: key_name(name) for name in names}
        self._note("odtrain.renamed", {key: name for name, key in keys.items() if key != name})
        return keys

    def _note(self, tag: str, more: Mapping[str, str]) -> None:
        """Add to the object that a tag holds, each key once."""
        new = {key: text for key, text in more.items() if (tag, key) not in self._told}
        if new:
            self._told.update((tag, key) for key in new)
            self._append("grown", {"tag": tag, "more": new})

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log parameters; a new value of an old one becomes a tag `odtrain.changed.<key>`."""
        keys = self._keys(params)
        values = without_secrets(params)
        texts = {keys[name]: text_value(value, LONGEST_PARAM) for name, value in values.items()}
        for some in portions(texts, MOST_PARAMS):
            self._append("params", {"params": some})

    def log_config(self, config: Config, overrides: Sequence[str] = ()) -> None:
        """Log the configuration as `config/config.yaml`, what is worth it as parameters, and the overrides.

        Passwords and tokens of addresses are not kept.
        """
        digest = config_digest(config)
        given = yaml.safe_dump(without_secrets(list(overrides)), allow_unicode=True)
        self.log_params(worth_logging(config))
        if left := left_out(config):
            self.describe(left)
        self.set_tags({"odtrain.config_digest": digest})
        self._save(replace(self._delivery.record, config_digest=digest))
        self.log_text(as_yaml(config), "config/config.yaml")
        self.log_text(given, "config/overrides.yaml")

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags, replacing older values."""
        keys = self._keys(tags)
        values = without_secrets(tags)
        texts = {keys[name]: text_value(value, LONGEST_TAG) for name, value in values.items()}
        for some in portions(texts, MOST_IN_A_BATCH["tags"]):
            self._append("tags", {"tags": some})

    def describe(self, markdown: str) -> None:
        """Set the description that the run's page shows."""
        self.set_tags({"mlflow.note.content": plain_lines(markdown)})

    def log_dataset(
        self,
        name: str,
        digest: str,
        source: Path,
        *,
        context: str = "training",
        profile: Mapping[str, object] | None = None,
    ) -> None:
        """Say which data the run used.

        Args:
            name: of the dataset.
            digest: of its content; whole in the tag `odtrain.data_digest`.
            source: the prepared dataset's folder.
            context: what it was used for: training, validation or test.
            profile: counts and the like, shown beside it.
        """
        self.set_tags({"odtrain.data_digest": digest})
        self.log_params({"data_digest": digest[:SHOWN_DIGEST]})
        content = {
            "name": name,
            "digest": digest[:LONGEST_DIGEST],
            "source_type": scheme_of(source) if is_in_store(source) else "local",
            "source": json.dumps({"uri": _uri(source)}),
            "profile": json.dumps(dict(profile or {})),
        }
        self._append("dataset", {"dataset": content, "context": context})

    def log_file(self, local: Path, artifact_folder: str = "") -> None:
        """Log a file as it is now, into a folder (posix path) of the run's artifacts."""
        self._log_artifact(local, (PurePosixPath(artifact_folder) / local.name).as_posix())

    def log_folder(self, local: Path, artifact_folder: str, *, mirror: bool = False) -> None:
        """Log all files below a folder; with `mirror`, remove what else was logged there."""
        files = sorted(path for path in local.rglob("*") if path.is_file())
        names = [artifact_path(file.relative_to(local).as_posix()) for file in files]
        if mirror:
            self._delivery.will_hold(artifact_folder, names)
        for file, name in zip(files, names, strict=True):
            self._log_artifact(file, (PurePosixPath(artifact_folder) / name).as_posix())
        if mirror:
            self._delivery.will_hold(artifact_folder, names, alone=True)
            self._delivery.spool.forget_files(artifact_folder, names)
            self._append("prune", {"folder": artifact_folder, "keep": names})

    def fetch_folder(self, artifact_folder: str, to: Path) -> Path:
        """Download what the run has logged below `artifact_folder` into `to`.

        Raises:
            TrackingError: there is nothing, or the server cannot be reached.
        """
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            uri = f"runs:/{self.run_id}/{artifact_folder}"
            shutil.copytree(download(uri, Path(scratch), self.uri), to, dirs_exist_ok=True)
        return to

    def log_text(self, text: str, artifact: str) -> None:
        """Log `text` as the file `artifact` (a posix path), which the run's folder gets too."""
        local = self.folder / artifact
        try:
            local.parent.mkdir(parents=True, exist_ok=True)
            local.write_text(text, encoding="utf-8")
        except OSError as problem:
            self._not_kept(artifact, problem)
        else:
            self._log_artifact(local, artifact)

    def log_image(self, image: UInt8Image, key: str, step: int) -> None:
        """Log a picture (H, W, 3) for the run's page; a new one of the same step replaces it."""
        # MLflow reads key, step and time out of the file's name. A name that depends on key and
        # step alone lets a resumed run overwrite its pictures instead of doubling them.
        stem = f"{image_key(key)}+step+{step}+timestamp+{self._delivery.record.started + step}"
        stem = f"{stem}+{uuid.uuid5(uuid.NAMESPACE_OID, stem)}"
        picture = Image.fromarray(image)
        small = picture.copy()
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        for version, name in ((picture, f"{stem}.png"), (small, f"{stem}+compressed.webp")):
            local = self.folder / name
            try:
                version.save(local)
            except OSError as problem:
                self._not_kept(name, problem)
                return
            self._log_artifact(local, f"images/{name}")
            local.unlink()
        self.shown[image_key(key).replace("~", "/")] = step
        self.set_tags({"mlflow.loggedImages": True})

    def log_table(
        self, columns: Sequence[str], rows: Iterable[Sequence[object]], artifact: str
    ) -> None:
        """Log a table as `artifact` (a posix path ending in .json), which the run's page shows."""
        self.log_text(
            json.dumps({"columns": list(columns), "data": [list(row) for row in rows]}), artifact
        )
        entry = {"path": artifact_path(artifact), "type": "table"}
        self._append("grown", {"tag": "mlflow.loggedArtifacts", "more": [entry]})

    def flush(self, *, insist: bool = False) -> bool:
        """Send everything now (before a checkpoint is written, say); False if it could not be.

        Then it is on disk. A server that is known to be away is asked again only on `insist`.
        """
        self._delivery.spool.sync()
        return self._outbox.flush(insist=insist)

    def _log_artifact(self, local: Path, artifact: str) -> None:
        artifact = artifact_path(artifact)
        waiting = self._delivery.spool.files()
        as_named = local.name == PurePosixPath(artifact).name  # MLflow sends no file as another
        if self.online and self.run_id is not None and not waiting and as_named:
            try:
                self._delivery.upload(local, artifact)
                return
            except Exception as problem:
                self._outbox.note_lost(problem)
        try:
            self._delivery.spool.keep_file(local, artifact)
        except OSError as problem:
            self._not_kept(artifact, problem)

    def _append(self, kind: str, body: Mapping[str, object]) -> None:
        spool = self._delivery.spool
        told = spool.problem is not None
        spool.append(kind, body)
        if spool.problem is not None and not told:
            logger.warning(
                f"tracking: {spool.folder} cannot be written ({brief(spool.problem)}); what "
                "is logged is kept in memory alone until it is sent."
            )

    def _not_kept(self, artifact: str, problem: OSError) -> None:
        logger.warning(f"tracking: {artifact} could not be kept: {brief(problem)}")

    def _went_away(self, problem: Exception) -> None:
        logger.warning(
            f"tracking: {masked(self.uri)} cannot be reached ({cause(problem)}). The run goes on; "
            f"everything is kept in {self.folder / 'spool'} and sent when it is back."
        )

    def _came_back(self) -> None:
        logger.info(f"tracking: {masked(self.uri)} is back and has everything.")

    def _save(self, record: RunRecord) -> None:
        self._delivery.record = record
        try:
            record.save(self.folder)
        except OSError as problem:
            self._not_kept("run.json", problem)


def raise_terminated(number: int, frame: FrameType | None) -> None:
    """As a handler of SIGTERM: end as a run does."""
    raise Terminated


def _status_after(problem: BaseException | None) -> str:
    if problem is None:
        return "FINISHED"
    return "KILLED" if isinstance(problem, Terminated | KeyboardInterrupt) else "FAILED"


def _uri(folder: Path) -> str:
    return with_slashes(str(folder)) if is_in_store(folder) else folder.absolute().as_uri()
