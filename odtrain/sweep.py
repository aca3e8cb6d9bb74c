"""Trainings that Optuna chooses, ending with the exported files that nothing beats in all respects.

A study is kept in a database and goes on where it was left: `sweep.n_trials` counts the trainings of
all calls. A training is one trial for each of its files, since precision costs no training of its own:
the sampler asks for one format, and the other files are added to the study as trials that share the
training's run.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from tqdm import tqdm

from odtrain import sweep_front, sweep_space
from odtrain.config import Config
from odtrain.errors import ConfigError, DataError, TrainingError
from odtrain.experiment import experiment_id, register_picked
from odtrain.records import prepare
from odtrain.store import shown, ui_command
from odtrain.sweep_front import Finished, Point
from odtrain.sweep_space import Dimension
from odtrain.sweep_trial import Request, Result, read_result, write_request
from odtrain.track import Tracker
from odtrain.zoo import resolve

FORMAT = "export.format"
"""The study's own parameter: which file of the training a trial stands for."""
METRICS = ("mAP", "mAP_50", "latency_ms_p50", "latency_ms_p90", "size_mb", "peak_memory_mb")
ATTEMPTS = 2
"""A training that ended without a result, killed say, is tried again once."""
MOST_FAILURES = 4
"""Trainings that fail one after the other, two points twice, before the sweep gives up."""


@dataclass(frozen=True)
class Sweep:
    """What one call of the driver works with.

    Attributes:
        config: of the sweep.
        study: Optuna's.
        dimensions: of the space.
        fixed: overrides of every training.
        parent: id of the sweep's run.
        uri: of the MLflow store; trainings are told it where no parameter of theirs shows it.
        config_dir: folder of the user's own configs.
    """

    config: Config
    study: optuna.Study
    dimensions: list[Dimension]
    fixed: list[str]
    parent: str
    uri: str
    config_dir: str | None = None

    @property
    def directions(self) -> dict[str, str]:
        """Metric of a file -> maximize or minimize."""
        return dict(self.config.sweep.directions)


def sweep(config: Config, overrides: Sequence[str], config_dir: str | None = None) -> None:
    """Run trainings until `sweep.n_trials` are done, and show the front.

    `config_dir` is the folder of the user's own configs, for the trainings too.

    Raises:
        OdtrainError: the space, the data or the storage is at fault; nothing was trained then.
        KeyboardInterrupt: what is finished is kept; the same command goes on.
    """
    dimensions, fixed = checked_space(config, overrides, config_dir)
    if not prepare(config.data).counts["validation"]["images"]:
        raise DataError(
            config.data.name,
            "has no validation pictures, and a sweep is judged on them.",
            "Give data.validation_fraction=0.1, or data.validation_list.",
        )
    with _quiet():
        study = open_study(config)
        tracker = Tracker(config.tracking, Path(config.outputs))
        name = f"sweep {config.sweep.name}"
        with tracker.start("sweep", name, resume=study.user_attrs.get("run_id")):
            fixed = [*fixed, f"tracking.experiment={tracker.experiment}"]
            job = Sweep(config, study, dimensions, fixed, tracker.name, tracker.uri, config_dir)
            study.set_user_attr("run_id", tracker.name)
            if not tracker.resumed:
                tracker.log_config(*_without_password(config, overrides))
                tracker.log_text(json.dumps(dict(config.sweep.space), indent=2), "space.json")
            _begin(job)
            try:
                _run_trials(job, tracker)
            finally:
                show(job, tracker)
            ui = ui_command(tracker.uri, experiment_id(tracker))
    print(_closing_words(job, ui))


def _without_password(config: Config, overrides: Sequence[str]) -> tuple[Config, list[str]]:
    """What may be logged: everybody who sees the run would have the database's password too."""
    storage = config.sweep.storage
    if storage is None:
        return config, list(overrides)
    logged = replace(config, sweep=replace(config.sweep, storage=shown(storage)))
    return logged, [text.replace(storage, shown(storage)) for text in overrides]


