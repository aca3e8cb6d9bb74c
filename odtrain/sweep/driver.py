"""The driver of a sweep: the study's run in MLflow, the workers, and the front as it is after every training.

A study is kept in a database and goes on where it was left: `sweep.n_trials` counts the trainings of
all calls, on all machines. One driver shows what all of them do; the same command elsewhere finds it
alive and only trains.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import optuna
import psutil
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from odtrain.config.schema import Config
from odtrain.dataset.prepare import prepare
from odtrain.errors import ConfigError, DataError, TrackingError, TrainingError
from odtrain.jobs.context import experiment_id
from odtrain.jobs.picked import drop_exports
from odtrain.model_source import load_first_weights
from odtrain.models.build import build_detector
from odtrain.sweep import page as sweep_page
from odtrain.sweep import pareto as sweep_front
from odtrain.sweep import queue as sweep_trials
from odtrain.sweep import results as sweep_results
from odtrain.sweep import space as sweep_space
from odtrain.sweep import study as sweep_study
from odtrain.sweep.space import Dimension
from odtrain.sweep.study import AWAY, FORMAT, METRICS, patiently
from odtrain.sweep.worker import Job, train_in_process, work, write_job
from odtrain.tracking.store import repeated, shown, tracking_uri, ui_command
from odtrain.tracking.tracker import Terminated, Tracker

OWN_KEYS = ("sweep=", "sweep.", "sweep/")
"""Beginnings of overrides that are not for the trainings."""
NEXT = ("data.name", "sweep.name", "sweep.storage", "registry.name", "tracking.uri", "outputs")
"""Settings that say which study is meant, and where its files are registered."""
NOT_COMPARED = ("tracking.", "outputs=", "data.", "registry.")
"""Beginnings of overrides that may differ between the machines of one study, or are seen in the data."""
SECONDS_BETWEEN_LOOKS = 1.0
MOST_DEATHS = 10
"""Ends of workers, with no training done in between, before a sweep gives up."""
LONGEST_START = 120.0
"""Seconds that one who joins waits for the driver to begin the run."""


@dataclass(frozen=True)
class Sweep:
    """What one call of the driver works with.

    Attributes:
        config: of the sweep.
        study: Optuna's.
        job: for the workers.
        tracker: of the sweep's run; None where another driver shows it.
    """

    config: Config
    study: optuna.Study
    job: Job
    tracker: Tracker | None


def sweep(
    config: Config,
    overrides: Sequence[str],
    config_dir: str | None = None,
    program: Sequence[str] = (sys.executable, "-m", "odtrain.sweep.trial_process"),
) -> None:
    """Run trainings until `sweep.n_trials` are done, and show the front.

    Args:
        config: of the sweep.
        overrides: that made it.
        config_dir: folder of the user's own configs, for the trainings too.
        program: that does one training: given the file of a request, and a file for the result.

    Raises:
        OdtrainError: the space, the data or the storage is at fault, and nothing was trained then; or
            one training after the other failed.
        KeyboardInterrupt: what is finished is kept; the same command goes on.
    """
    dimensions, fixed = checked_space(config, overrides, config_dir)
    dataset = prepare(config.data)
    if not dataset.counts["validation"]["images"]:
        raise DataError(
            config.data.name,
            "has no validation pictures, and a sweep is judged on them.",
            "Give data.validation_fraction=0.1, or data.validation_list.",
        )
    begun_with = {
        "data": dataset.digest,
        "settings": [text for text in fixed if not text.startswith(NOT_COMPARED)],
    }
    job = Job(
        settings=config.sweep,
        fixed=fixed,
        parent="",
        uri=tracking_uri(config.tracking),
        machine=str(sweep_trials.machine_folder()),
        begun_with=begun_with,
        config_dir=config_dir,
        program=list(program),
        threads=_threads(config.sweep.workers),
        deadline=_deadline(config.sweep.max_minutes),
    )
    with sweep_study.quiet(), ExitStack() as stack:
        study, made = sweep_study.open_study(config.sweep, dimensions, begun_with)
        whole = _begun(config, overrides, study, replace(job, made=made), stack)
        try:
            _run(whole)
        except (KeyboardInterrupt, Terminated, TrainingError):
            _show(whole)
            raise
        if whole.tracker is None and not _other_driver(study, job):
            whole = _taken_over(whole, stack)
        _show(whole)
        _drop_unkept(whole)
        ui = _ui(config, whole)
    print(_closing_words(whole, ui, repeated(overrides, NEXT)))


def checked_space(
    config: Config, overrides: Sequence[str], config_dir: str | None = None
) -> tuple[list[Dimension], list[str]]:
    """The dimensions of the space, and what every training is given besides.

    Raises:
        ConfigError: a metric, key, choice or range that does not exist.
        CheckpointError: weights that a model of the space is to begin with cannot be had, or are not
            that model's.
    """
    for metric, way in config.sweep.directions.items():
        if metric not in METRICS or way not in ("maximize", "minimize"):
            raise ConfigError(
                f"sweep.directions: {metric}: {way}",
                "no such metric or direction.",
                f"Metrics: {', '.join(METRICS)}; each maximize or minimize.",
            )
    own = [text for text in overrides if not text.lstrip("+~").startswith(OWN_KEYS)]
    fixed = [*config.sweep.overrides, *own]
    dimensions = sweep_space.read_space(config.sweep.space)
    sweep_space.check_baselines(dimensions, config.sweep.baselines)
    needed: dict[tuple[object, ...], Config] = {}
    for composed in sweep_space.check_space(dimensions, fixed, config_dir):
        model, train = composed.model, composed.train
        if train.checkpoint is not None:
            weights = (train.checkpoint, train.restore)
            needed[model.name, model.architecture, model.depth_multiplier, weights] = composed
    for composed in needed.values():
        load_first_weights(build_detector(composed.model, num_classes=1), composed)
    return dimensions, fixed


def _threads(workers: int) -> int | None:
    """Of each worker's trainings: the machine's processors are divided among them."""
    if workers == 1:
        return None
    return max(1, len(psutil.Process().cpu_affinity() or [0]) // workers)


def _deadline(max_minutes: float | None) -> float | None:
    return time.time() + 60 * max_minutes if max_minutes else None


# ---- the run of the study


def _begun(
    config: Config, overrides: Sequence[str], study: optuna.Study, job: Job, stack: ExitStack
) -> Sweep:
    """The study's run, begun or gone on with; not touched while another driver shows it."""
    if not job.made and _other_driver(study, job):
        parent, experiment = _awaited_run(study, job)
        fixed = [*job.fixed, f"tracking.experiment={experiment}"]
        _say("Another driver shows this study; this one joins its trainings.")
        return Sweep(config, study, replace(job, parent=parent, fixed=fixed), None)
    stack.enter_context(_showing(study, config.sweep.grace))
    tracker = _tracker(config, study)
    stack.enter_context(tracker)
    _enqueue_baselines(study, config)
    study.set_user_attr("experiment", tracker.experiment)
    study.set_user_attr("run_id", tracker.name)
    if not tracker.resumed:
        tracker.log_config(*_without_password(config, overrides))
        tracker.log_text(json.dumps(dict(config.sweep.space), indent=2), "space.json")
    fixed = [*job.fixed, f"tracking.experiment={tracker.experiment}"]
    job = replace(job, parent=tracker.name, fixed=fixed, uri=tracker.uri)
    return Sweep(config, study, job, tracker)


