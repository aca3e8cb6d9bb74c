"""Versions of registered models: listed, found by name, number or alias, and promoted."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from odtrain.errors import TrackingError
from odtrain.export_formats import FORMATS, served_format
from odtrain.registry.lock import Lease
from odtrain.system.progress import doing
from odtrain.tracking.names import CHAMPION
from odtrain.tracking.store import check_answers, is_made, reaching, registry_uri
from odtrain_runtime.others.reading import SETTINGS_FILE
from odtrain_runtime.plain import plain

MODEL_URI = re.compile(r"(?:models:/)?(?P<name>[^/@]+)(?:@(?P<alias>[^/]+)|/(?P<version>[^/]+))?")

FILES = "odtrain.files"
"""Tag: JSON of format -> file name."""
FILES_DIGEST = "odtrain.files_digest"
"""Tag: SHA-256 of `SHA256SUMS` as it was registered."""
LABEL_FILES = {"labels": "labels.txt", "label_map": "label_map.pbtxt"}
SETTINGS = SETTINGS_FILE
"""Beside files that were trained elsewhere: how they are read."""
ORIGIN = "odtrain.origin"
"""Tag of a version that was trained elsewhere: JSON of where from, as people say, licence and sha256."""
SERVED_BY = "odtrain.served_by"
"""Tag: the format that stands for the version, wherever one file of it is run, timed or judged."""
LATENCY = "odtrain.latency_ms_p50"
SOUND = "odtrain.gate.files"
"""Tag: `passed` if the gate found every file of the version to be what its run says."""
HISTORY = "odtrain.champion"
MOST_HISTORY = 20
ROLLBACK = "rollback"
DENIED = "PERMISSION_DENIED"
"""MLflow's code where a user may not do what is asked."""


class MayNotError(TrackingError):
    """Who asks may not say which version is the champion."""


@dataclass(frozen=True)
class Version:
    """A version of a registered model, as `list_models` and `find_version` give it."""

    name: str
    number: str
    aliases: tuple[str, ...]
    run_id: str
    source: str
    tags: dict[str, str]


def list_models(store: str) -> list[Version]:
    """Every version of every registered model, newest first within each."""
    if not is_made(registry_uri(store)):
        return []
    with reaching(store) as client, doing("Reading the versions"):
        names = sorted(model.name for model in client.search_registered_models())
        if not names:
            check_answers(client, store)
        return [version for name in names for version in versions_of(client, name)]


def find_version(uri: str, store: str) -> Version:
    """The version that `models:/NAME@ALIAS`, `models:/NAME/VERSION` or a bare name means.

    A bare name means its champion, or the newest version where none is.

    Raises:
        TrackingError: there is no such model, alias or version; the message lists what there is.
    """
    parts = MODEL_URI.fullmatch(uri)
    if parts is None:
        raise TrackingError(
            uri, "does not name a model.", "Write models:/NAME@ALIAS or models:/NAME/VERSION."
        )
    with reaching(store) as client:
        versions = versions_of(client, parts["name"])
        if not versions:
            check_answers(client, store)
            raise _no_model(client, uri, parts["name"], store)
    found = [v for v in versions if parts["alias"] in v.aliases or parts["version"] == v.number]
    if parts["alias"] is None and parts["version"] in (None, "latest"):
        champions = [v for v in versions if CHAMPION in v.aliases and parts["version"] is None]
        found = champions or versions
    if not found:
        raise _no_version(uri, parts["name"], versions)
    return found[0]


def versions_of(client: MlflowClient, name: str) -> list[Version]:
    """The versions of a model, newest first; none if there is no such model."""
    try:
        found = client.search_model_versions(f"name={quoted(name)}", max_results=1000)
        aliases = client.get_registered_model(name).aliases if found else {}
    except MlflowException as problem:
        if problem.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return []
        raise
    rows = [_version(version, aliases) for version in found]
    return sorted(rows, key=lambda version: -int(version.number))


def quoted(name: str) -> str:
    """A model's name as MLflow's filters read it: they know no escape."""
    mark = '"' if "'" in name else "'"
    return f"{mark}{name}{mark}"


def _version(version: ModelVersion, aliases: Mapping[str, str]) -> Version:
    number = str(version.version)
    own = tuple(sorted(alias for alias, target in aliases.items() if str(target) == number))
    run, source = version.run_id or "", version.source or ""
    return Version(version.name, number, own, run, source, dict(version.tags))


