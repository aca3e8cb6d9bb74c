"""Versions of registered models: listed, found by name, number or alias, and promoted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from odtrain.errors import TrackingError
from odtrain.store import open_client, shown

MODEL_URI = re.compile(r"(?:models:/)?(?P<name>[^/@]+)(?:@(?P<alias>[^/]+)|/(?P<version>[^/]+))?")


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
    client = open_client(store)
    names = sorted(model.name for model in client.search_registered_models())
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
    client = open_client(store)
    versions = versions_of(client, parts["name"])
    if not versions:
        raise _no_model(client, uri, parts["name"], store)
    found = [v for v in versions if parts["alias"] in v.aliases or parts["version"] == v.number]
    if parts["alias"] is None and parts["version"] in (None, "latest"):
        champions = [v for v in versions if "champion" in v.aliases and parts["version"] is None]
        found = champions or versions
    if not found:
        raise _no_version(uri, parts["name"], versions)
    return found[0]


def versions_of(client: MlflowClient, name: str) -> list[Version]:
    """The versions of a model, newest first; none if there is no such model."""
    quoted = name.replace("'", "''")
    try:
        found = client.search_model_versions(f"name='{quoted}'", max_results=1000)
        aliases = client.get_registered_model(name).aliases if found else {}
    except MlflowException as problem:
        if problem.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return []
        raise
    rows = [_version(version, aliases) for version in found]
    return sorted(rows, key=lambda version: -int(version.number))


def _version(version: ModelVersion, aliases: Mapping[str, str]) -> Version:
    number = str(version.version)
    own = tuple(sorted(alias for alias, target in aliases.items() if str(target) == number))
    run, source = version.run_id or "", version.source or ""
    return Version(version.name, number, own, run, source, dict(version.tags))


def _no_model(client: MlflowClient, uri: str, name: str, store: str) -> TrackingError:
    names = ", ".join(sorted(model.name for model in client.search_registered_models()))
    return TrackingError(
        uri,
        f'no model "{name}" is registered in {shown(store)}.',
        f"There are: {names}." if names else "None is yet; `odtrain train` registers one.",
    )


def _no_version(uri: str, name: str, versions: Sequence[Version]) -> TrackingError:
    there = [f"{name}/{v.number}" for v in versions]
    there += [f"{name}@{alias} (version {v.number})" for v in versions for alias in v.aliases]
    return TrackingError(uri, f'"{name}" has no such version.', f"There are: {', '.join(there)}.")


def set_champion(store: str, name: str, number: str) -> None:
    """Let the alias `champion` of a registered model mean version `number`.

    Raises:
        TrackingError: there is no such model or version.
    """
    client = open_client(store)
    version = find_version(f"models:/{name}/{number}", store)
    client.set_registered_model_alias(name, "champion", version.number)


def table(versions: Sequence[Version]) -> str:
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
                tags.get("odtrain.latency_ms_p50", "-"),
                version.run_id or "-",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join(lines)


def describe(version: Version) -> str:
    """All that the registry knows of a version."""
    lines = [f"models:/{version.name}/{version.number}"]
    lines += [f"  {key}: {text}" for key, text in sorted(version.tags.items())]
    aliases = ", ".join(f"models:/{version.name}@{alias}" for alias in version.aliases)
    return "\n".join([*lines, f"  aliases: {aliases or '-'}"])