def _tracker(config: Config, study: optuna.Study) -> Tracker:
    tracker = Tracker(config.tracking, Path(config.outputs))
    name = f"sweep {config.sweep.name}"
    return tracker.start("sweep", name, resume=study.user_attrs.get("run_id"))


@contextmanager
def _showing(study: optuna.Study, grace: float) -> Iterator[None]:
    """Sign for the run of the study, and give signs of life while inside."""
    driver = sweep_trials.signature()
    study.set_user_attr("driver", driver)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(grace / sweep_trials.SIGNS):
            driver["sign"] += 1
            with suppress(*AWAY):
                study.set_user_attr("driver", dict(driver))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(*AWAY):
            study.set_user_attr("driver", None)


def _other_driver(study: optuna.Study, job: Job) -> bool:
    """Whether a driver shows the study; one of another machine is known by its next sign of life."""
    first = study.user_attrs.get("driver")
    if first is None or sweep_trials.is_gone(first):
        return first is None and _just_made(study)
    if first["host"] == sweep_trials.signature()["host"]:
        return True
    until = time.monotonic() + 2 * job.settings.grace / sweep_trials.SIGNS
    while time.monotonic() < until:
        if study.user_attrs.get("driver") != first:
            return True
        time.sleep(0.2)
    return False


def _just_made(study: optuna.Study) -> bool:
    """Whether the one that made the study is about to sign for it."""
    if "run_id" in study.user_attrs:
        return False
    until = time.monotonic() + 5
    while time.monotonic() < until:
        if study.user_attrs.get("driver") is not None:
            return True
        time.sleep(0.2)
    return False


def _awaited_run(study: optuna.Study, job: Job) -> tuple[str, str]:
    until = time.monotonic() + LONGEST_START
    while time.monotonic() < until:
        attributes = study.user_attrs
        if "run_id" in attributes and "experiment" in attributes:
            return attributes["run_id"], attributes["experiment"]
        time.sleep(0.5)
    raise TrackingError(
        f"sweep {job.settings.name}",
        f"another driver began the study and has had no run for {LONGEST_START:.0f} seconds.",
        "Look at what it says, and give the command again.",
    )


