"""Optuna's study of a sweep: opened, or gone on with if it compares the same things.

The database may go away for a while: what was about to be written waits for it.
"""

from __future__ import annotations

import logging
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import optuna
import sqlalchemy
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    check_distribution_compatibility,
)
from optuna.study import StudyDirection

from odtrain.config.schema import SweepConfig
from odtrain.errors import ConfigError, TrackingError, first_line
from odtrain.secrets import without_secrets
from odtrain.sweep.space import Dimension
from odtrain.system.progress import doing

logger = logging.getLogger(__name__)

FORMAT = "export.format"
"""The study's own parameter: which file of the training a trial stands for."""
ONCE_UNSAID = "model=panels_ssd_mobilenet_v1"
"""What studies were begun with, without saying so, while it was the default."""
PRECISION = "train.precision="
"""How the override begins that says in which precision all trainings of a study compute."""
METRICS = ("mAP", "mAP_50", "latency_ms_p50", "latency_ms_p90", "size_mb", "peak_memory_mb")
LONGEST_OUTAGE = 600.0
"""Seconds that a sweep waits for the database of its study."""
STARTUP_TRIALS = 5
OTHERS_MAKING_TABLES = 10
"""Attempts to open a new database that others open at the same time."""
LONGEST_UNMARKED = 5.0
"""Seconds between the making of a study and odtrain's mark in it."""
AWAY = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.DBAPIError)

Value = TypeVar("Value")


def storage_url(settings: SweepConfig) -> str:
    """Where the study is kept: `sweep.storage`, or `optuna.db` in this folder."""
    return settings.storage or f"sqlite:///{Path('optuna.db').resolve()}"


@doing("Opening the study")
def open_study(
    settings: SweepConfig, dimensions: Sequence[Dimension], begun_with: Mapping[str, Any]
) -> tuple[optuna.Study, bool]:
    """The study of that name, and whether this call made it.

    Args:
        settings: name, storage and directions.
        dimensions: of the space.
        begun_with: what makes its numbers comparable; a study that was begun otherwise is refused.

    Raises:
        ConfigError: it is there and compares something else or is not odtrain's, or the database cannot
            be opened. Nothing is written into it then.
    """
    wanted = without_secrets({"directions": dict(settings.directions), **begun_with})
    try:
        storage = _storage(storage_url(settings))
        try:
            study = _create(settings, storage)
            made = True
        except optuna.exceptions.DuplicatedStudyError:
            study = optuna.load_study(study_name=settings.name, storage=storage)
            made = False
            _check_begun_here(settings, study)
        known = {key: study.user_attrs.get(key, value) for key, value in wanted.items()}
        if "settings" in known:  # studies begun before they kept it by itself have it there
            known["settings"] = [t for t in known["settings"] if not t.startswith(PRECISION)]
        _check_unchanged(settings.name, without_secrets(known), wanted)
        _check_space(settings, study, dimensions)
        for key in set(wanted) - set(study.user_attrs):
            study.set_user_attr(key, wanted[key])
    except (ValueError, ImportError, sqlalchemy.exc.SQLAlchemyError, *AWAY) as error:
        raise ConfigError(
            f"sweep.storage={storage_url(settings)}",
            f"the study {settings.name} cannot be opened: {first_line(error)}",
            "Give another sweep.storage, or another sweep.name for another comparison.",
        ) from None
    return study, made


def kept_precision(study: optuna.Study, made: bool, asked: str, ours: str) -> str:
    """The precision of all trainings of a study, decided when it was begun.

    Args:
        study: opened.
        made: whether this call made it.
        asked: `train.precision`.
        ours: what that is on this machine.

    Raises:
        ConfigError: another one than the study's is asked for.
    """
    kept = study.user_attrs.get("precision") or (ours if made else _precision_before(study))
    if asked not in ("auto", kept):
        raise ConfigError(
            f"{PRECISION}{asked}",
            f"the study {study.study_name} was begun with {PRECISION}{kept}.",
            "Leave the override out, or give another sweep.name.",
        )
    if kept != ours:
        logger.info(f"All trainings of the study compute in {kept}, as those before.")
    study.set_user_attr("precision", kept)
    return str(kept)


def _precision_before(study: optuna.Study) -> str:
    """Of a study that was begun when fp32 was what nobody asked for."""
    settings = study.user_attrs.get("settings", [])
    asked = [text.removeprefix(PRECISION) for text in settings if text.startswith(PRECISION)]
    return next((one for one in reversed(asked) if one != "auto"), "fp32")


def load_study(settings: SweepConfig) -> optuna.Study:
    """The study of that name, to look at.

    Raises:
        ConfigError: there is none, or odtrain did not begin it.
    """
    url = storage_url(settings)
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file():
        raise _no_study(settings)
    try:
        study = optuna.load_study(study_name=settings.name, storage=_storage(url))
    except (KeyError, ValueError, ImportError, sqlalchemy.exc.SQLAlchemyError, *AWAY) as error:
        raise _no_study(settings) from error
    _check_begun_here(settings, study)
    return study


