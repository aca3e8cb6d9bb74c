"""`odtrain models promote` and `rollback`, and the same after a training: the gate, and the aliases.

A version is judged by its files as they are downloaded. Several processes may judge at once; the alias is
set by one at a time, and only by a verdict that compared with the champion of that moment.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from odtrain.config.compose import from_yaml
from odtrain.config.schema import Config, RegistryConfig, TrackingConfig
from odtrain.dataset.prepare import prepare
from odtrain.dataset.read import read_labelled as labels_of
from odtrain.errors import DataError, ModelFileError, OdtrainError, TrackingError
from odtrain.evaluation import saved_detections as detection_files
from odtrain.evaluation.saved_detections import Kept, read_kept, read_labelled
from odtrain.export.benchmark import measure
from odtrain.export.parity import keep
from odtrain.export.raw_outputs import RawOutputs, raw_difference, raw_of
from odtrain.io.checksums import fingerprint
from odtrain.labels.label_map import read_class_names
from odtrain.model_source import open_source, run_config, run_file
from odtrain.models.ssd import SSD
from odtrain.promotion.gate import Evidence, Verdict, judge_version
from odtrain.registry.download import downloaded
from odtrain.registry.lock import alone_at
from odtrain.registry.register import PENDING, register_postponed
from odtrain.registry.versions import (
    LABEL_FILES,
    SOUND,
    Version,
    champion_of,
    files_of,
    find_version,
    refresh_aliases,
    roll_back,
    served_by,
    set_champion,
    versions_of,
)
from odtrain.structures import LabelledSplit
from odtrain.tracking.runs import in_use, run_folders, sync
from odtrain.tracking.store import failure, is_outage, open_client, tracking_uri
from odtrain.training.input_pipeline import Pictures

logger = logging.getLogger(__name__)

SPLIT = "test"
LONGEST_TAG = 4000
"""MLflow takes no more in a tag of a version, or in its description."""
KEPT_IN = f"eval/{detection_files.FOLDER}"


def promote(config: Config, overrides: Sequence[str], name: str, number: str) -> str:
    """Run every file of a version on its test pictures, and make it the champion if it passes.

    Args:
        config: `registry.max_*` are the limits; `data.*` is looked at where `overrides` name some.
        overrides: that the user gave.
        name: of the registered model.
        number: of the version, or an alias.

    Returns:
        What was done, in words.

    Raises:
        TrackingError: there is no such version, it has no run, or it does not pass: every check that
            fails is named, with by how much.
        DataError: the test pictures are not here, or are not those of the version.
    """
    store = tracking_uri(config.tracking)
    wanted = f"models:/{name}/{number}" if number.isdigit() else f"models:/{name}@{number}"
    version = find_version(wanted, store)
    named_data = any(override.lstrip("+~").startswith("data") for override in overrides)
    case = PromotionCase(
        store, config, config.registry, version, None, config.data if named_data else None
    )
    before = champion_of(versions_of(open_client(store), name))
    verdict = settle(case, True)
    uri = f"models:/{name}/{version.number}"
    if not verdict.passed:
        count = len(verdict.failed)
        raise TrackingError(
            uri,
            f"is not promoted: {count} check{'s' * (count > 1)} fail{'s' * (count == 1)}.",
            "\n  ".join([*verdict.reasons().splitlines(), f"Report: {_report_uri(version)}"]),
        )
    was = f"before: version {before.number}" if before is not None else "the first"
    return f"{verdict.markdown(uri)}\n{uri} is @champion now ({was})."


def promote_trained(config: Config, store: str, folder: Path, name: str, number: str) -> Verdict:
    """Judge a version that was just registered; it becomes the champion under `registry.promote=auto`.

    What the run measured is not measured again where the downloaded file is the very one.

    Args:
        config: the run's own.
        store: URI of the MLflow store.
        folder: of the run.
        name: of the registered model.
        number: of the version.
    """
    version = find_version(f"models:/{name}/{number}", store)
    here = replace(config, tracking=replace(config.tracking, uri=store))
    case = PromotionCase(store, here, config.registry, version, folder / KEPT_IN, config.data)
    return settle(case, config.registry.promote == "auto")


def rollback(tracking: TrackingConfig, name: str) -> str:
    """Give the alias `champion` back to the version that had it before; no file is run.

    Raises:
        TrackingError: there is no champion, or none before it.
    """
    store = tracking_uri(tracking)
    client = open_client(store)
    find_version(f"models:/{name}/latest", store)
    with alone_at(client, name) as lease:
        before, now = roll_back(client, name, lease)
    return f"models:/{name}@champion is version {now} again (it was version {before})."


def sync_all(
    folder: Path,
    outputs: str,
    uri: str | None = None,
) -> str:
    """Send what the runs at or below `folder` have left behind; register and judge what waits for it.

    Args:
        folder: of a run, of an experiment, or of all.
        outputs: the folder of all runs' folders.
        uri: the store, where it is no longer at the address that the runs knew.

    Returns:
        What was done, in a line.

    Raises:
        TrackingError: there is no run, or a store cannot be reached.
    """
    sent = sync(folder, uri)
    waiting = [run for run in run_folders(folder) if (run[0] / PENDING).exists()]
    registered = 0
    for run, record in waiting:
        if in_use(run):
            continue
        store = uri or record.uri
        name, number = register_postponed(run, record, store)
        logger.info(f"{run}: registered as {name} version {number}.")
        logger.info(_judged(run, outputs, store, name, number))
        (run / PENDING).unlink()
        registered += 1
    return f"{len(sent)} runs sent, {registered} models registered."


def _judged(run: Path, outputs: str, store: str, name: str, number: str) -> str:
    """What the gate said of a run's version; what keeps it from judging keeps no other run waiting.

    Raises:
        TrackingError: the store is away again.
    """
    try:
        text = (run / "config/config.yaml").read_text(encoding="utf-8")
        saved = replace(from_yaml(text), outputs=outputs)
        verdict = promote_trained(saved, store, run, name, number)
        return outcome(verdict, saved.registry, name, number)
    except (OdtrainError, FileNotFoundError) as problem:
        return f"models:/{name}/{number} is registered and was not judged: {problem}"
    except Exception as problem:
        if is_outage(store, problem):
            raise failure(store, problem) from problem
        raise


def outcome(verdict: Verdict, limits: RegistryConfig, name: str, number: str) -> str:
    """What came of a version, in words."""
    uri = f"models:/{name}/{number}"
    if not verdict.passed:
        reasons = "\n  ".join(verdict.reasons().splitlines())
        return f"{uri} is @challenger, not @champion:\n  {reasons}"
    if limits.promote != "auto":
        return f"{uri} is @challenger; it passed every check, and registry.promote=never."
    return f"{uri} is @champion."


# ---- one version


@dataclass(frozen=True, eq=False)
class PromotionCase:
    """A version to judge.

    Attributes:
        store: URI of the MLflow store.
        config: says where runs are kept and how files are timed.
        limits: `registry.*`.
        version: it.
        kept: folder of detections that the run has just measured; None to measure everything.
        data: where the pictures are; None for where the run's configuration says.
    """

    store: str
    config: Config
    limits: RegistryConfig
    version: Version
    kept: Path | None
    data: Any = None
    _cache: dict[str, Any] = field(default_factory=dict)

    @property
    def run_id(self) -> str:
        """Of the run that the version comes from.

        Raises:
            TrackingError: it names none.
        """
        run_id = self.version.run_id or self.version.tags.get("odtrain.run", "")
        if not run_id:
            raise TrackingError(
                f"models:/{self.version.name}/{self.version.number}",
                "names no run, so that there is no checkpoint to compare it with.",
                "Register models with odtrain train, or odtrain sweep pick --register.",
            )
        return run_id

    def made_with(self) -> Config:
        """The configuration of the run."""
        if "config" not in self._cache:
            self._cache["config"] = run_config(self.run_id, self.config.runs)
        made_with: Config = self._cache["config"]
        return made_with

    def checkpoint(self) -> SSD:
        """The network that the version was exported from."""
        if "checkpoint" not in self._cache:
            self._cache["checkpoint"] = open_source(self.run_id, self.config).detector
        detector: SSD = self._cache["checkpoint"]
        return detector

    def raw(self) -> Sequence[RawOutputs]:
        """What goes into the checkpoint's suppression, for the first test pictures."""
        if "raw" not in self._cache:
            self._cache["raw"] = raw_of(self.checkpoint(), self.pictures()[1])
        raw: Sequence[RawOutputs] = self._cache["raw"]
        return raw

    def pictures(self) -> tuple[LabelledSplit, Pictures]:
        """The test pictures that the version was measured on, from the data on this machine.

        Raises:
            DataError: they are not here, or have changed.
        """
        if "pictures" not in self._cache:
            dataset = prepare(self.data or self.made_with().data)
            wanted = self.version.tags.get("odtrain.data_digest", dataset.digest)
            if dataset.digest != wanted:
                raise DataError(
                    dataset.folder,
                    f"holds other data (digest {dataset.digest[:12]}) than "
                    f"models:/{self.version.name}/{self.version.number} was made of ({wanted[:12]}).",
                    "Name the data it was made of: data.images=DIR data.annotations=DIR data.name=NAME.",
                )
            split = labels_of(dataset, SPLIT)
            self._cache["pictures"] = (split, Pictures(dataset.records(SPLIT)))
        found: tuple[LabelledSplit, Pictures] = self._cache["pictures"]
        return found


