"""`odtrain submit`."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from odtrain.command import Action, Command, Composed, flag, prints, with_config

SUBMITTED = {
    "train": "odtrain.jobs.command",
    "sweep": "odtrain.sweep.command",
    "prepare": "odtrain.dataset.command",
    "predict": "odtrain.predict.command",
    "evaluate": "odtrain.jobs.command",
    "export": "odtrain.jobs.command",
}
"""Commands that may be sent, and the modules that have them."""
JOB = flag("job", "as odtrain submit printed it", metavar="JOB")
FOLLOW = flag("--follow", "stay until it ends, and say what it says", action="store_true")


def _submit(name: str) -> Callable[[Composed], int]:
    def run(given: Composed) -> int:
        from odtrain.cluster.submit import submit

        flags = given.flags
        return submit(given.config, name, given.overrides, flags.config_dir, flags.follow)

    return run


def _follow(given: Composed) -> int:
    from odtrain.cluster.submit import follow

    return follow(given.config, given.flags.job)


def _stop(given: Composed) -> str:
    from odtrain.cluster.submit import stop

    return stop(given.config, given.flags.job)


def _sent(name: str, module: str) -> Action:
    own: Action = importlib.import_module(module).COMMANDS[name].actions[""]
    settings = (*own.settings, *(() if "cluster" in own.settings else ("cluster",)))
    return Action(with_config(_submit(name)), f"odtrain {name}, there", (FOLLOW,), settings)


COMMANDS = {
    "submit": Command(
        {
            **{name: _sent(name, module) for name, module in SUBMITTED.items()},
            "follow": Action(
                with_config(_follow),
                "say what a job says until it ends",
                (JOB,),
                ("cluster",),
                "submit follow raysubmit_1a2b3c",
            ),
            "stop": Action(
                prints(_stop),
                "call a job off; a training keeps a checkpoint",
                (JOB,),
                ("cluster",),
                "submit stop raysubmit_1a2b3c",
            ),
        },
        default=None,
    )
}