def with_sampler(study: optuna.Study, settings: SweepConfig, worker: int, host: str) -> None:
    """Give the study the sampler of one worker, with a seed of its own.

    The seed follows from `sweep.seed`, the worker, the trials that are there (a call that goes on does
    not draw again what the first one drew) and the machine, empty for the one that began the study.
    """
    known = len(study.get_trials(deepcopy=False))
    sequence = np.random.SeedSequence([settings.seed, worker, known, zlib.crc32(host.encode())])
    study.sampler = _sampler(settings.sampler, int(sequence.generate_state(1)[0]))


def patiently(action: Callable[[], Value], longest: float = LONGEST_OUTAGE) -> Value:
    """Do something with the study; if its database is away, again until it is back.

    Raises:
        TrackingError: it stayed away too long.
    """
    began, told = time.monotonic(), False
    while True:
        try:
            return action()
        except AWAY as error:
            if time.monotonic() - began > longest:
                raise TrackingError(
                    "sweep.storage",
                    f"the database of the study has been away for {longest / 60:.0f} minutes: "
                    f"{first_line(error)}",
                    "Start it and give the command again: what is finished is kept.",
                ) from error
            if not told:
                logger.info("The database of the study is away; waiting for it.")
                told = True
            time.sleep(1.0)


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna tells of every trial, and warns of what is experimental; the progress bar is enough."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _storage(url: str) -> optuna.storages.BaseStorage:
    """Optuna's storage, whose connections are looked at before they are used."""
    if not url.partition(":")[0].startswith(("sqlite", "postgresql", "mysql")):
        return optuna.storages.get_storage(url)
    own: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("sqlite"):
        own["connect_args"] = {"timeout": 60}
    for _ in range(OTHERS_MAKING_TABLES):
        try:
            return optuna.storages.get_storage(optuna.storages.RDBStorage(url, engine_kwargs=own))
        except sqlalchemy.exc.DBAPIError as error:
            if not any(words in str(error) for words in ("already exists", "duplicate key")):
                raise
            time.sleep(0.5)  # another process makes the tables at this moment
    return optuna.storages.get_storage(optuna.storages.RDBStorage(url, engine_kwargs=own))


def _create(settings: SweepConfig, storage: optuna.storages.BaseStorage) -> optuna.Study:
    ways = [
        StudyDirection.MAXIMIZE if way == "maximize" else StudyDirection.MINIMIZE
        for way in settings.directions.values()
    ]
    study = optuna.create_study(storage=storage, study_name=settings.name, directions=ways)
    study.set_metric_names(list(settings.directions))  # for optuna-dashboard
    return study


def _sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=seed,
            multivariate=True,
            group=True,
            constant_liar=True,
            n_startup_trials=STARTUP_TRIALS,
        )


def _check_begun_here(settings: SweepConfig, study: optuna.Study) -> None:
    """Refuse a study without odtrain's mark; another process may be about to set it."""
    until = time.monotonic() + LONGEST_UNMARKED
    while "directions" not in study.user_attrs:
        if study.get_trials(deepcopy=False) or time.monotonic() > until:
            ways = [f"{way.name.lower()}d" for way in study.directions]
            numbers = "one number" if len(ways) == 1 else f"{len(ways)} numbers"
            raise ConfigError(
                f"sweep.name={settings.name}",
                f"is a study that odtrain did not begin ({numbers}: {', '.join(ways)}).",
                "Give another sweep.name, or another sweep.storage.",
            )
        time.sleep(0.2)


def _check_unchanged(name: str, known: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for key, value in wanted.items():
        unsaid = [one for one in value if one != ONCE_UNSAID] if key == "settings" else value
        if known[key] in (value, unsaid):
            continue
        before = known[key]
        if isinstance(before, list):
            before = [one for one in before if one not in value] or before
        if isinstance(before, dict):
            before = [f"{metric}: {way}" for metric, way in before.items()]
        shown_value = ", ".join(before) if isinstance(before, list) else before
        words = {"directions": "compares", "data": "was begun on data with the digest"}
        raise ConfigError(
            f"sweep.name={name}",
            f"is a study that {words.get(key, 'was begun with')} {shown_value}.",
            f"Give another sweep.name, or the {key} it was begun with.",
        )


def _check_space(
    settings: SweepConfig, study: optuna.Study, dimensions: Sequence[Dimension]
) -> None:
    """Optuna takes no other choices for a parameter that has been drawn."""
    now: dict[str, BaseDistribution] = {one.key: one.distribution() for one in dimensions}
    now[FORMAT] = CategoricalDistribution(list(settings.formats))
    for trial in study.get_trials(deepcopy=False):
        for key, before in trial.distributions.items():
            try:
                if key in now:
                    check_distribution_compatibility(before, now[key])
            except ValueError:
                what = "sweep.formats" if key == FORMAT else f"sweep.space: {key}"
                choices = getattr(before, "choices", None)
                had = f"the choices {', '.join(map(str, choices))}" if choices else "another range"
                raise ConfigError(
                    what,
                    f"the study {settings.name} was begun with {had}.",
                    "Give another sweep.name, or go on with what it was begun with.",
                ) from None


def _no_study(settings: SweepConfig) -> ConfigError:
    return ConfigError(
        f"sweep.name={settings.name}",
        f"no such study in {storage_url(settings)}.",
        "Run odtrain sweep first, or give the sweep.name and sweep.storage of one.",
    )
