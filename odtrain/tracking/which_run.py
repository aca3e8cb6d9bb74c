"""Which run a user means: by its id or the beginning of it, by its name, or as the latest."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from odtrain.config.schema import Runs
from odtrain.errors import TrackingError
from odtrain.secrets import masked
from odtrain.tracking.names import RUN_ID
from odtrain.tracking.reach import StoreAwayError
from odtrain.tracking.runs import run_folders
from odtrain.tracking.sender import RunRecord
from odtrain.tracking.store import experiments_of, is_made, is_run_store, reaching, tracking_uri

Search = Callable[[MlflowClient], Iterable[Run]]
LATEST = "latest"
"""The newest training that stands by itself and ended well; of those to go on with, the newest that did not."""
SHORT_ID = re.compile(r"[0-9a-f]{4,31}|offline-[0-9a-f]{4,11}")
SHOWN = 8
"""Letters of an id, and runs in a message."""
MOST_LOOKED_AT = 1000


@dataclass(frozen=True)
class KnownRun:
    """A run, as far as it takes to tell it from others."""

    run_id: str
    name: str
    started: int
    training: bool
    finished: bool

    def __str__(self) -> str:
        """For a list: the beginning of the id, the name, and when it began."""
        began = datetime.fromtimestamp(self.started / 1000)
        shown = self.run_id if self.run_id.startswith("offline-") else self.run_id[:SHOWN]
        return f"  {shown}  {began:%Y-%m-%d %H:%M}  {self.name}"


def which_run(name: str, runs: Runs, finished: bool = True) -> str:
    """The id of the run that is meant: MLflow's, or that of its folder where the server has none.

    Args:
        name: an id, its first letters, `latest`, or a name; `runs:/` before it says nothing more.
        runs: where they are.
        finished: whether the latest is one that ended well, or one that did not.

    Raises:
        TrackingError: there is none, or there are several; the message lists them, or those that come near.
    """
    meant = run_called(name, runs, finished)
    if meant is None:
        raise no_run(name, runs)
    return meant


def run_called(name: str, runs: Runs, finished: bool = True) -> str | None:
    """As `which_run`; None where nothing is called so.

    Raises:
        TrackingError: several runs are.
    """
    bare = name.removeprefix("runs:/")
    if re.fullmatch(RUN_ID, bare):
        return bare
    known = _known(runs, lambda client: _search(client, bare, runs))
    if bare == LATEST:
        trainings = [run for run in known.values() if run.training and run.finished == finished]
        return max(trainings, key=lambda run: run.started).run_id if trainings else None
    found = [run for run in known.values() if _is_called(run, bare)]
    if len(found) > 1:
        raise _several(name, found)
    return found[0].run_id if found else None


def _is_called(run: KnownRun, name: str) -> bool:
    short = SHORT_ID.fullmatch(name) is not None and run.run_id.startswith(name)
    return short or run.name == name


def _known(runs: Runs, search: Search) -> dict[str, KnownRun]:
    """By id, the runs that a search finds on the server, and those that are here alone.

    While the server is away, or where no database is yet, these are all that were worked on here.
    """
    uri = tracking_uri(runs.tracking)
    found, away = [], True
    if is_made(uri):
        with contextlib.suppress(StoreAwayError), reaching(uri) as client:
            found, away = [_of_server(run) for run in search(client)], False
    here = [
        _of_record(record)
        for _, record in run_folders(Path(runs.outputs))
        if is_run_store(uri, record.uri) and (away or record.run_id is None)
    ]
    return {run.run_id: run for run in (*found, *here)}


def _of_record(record: RunRecord) -> KnownRun:
    alone = record.stage == "train" and record.parent is None
    name, ended = record.name or "", record.status == "FINISHED"
    return KnownRun(record.run_id or record.local_id, name, record.started, alone, ended)


def _search(client: MlflowClient, name: str, runs: Runs) -> Iterator[Run]:
    if name == LATEST:
        own = [str(each.experiment_id) for each in experiments_of(client, runs.tracking)]
        yield from _newest(client, own, "tags.`odtrain.stage` = 'train'") if own else ()
        return
    every = _every(client)
    if SHORT_ID.fullmatch(name):
        yield from _newest(client, every, f"attributes.run_id LIKE '{name}%'")
    mark = '"' if "'" in name else "'"
    if mark not in name:
        yield from _newest(client, every, f"attributes.run_name = {mark}{name}{mark}")


def _every(client: MlflowClient) -> list[str]:
    return [str(each.experiment_id) for each in client.search_experiments()]


def _newest(client: MlflowClient, experiments: Sequence[str], asked: str = "") -> list[Run]:
    order = ["attributes.start_time DESC"]
    return list(
        client.search_runs(list(experiments), asked, max_results=MOST_LOOKED_AT, order_by=order)
    )


def _of_server(run: Run) -> KnownRun:
    tags = run.data.tags
    alone = tags.get("odtrain.stage") == "train" and "mlflow.parentRunId" not in tags
    info, name = run.info, run.info.run_name or ""
    return KnownRun(info.run_id, name, info.start_time, alone, info.status == "FINISHED")


def _several(name: str, found: Sequence[KnownRun]) -> TrackingError:
    newest = sorted(found, key=lambda run: -run.started)
    more = f"\n  and {len(newest) - SHOWN} more" if len(newest) > SHOWN else ""
    listed = "\n".join(map(str, newest[:SHOWN]))
    return TrackingError(
        f'run "{name}"',
        f"means {len(found)} runs.",
        f"Give more letters of the id:\n{listed}{more}",
    )


def no_run(name: str, runs: Runs) -> TrackingError:
    """What is said of a run that is not there, with those whose names or ids come near, else the newest."""
    problem = f"there is none in {masked(tracking_uri(runs.tracking))}."
    near = nearest_runs(name, runs)
    remedy = (
        f"There are:\n{near}" if near else "It holds no runs yet; `odtrain train` makes the first."
    )
    return TrackingError(f'run "{name}"', problem, remedy)


def nearest_runs(name: str, runs: Runs) -> str:
    """The runs that may be meant, a line each, the likeliest first; empty where there are none."""
    known = _known(runs, lambda client: _newest(client, _every(client)))
    bare = name.removeprefix("runs:/")
    ids = {run_id[: max(len(bare), SHOWN)]: run_id for run_id in known}
    names = {run.name: run.run_id for run in reversed(known.values())}
    close = [ids[one] for one in difflib.get_close_matches(bare, ids, SHOWN)]
    close += [names[one] for one in difflib.get_close_matches(bare, names, SHOWN)]
    likely = list(dict.fromkeys(close or sorted(known, key=lambda each: -known[each].started)))
    return "\n".join(str(known[run_id]) for run_id in likely[:SHOWN])
