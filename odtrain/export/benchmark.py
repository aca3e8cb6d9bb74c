"""Exported files measured as a user would run them: from disk, in a fresh process.

`python -m odtrain.export.benchmark FILE OUT RUNS THREADS [proven]` is that process. Pictures reach it one
by one through its standard input, so that neither side ever holds them all; what it found goes to OUT, an
.npz. For a .tflite, an .onnx and an OpenVINO model it never imports TensorFlow.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import IO, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from odtrain.box_matching import match_boxes
from odtrain.errors import ModelFileError
from odtrain.export.raw_outputs import RAW_PICTURES, RawOutputs, raw_reader
from odtrain.structures import Detections, UInt8Image, pairwise_iou
from odtrain.system import timing_lock as turns
from odtrain.system.progress import doing
from odtrain_runtime.model_files import FileDetector, kind_of, load_detector, parts_of
from odtrain_runtime.others.reading import Reading
from odtrain_runtime.resizing import resize
from odtrain_runtime.tflite import open_tflite

WARM_UP_RUNS = 5
MATCHING_IOU = 0.5
COMPARED_SCORE = 0.01
"""Detections below this score are not compared: the hundredth of a hundred is a near-tie, and which
of two wins it is a matter of the last bit."""
BOX_TOLERANCE = 1e-3
SCORE_TOLERANCE = 1e-4
"""Largest differences between a checkpoint and its float32 exports (boxes as fractions)."""
FALLBACK_SIZE = (300, 300)
"""Size of the timed picture for a file that does not say its input size."""
RAW_FILE, READING_FILE = "raw.npz", "reading.json"
WITHOUT_TENSORFLOW = (".tflite", ".onnx", ".xml")
THREADS, THREADS_PICTURES = (1, 2, 3, 4), 100
PROVEN = "proven"
TRUSTED = "trusted"
PICTURE_HEADER = struct.Struct("<2I")
"""Height and width; the uint8 RGB values follow."""
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}


@dataclass(frozen=True, eq=False)
class Measured:
    """What a file did in a process of its own.

    Attributes:
        detections: one for each picture, in order.
        latency_ms_p50: median of the file's own run on a picture of its input size, batch 1.
        latency_ms_p90: ninth decile of the same.
        threads: that it ran with; fewer than asked for where more would lose detections.
        size_mb: of the file, or of all files in the folder, in 10^6 bytes.
        peak_memory_mb: largest resident memory of the process up to the end of the timed runs, in
            10^6 bytes.
        class_names: that the file carries, index 0 = class id 1.
        passport: where the file says it comes from.
        raw: what goes into its suppression, for the first pictures of a file that is proven.
        threads_differ: how a .tflite that is proven finds other things with other numbers of threads;
            None if it does not.
        threads_asked: what `benchmark.threads` was.
    """

    detections: list[Detections]
    latency_ms_p50: float
    latency_ms_p90: float
    threads: int
    size_mb: float
    peak_memory_mb: float
    class_names: tuple[str, ...] = ()
    passport: dict[str, str] = field(default_factory=dict)
    raw: tuple[RawOutputs, ...] = ()
    threads_differ: str | None = None
    threads_asked: int = 1

    @property
    def costs(self) -> dict[str, float]:
        """What does not depend on the weights, under the names that it has in MLflow."""
        return {
            "latency_ms_p50": self.latency_ms_p50,
            "latency_ms_p90": self.latency_ms_p90,
            "size_mb": self.size_mb,
            "peak_memory_mb": self.peak_memory_mb,
        }

    @property
    def on_threads(self) -> str:
        """With how many threads it ran, and why with fewer than it was asked to."""
        why = ": more would lose detections (tensorflow#56058)"
        plural = "s" * (self.threads > 1)
        return f"{self.threads} thread{plural}{why * (self.threads < self.threads_asked)}"


class Agreement(NamedTuple):
    """How far two detectors' findings lie apart.

    Attributes:
        max_box_diff: largest difference of a coordinate among matched boxes, as a fraction.
        max_score_diff: largest difference of a score among matched boxes.
        unmatched: detections of either side that the other does not have.
    """

    max_box_diff: float
    max_score_diff: float
    unmatched: int

    def in_words(self) -> str:
        """The largest of the differences."""
        if self.unmatched:
            return f"{self.unmatched} detections differ"
        return f"boxes differ by {self.max_box_diff:.2g}, scores by {self.max_score_diff:.2g}"

    @property
    def within_tolerance(self) -> bool:
        """Whether what both found is the same to float32's precision."""
        return self.max_box_diff <= BOX_TOLERANCE and self.max_score_diff <= SCORE_TOLERANCE