def checked_space(
    config: Config, overrides: Sequence[str], config_dir: str | None = None
) -> tuple[list[Dimension], list[str]]:
    """The dimensions of the space, and what every training is given besides.

    Raises:
        ConfigError: a metric, key, choice or range that does not exist.
        CheckpointError: published weights that a model of the space needs cannot be had.
    """
    for metric, way in config.sweep.directions.items():
        if metric not in METRICS or way not in ("maximize", "minimize"):
            raise ConfigError(
                f"sweep.directions: {metric}: {way}",
                "no such metric or direction.",
                f"Metrics: {', '.join(METRICS)}; each maximize or minimize.",
            )
    own = [
        text
        for text in overrides
        if not text.lstrip("+~").startswith(("sweep=", "sweep.", "sweep/"))
    ]
    fixed = [*config.sweep.overrides, *own]
    dimensions = sweep_space.read_space(config.sweep.space)
    sweep_space.check_baselines(dimensions, config.sweep.baselines)
    needed: dict[str, Config] = {}
    for composed in sweep_space.check_space(dimensions, fixed, config_dir):
        needed[composed.model.name] = composed
    for composed in needed.values():
        if composed.train.checkpoint is not None and not composed.train.checkpoint.startswith(
            ("runs:/", "models:/")
        ):
            resolve(composed.train.checkpoint, composed.model, composed.zoo.mirrors)
    return dimensions, fixed


def open_study(config: Config) -> optuna.Study:
    """The study of that name, made if it is not there.

    Raises:
        ConfigError: it is there and compares something else, or the database cannot be opened.
    """
    settings = config.sweep
    storage = settings.storage or f"sqlite:///{Path('optuna.db').resolve()}"
    try:
        study = optuna.create_study(
            storage=storage,
            study_name=settings.name,
            directions=[
                StudyDirection.MAXIMIZE if way == "maximize" else StudyDirection.MINIMIZE
                for way in settings.directions.values()
            ],
            sampler=_sampler(config),
            load_if_exists=True,
        )
        known = study.user_attrs.get("directions")
        if known is None:
            study.set_user_attr("directions", dict(settings.directions))
    except (ValueError, optuna.exceptions.StorageInternalError, ImportError) as error:
        raise ConfigError(
            f"sweep.storage={shown(storage)}",
            f"the study {settings.name} cannot be opened: {str(error).splitlines()[0]}",
            "Give another sweep.storage, or another sweep.name for another comparison.",
        ) from error
    if known is not None and known != dict(settings.directions):
        raise ConfigError(
            f"sweep.name={settings.name}",
            f"is a study that compares {', '.join(known)}.",
            "Give another sweep.name, or the directions it was begun with.",
        )
    return study


def _sampler(config: Config) -> optuna.samplers.BaseSampler:
    seed = config.sweep.seed
    if config.sweep.sampler == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    if config.sweep.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=5
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna tells of every trial, and warns of what is experimental; the progress bar is enough."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


# ---- trainings


def _begin(job: Sweep) -> None:
    """Put what a killed driver left behind in order, and the baselines first in a new study."""
    for trial in job.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.user_attrs.get("host") == socket.gethostname() and not _alive(
            int(trial.user_attrs.get("process", 0))
        ):
            open_trial = Trial(job.study, trial._trial_id)
            open_trial.set_user_attr("state", "failed")
            open_trial.set_user_attr("reason", "the process of the sweep ended")
            job.study.tell(open_trial, state=TrialState.FAIL)
            _try_again(job, job.study.trials[trial.number])
    if job.study.get_trials(deepcopy=False):
        return
    first = job.config.sweep.formats[0]
    for baseline in job.config.sweep.baselines:
        job.study.enqueue_trial({**baseline, FORMAT: first})


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return process > 0


def _run_trials(job: Sweep, tracker: Tracker) -> None:
    began, settings, failures = time.monotonic(), job.config.sweep, 0
    with tqdm(total=settings.n_trials, desc="sweep", unit="training") as bar:
        bar.update(min(_count(job.study), settings.n_trials))
        while (done := _count(job.study)) < settings.n_trials:
            if settings.max_minutes and time.monotonic() - began > 60 * settings.max_minutes:
                tqdm.write(f"sweep.max_minutes={settings.max_minutes:g} are over.", file=sys.stderr)
                return
            result = _one_training(job)
            failures = failures + 1 if result.state == "failed" else 0
            if failures == MOST_FAILURES:
                raise TrainingError(
                    f"sweep {settings.name}",
                    f"{failures} trainings failed one after the other, the last: {result.reason}",
                    "Put that right and give the command again: what is finished is kept.",
                )
            show(job, tracker)
            bar.update(_count(job.study) - done)
            best = _front(job)
            bar.set_postfix_str(f"{len(best)} on the front")