def settle(case: PromotionCase, may_be_champion: bool) -> Verdict:
    """Judge a version, write the verdict down, and set the aliases of its model.

    If another version becomes the champion meanwhile, the version is compared with that one.
    """
    client = open_client(case.store)
    name = case.version.name
    with _gathered(case) as evidence:
        while True:
            champion = _rival(case, versions_of(client, name))
            verdict = judge_version(_with_champion(case, evidence, champion), case.limits)
            with alone_at(client, name) as lease:
                present = champion_of(versions_of(client, name))
                if _number(_other(case, present)) != _number(champion):
                    continue
                _write_down(client, case, verdict)
                if verdict.passed and may_be_champion:
                    set_champion(client, name, case.version.number, "promoted", lease)
                refresh_aliases(client, name, lease)
            return verdict


def _number(version: Version | None) -> str | None:
    return version.number if version is not None else None


def _rival(case: PromotionCase, versions: Sequence[Version]) -> Version | None:
    return _other(case, champion_of(versions))


def _other(case: PromotionCase, champion: Version | None) -> Version | None:
    """The champion, unless it is this very version."""
    own = champion is not None and champion.number == case.version.number
    return None if own else champion


@contextmanager
def _gathered(case: PromotionCase) -> Iterator[Evidence]:
    """All but the champion: the files are downloaded and run, or known by their checksum."""
    version = case.version
    split = _split(case)
    with downloaded(version, case.store) as (folder, damaged):
        names = {name: file for name, file in files_of(version, folder).items()}
        found = {name: _found(case, split, folder / file) for name, file in names.items()}
        yield Evidence(
            split=split,
            reference=_reference(case, split),
            found=found,
            names=names,
            label_files={file: _names_in(folder / file) for file in LABEL_FILES.values()},
            expected={"run": _run_names(case), "data_digest": _data_digest(version)},
            recorded=_recorded(version, names),
            left_out=_left_out(version),
            damaged=damaged,
            judged=served_by(version, folder) or "",
            max_map_drop=case.made_with().export.max_map_drop,
        )