@doing("Running the file in a process of its own")
def measure(
    file: Path,
    images: Iterable[UInt8Image],
    runs: int,
    threads: int,
    *,
    proven: bool = False,
    trusted: bool = False,
    reading: Reading | None = None,
) -> Measured:
    """Run an exported file over `images` in a fresh process, and time it there.

    Args:
        file: a .pb, a SavedModel folder, a .tflite, an .onnx or an OpenVINO model.
        images: (H, W, 3) pictures of any sizes; taken one at a time. The first one, resized to the
            input size, is what is timed.
        runs: timed runs after the warm-up.
        threads: that it may use.
        proven: whether what goes into suppression is read, for the first `RAW_PICTURES`, and a .tflite
            is run with other numbers of threads too, on the first `THREADS_PICTURES`.
        trusted: whether a graph may do more than compute.
        reading: how a file that ends before detections is read; None for what it or `source.yaml` says.

    Raises:
        ModelFileError: the file cannot be run, or the process that ran it ended early.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.npz"
        module = turns.timing_module("odtrain.export.benchmark")
        command = [sys.executable, *module, file, found, runs, threads]
        command += [PROVEN] * proven + [TRUSTED] * trusted
        if reading is not None:
            found.with_name(READING_FILE).write_text(reading.as_json(), "utf-8")
        with tempfile.TemporaryFile() as messages:
            with turns.away():
                status = _run([str(each) for each in command], images, messages)
            if status:
                _explain(file, status, _tail(messages))
        return _read_measured(found, file, threads)


def agreement(
    reference: Sequence[Detections], found: Sequence[Detections], score: float = COMPARED_SCORE
) -> Agreement:
    """Compare detections picture by picture.

    Best first, each detection is matched with the box of its class that overlaps it most, by at
    least `MATCHING_IOU`, and is not taken yet.

    Args:
        reference: one for each picture.
        found: for the same pictures, in the same order.
        score: what scores less needs no match, but may be one.
    """
    rows = [_compare(a, b, score) for a, b in zip(reference, found, strict=True)]
    boxes, scores, missing = zip(*rows, strict=True) if rows else ((), (), ())
    return Agreement(
        max_box_diff=max(boxes, default=0.0),
        max_score_diff=max(scores, default=0.0),
        unmatched=sum(missing),
    )


def change(reference: Detections, found: Detections, score: float = COMPARED_SCORE) -> float:
    """By how much two detectors differ in a picture.

    The gaps between the scores of what both found, and the scores of what one alone did, added up.
    """
    pairs = _match(reference, found, score)
    first, second = pairs[:, 0], pairs[:, 1]
    gaps = np.abs(reference.scores[first] - found.scores[second]).sum()
    alone = (np.delete(each.scores, taken) for each, taken in ((reference, first), (found, second)))
    return float(gaps + sum(scores[scores >= score].sum() for scores in alone))


def size_mb(path: Path) -> float:
    """Size of a model's file or files, or of everything in its folder, in 10^6 bytes."""
    tops = parts_of(path)
    inside = (file for top in tops for file in top.rglob("*") if file.is_file())
    files = tops if all(top.is_file() for top in tops) else list(inside)
    return sum(file.stat().st_size for file in files) / 1e6