def _count(study: optuna.Study) -> int:
    """Trainings that were asked for and did not fail; the added files of one count with it."""
    return sum(
        "point" in trial.user_attrs and trial.state != TrialState.FAIL
        for trial in study.get_trials(deepcopy=False)
    )


def _one_training(job: Sweep) -> Result:
    trial = job.study.ask()
    trial.set_user_attr("host", socket.gethostname())
    trial.set_user_attr("process", os.getpid())
    point = sweep_space.draw(job.dimensions, trial)
    wanted = trial.suggest_categorical(FORMAT, list(job.config.sweep.formats))
    trial.set_user_attr("point", point)
    twin = _twin(job, point)
    result = _from_twin(twin) if twin is not None else _train(job, point)
    _tell(job, trial, wanted, point, result)
    chosen = ", ".join(sweep_space.as_overrides(point))
    what = result.reason or ", ".join(
        f"{name} {file['mAP']:.3f} mAP {file['latency_ms_p50']:.2f} ms"
        for name, file in result.files.items()
    )
    tqdm.write(f"{trial.number}: {chosen}: {result.state}: {what}", file=sys.stderr)
    return result


def _twin(job: Sweep, point: Mapping[str, Any]) -> FrozenTrial | None:
    """A finished trial of the very same training."""
    for trial in job.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        if trial.user_attrs.get("point") == point and "result" in trial.user_attrs:
            return trial
    return None


def _from_twin(twin: FrozenTrial) -> Result:
    return Result(**{**twin.user_attrs["result"], "seconds": 0.0})


def _train(job: Sweep, point: Mapping[str, Any]) -> Result:
    settings = job.config.sweep
    lock = Path(job.config.outputs) / "timing.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    request = Request(
        overrides=[*job.fixed, *sweep_space.as_overrides(point)],
        parent=job.parent,
        formats=list(settings.formats),
        max_latency_ms=settings.max_latency_ms,
        max_size_mb=settings.max_size_mb,
        finished=_finished(job) if settings.stop_hopeless else [],
        margin=settings.margin,
        timing_lock=str(lock.resolve()),
        config_dir=job.config_dir,
    )
    with tempfile.TemporaryDirectory() as scratch:
        asked, answer, said = (Path(scratch) / name for name in ("request", "result", "stderr"))
        write_request(request, asked)
        command = [sys.executable, "-m", "odtrain.sweep_trial", str(asked), str(answer)]
        environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_RUN_ID"}
        environment["MLFLOW_TRACKING_URI"] = job.uri
        with said.open("wb") as stderr:
            status = subprocess.run(
                command, stdout=subprocess.DEVNULL, stderr=stderr, env=environment, check=False
            ).returncode
        if answer.is_file():
            return read_result(answer)
        last = said.read_text("utf-8", "replace").strip().splitlines()[-1:]
        return Result("failed", f"the training ended with status {status}: {' '.join(last)}")