def _split(case: PromotionCase) -> LabelledSplit:
    return read_labelled(case.kept) if case.kept is not None else case.pictures()[0]


def _found(case: PromotionCase, split: LabelledSplit, file: Path) -> Kept | str:
    """What a file finds in the test pictures, and how it compares; why it cannot be run, as a text."""
    if not file.exists():
        return "is missing"
    if case.kept is not None and (known := _known(case.kept, split, fingerprint(file))):
        return known
    return _measured(case, split, file, case.raw())


def _known(folder: Path, split: LabelledSplit, sha256: str) -> Kept | None:
    """What is kept of the file with that checksum, on these pictures."""
    for path in sorted(folder.glob("*.npz")):
        if path.name in (detection_files.LABELS, f"{detection_files.EVALUATED}.npz"):
            continue
        kept = read_kept(path)
        same = kept.facts.get("sha256") == sha256 and kept.split == split.digest
        if same and kept.facts.get("raw"):
            return kept
    return None


def _measured(
    case: PromotionCase, split: LabelledSplit, file: Path, raw: Sequence[RawOutputs] = ()
) -> Kept | str:
    """What a file finds; with `raw` of the checkpoint, how it compares too."""
    labelled, pictures = case.pictures()
    if labelled.digest != split.digest:
        raise DataError(
            case.made_with().data.prepared,
            "holds other test pictures than the run was evaluated on.",
            "Evaluate the run again: odtrain evaluate source=RUN_ID.",
        )
    timing = case.config.benchmark
    shown = tqdm(pictures, desc=f"gate: {file.name}", unit="picture", leave=False)
    try:
        measured = measure(file, shown, timing.runs, timing.threads, proven=bool(raw))
    except ModelFileError as problem:
        return str(problem.args[1]).rstrip(".")
    return keep(measured, split.digest, file, raw_difference(raw, measured.raw) if raw else None)


