"""What a driver shows of its study: a line for each training that ended, the front, and the last words."""

from __future__ import annotations

import json
import logging
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from odtrain.config.differing import left_out
from odtrain.jobs.context import pages_of
from odtrain.sweep import page as sweep_page
from odtrain.sweep import pareto as sweep_front
from odtrain.sweep import queue as sweep_trials
from odtrain.sweep import results as sweep_results
from odtrain.sweep import space as sweep_space
from odtrain.sweep.run import Sweep
from odtrain.sweep.study import patiently
from odtrain.system.progress import Bar, doing, duration
from odtrain.tracking.store import ui_command

logger = logging.getLogger(__name__)


STEPS = re.compile(r"train: ([\d,]+) of ([\d,]+) steps")
"""What a training says of itself, see `odtrain.system.progress`."""
LONGEST_NOTE = 60


def before_the_first(line: str, seconds: float, rounds: float) -> str:
    """What is noted beside the bar of a sweep while no training has ended.

    Args:
        line: the last one of a training.
        seconds: since the first training began.
        rounds: trainings that follow each other.
    """
    found = STEPS.match(line)
    if found is None:
        return line[:LONGEST_NOTE]
    done, steps = (int(number.replace(",", "")) for number in found.groups())
    first = f"step {done:,} of {steps:,} of the first training"
    left = f", about {duration(seconds * (rounds * steps / done - 1))} left for all" if done else ""
    return f"{first}{left}"


def tell_news(whole: Sweep, bar: Bar[None], seen: set[int], aloud: bool = True) -> None:
    """Say what has ended since the last look, and log the front if anything has."""
    trials = patiently(lambda: sweep_trials.asked(whole.study))
    ended = [one for one in trials if one.state.is_finished() and one.number not in seen]
    if not ended:
        return
    seen |= {trial.number for trial in ended}
    for trial in ended if aloud else []:
        logger.info(_line(trial))
    complete = sum(trial.state == TrialState.COMPLETE for trial in trials)
    bar.update(min(complete, whole.config.sweep.n_trials) - bar.n)
    show(whole)
    bar.note(f"{len(sweep_results.front(whole.study))} on the front")


def _line(trial: FrozenTrial) -> str:
    point = trial.user_attrs.get("point", trial.params)
    chosen = ", ".join(sweep_space.as_overrides(point))
    files = trial.user_attrs.get("result", {}).get("files", {})
    what = trial.user_attrs.get("reason") or ", ".join(
        f"{name} {file['mAP']:.3f} mAP {file['latency_ms_p50']:.2f} ms"
        for name, file in files.items()
    )
    return f"{trial.number}: {chosen}: {trial.user_attrs.get('state', 'lost')}: {what}"


@doing("Drawing the front")
def show(whole: Sweep) -> None:
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
    tracker.log_text(sweep_page.sweep_page(title, every, best, others, importances), "front.html")
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
    said = _description(title, best, others, importances)
    tracker.describe("\n\n".join(filter(None, (said, left_out(whole.config)))))


def _description(
    title: str,
    best: Sequence[sweep_front.FrontPoint],
    others: Sequence[dict[str, str]],
    importances: dict[str, dict[str, float]],
) -> str:
    parts = [f"**{title}**, judged on the validation split", sweep_front.front_table(best)]
    if others:
        parts += ["Without a file:", sweep_page.others_table(others)]
    if importances:
        parts += [
            "What mattered (share of the variance, fANOVA):",
            sweep_page.importance_table(importances),
        ]
    return "\n\n".join(parts)


def _pages(whole: Sweep) -> list[str]:
    """Lines with the pages that show the front, and the sweep's trainings."""
    served = ui_command(whole.job.uri) or "the server is up"
    shown = pages_of(whole.tracker, below=True) if whole.tracker is not None else None
    if whole.tracker is None or shown is None:
        return [f"  the front              {served}"]
    return [
        f"  the front              {shown.run(whole.tracker.name, 'artifacts/front.html')}",
        f"  its trainings          {shown.table}",
        f"                         {shown.charts}",
        f"  the pages' server      {served}",
    ]


def closing_words(whole: Sweep, same: str) -> str:
    """What came of it, and where to look next; `same` says again which sweep it is."""
    study = whole.study
    best = sweep_results.front(study)
    saved, stopped = sweep_results.saved(study)
    total = sweep_trials.count(study, TrialState.COMPLETE)
    share = f", which saved {saved / total:.0%} of the steps" if stopped else ""
    return "\n".join(
        [
            f"{total} trainings, {stopped} of them stopped early{share}; {len(best)} files on the "
            "front, by the validation split:",
            sweep_front.front_table(best),
            "",
            "Where to look next:",
            *_pages(whole),
            f"  the best under 5 ms    odtrain sweep pick{same} --max-latency-ms 5",
            f"  the same, registered   odtrain sweep pick{same} --max-latency-ms 5 --register",
            f"  measured once more     odtrain sweep verify{same}",
        ]
    )