def _tell(job: Sweep, trial: Trial, wanted: str, point: Mapping[str, Any], result: Result) -> None:
    """Give the study what a training came to, one trial for each of its files."""
    trial.set_user_attr("state", result.state)
    trial.set_user_attr("reason", result.reason)
    trial.set_user_attr("run_id", result.run_id)
    if result.state == "failed":
        job.study.tell(trial, state=TrialState.FAIL)
        _try_again(job, job.study.trials[trial.number])
        return
    kept = {key: value for key, value in vars(result).items() if key != "seconds"}
    trial.set_user_attr("result", kept)
    trial.set_user_attr("seconds", result.seconds)
    trial.set_user_attr("metrics", _metrics(result, wanted))
    over = 1.0 if result.state == "infeasible" else -1.0
    trial.set_constraint("budget", over)
    job.study.tell(trial, _values(job, result, wanted))
    if result.state != "done":
        return
    asked = job.study.trials[trial.number]
    for name in job.config.sweep.formats:
        if name == wanted:
            continue
        job.study.add_trial(
            create_trial(
                params={**asked.params, FORMAT: name},
                distributions={
                    **asked.distributions,
                    FORMAT: CategoricalDistribution(list(job.config.sweep.formats)),
                },
                values=_values(job, result, name),
                user_attrs={
                    "shares": trial.number,
                    "state": "done",
                    "run_id": result.run_id,
                    "metrics": _metrics(result, name),
                    "of": dict(point),
                },
                constraints={"budget": over},
            )
        )


def _metrics(result: Result, name: str) -> dict[str, Any]:
    """Of one file; of one that was not trained to its end, its untrained speed and the score so far."""
    if name in result.files:
        return result.files[name]
    return {**dict.fromkeys(METRICS, 0.0), **result.untrained[name], "mAP": result.score}


def _values(job: Sweep, result: Result, name: str) -> list[float]:
    metrics = _metrics(result, name)
    return [float(metrics[key]) for key in job.directions]


def _try_again(job: Sweep, trial: FrozenTrial) -> None:
    point = trial.user_attrs.get("point")
    failures = sum(
        one.state == TrialState.FAIL and one.user_attrs.get("point") == point
        for one in job.study.get_trials(deepcopy=False)
    )
    if point is not None and failures < ATTEMPTS:
        job.study.enqueue_trial(dict(trial.params))


# ---- what came of them


def points(study: optuna.Study) -> list[Point]:
    """Every file of every training that went to its end, once.

    They are read from the trial that asked for the training: a driver that is killed before it has
    added the trials of the other files loses none.
    """
    found: dict[tuple[str, str], Point] = {}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        if trial.user_attrs.get("state") != "done" or "result" not in trial.user_attrs:
            continue
        result = trial.user_attrs["result"]
        params = {key: value for key, value in trial.params.items() if key != FORMAT}
        for name, values in result["files"].items():
            metrics = {key: value for key, value in values.items() if key not in ("file", "failed")}
            point = Point(
                trial.number,
                result["run_id"],
                name,
                params,
                metrics,
                values["file"],
                values["failed"],
            )
            found.setdefault((point.run_id, name), point)
    return list(found.values())


def _front(job: Sweep) -> list[Point]:
    return sweep_front.front(points(job.study), job.directions)


def _finished(job: Sweep) -> list[Finished]:
    """The files that a training has to beat; only where mAP and latency are what is compared."""
    if job.directions != {"mAP": "maximize", "latency_ms_p50": "minimize"}:
        return []
    curves = {
        trial.user_attrs["run_id"]: trial.user_attrs["result"]["curve"]
        for trial in job.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if trial.user_attrs.get("state") == "done" and "result" in trial.user_attrs
    }
    return [
        Finished(
            tuple((share, score) for share, score in curves[point.run_id]),
            point.metrics["mAP"],
            point.metrics["latency_ms_p50"],
        )
        for point in points(job.study)
        if point.failed is None
    ]


def _without_files(study: optuna.Study) -> list[dict[str, str]]:
    """Trials that did not end with a file: number, state, reason and choices."""
    rows = []
    for trial in study.get_trials(deepcopy=False):
        state = trial.user_attrs.get("state", trial.state.name.lower())
        if state == "done" or "point" not in trial.user_attrs:
            continue
        point = trial.user_attrs["point"]
        rows.append(
            {
                "trial": str(trial.number),
                "state": state,
                "reason": trial.user_attrs.get("reason", ""),
                "chosen": ", ".join(f"{key}={value}" for key, value in point.items()),
            }
        )
    return rows