def _reference(case: PromotionCase, split: LabelledSplit) -> Sequence[Any]:
    """What the checkpoint finds: as the run kept it, else found again."""
    kept = _kept_by_run(case, case.run_id, detection_files.EVALUATED)
    if kept is not None and kept.split == split.digest:
        return kept.detections
    _, pictures = case.pictures()
    shown = tqdm(pictures, desc="gate: checkpoint", unit="picture", leave=False)
    return list(map(case.checkpoint().as_detect(), shown))


def _kept_by_run(case: PromotionCase, run_id: str, what: str) -> Kept | None:
    try:
        if case.kept is not None and run_id == case.run_id:
            return read_kept(case.kept / f"{what}.npz")
        return read_kept(run_file(run_id, f"{KEPT_IN}/{what}.npz", case.config.runs))
    except (DataError, TrackingError):
        return None


def _names_in(file: Path) -> tuple[str, ...]:
    try:
        return tuple(read_class_names(file))
    except (OdtrainError, OSError, ValueError):
        return ()


def _run_names(case: PromotionCase) -> tuple[str, ...]:
    """What passports may call the run: its id, or its name while the server was away."""
    tags = open_client(case.store).get_run(case.run_id).data.tags
    local = tags.get("odtrain.local_id")
    return (case.run_id, local) if local else (case.run_id,)


def _data_digest(version: Version) -> tuple[str, ...]:
    digest = version.tags.get("odtrain.data_digest")
    return (digest,) if digest else ()


def _recorded(version: Version, names: Mapping[str, str]) -> dict[str, float]:
    """The mAP that the version's tags state of each file."""
    stated = {name: version.tags.get(f"export/{name}/mAP") for name in names}
    return {name: float(text) for name, text in stated.items() if text is not None}


def _left_out(version: Version) -> dict[str, str]:
    """Format -> why its file is not in the version, as the training found."""
    prefix, end = "export/", "/failed"
    return {
        key.removeprefix(prefix).removesuffix(end): text
        for key, text in version.tags.items()
        if key.startswith(prefix) and key.endswith(end)
    }


# ---- the champion


def _with_champion(case: PromotionCase, evidence: Evidence, champion: Version | None) -> Evidence:
    if champion is None:
        return replace(evidence, champion=None, champion_found=None)
    key = f"champion {champion.number}"
    if key not in case._cache:
        case._cache[key] = _found_by_champion(case, evidence.split, champion)
    return replace(evidence, champion=champion.number, champion_found=case._cache[key])


def _found_by_champion(case: PromotionCase, split: LabelledSplit, champion: Version) -> Kept | str:
    """What the champion's file finds in these pictures: as its run kept it, else found now."""
    with downloaded(champion, case.store) as (folder, damaged):
        files = files_of(champion, folder)
        chosen = served_by(champion, folder)
        if damaged is not None or chosen is None:
            return damaged or "it holds no exported file"
        file = folder / files[chosen]
        if champion.run_id:
            kept = _kept_by_run(case, champion.run_id, chosen)
            same = kept is not None and kept.facts.get("sha256") == fingerprint(file)
            if kept is not None and same and kept.split == split.digest:
                return kept
        return _measured(case, split, file)


# ---- what is written down


def _write_down(client: Any, case: PromotionCase, verdict: Verdict) -> None:
    """The report as artifacts of the run; the verdict as tags and description of the version."""
    version = case.version
    title = f"models:/{version.name}/{version.number}"
    report, path = verdict.markdown(title), _report_path(version)
    said = "passed" if verdict.passed else f"failed: {verdict.reasons()}"
    tags = {
        "odtrain.gate": said[:LONGEST_TAG],
        SOUND: "passed" if verdict.sound else "failed",
        "odtrain.gate.against": verdict.against or "none",
        "odtrain.gate.report": _report_uri(version),
    }
    try:
        client.log_text(case.run_id, report, f"{path}.md")
        content = json.dumps(verdict.as_dict(), indent=2, ensure_ascii=False)
        client.log_text(case.run_id, content, f"{path}.json")
        for key, text in tags.items():
            client.set_model_version_tag(version.name, version.number, key, text)
        client.update_model_version(version.name, version.number, report[:LONGEST_TAG])
    except OSError as problem:
        raise failure(case.store, problem) from problem


def _report_path(version: Version) -> str:
    name = re.sub(r"[^\w.\-]", "_", version.name)
    return f"registry/{name}-{version.number}-gate"


def _report_uri(version: Version) -> str:
    run_id = version.run_id or version.tags.get("odtrain.run", "")
    return f"runs:/{run_id}/{_report_path(version)}.md"
