"""What a file or folder is that was named as a model and is none that odtrain opens."""

from __future__ import annotations

import zipfile
from pathlib import Path

from odtrain_runtime.pictures import UnusableError, open_image

NEEDED = (
    "odtrain runs ONNX's and TensorFlow's files: an .onnx, a .pb, a SavedModel folder or a .tflite"
)
KERAS = f"{NEEDED}. Of a Keras detector: model.export(FOLDER) writes a SavedModel."
PYTORCH = f"{NEEDED}. The program that made it exports it to ONNX."
KINDS = {
    **dict.fromkeys((".pt", ".pth", ".torchscript"), ("a PyTorch model", PYTORCH)),
    **dict.fromkeys((".h5", ".hdf5", ".keras"), ("a Keras model", KERAS)),
    ".safetensors": ("a file of weights alone", f"{NEEDED}."),
    **dict.fromkeys((".engine", ".trt"), ("a TensorRT engine", f"{NEEDED}.")),
    **dict.fromkeys((".mlmodel", ".mlpackage"), ("a Core ML model", f"{NEEDED}.")),
    ".config": (
        "a pipeline.config",
        "odtrain import FILE writes an experiment of it; source= takes the checkpoint or exported graph.",
    ),
    **dict.fromkeys(
        (".record", ".tfrecord", ".csv", ".xml", ".json", ".pbtxt", ".txt", ".yaml", ".yml"),
        ("data or settings, no model", f"{NEEDED}."),
    ),
    **dict.fromkeys(
        (".mp4", ".avi", ".mov", ".mkv", ".webm"),
        ("a video", "Give it as input=FILE, and the model as source=MODEL."),
    ),
    **dict.fromkeys(
        (".zip", ".7z", ".rar"),
        ("an archive", "Unpack it and name the model in it as source=MODEL."),
    ),
}
"""Suffix -> what such a file is, and what to do."""
PICTURE = ("a picture", "Give it as input=FILE, and the model as source=MODEL.")
HDF5, ZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"
MODELS = ("*.pb", "*.tflite", "*.onnx", "*/saved_model.pb", "*.index")
HEAD_BYTES = 65_536


def what_it_is(path: Path) -> tuple[str, str] | None:
    """A sentence's second part and a remedy about what lies at `path`; None where it may be a checkpoint."""
    found = _of_folder(path) if path.is_dir() else _of_file(path)
    return None if found is None else (f"is {found[0]}.", found[1])


def _of_file(file: Path) -> tuple[str, str] | None:
    if not file.is_file():
        return None
    with file.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    if not head:
        return "an empty file", f"{NEEDED}."
    if head.startswith(HDF5):
        return KINDS[".h5"]
    if head.startswith(ZIP):
        return KINDS[_zipped(file)]
    return PICTURE if _is_picture(file, head) else KINDS.get(file.suffix.lower())


def _zipped(file: Path) -> str:
    """The suffix of the kind that an archive is: PyTorch and Keras save so too."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = [Path(name).name for name in archive.namelist()[:1000]]
    except (OSError, zipfile.BadZipFile):
        names = []
    own = ".keras" if "model.weights.h5" in names else ".zip"
    return ".pt" if "data.pkl" in names or file.suffix == ".pt" else own


def _is_picture(file: Path, head: bytes) -> bool:
    try:
        open_image(file, head)
    except UnusableError:
        return False
    return True


def _of_folder(folder: Path) -> tuple[str, str] | None:
    if not any(folder.iterdir()):
        return "an empty folder", f"{NEEDED}, or a run's id."
    if (folder / "checkpoint").is_file() or any(folder.glob("*.index")):
        return None
    inside = [file for pattern in MODELS for file in sorted(folder.glob(pattern))]
    if inside:
        models = [file.parent if file.name == "saved_model.pb" else file for file in inside[:3]]
        named = " or ".join(f"source={model}" for model in models)
        return "a folder of models", f"Name one of them: {named}"
    if (folder / "export").is_dir() and (folder / "checkpoints").is_dir():
        return "the folder of a run", f"Name the run: source={folder.resolve().name}"
    return "a folder without a model", f"{NEEDED}, or a run's id."