def show(job: Sweep, tracker: Tracker) -> None:
    """Log the front as it is now: `front.json`, a table, a plot and a page."""
    every, best = points(job.study), _front(job)
    if not every:
        return
    tracker.log_text(sweep_front.front_json(best), "front.json")
    title = f"Sweep {job.config.sweep.name}"
    shown = sweep_front.page(title, every, best, _without_files(job.study))
    tracker.log_text(shown, "front.html")
    with tempfile.TemporaryDirectory() as scratch:
        plot = Path(scratch) / "front.png"
        sweep_front.draw_front(every, best, plot)
        tracker.log_file(plot)
    tracker.log({"sweep/front": len(best), "sweep/files": len(every)}, _count(job.study))
    tracker.describe(f"**{title}**, judged on the validation split\n\n{sweep_front.table(best)}")


def _closing_words(job: Sweep, ui: tuple[str | None, str]) -> str:
    best, (command, url) = _front(job), ui
    saved = _without_files(job.study)
    stopped = sum(row["state"] == "stopped" for row in saved)
    return "\n".join(
        [
            f"{_count(job.study)} trainings, {stopped} of them stopped early; {len(best)} files on the "
            "front, by the validation split:",
            sweep_front.table(best),
            "",
            "Where to look next:",
            f"  the front              {command or 'the server is up'}",
            f"                         {url}",
            "  the best under 5 ms    odtrain sweep pick --max-latency-ms 5",
            "  the same, registered   odtrain sweep pick --max-latency-ms 5 --register",
        ]
    )


def pick(
    config: Config,
    max_latency_ms: float | None,
    min_map: float | None,
    max_size_mb: float | None,
    register: bool,
) -> str:
    """The choice from the front of `sweep.name`, what a step up or down would cost, and its model.

    Raises:
        ConfigError: no study of that name, or nothing within the limits.
        OdtrainError: with `register`, the run's checkpoint is not there, or the store refuses.
    """
    with _quiet():
        best = _logged_front(config)
    chosen = sweep_front.pick(best, max_latency_ms, min_map, max_size_mb)
    if chosen is None:
        raise ConfigError(
            "sweep pick",
            "no file on the front is within these limits:\n" + sweep_front.table(best),
            "Allow more, or sweep further: sweep.n_trials.",
        )
    lines = [sweep_front.table([chosen]), _interval(chosen), *_neighbours(chosen, best)]
    lines.append(f"file: runs:/{chosen.run_id}/{chosen.file}")
    if register:
        lines.append(f"registered as {register_picked(config, chosen.run_id, chosen.format)}")
    return "\n".join(line for line in lines if line)


def _logged_front(config: Config) -> list[Point]:
    """The front in the study's run."""
    storage = config.sweep.storage or f"sqlite:///{Path('optuna.db').resolve()}"
    try:
        study = optuna.load_study(study_name=config.sweep.name, storage=storage)
    except (KeyError, ValueError, optuna.exceptions.StorageInternalError) as error:
        raise ConfigError(
            f"sweep.name={config.sweep.name}",
            f"no such study in {shown(storage)}.",
            "Run odtrain sweep first, or give the sweep.name and sweep.storage of one.",
        ) from error
    best = sweep_front.front(points(study), study.user_attrs.get("directions", {"mAP": "maximize"}))
    if not best:
        raise ConfigError(
            f"sweep.name={config.sweep.name}", "no training has ended yet.", "Wait for one."
        )
    return best


def _interval(point: Point) -> str:
    values = point.metrics
    if "mAP_lo" not in values:
        return ""
    return f"mAP of its checkpoint lies between {values['mAP_lo']:.3f} and {values['mAP_hi']:.3f} (95 %)"


def _neighbours(chosen: Point, best: Sequence[Point]) -> list[str]:
    """What the next quicker and the next slower file of the front would cost and bring."""
    line = sorted(best, key=lambda point: point.metrics["latency_ms_p50"])
    place, lines = line.index(chosen), []
    for words, other in (("quicker", place - 1), ("slower", place + 1)):
        if not 0 <= other < len(line):
            continue
        values, own = line[other].metrics, chosen.metrics
        lines.append(
            f"next {words}: {line[other].format} of trial {line[other].trial}, "
            f"{values['latency_ms_p50'] - own['latency_ms_p50']:+.2f} ms, "
            f"{values['mAP'] - own['mAP']:+.3f} mAP, {values['size_mb'] - own['size_mb']:+.2f} MB"
        )
    return lines
