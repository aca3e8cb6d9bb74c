"""The version that is judged: its files as they are downloaded, what they find, and its rival."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from odtrain.config.schema import Config, RegistryConfig
from odtrain.config.tiles import judging_tiles
from odtrain.dataset.prepare import prepare
from odtrain.dataset.read import read_labelled as labels_of
from odtrain.errors import ConfigError, DataError, ModelFileError, OdtrainError, TrackingError
from odtrain.evaluation import saved_detections as detection_files
from odtrain.evaluation.saved_detections import Kept, read_kept, read_labelled
from odtrain.export.benchmark import measure
from odtrain.export.parity import keep
from odtrain.export.raw_outputs import RawOutputs, raw_beside, raw_difference
from odtrain.io.checksums import fingerprint
from odtrain.labels.label_map import read_class_names
from odtrain.model_files.thresholds import EVERYWHERE, Thresholds, choose_thresholds
from odtrain.model_source import open_source, run_config, run_file
from odtrain.models.ssd import SSD
from odtrain.promotion.gate import Evidence
from odtrain.registry.download import downloaded
from odtrain.registry.versions import (
    LABEL_FILES,
    ORIGIN,
    Version,
    files_of,
    served_by,
)
from odtrain.structures import Detections, LabelledSplit
from odtrain.system.progress import Bar
from odtrain.tracking.store import open_client
from odtrain.training.input_pipeline import Pictures
from odtrain_runtime.tiles import tiled

SPLIT = "test"
NAME_THE_DATA = "Name the data it was made of: data.images=DIR data.annotations=DIR data.name=NAME."
NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
KEPT_IN = f"eval/{detection_files.FOLDER}"


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
        rivals: what the file of each champion that it met finds, by version; a text says why it cannot
            be run.
    """

    store: str
    config: Config
    limits: RegistryConfig
    version: Version
    kept: Path | None
    data: Any = None
    rivals: dict[str, Kept | str] = field(default_factory=dict)

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

    @property
    def foreign(self) -> bool:
        """Whether its files were trained elsewhere."""
        return ORIGIN in self.version.tags

    @cached_property
    def made_with(self) -> Config:
        """The configuration of the run."""
        return run_config(self.run_id, self.config.runs)

    @cached_property
    def checkpoint(self) -> SSD:
        """The network that the version was exported from."""
        detector = open_source(self.run_id, self.config).detector
        assert detector is not None  # a run's
        return detector

    def raw(self, file: Path) -> Sequence[RawOutputs]:
        """What goes into the checkpoint's suppression, for the first test pictures; nothing without one.

        Args:
            file: of what it sees.
        """
        if self.foreign:
            return ()
        return self._raw(file)

    @cached_property
    def _raw(self) -> Callable[[Path], Sequence[RawOutputs]]:
        return raw_beside(self.checkpoint, self.pictures[1])

    @cached_property
    def pictures(self) -> tuple[LabelledSplit, Pictures]:
        """The test pictures that the version was measured on, from the data on this machine.

        Raises:
            DataError: they are not here, or have changed.
        """
        dataset = prepare(self.data or self.made_with.data)
        wanted = self.version.tags.get("odtrain.data_digest", dataset.digest)
        if dataset.digest != wanted:
            raise DataError(
                dataset.folder,
                f"holds other data (digest {dataset.digest[:12]}) than "
                f"models:/{self.version.name}/{self.version.number} was made of ({wanted[:12]}).",
                NAME_THE_DATA,
            )
        return labels_of(dataset, SPLIT), Pictures(dataset.records(SPLIT))