def _compare(reference: Detections, found: Detections, score: float) -> tuple[float, float, int]:
    pairs = _match(reference, found, score)
    first, second = pairs[:, 0], pairs[:, 1]
    box = np.abs(reference.boxes[first] - found.boxes[second]).max(initial=0)
    gap = np.abs(reference.scores[first] - found.scores[second]).max(initial=0)
    lost = int((reference.scores >= score).sum()) - len(pairs)
    extra = np.delete(found.scores, second)
    return float(box), float(gap), lost + int((extra >= score).sum())


def _match(reference: Detections, found: Detections, score: float) -> NDArray[np.int64]:
    """(P, 2) indices in `reference` and `found` of the same objects."""
    overlaps = pairwise_iou(reference.boxes, found.boxes)
    overlaps[reference.classes[:, None] != found.classes[None]] = 0
    overlaps[reference.scores < score] = 0
    partner = match_boxes(overlaps, MATCHING_IOU)
    (matched,) = np.nonzero(partner >= 0)
    return np.stack([matched, partner[matched]], axis=1)


def _run(command: Sequence[str], images: Iterable[UInt8Image], messages: IO[bytes]) -> int:
    from odtrain.system.workers import search_path

    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=messages,
        env=os.environ | QUIET | {"PYTHONPATH": os.pathsep.join(filter(None, search_path()))},
    ) as process:
        try:
            _send(process.stdin, images)
        except BaseException:
            process.kill()
            raise
        return process.wait()


def _send(stream: IO[bytes] | None, images: Iterable[UInt8Image]) -> None:
    if stream is None:
        return
    with contextlib.suppress(BrokenPipeError), stream:  # an early end has its reason in `messages`
        for image in images:
            stream.write(PICTURE_HEADER.pack(*image.shape[:2]))
            stream.write(np.ascontiguousarray(image).data)


def _tail(messages: IO[bytes]) -> str:
    messages.seek(0)
    return messages.read().decode("utf-8", "replace").strip()


def _explain(file: Path, status: int, text: str) -> NoReturn:
    known = re.search(ERROR_LINE, text)
    if known:
        raise ModelFileError(file, known["problem"], known["remedy"])
    last = text.splitlines()[-1] if text else "it left no message"
    raise ModelFileError(
        file,
        f"the process that ran it ended with status {status}: {last}",
        "A status below 0 is the signal that ended it; -9 mostly means that memory ran out.",
    )


def _read_measured(found: Path, file: Path, threads: int) -> Measured:
    from odtrain.evaluation.saved_detections import read_kept

    kept = read_kept(found)
    seconds = kept.facts["seconds"]
    return Measured(
        detections=kept.detections,
        latency_ms_p50=float(np.percentile(seconds, 50) * 1000),
        latency_ms_p90=float(np.percentile(seconds, 90) * 1000),
        threads=kept.facts["threads"],
        size_mb=size_mb(file),
        peak_memory_mb=kept.facts["peak_memory_mb"],
        class_names=kept.class_names,
        passport=kept.facts["passport"],
        raw=tuple(_read_raw(found.with_name(RAW_FILE))),
        threads_differ=kept.facts["threads_differ"],
        threads_asked=threads,
    )


def _read_raw(file: Path) -> Iterator[RawOutputs]:
    if file.exists():
        with np.load(file) as content:
            yield from map(RawOutputs, content["boxes"], content["scores"])


# ---- the process of its own

ERROR_LINE = re.compile(r"^ODTRAIN (?P<problem>.*)\n  (?P<remedy>.*)$", re.MULTILINE)


def main(arguments: Sequence[str]) -> int:
    """Run as `FILE OUT RUNS THREADS [proven] [trusted]`, with pictures on standard input; the exit status."""
    file, out, runs, threads, *more = arguments
    turns.take_part()
    try:
        _measure_here(Path(file), Path(out), int(runs), int(threads), more)
    except ModelFileError as error:
        print(f"ODTRAIN {str(error).removeprefix(f'{file}: ')}", file=sys.stderr)
        return 1
    return 0


