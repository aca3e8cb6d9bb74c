"""`odtrain sweep`."""

from __future__ import annotations

from odtrain.command import Action, Command, Composed, flag, prints, say, with_config
from odtrain.jobs.command import TRAINING


def _sweep(given: Composed) -> str:
    from odtrain.sweep.driver import sweep

    return sweep(given.config, given.overrides, given.flags.config_dir)


def _pick(given: Composed) -> str:
    from odtrain.sweep.pick import pick

    flags = given.flags
    limits = (flags.max_latency_ms, flags.min_map, flags.max_size_mb)
    return pick(given.config, *limits, flags.register)


def _verify(given: Composed) -> int:
    from odtrain.sweep.pick import verify

    table, same = verify(given.config)
    say(table)
    return int(not same)


SWEEP = Action(prints(_sweep), "run the trainings", settings=("sweep", *TRAINING, "cluster"))
PICK = Action(
    prints(_pick),
    "one file of the front, and what the next quicker and slower one would cost",
    flags=(
        flag("--max-latency-ms", "at most so slow", type=float, metavar="X"),
        flag("--min-map", "the quickest of so good", type=float, metavar="X"),
        flag("--max-size-mb", "at most so large", type=float, metavar="X"),
        flag("--register", "measure on test and register", action="store_true"),
    ),
    settings=("sweep", "data", "tracking", "registry", "evaluate", "outputs"),
)
VERIFY = Action(
    with_config(_verify),
    "measure all files of the front once more",
    settings=("sweep", "data", "tracking", "outputs"),
)
COMMANDS = {"sweep": Command({"": SWEEP, "pick": PICK, "verify": VERIFY})}