@contextmanager
def gathered(case: PromotionCase) -> Iterator[Evidence]:
    """All but the champion: the files are downloaded and run, or known by their checksum."""
    version = case.version
    split = _split(case)
    with downloaded(version, case.store) as (folder, damaged):
        names = {name: file for name, file in files_of(version, folder).items()}
        found = {name: _found(case, split, folder / file) for name, file in names.items()}
        judged = served_by(version, folder) or ""
        yield Evidence(
            split=split,
            reference=_reference(case, split, found.get(judged)),
            found=found,
            names=names,
            label_files={file: _names_in(folder / file) for file in LABEL_FILES.values()},
            expected={"run": _run_names(case), "data_digest": _data_digest(version)},
            recorded=_recorded(version, names),
            left_out=_left_out(version),
            damaged=damaged,
            judged=judged,
            max_map_drop=case.made_with.export.max_map_drop,
            thresholds=_thresholds(case, split, found.get(judged)),
            foreign=case.foreign,
        )


def _thresholds(case: PromotionCase, split: LabelledSplit, kept: Kept | str | None) -> Thresholds:
    """Those of `predict.threshold`; the common one where the file stores none."""
    passport = kept.facts["passport"] if isinstance(kept, Kept) else {}
    try:
        return choose_thresholds(case.config.predict, split.class_names, passport, "")
    except ConfigError:
        return EVERYWHERE


def _split(case: PromotionCase) -> LabelledSplit:
    return read_labelled(case.kept) if case.kept is not None else case.pictures[0]


def _found(case: PromotionCase, split: LabelledSplit, file: Path) -> Kept | str:
    """What a file finds in the test pictures, and how it compares; why it cannot be run, as a text."""
    if not file.exists():
        return "is missing"
    if case.kept is not None:
        known = _known(case.kept, split, fingerprint(file))
        if known is not None and (case.foreign or known.facts.get("raw")):
            return known
    return _measured(case, split, file, case.raw(file))


def _known(folder: Path, split: LabelledSplit, sha256: str) -> Kept | None:
    """What is kept of the file with that checksum, on these pictures."""
    for path in sorted(folder.glob("*.npz")):
        if path.name in (detection_files.LABELS, f"{detection_files.EVALUATED}.npz"):
            continue
        kept = read_kept(path)
        same = kept.facts.get("sha256") == sha256 and kept.split == split.digest
        if same:
            return kept
    return None


def _measured(
    case: PromotionCase, split: LabelledSplit, file: Path, raw: Sequence[RawOutputs] = ()
) -> Kept | str:
    """What a file finds; with `raw` of the checkpoint, how it compares too."""
    labelled, pictures = case.pictures
    if labelled.digest != split.digest:
        raise DataError(
            case.made_with.data.prepared,
            "holds other test pictures than the run was evaluated on.",
            NAME_THE_DATA,
        )
    timing = case.config.benchmark
    shown = Bar(pictures, doing=f"gate: {file.name}", leave=False)
    try:
        measured = measure(file, shown, timing.runs, timing.threads, proven=bool(raw))
    except ModelFileError as problem:
        return str(problem.args[1]).rstrip(".")
    return keep(measured, split.digest, file, raw_difference(raw, measured.raw) if raw else None)


def _reference(
    case: PromotionCase, split: LabelledSplit, judged: Kept | str | None
) -> Sequence[Any]:
    """What the checkpoint finds, as the run kept it, else found again; without one the judged file."""
    if case.foreign:
        return judged.detections if isinstance(judged, Kept) else [NOTHING] * len(split.truths)
    kept = _kept_by_run(case, case.run_id, detection_files.EVALUATED)
    if kept is not None and kept.split == split.digest:
        return kept.detections
    _, pictures = case.pictures
    shown = Bar(pictures, doing="gate: checkpoint", leave=False)
    detect = tiled(case.checkpoint.as_detect(), judging_tiles(case.made_with))
    return list(map(detect, shown))


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


def with_champion(case: PromotionCase, evidence: Evidence, champion: Version | None) -> Evidence:
    """The evidence with what the champion's file finds in the same pictures, found once a champion."""
    if champion is None:
        return replace(evidence, champion=None, champion_found=None)
    if champion.number not in case.rivals:
        case.rivals[champion.number] = _found_by_champion(case, evidence.split, champion)
    found = case.rivals[champion.number]
    return replace(evidence, champion=champion.number, champion_found=found)


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
