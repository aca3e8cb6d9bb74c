"""Exported models as detectors: .pb, SavedModel, .tflite, .onnx, OpenVINO's; ours or a stranger's."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from odtrain_runtime.detector import FileDetector, Raw, other_classes
from odtrain_runtime.errors import ModelFileError
from odtrain_runtime.others.onnx_file import open_onnx
from odtrain_runtime.others.openvino_check import pairs, xml_of
from odtrain_runtime.others.openvino_file import open_openvino
from odtrain_runtime.others.raw_model import RawModel, raw_detector
from odtrain_runtime.others.reading import Reading, settings_beside
from odtrain_runtime.others.recognise import settled
from odtrain_runtime.provenance import read_size
from odtrain_runtime.tf_graph import SAVED_MODEL_FILE, open_frozen_graph, open_saved_model
from odtrain_runtime.tflite import open_tflite
from odtrain_runtime.tiles import read_tiles

__all__ = ["FileDetector", "kind_of", "load_detector", "load_detectors", "parts_of"]

Opener = Callable[[Path, int, bool], FileDetector | RawModel]
"""(file, threads, trusted) -> its detector, or a model whose outputs are still to be read."""


def load_detector(
    path: Path,
    threads: int = 1,
    class_names: Sequence[str] | None = None,
    trusted: bool = False,
    reading: Reading | None = None,
) -> FileDetector:
    """Open an exported file, ours or one that was made elsewhere.

    Args:
        path: a .pb, a SavedModel folder, a .tflite, an .onnx, an OpenVINO .xml or its folder.
        threads: of a .tflite's interpreter. TensorFlow computes with one pool for the whole
            process, which is left alone.
        class_names: index 0 = class id 1, for a file that does not hold its own.
        trusted: whether a graph may do more than compute (`graph_operators`).
        reading: of a file that ends before detections; None for what it or `source.yaml` says.

    Raises:
        ModelFileError: there is no such file, it cannot be read, it is no object detector, of another
            number of classes, or may do more than compute.
        UnsettledError: it cannot be told how it is to be read.
    """
    path = path.parent if path.name == SAVED_MODEL_FILE else path
    model = open_model(path, threads, trusted)
    opened = _read(model, reading, class_names) if isinstance(model, RawModel) else model
    given = () if opened.class_names else tuple(class_names or ())
    if given and opened.num_classes not in (None, len(given)):
        counted = "1 class" if opened.num_classes == 1 else f"{opened.num_classes} classes"
        raise other_classes(path, f"has {counted}", len(given))
    return replace(
        opened,
        format=opened.passport.get("format", opened.format),
        class_names=opened.class_names or given,
        names_given=bool(given),
        input_size=read_size(opened.passport) or opened.input_size,
        tiles=read_tiles(opened.passport),
    )


def open_model(path: Path, threads: int, trusted: bool = False) -> FileDetector | RawModel:
    """A file as what it is: a detector, or a model whose outputs are still to be read.

    Raises:
        ModelFileError: as `load_detector`.
    """
    return _opener(path)(path, threads, trusted)


def load_detectors(
    path: Path,
    workers: int,
    threads: int = 1,
    class_names: Sequence[str] | None = None,
    trusted: bool = False,
    reading: Reading | None = None,
) -> FileDetector:
    """Open an exported file for several threads at once, as one detector.

    A .tflite and an OpenVINO model are opened `workers` times: each runs one picture after the other, and
    several side by side use the cores better than one with several threads. Pictures are made ready beside
    them; a run takes a free one. ONNX Runtime takes pictures of several threads, and TensorFlow's graphs are
    shared as they are.

    Raises:
        ModelFileError: there is no such file, it cannot be read, or it is no object detector.
    """
    kind = kind_of(path)
    if kind == ".onnx":
        shared = load_detector(path, threads, class_names, reading=reading)
        return replace(shared, lanes=workers)
    if kind not in (".tflite", OPENVINO):
        return load_detector(path, max(threads, workers), class_names, trusted, reading)
    opened = [load_detector(path, threads, class_names, reading=reading) for _ in range(workers)]
    free: queue.SimpleQueue[FileDetector] = queue.SimpleQueue()
    for detector in opened:
        free.put(detector)

    def run(tensor: NDArray[Any]) -> Raw:
        detector = free.get()
        try:
            return detector.run(tensor)
        finally:
            free.put(detector)

    return replace(opened[0], run=run, lanes=workers)


def _read(model: RawModel, how: Reading | None, names: Sequence[str] | None) -> FileDetector:
    """The detector of a model whose outputs are read so, or as it or `source.yaml` beside it says."""
    if how is None:
        how = settled(model, settings_beside(model.path), tuple(names or ()))
    return raw_detector(model, how)


def kind_of(path: Path) -> str | None:
    """The key of `OPENERS` by which a file or folder is opened; None where it is no model."""
    if path.is_dir():
        if (path / SAVED_MODEL_FILE).exists():
            return SAVED_MODEL_FILE
        return OPENVINO if pairs(path) else None
    return path.suffix if path.suffix in OPENERS else None


def parts_of(path: Path) -> list[Path]:
    """The files that a model is, or its folder where all in it belongs to it.

    Raises:
        ModelFileError: a folder holds several OpenVINO models.
    """
    if kind_of(path) != OPENVINO:
        return [path]
    xml = xml_of(path)
    return [part for part in (xml, xml.with_suffix(".bin")) if part.is_file()]


def _opener(path: Path) -> Opener:
    if not path.exists():
        raise ModelFileError(path, "there is no such file.", "Check the path.")
    kind = kind_of(path)
    if kind is not None:
        return OPENERS[kind]
    raise ModelFileError(
        path,
        "not a model file that can be run.",
        "Give a .pb, a .tflite, an .onnx, an OpenVINO .xml, or a SavedModel folder (it holds "
        f"{SAVED_MODEL_FILE}).",
    )


OPENVINO = ".xml"
OPENERS: dict[str, Opener] = {
    ".pb": open_frozen_graph,
    SAVED_MODEL_FILE: open_saved_model,
    ".tflite": lambda path, threads, trusted: open_tflite(path, threads),  # its operators compute
    ".onnx": lambda path, threads, trusted: open_onnx(path, threads),  # and so do these
    OPENVINO: lambda path, threads, trusted: open_openvino(path, threads),
}