def files_of(version: Version, folder: Path | None = None) -> dict[str, str]:
    """Format -> name of each exported file of a version.

    Args:
        version: whose tag `odtrain.files` lists them.
        folder: of its files; looked at if there is no such tag.
    """
    try:
        listed = json.loads(version.tags.get(FILES, "{}"))
    except ValueError:
        listed = {}
    if not listed and folder is not None:
        listed = {
            name: each.file for name, each in FORMATS.items() if (folder / each.file).exists()
        }
    return {key: Path(name).name for key, name in listed.items()}


def served_by(version: Version, folder: Path | None = None) -> str | None:
    """The format of the one file of a version that stands for it; None if it holds none to run.

    It is the one that the tag names, else, in versions registered before there was that tag, the first by
    rank of those that have not failed.
    """
    files = files_of(version, folder)
    sound = [name for name in files if f"export/{name}/failed" not in version.tags]
    return served_format(sound or list(files), version.tags.get(SERVED_BY))


def latency_of(version: Version) -> str | None:
    """Milliseconds of the file that stands for the version, as its tags have them; None if untimed."""
    return version.tags.get(
        f"export/{served_by(version)}/latency_ms_p50", version.tags.get(LATENCY)
    )


def _no_model(client: MlflowClient, uri: str, name: str, store: str) -> TrackingError:
    names = ", ".join(sorted(model.name for model in client.search_registered_models()))
    return TrackingError(
        uri,
        f'no model "{name}" is registered in {registry_uri(store)}.',
        f"There are: {names}." if names else "None is yet; `odtrain train` registers one.",
    )


def _no_version(uri: str, name: str, versions: Sequence[Version]) -> TrackingError:
    there = [f"{name}/{v.number}" for v in versions]
    there += [f"{name}@{alias} (version {v.number})" for v in versions for alias in v.aliases]
    return TrackingError(uri, f'"{name}" has no such version.', f"There are: {', '.join(there)}.")


def refresh_aliases(client: MlflowClient, name: str, lease: Lease) -> None:
    """Let `challenger` mean the newest version, and `fastest` the sound one that is served quickest.

    A version whose files the gate has not found to be sound is never the fastest.
    """
    versions = versions_of(client, name)
    timed = [v for v in versions if latency_of(v) and v.tags.get(SOUND) == "passed"]
    wanted: dict[str, str | None] = {"challenger": versions[0].number if versions else None}
    best = min(timed, key=lambda v: (float(latency_of(v) or "inf"), int(v.number)), default=None)
    wanted["fastest"] = best.number if best else None
    lease.check()
    for alias, number in wanted.items():
        before = next((v.number for v in versions if alias in v.aliases), None)
        if number is None and before is not None:
            client.delete_registered_model_alias(name, alias)
        elif number is not None and number != before:
            client.set_registered_model_alias(name, alias, number)


def champion_of(versions: Sequence[Version]) -> Version | None:
    """The version that has the alias `champion`."""
    return next((version for version in versions if CHAMPION in version.aliases), None)


def set_champion(client: MlflowClient, name: str, number: str, how: str, lease: Lease) -> None:
    """Let the alias `champion` mean version `number`, and write it into the history.

    The tag `odtrain.champion` of a version lists the times it was champion: `since`, `until`, `how` it
    became it, and which version was it `before`.

    Raises:
        MayNotError: the server keeps that to others.
    """
    versions = versions_of(client, name)
    before = champion_of(versions)
    if before is not None and before.number == number:
        return
    moment = datetime.now(timezone.utc).isoformat(timespec="seconds")
    version = next(version for version in versions if version.number == number)
    came_before = _before_rollback(version) if how == ROLLBACK else before and before.number
    entry = {"since": moment, "until": None, "how": how, "before": came_before}
    lease.check()
    try:
        client.set_registered_model_alias(name, CHAMPION, number)
    except MlflowException as problem:
        if problem.error_code != DENIED:
            raise
        raise MayNotError(
            f"models:/{name}/{number}",
            "you may not make it @champion.",
            f"Who manages the model may: odtrain models promote {name} {number}",
        ) from None
    _write_history(client, version, [*history(version), entry])
    if before is not None:
        rows = history(before)
        closed = [{**row, "until": row["until"] or moment} for row in rows]
        _write_history(client, before, closed)


