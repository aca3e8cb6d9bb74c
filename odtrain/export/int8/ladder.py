"""Other ways to whole numbers where the plain int8 file loses too much; the quickest that passes is kept."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from odtrain.config.schema import BenchmarkConfig
from odtrain.errors import ModelFileError
from odtrain.export.benchmark import Measured, measure
from odtrain.export.int8.ranges import spreads
from odtrain.export.int8.rungs import BEST, PLAIN, RUNG, RUNGS, TAKEN, Network, Rung
from odtrain.export.int8.tried import WORDS, Tried
from odtrain.export.lite import LiteWriter, told_only_of_failures
from odtrain.export.parity import Proof
from odtrain.io import atomic
from odtrain.models.form import Form
from odtrain.structures import FloatArray, UInt8Image
from odtrain.system import timing_lock as turns
from odtrain.system.progress import Bar, doing

logger = logging.getLogger(__name__)

LADDER_FILE = "ladder.json"
SETTING = "export.int8_ladder_minutes"
LOOKING_SHARE = 0.4
"""Of the minutes, at most, that go into looking at pictures before the first rung."""
FEW_RUNS = 5
"""Timed runs of a file before it is known whether it is worth scoring."""
PROVEN_TIMES = 4
"""How often a proof runs each picture: once as asked for, and with other numbers of threads."""
AS_QUICK = 1.05
"""Files this near to the quickest are as quick: of those the one that finds most is kept."""
CLEARLY_SLOWER = 1.5
"""A file that takes so many times as long as one that passed cannot be kept any more ..."""
SPARED_SHARE = 0.1
"""... and is scored for the table alone, if that takes no more than this share of the minutes."""
FALLBACK = "least_error"
"""How ranges are chosen where no file in int8 throughout was scored."""


@dataclass
class Ladder:
    """Climbs the rungs for one detector.

    Attributes:
        writer: of the detector's files.
        class_names: index 0 = class id 1.
        passport: that the plain file has, and the others get.
        pictures: clean training pictures, more of them than the plain file was calibrated with.
        prove: holds a file against the checkpoint.
        shown: a picture of the split, to time with.
        count: pictures of the split.
        benchmark: how to time.
        minutes: after so many no rung is begun.
        rows: of the table, filled by climbing.
        proofs: of rungs that were scored.
        contents: their files.
        until: when the minutes are over, by the monotonic clock.
    """

    writer: LiteWriter
    class_names: Sequence[str]
    passport: dict[str, str]
    pictures: Iterable[UInt8Image]
    prove: Callable[[Path], Proof]
    shown: UInt8Image
    count: int
    benchmark: BenchmarkConfig
    minutes: float
    rows: list[Tried] = field(default_factory=list)
    proofs: dict[str, Proof] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    until: float = 0.0

    def climb(self, plain: Proof, folder: Path) -> Proof:
        """The proof of the int8 file after all rungs: of the quickest that passed, or of the plain one.

        Args:
            plain: of the plain file, whose content the kept one replaces.
            folder: that gets `ladder.json`.
        """
        self.until = time.monotonic() + 60 * self.minutes
        self.rows.append(_row(PLAIN, plain.failed or "passed", plain.measured, plain))
        logger.info(
            f"The int8 file {plain.failed}: trying other ways to make it (export.int8_ladder)."
        )
        network = self._network()
        with tempfile.TemporaryDirectory() as scratch:
            for rung in turns.giving_way(Bar(RUNGS, doing="int8 ladder", unit="rung")):
                # Each in a folder of its own: who still has a file open must not see another's bytes.
                file = Path(scratch) / rung.name / plain.file.name
                file.parent.mkdir()
                self._try(rung, network, file)
        kept = self._quickest()
        rows = tuple(replace(row, kept=row.rung == kept) for row in self.rows)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps([row.as_dict() for row in rows], indent=2)
        atomic.write_text(folder / LADDER_FILE, text + "\n")
        if kept is None:
            logger.info("No rung passes; the plain int8 file stays in the run, marked failed.")
            return replace(plain, rungs=rows)
        atomic.write_bytes(plain.file, self.contents[kept])
        logger.info(f'The int8 file is now made by "{kept}", the quickest way that passes.')
        return replace(self.proofs[kept], file=plain.file, rungs=rows)

    @doing("Looking at what flows in the network")
    def _network(self) -> Network:
        with told_only_of_failures():
            content = self.writer.network("tflite_fp32", Form.LITE_INT8)
        return Network(content, spreads(content, self._normalised()))

    def _normalised(self) -> Iterator[FloatArray]:
        enough = time.monotonic() + LOOKING_SHARE * 60 * self.minutes
        detector = self.writer.detector
        for image in turns.giving_way(self.pictures):
            yield np.asarray(detector.normalize(detector.resize(image))[None])
            if time.monotonic() > enough:
                return

    def _try(self, rung: Rung, network: Network, file: Path) -> None:
        """Make the file of a rung, and look how it does as far as that is worth the time."""
        if time.monotonic() > self.until:
            self.rows.append(
                Tried(rung.name, f"not tried: {self.minutes:g} minutes are over ({SETTING})", {})
            )
            return
        try:
            content = network.quantized(rung, self._best_ranges())
        except (
            ValueError,
            RuntimeError,
            KeyError,
        ) as problem:  # operators that its recipes do not know
            self.rows.append(Tried(rung.name, f"cannot be made: {problem}", {}))
            return
        if content is None:
            self.rows.append(Tried(rung.name, "not tried: no layer asks for it", {}))
            return
        try:
            passport = {**self.passport, RUNG: rung.name}
            file.write_bytes(self.writer.finished(content, self.class_names, passport))
            timed = measure(file, [self.shown], FEW_RUNS, self.benchmark.threads)
            reason = self._not_worth_it(timed)
            proof = None if reason else self.prove(file)
        except ModelFileError as problem:
            self.rows.append(Tried(rung.name, f"cannot be run: {problem.args[1]}", {}))
            return
        if proof is None:
            self.rows.append(_row(rung.name, reason, timed))
            return
        self.rows.append(_row(rung.name, proof.failed or "passed", proof.measured, proof))
        self.proofs[rung.name], self.contents[rung.name] = proof, file.read_bytes()

    def _not_worth_it(self, timed: Measured) -> str:
        """Why a file is not scored; empty if it is."""
        own, quickest = timed.latency_ms_p50, self._quickest()
        takes = own / 1000 * self.count * PROVEN_TIMES
        if quickest is not None and takes > SPARED_SHARE * 60 * self.minutes:
            if own > CLEARLY_SLOWER * self.proofs[quickest].measured.latency_ms_p50:
                return f'not scored: "{quickest}" passes and is quicker'
        if time.monotonic() + takes > self.until:
            return f"not scored: that would take longer than {self.minutes:g} minutes allow ({SETTING})"
        return ""

    def _quickest(self) -> str | None:
        """The rung that is kept, of those that were scored; None if none passes."""
        passed = {name: one for name, one in self.proofs.items() if not one.failed}
        if not passed:
            return None
        least = min(one.measured.latency_ms_p50 for one in passed.values())
        quick = [
            name for name, one in passed.items() if one.measured.latency_ms_p50 <= AS_QUICK * least
        ]
        return max(quick, key=lambda name: passed[name].scores["mAP"])

    def _best_ranges(self) -> str:
        """The choice of ranges by which the file in int8 throughout found most."""
        scored = {
            rung.ranges: self.proofs[rung.name].scores["mAP"]
            for rung in RUNGS
            if rung.ranges != BEST and rung.bits == 8 and rung.name in self.proofs
        }
        return max(scored, key=lambda name: scored[name]) if scored else FALLBACK


def _row(rung: str, said: str, measured: Measured, proof: Proof | None = None) -> Tried:
    return Tried(
        rung,
        said,
        {name: measured.passport.get(f"{TAKEN}{name}", "") for name in WORDS},
        measured.latency_ms_p50,
        measured.size_mb,
        proof.scores["mAP"] if proof else None,
        proof.scores["mAP_50"] if proof else None,
    )