def _without_password(config: Config, overrides: Sequence[str]) -> tuple[Config, list[str]]:
    """What may be logged: everybody who sees the run would have the database's password too."""
    storage = config.sweep.storage
    if storage is None:
        return config, list(overrides)
    logged = replace(config, sweep=replace(config.sweep, storage=shown(storage)))
    return logged, [text.replace(storage, shown(storage)) for text in overrides]


def _taken_over(whole: Sweep, stack: ExitStack) -> Sweep:
    """The same, showing what the driver that is gone shows no more."""
    stack.enter_context(_showing(whole.study, whole.config.sweep.grace))
    tracker = _tracker(whole.config, whole.study)
    stack.enter_context(tracker)
    return replace(whole, tracker=tracker)


def _enqueue_baselines(study: optuna.Study, config: Config) -> None:
    """Once in the life of a study, and before anybody trains."""
    if "baselines" in study.user_attrs or study.get_trials(deepcopy=False):
        return
    for baseline in config.sweep.baselines:
        point = {**baseline, FORMAT: config.sweep.formats[0]}
        study.enqueue_trial(point, skip_if_exists=True)
    study.set_user_attr("baselines", len(config.sweep.baselines))


# ---- workers


def _run(whole: Sweep) -> None:
    settings, seen = whole.config.sweep, set[int]()
    with tqdm(total=settings.n_trials, desc="sweep", unit="training") as bar:
        _tell_news(whole, bar, seen, aloud=False)

        def told() -> None:
            _tell_news(whole, bar, seen)

        if settings.workers == 1:
            work(whole.job, whole.study, train_in_process, told)
        else:
            _run_workers(whole, told)
    deadline = whole.job.deadline
    if deadline and time.time() > deadline and settings.max_minutes:
        _say(f"sweep.max_minutes={settings.max_minutes:g} are over.")


def _run_workers(whole: Sweep, told: Callable[[], None]) -> None:
    """Keep `sweep.workers` processes at work, and begin those again that are killed."""
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        workers = [
            _Worker(whole.job, number, Path(scratch))
            for number in range(whole.config.sweep.workers)
        ]
        for worker in workers:
            stack.callback(worker.end)
            worker.begin()
        deaths, complete = 0, -1
        while any(worker.is_working() for worker in workers):
            time.sleep(SECONDS_BETWEEN_LOOKS)
            told()
            now = patiently(lambda: sweep_trials.count(whole.study, TrialState.COMPLETE))
            deaths, complete = (0 if now > complete else deaths), now
            for worker in [one for one in workers if one.was_killed()]:
                deaths += 1
                if deaths > MOST_DEATHS:
                    raise TrainingError(
                        f"sweep {whole.config.sweep.name}",
                        f"{deaths} workers ended, one after the other, with no training done.",
                        "Is there memory enough for sweep.workers? Give the command again to go on.",
                    )
                worker.begin()
        if complete < whole.config.sweep.n_trials and all(one.failure() for one in workers):
            raise TrainingError(f"sweep {whole.config.sweep.name}", *workers[0].said())


class _Worker:
    """A worker in a process of its own."""

    def __init__(self, job: Job, number: int, scratch: Path) -> None:
        self._file = scratch / f"job{number}"
        self._errors = scratch / f"stderr{number}"
        self._process: subprocess.Popen[bytes] | None = None
        write_job(replace(job, worker=number), self._file)

    def begin(self) -> None:
        command = [sys.executable, "-m", "odtrain.sweep.worker", str(self._file)]
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
            )

    def is_working(self) -> bool:
        return self._process is not None and (self._process.poll() is None or self.was_killed())

    def was_killed(self) -> bool:
        return self._process is not None and (self._process.poll() or 0) < 0

    def failure(self) -> bool:
        return self._process is not None and (self._process.poll() or 0) > 0

    def said(self) -> tuple[str, str]:
        """Problem and remedy, of the error that ended it."""
        lines = self._errors.read_text("utf-8", "replace").strip().splitlines() or ["no message"]
        if len(lines) > 1 and lines[-1].startswith("  "):
            return f"no worker is left; the last said: {lines[-2]}", lines[-1].strip()
        return f"no worker is left; the last said: {lines[-1]}", "Give the command again to go on."

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()


# ---- what is shown


def _tell_news(whole: Sweep, bar: tqdm[NoReturn], seen: set[int], aloud: bool = True) -> None:
    """Say what has ended since the last look, and log the front if anything has."""
    trials = patiently(lambda: sweep_trials.asked(whole.study))
    ended = [one for one in trials if one.state.is_finished() and one.number not in seen]
    if not ended:
        return
    seen |= {trial.number for trial in ended}
    for trial in ended if aloud else []:
        _say(_line(trial))
    complete = sum(trial.state == TrialState.COMPLETE for trial in trials)
    bar.update(min(complete, whole.config.sweep.n_trials) - bar.n)
    _show(whole)
    bar.set_postfix_str(f"{len(sweep_results.front(whole.study))} on the front")


