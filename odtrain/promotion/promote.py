"""`odtrain models promote` and `rollback`, and the same after a training: the gate, and the aliases.

A version is judged by its files as they are downloaded. Several processes may judge at once; the alias is
set by one at a time, and only by a verdict that compared with the champion of that moment.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from odtrain.config.compose import from_yaml, names_section
from odtrain.config.schema import Config, RegistryConfig, TrackingConfig
from odtrain.errors import OdtrainError, TrackingError
from odtrain.io.locks import alone
from odtrain.promotion.case import KEPT_IN, PromotionCase, gathered, with_champion
from odtrain.promotion.gate import Verdict, judge_version
from odtrain.registry.lock import alone_at
from odtrain.registry.register import PENDING, register_postponed
from odtrain.registry.versions import (
    SOUND,
    MayNotError,
    Version,
    champion_of,
    find_version,
    refresh_aliases,
    roll_back,
    set_champion,
    versions_of,
)
from odtrain.tracking.reach import StoreAwayError
from odtrain.tracking.runs import AtWorkError, at_work, run_folders, store_of, sync
from odtrain.tracking.store import failure, is_outage, open_client, reaching, told, tracking_uri

logger = logging.getLogger(__name__)

LONGEST_TAG = 4000
"""MLflow takes no more in a tag of a version, or in its description."""


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
        MayNotError: it passes, and the server does not let this user promote.
        DataError: the test pictures are not here, or are not those of the version.
    """
    case = _case(config, overrides, name, number)
    store, version = case.store, case.version
    with told(store):
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


def would_pass(
    config: Config, overrides: Sequence[str], name: str, number: str
) -> tuple[bool, str]:
    """Judge a version as `promote` does, and leave registry and run as they are.

    Returns:
        Whether it would become the champion, and the report as Markdown.

    Raises:
        TrackingError: there is no such version, or it has no run.
        DataError: the test pictures are not here, or are not those of the version.
    """
    case = _case(config, overrides, name, number)
    with told(case.store), gathered(case) as evidence:
        champion = _rival(case, versions_of(open_client(case.store), name))
        verdict = judge_version(with_champion(case, evidence, champion), case.limits)
    return verdict.passed, verdict.markdown(f"models:/{name}/{case.version.number}")


def _case(config: Config, overrides: Sequence[str], name: str, number: str) -> PromotionCase:
    """What is judged, as the user names it."""
    store = tracking_uri(config.tracking)
    wanted = f"models:/{name}/{number}" if number.isdigit() else f"models:/{name}@{number}"
    data = config.data if names_section(overrides, "data") else None
    return PromotionCase(store, config, config.registry, find_version(wanted, store), None, data)


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
    find_version(f"models:/{name}/latest", store)
    with reaching(store) as client, alone_at(client, name) as lease:
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
        with suppress(AtWorkError), alone(run / ".lock", busy=at_work(record.local_id)):
            if not (run / PENDING).exists():  # another has done it meanwhile
                continue
            store = store_of(record, uri)
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
    except StoreAwayError:
        raise
    except MayNotError as problem:
        return f"models:/{name}/{number} is @challenger, and passed every check. {problem}"
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


def settle(case: PromotionCase, may_be_champion: bool) -> Verdict:
    """Judge a version, write the verdict down, and set the aliases of its model.

    If another version becomes the champion meanwhile, the version is compared with that one.

    Raises:
        MayNotError: it passed, and this user may not promote; all else is done.
    """
    client = open_client(case.store)
    name = case.version.name
    with gathered(case) as evidence:
        while True:
            champion = _rival(case, versions_of(client, name))
            verdict = judge_version(with_champion(case, evidence, champion), case.limits)
            with alone_at(client, name) as lease:
                present = champion_of(versions_of(client, name))
                if _number(_other(case, present)) != _number(champion):
                    continue
                _write_down(client, case, verdict)
                try:
                    if verdict.passed and may_be_champion:
                        set_champion(client, name, case.version.number, "promoted", lease)
                finally:
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
