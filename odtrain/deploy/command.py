"""`odtrain deploy`."""

from __future__ import annotations

from pathlib import Path

from odtrain.command import Action, Command, Composed, flag, looks, prints
from odtrain.errors import ConfigError


def _deploy(given: Composed) -> str:
    from odtrain.deploy.kit import deploy
    from odtrain.deploy.targets import TARGETS
    from odtrain.tracking.store import tracking_uri

    flags = given.flags
    if not flags.to:
        raise ConfigError(
            "odtrain deploy", "needs --to TARGET.", f"Choose one of: {', '.join(sorted(TARGETS))}."
        )
    out = Path(flags.out or f"{flags.to}-kit")
    return deploy(flags.uri, flags.to, out, tracking_uri(given.config.tracking))


DEPLOY = Action(
    looks(prints(_deploy)),
    flags=(
        flag("uri", "models:/NAME@ALIAS or models:/NAME/VERSION", metavar="URI"),
        flag("--to", "frigate, coral, raspberry-pi, android or tf-serving", metavar="TARGET"),
        flag("--out", "the new folder; TARGET-kit if not given", metavar="DIR"),
    ),
    settings=("tracking",),
    example="deploy models:/panels@champion --to frigate --out kit",
)
COMMANDS = {"deploy": Command({"": DEPLOY})}
