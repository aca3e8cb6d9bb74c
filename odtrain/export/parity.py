"""The promise: every exported file is run from disk in a fresh process, compared, scored and timed.

`prove` says of each file what it measured and, where the file falls short of the checkpoint, why. The
tolerances are those of docs/design.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from odtrain.config.schema import BenchmarkConfig
from odtrain.evaluation.evaluate import quick_map
from odtrain.evaluation.saved_detections import Kept
from odtrain.export.benchmark import (
    BOX_TOLERANCE,
    SCORE_TOLERANCE,
    Agreement,
    Measured,
    agreement,
    measure,
)
from odtrain.export.int8.tried import Tried, rungs_table
from odtrain.export.raw_outputs import OTHERS, RawDifference, RawOutputs, raw_difference
from odtrain.export_formats import EXACT_FORMATS, INT8
from odtrain.io import markdown
from odtrain.io.checksums import fingerprint
from odtrain.structures import Detections, GroundTruth, UInt8Image
from odtrain.system.progress import Bar

EXACT_MAP_DROP = 0.02
"""What suppression may cost a format that is exact before it: ties decided otherwise move a small test
set's mAP by less, suppression over all classes at once by more."""


@dataclass(frozen=True)
class Proof:
    """What one exported file does.

    Attributes:
        format: a key of `export_formats.FORMATS`.
        file: where it is.
        measured: its detections, latency, size and memory.
        scores: mAP, mAP_50, ... of its own detections.
        agreement: with the checkpoint's detections.
        raw: difference from the checkpoint in what goes into suppression.
        failed: why the file must not be promoted; None if nothing speaks against it.
        map_drop: by how much its mAP is below the checkpoint's.
        rungs: of an int8 file, the ways to make it that were tried, if the plain one did not pass.
    """

    format: str
    file: Path
    measured: Measured
    scores: dict[str, float]
    agreement: Agreement
    raw: RawDifference
    failed: str | None
    map_drop: float = 0.0
    rungs: tuple[Tried, ...] = ()

    def metrics(self) -> dict[str, float]:
        """The numbers of this file under the names they have in MLflow."""
        values = {
            "mAP": self.scores["mAP"],
            "mAP_50": self.scores["mAP_50"],
            **self.measured.costs,
            "max_box_diff": self.agreement.max_box_diff,
            "max_score_diff": self.agreement.max_score_diff,
            "raw_box_diff": self.raw.box,
            "raw_score_diff": self.raw.score,
        }
        return {f"export/{self.format}/{name}": value for name, value in values.items()}

    def kept(self, split: str) -> Kept:
        """What the file found, to be kept; `split` is the digest of the labelled pictures."""
        kept = keep(self.measured, split, self.file, self.raw)
        kept.facts["rungs"] = [row.as_dict() for row in self.rungs]
        return kept


def keep(measured: Measured, split: str, file: Path, raw: RawDifference | None = None) -> Kept:
    """What a file found in the split of that digest, and which file it was; `raw` where it was proven."""
    facts = {
        "sha256": fingerprint(file),
        **measured.costs,
        "threads": measured.threads,
        "threads_asked": measured.threads_asked,
        "passport": measured.passport,
        "raw": raw,
        "threads_differ": measured.threads_differ,
    }
    return Kept(split, measured.detections, measured.class_names, facts)


def prove(
    files: dict[str, Path],
    reference: Sequence[Detections],
    raw: Callable[[Path], Sequence[RawOutputs]],
    images: Sequence[UInt8Image],
    truths: Sequence[GroundTruth],
    class_names: Sequence[str],
    max_map_drop: float,
    benchmark: BenchmarkConfig,
) -> list[Proof]:
    """Run every file on the pictures and compare it with the checkpoint.

    Args:
        files: by format.
        reference: what the checkpoint found in each picture.
        raw: of a file, what goes into the checkpoint's suppression for what that file sees of the first
            `RAW_PICTURES`.
        images: the pictures.
        truths: what is in them.
        class_names: that every file must carry, in order of the ids.
        max_map_drop: the most that a format which is not exact may lose of the checkpoint's mAP.
        benchmark: how to time.
    """
    judge = Judge(reference, truths, class_names, max_map_drop)
    proofs = []
    for name, file in Bar(files.items(), doing="measure exports", unit="file"):
        measured = measure(file, images, benchmark.runs, benchmark.threads, proven=True)
        proofs.append(judge.proof(name, file, measured, raw_difference(raw(file), measured.raw)))
    return proofs


