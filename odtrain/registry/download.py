"""The files of registered models: downloaded, verified, and run by MLflow's own scoring server."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException

from odtrain.errors import TrackingError
from odtrain.io.archives import cache_folder
from odtrain.io.atomic import copy, put, replacing_folder, write_text
from odtrain.io.checksums import SUMS, of_files, verify
from odtrain.io.locks import alone
from odtrain.registry.model_card import CARD
from odtrain.registry.versions import (
    FILES_DIGEST,
    LABEL_FILES,
    SETTINGS,
    Version,
    files_of,
    find_version,
    served_by,
)
from odtrain.secrets import forget
from odtrain.tracking.reach import cause, hurried
from odtrain.tracking.store import failure, is_outage, mlflow_uses, open_client
from odtrain_runtime.pictures import PIXEL_LIMIT
from odtrain_runtime.seen.usage_log import UsageLog


def resolve_model(uri: str, store: str) -> Path:
    """The folder that holds the exported files of a registered model, downloaded if need be.

    Downloads are kept in the cache folder, where later calls find them.

    Raises:
        TrackingError: there is no such model, or its files cannot be had or are damaged.
    """
    version = find_version(uri, store)
    model_id = version.source.removeprefix("models:/")
    try:
        with hurried(store):
            location = open_client(store).get_logged_model(model_id).artifact_location
        here = Path(url2pathname(urlsplit(location).path)) / "artifacts"
        if urlsplit(location).scheme in ("file", "") and here.is_dir():
            return here
        return _cached(model_id, store)
    except (MlflowException, OSError) as problem:
        raise _not_complete(uri, store, problem) from problem


def scoring_app(
    uri: str,
    store: str,
    max_pixels: int = PIXEL_LIMIT,
    max_pictures: int | None = None,
    log: UsageLog | None = None,
) -> Any:
    """MLflow's own scoring server for a registered model, as an ASGI application.

    What it runs is the file that stands for the version, held against its digest, by this runtime: the
    code that lies beside it in the artifact store, which no digest holds, is not run.

    Args:
        uri: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        store: URI of the MLflow store.
        max_pixels: of one picture.
        max_pictures: in one request; None for any number.
        log: of what was seen and found.

    Raises:
        TrackingError: there is no such model, or its files cannot be had or are not those registered.
    """
    from mlflow.models import Model
    from mlflow.pyfunc import PyFuncModel
    from mlflow.pyfunc.model import PythonModelContext, _PythonModelPyfuncWrapper
    from mlflow.pyfunc.scoring_server import init

    from odtrain.registry.register import SIGNATURE
    from odtrain_runtime.pyfunc import DetectorModel

    version = find_version(uri, store)
    chosen, file = file_of_version(version, store)
    labels = file.with_name(LABEL_FILES["labels"])
    _hold(labels.parent, version, [labels.name])
    model = DetectorModel(max_pixels, max_pictures, log)
    artifacts = {chosen: str(file), "labels": str(labels)}
    context: Any = PythonModelContext(artifacts, {"detector": chosen})  # type: ignore[no-untyped-call]
    model.load_context(context)
    wrapped = _PythonModelPyfuncWrapper(model, context, SIGNATURE)
    return init(PyFuncModel(Model(signature=SIGNATURE), wrapped))


def _not_complete(uri: str, store: str, problem: Exception) -> TrackingError:
    if isinstance(problem, MlflowException) and is_outage(store, problem):
        return failure(store, problem)
    forget(problem)
    return TrackingError(uri, f"cannot be downloaded: {cause(problem)}", f"Is {store} complete?")


def file_of_version(version: Version, store: str, format: str | None = None) -> tuple[str, Path]:
    """A file of a version, downloaded if need be, and its format.

    Args:
        version: whose.
        store: URI of the MLflow store.
        format: of the file; None for the one that is served.

    Raises:
        TrackingError: the version holds no such file, or it cannot be had or is not the one registered.
    """
    uri = _uri(version)
    folder = resolve_model(uri, store)
    files = files_of(version, folder)
    if format is not None and format not in files:
        raise TrackingError(uri, f'holds no "{format}".', f"It holds: {', '.join(files)}.")
    chosen = format or served_by(version, folder)
    if chosen is None:
        raise TrackingError(
            uri, "holds no file that odtrain can run.", "Was it registered by odtrain?"
        )
    beside = [SETTINGS] if (folder / SETTINGS).exists() else []
    _hold(folder, version, [files[chosen], *beside])
    return chosen, folder / files[chosen]


def _uri(version: Version) -> str:
    return f"models:/{version.name}/{version.number}"


def _hold(folder: Path, version: Version, names: Sequence[str]) -> None:
    """Hold files of a version against the digests that the registry keeps of them.

    Raises:
        TrackingError: they are not those that were registered. A damaged copy in the cache is let go.
    """
    problem = _damage(folder, version, names)
    if problem is None:
        return
    if folder.is_relative_to(_kept()):
        shutil.rmtree(folder, ignore_errors=True)
        raise TrackingError(
            folder, f"{problem}.", "This copy was removed: the same command downloads it again."
        )
    raise TrackingError(
        _uri(version),
        f"{problem}.",
        f"Something changed it in {folder} since. Bring it back from a backup, or register its run again.",
    )


@contextmanager
def downloaded(version: Version, store: str) -> Iterator[tuple[Path, str | None]]:
    """The files of a version, fetched afresh for a while, and what is wrong with them.

    Yields:
        The folder, and why its files are not those that were registered; None if they are.

    Raises:
        TrackingError: they cannot be had.
    """
    uri = _uri(version)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            with mlflow_uses(store):
                got = Path(download_artifacts(uri, dst_path=scratch, tracking_uri=store))
        except (MlflowException, OSError) as problem:
            if is_outage(store, problem):
                raise
            raise _not_complete(uri, store, problem) from problem
        yield got / "artifacts", _damage(got / "artifacts", version)


def _damage(folder: Path, version: Version, names: Sequence[str] | None = None) -> str | None:
    """Why files are not those that were registered; `names` alone are looked at, where given."""
    try:
        verify(folder, names)
    except TrackingError as problem:
        return f"{Path(str(problem.args[0])).name} {problem.args[1].rstrip('.')}"
    sums = (folder / SUMS).read_text(encoding="utf-8")
    wanted = version.tags.get(FILES_DIGEST)
    if wanted is not None and hashlib.sha256(sums.encode()).hexdigest() != wanted:
        return f"{SUMS} is not the one that was registered"
    looked_at = names or [*files_of(version, folder).values(), *LABEL_FILES.values()]
    bare = [name for name in looked_at if not of_files(sums, [name])]
    return f"{SUMS} does not list {', '.join(bare)}" if bare else None


def _kept() -> Path:
    """Where downloaded models are kept."""
    return cache_folder().parent / "models"


def _cached(model_id: str, store: str) -> Path:
    target = _kept() / model_id
    with alone(target.with_name(f"{target.name}.lock")):
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=target.parent) as scratch, mlflow_uses(store):
                got = download_artifacts(
                    f"models:/{model_id}", dst_path=scratch, tracking_uri=store
                )
                verify(Path(got) / "artifacts")
                put(Path(got) / "artifacts", target)
    return target


def download(uri: str, to: Path, store: str, format: str | None = None) -> list[Path]:
    """Copy the files of a registered model and its card into `to`, and verify what has arrived.

    Args:
        uri: `models:/NAME@ALIAS`, `models:/NAME/VERSION` or a bare name.
        to: the folder; files of the same names in it are replaced.
        store: URI of the MLflow store.
        format: of the one export wanted; labels, label map and card come with it.

    Returns:
        The files and folders in `to`.

    Raises:
        TrackingError: there is no such model or format, or a file is damaged.
    """
    folder = resolve_model(uri, store)
    version = find_version(uri, store)
    files = files_of(version, folder)
    if format is not None and format not in files:
        raise TrackingError(uri, f'holds no "{format}".', f"It holds: {', '.join(files)}.")
    wanted = [files[format]] if format else list(files.values())
    names = [*wanted, *LABEL_FILES.values(), CARD, SETTINGS]
    _hold(folder, version, [name for name in names if (folder / name).exists() or name in wanted])
    copied = [_copy(folder / name, to) for name in names if (folder / name).exists()]
    sums = (folder / SUMS).read_text(encoding="utf-8")
    write_text(to / SUMS, of_files(sums, names))
    verify(to)
    return copied


def _copy(source: Path, to: Path) -> Path:
    target = to / source.name
    if source.is_dir():
        with replacing_folder(target) as part:
            shutil.copytree(source, part, dirs_exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)
    else:
        copy(source, target)
    return target