def _measure_here(file: Path, out: Path, runs: int, threads: int, more: Sequence[str]) -> None:
    if kind_of(file) not in WITHOUT_TENSORFLOW:
        _limit_tensorflow(threads)
    detector = load_detector(
        file, threads, trusted=TRUSTED in more, reading=_given_reading(out.with_name(READING_FILE))
    )
    images = _received()
    first = next(images, None)
    with turns.alone():
        seconds = _time(detector, first, runs)
    peak = _peak_memory_mb()
    proof = _Proof(detector) if PROVEN in more else None
    found = []
    for image in [] if first is None else turns.giving_way(chain([first], images)):
        found.append(detector(image))
        if proof is not None:
            proof.look(image, found[-1])
    facts = {"seconds": seconds.tolist(), "threads": detector.threads, "peak_memory_mb": peak}
    facts |= {"passport": detector.passport, "threads_differ": proof and proof.threads_differ()}
    from odtrain.evaluation.saved_detections import Kept, write_kept  # not part of the peak

    write_kept(out, Kept("", found, detector.class_names, facts))
    if proof is not None and proof.raw:
        boxes, scores = zip(*proof.raw, strict=True)
        np.savez(out.with_name(RAW_FILE), boxes=boxes, scores=scores)


def _given_reading(file: Path) -> Reading | None:
    return Reading.from_json(file.read_text("utf-8")) if file.exists() else None


class _Proof:
    """What is looked at in the first pictures beside the detections."""

    def __init__(self, detector: FileDetector) -> None:
        self.read_raw = raw_reader(detector)
        self.raw: list[RawOutputs] = []
        lite = kind_of(detector.path) == ".tflite" and detector.reading is None
        others = [n for n in THREADS if lite and n != detector.threads]  # that one is measured
        self.whole = None if detector.tiles is None else replace(detector, tiles=None)
        self.others = {n: _with_threads(detector.path, n) for n in others}
        self.expected: list[Detections] = []
        self.found: dict[int, list[Detections]] = {threads: [] for threads in self.others}

    def look(self, image: UInt8Image, found: Detections) -> None:
        if self.read_raw is not None and len(self.raw) < RAW_PICTURES:
            self.raw.append(self.read_raw(image))
        if len(self.expected) < THREADS_PICTURES:
            # Threads are a matter of the interpreter: one view a picture is enough, and fast.
            self.expected.append(found if self.whole is None else self.whole(image))
            for threads, other in self.others.items():
                self.found[threads].append(other(image))

    def threads_differ(self) -> str | None:
        """The number of threads that gives other detections than the file was measured with."""
        for threads, found in self.found.items():
            same = agreement(self.expected, found)
            if same.unmatched or not same.within_tolerance:
                return f"finds other things with {threads} thread{'s' * (threads > 1)}: {same.in_words()}"
        return None


def _with_threads(path: Path, threads: int) -> FileDetector:
    """A .tflite that ends in detections, with so many threads whatever it loses."""
    opened = open_tflite(path, threads, guarded=False)
    assert isinstance(opened, FileDetector)  # as it was opened with other threads
    return opened


def _limit_tensorflow(threads: int) -> None:
    """TensorFlow's pool is one for the whole process, made when it first runs something."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def _received() -> Iterator[UInt8Image]:
    stream = sys.stdin.buffer
    while header := stream.read(PICTURE_HEADER.size):
        height, width = PICTURE_HEADER.unpack(header)
        pixels = np.frombuffer(stream.read(height * width * 3), np.uint8)
        yield pixels.reshape(height, width, 3)


def _time(detector: FileDetector, image: UInt8Image | None, runs: int) -> NDArray[np.float64]:
    size = detector.input_size or FALLBACK_SIZE
    picture = np.full((*size, 3), 127, np.uint8) if image is None else image
    fitted = detector.prepare(np.rint(resize(picture, size)).astype(np.uint8))
    for _ in range(WARM_UP_RUNS):
        detector.run(fitted)
    seconds = np.empty(runs)
    for index in range(runs):
        start = time.perf_counter()
        detector.run(fitted)
        seconds[index] = time.perf_counter() - start
    return seconds


def _peak_memory_mb() -> float:
    """Of this process alone: on Linux, `ru_maxrss` would start from its parent's size."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset) / 1e6
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