def roll_back(client: MlflowClient, name: str, lease: Lease) -> tuple[str, str]:
    """Give the alias `champion` back to the version that had it before the present one.

    Returns:
        The number of the version that had it, and of the one that has it now.

    Raises:
        TrackingError: there is no champion, or none before it that is still there.
    """
    versions = versions_of(client, name)
    now = champion_of(versions)
    if now is None:
        raise TrackingError(
            f"models:/{name}",
            "has no champion.",
            "`odtrain models promote NAME VERSION` makes one.",
        )
    rows = history(now)
    before = rows[-1]["before"] if rows else None
    if before not in [version.number for version in versions]:
        raise TrackingError(
            f"models:/{name}@champion",
            f"version {now.number} was the first champion, or the one before it is gone.",
            f"Promote another: odtrain models promote {name} VERSION. {_listed_numbers(versions)}",
        )
    set_champion(client, name, before, ROLLBACK, lease)
    return now.number, before


def history(version: Version) -> list[dict[str, Any]]:
    """When a version was champion, oldest first: since, until, how, before."""
    try:
        rows = json.loads(version.tags.get(HISTORY, "[]"))
    except ValueError:
        return []
    keys = ("since", "until", "how", "before")
    return [{key: row.get(key) for key in keys} for row in rows if isinstance(row, dict)]


def _before_rollback(version: Version) -> str | None:
    """Which version a second rollback leads to: the one before this one's own promotion."""
    rows = history(version)
    return rows[-1]["before"] if rows else None


def _write_history(client: MlflowClient, version: Version, rows: list[dict[str, Any]]) -> None:
    kept = json.dumps(rows[-MOST_HISTORY:])
    client.set_model_version_tag(version.name, version.number, HISTORY, kept)


def _listed_numbers(versions: Sequence[Version]) -> str:
    return f"There are versions {', '.join(version.number for version in versions)}."


def losing_classes(versions: Sequence[Version], store: str) -> list[Version]:
    """Those with a .tflite that finds a class less with several threads (tensorflow#56058).

    Versions of today were run with 1 to 4 threads before they were registered. Of an older one its run
    says how its files suppress.
    """
    if not versions:
        return []
    with reaching(store) as client, doing("Looking at how they were exported"):
        return [
            each for each in versions if not _proven(each) and _made_with_operator(client, each)
        ]


def _proven(version: Version) -> bool:
    """Whether its .tflite were run with several threads, or have one class alone."""
    lite = [name for name in files_of(version) if name in FORMATS and FORMATS[name].lite]
    classes = [key for key in version.tags if key.startswith("eval/AP/")]
    known = all(f"export/{name}/raw_box_diff" in version.tags for name in lite)
    return known or len(classes) < 2


def _made_with_operator(client: MlflowClient, version: Version) -> bool:
    try:
        params = client.get_run(version.run_id).data.params
        return (params.get("export.nms") or _nms_of(client, version.run_id)) == "regular"
    except MlflowException:
        return True


def _nms_of(client: MlflowClient, run_id: str) -> str:
    """`export.nms` of a run that has it in its configuration alone; `regular` before there was a choice."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            file = client.download_artifacts(run_id, "config/config.yaml", scratch)
            config = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
            return str(config["export"].get("nms", "regular"))
        except (OSError, yaml.YAMLError, LookupError, TypeError):
            return "regular"


def loss_in_words(versions: Sequence[Version]) -> str:
    """What `losing_classes` found, and what to do; empty where it found nothing."""
    if not versions:
        return ""
    names = ", ".join(f"models:/{each.name}/{each.number}" for each in versions)
    return (
        f"With 2 threads or more a .tflite of {names} finds a class less (tensorflow#56058); odtrain runs it "
        "with one.\nodtrain export source=RUN writes files of the same network that are right with any number."
    )


def versions_table(versions: Sequence[Version]) -> str:
    """One line for each version."""
    if not versions:
        return "No model is registered yet; `odtrain train` registers one."
    rows = [("MODEL", "ALIASES", "ARCHITECTURE", "mAP", "mAP_50", "LATENCY ms", "RUN")]
    for version in versions:
        tags = version.tags
        rows.append(
            (
                f"models:/{version.name}/{version.number}",
                ",".join(version.aliases) or "-",
                tags.get("odtrain.architecture", "-"),
                tags.get("eval/mAP", "-"),
                tags.get("eval/mAP_50", "-"),
                latency_of(version) or "-",
                version.run_id or "-",
            )
        )
    seen = [list(map(plain, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*seen, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in seen]
    return "\n".join(lines)


def describe_version(version: Version) -> str:
    """All that the registry knows of a version."""
    lines = [f"models:/{version.name}/{version.number}"]
    tags = sorted(version.tags.items())
    lines += [f"  {plain(key)}: {text}".replace("\n", "\n    ") for key, text in tags]
    aliases = ", ".join(f"models:/{version.name}@{alias}" for alias in version.aliases)
    return "\n".join([*lines, f"  aliases: {aliases or '-'}"])