class Judge:
    """Holds what files did against what their checkpoint found in the same pictures."""

    def __init__(
        self,
        reference: Sequence[Detections],
        truths: Sequence[GroundTruth],
        class_names: Sequence[str],
        max_map_drop: float,
    ) -> None:
        """As for `prove`."""
        self.reference, self.truths = reference, truths
        self.class_names, self.max_map_drop = class_names, max_map_drop
        self.map = quick_map(truths, reference, class_names)["mAP"]

    def proof(self, name: str, file: Path, measured: Measured, raw: RawDifference) -> Proof:
        """Of the file of one format."""
        scores = quick_map(self.truths, measured.detections, self.class_names)
        drop = self.map - scores["mAP"]
        failed = (
            _names_lost(measured.class_names, self.class_names)
            or measured.threads_differ
            or (not_exact(raw) if name in EXACT_FORMATS else None)
            or _loses(name, drop, self.max_map_drop)
        )
        agreed = agreement(self.reference, measured.detections)
        return Proof(name, file, measured, scores, agreed, raw, failed, drop)

    def recalled(self, name: str, file: Path, kept: Kept) -> Proof:
        """Of the file that `keep` kept this of."""
        facts = {
            field.name: kept.facts[field.name]
            for field in fields(Measured)
            if field.name in kept.facts
        }
        raw = RawDifference(*facts.pop("raw"))
        measured = Measured(kept.detections, class_names=kept.class_names, **facts)
        rungs = tuple(Tried(**row) for row in kept.facts.get("rungs", ()))
        return replace(self.proof(name, file, measured, raw), rungs=rungs)


def not_exact(raw: RawDifference) -> str | None:
    """Why a file that should compute what the checkpoint computes does not; None if it does."""
    if raw == OTHERS:
        return "has other anchors or classes before suppression than the checkpoint"
    for what, found, most in (
        ("boxes", raw.box, BOX_TOLERANCE),
        ("scores", raw.score, SCORE_TOLERANCE),
    ):
        if not found <= most:
            return f"{what} before suppression differ by {found:.2g} from the checkpoint's, above {most:g}"
    return None


def _loses(name: str, drop: float, max_map_drop: float) -> str | None:
    if name in EXACT_FORMATS:
        most, allows = EXACT_MAP_DROP, "such a file may lose"
    else:
        most, allows = max_map_drop, "export.max_map_drop allows"
    return f"loses {drop:.3f} mAP; {allows} {most:g}" if drop > most else None


def _names_lost(carried: tuple[str, ...], class_names: Sequence[str]) -> str | None:
    return None if carried == tuple(class_names) else f"carries the class names {carried}"


def exports_table(proofs: Sequence[Proof]) -> str:
    """The exports as a Markdown table, one row a file; below it the ways to int8, if several were tried."""
    columns = ("file", "mAP", "mAP_50", "latency p50 / p90", "size", "checked")
    files = "\n".join(markdown.table(columns, map(_cells, proofs)))
    return "\n\n".join([files, *(rungs_table(one.rungs) for one in proofs if one.rungs)])


def int8_of(proofs: Sequence[Proof]) -> Proof | None:
    """The proof of the int8 file, if there is one."""
    return next((one for one in proofs if one.format == INT8), None)


def _cells(proof: Proof) -> list[str]:
    measured = proof.measured
    scores = [f"{proof.scores[name]:.3f}" for name in ("mAP", "mAP_50")]
    latency = (
        f"{measured.latency_ms_p50:.1f} / {measured.latency_ms_p90:.1f} ms ({measured.on_threads})"
    )
    said = proof.failed or _agrees(proof)
    return [proof.file.name, *scores, latency, f"{measured.size_mb:.1f} MB", said]


def _agrees(proof: Proof) -> str:
    """How far a file that may be promoted does what the checkpoint does."""
    agreed = proof.agreement
    apart = [f"scores differ by up to {agreed.max_score_diff:.2f}"] * (
        agreed.max_score_diff >= 0.005
    )
    apart += [f"{agreed.unmatched} detections differ"] * (agreed.unmatched > 0)
    if not apart or proof.format in EXACT_FORMATS:  # those are proven before suppression
        return "agrees with the checkpoint"
    where = "below" if proof.map_drop > 0 else "above"
    near = f"{abs(proof.map_drop):.3f} {where}" if abs(proof.map_drop) >= 0.0005 else "as"
    return ", ".join([f"mAP {near} the checkpoint's", *apart])