def _line(trial: FrozenTrial) -> str:
    point = trial.user_attrs.get("point", trial.params)
    chosen = ", ".join(sweep_space.as_overrides(point))
    files = trial.user_attrs.get("result", {}).get("files", {})
    what = trial.user_attrs.get("reason") or ", ".join(
        f"{name} {file['mAP']:.3f} mAP {file['latency_ms_p50']:.2f} ms"
        for name, file in files.items()
    )
    return f"{trial.number}: {chosen}: {trial.user_attrs.get('state', 'lost')}: {what}"


def _show(whole: Sweep) -> None:
    """Log the front as it is now: `front.json`, a table, plots and a page."""
    study, tracker = whole.study, whole.tracker
    if tracker is None:
        return
    every = patiently(lambda: sweep_results.points(study))
    others = patiently(lambda: sweep_results.without_files(study))
    if not every and not others:
        return
    best = patiently(lambda: sweep_results.front(study))
    importances = patiently(lambda: sweep_results.importances(study))
    tracker.log_text(sweep_front.front_json(best), "front.json")
    title = f"Sweep {whole.config.sweep.name}"
    tracker.log_text(sweep_page.page(title, every, best, others, importances), "front.html")
    with tempfile.TemporaryDirectory() as scratch:
        plots = Path(scratch)
        if every:
            sweep_page.draw_front(every, best, plots / "front.png")
            tracker.log_file(plots / "front.png")
        if importances:
            sweep_page.draw_importances(importances, plots / "importances.png")
            tracker.log_file(plots / "importances.png")
            tracker.log_text(json.dumps(importances, indent=2) + "\n", "importances.json")
    saved, stopped = sweep_results.saved(study)
    numbers = {
        "front": len(best),
        "files": len(every),
        "stopped": stopped,
        "trainings_saved": saved,
    }
    step = sweep_trials.count(study, TrialState.COMPLETE)
    tracker.log({f"sweep/{name}": value for name, value in numbers.items()}, step, replace=True)
    tracker.describe(_description(title, best, others, importances))


def _description(
    title: str,
    best: Sequence[sweep_front.Point],
    others: Sequence[dict[str, str]],
    importances: dict[str, dict[str, float]],
) -> str:
    parts = [f"**{title}**, judged on the validation split", sweep_front.table(best)]
    if others:
        parts += ["Without a file:", sweep_page.others_table(others)]
    if importances:
        parts += [
            "What mattered (share of the variance, fANOVA):",
            sweep_page.importance_table(importances),
        ]
    return "\n\n".join(parts)


def _drop_unkept(whole: Sweep) -> None:
    """Drop what `sweep.keep` does not keep, once all trainings are done."""
    settings, study = whole.config.sweep, whole.study
    complete = patiently(lambda: sweep_trials.count(study, TrialState.COMPLETE))
    if settings.keep != "front" or whole.tracker is None or complete < settings.n_trials:
        return
    kept = {(point.run_id, point.format) for point in sweep_results.front(study)}
    dropped = [one for one in sweep_results.points(study) if (one.run_id, one.format) not in kept]
    files: dict[str, dict[str, str]] = {}
    for point in dropped:
        files.setdefault(point.run_id, {})[point.format] = point.file
    for run_id, own in files.items():
        drop_exports(whole.config, run_id, own)
    if dropped:
        _say(f"sweep.keep=front: {len(dropped)} files that are not on the front were dropped.")


def _ui(config: Config, whole: Sweep) -> tuple[str | None, str]:
    experiment = experiment_id(whole.tracker) if whole.tracker is not None else None
    return ui_command(whole.job.uri, experiment)


def _closing_words(whole: Sweep, ui: tuple[str | None, str], same: str) -> str:
    study, (command, url) = whole.study, ui
    best = sweep_results.front(study)
    saved, stopped = sweep_results.saved(study)
    total = sweep_trials.count(study, TrialState.COMPLETE)
    share = f", which saved {saved / total:.0%} of the steps" if stopped else ""
    return "\n".join(
        [
            f"{total} trainings, {stopped} of them stopped early{share}; {len(best)} files on the "
            "front, by the validation split:",
            sweep_front.table(best),
            "",
            "Where to look next:",
            f"  the front              {command or 'the server is up'}",
            f"                         {url}",
            f"  the best under 5 ms    odtrain sweep pick{same} --max-latency-ms 5",
            f"  the same, registered   odtrain sweep pick{same} --max-latency-ms 5 --register",
            f"  measured once more     odtrain sweep verify{same}",
        ]
    )


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
