"""`odtrain collect` and `odtrain demo`."""

from __future__ import annotations

from pathlib import Path

from odtrain.command import Action, Command, Invocation, flag, say
from odtrain.errors import ConfigError


def _collect(invocation: Invocation) -> int:
    from odtrain.collect.collect import collect, collected_summary

    flags = invocation.flags
    if flags.every < 1 or not 0 <= flags.near <= 256:
        raise ConfigError("collect", "--every or --near too small or large.", "See --help.")
    to = Path(flags.to)
    done = collect(flags.source, to, every=flags.every, near=flags.near, private=flags.private)
    say(collected_summary(done))
    return int(bool(done.refused) and not done.added and not done.known)


def _demo_pictures(invocation: Invocation) -> int:
    from odtrain.collect.demo import write_demo

    flags = invocation.flags
    say(write_demo(Path(flags.to), labelled=flags.labelled, later=flags.more))
    return 0


FLAGS = (
    flag("source", "folder, archive, video, picture, list of URLs", nargs="+"),
    flag("--to", "folder to add them to", required=True, metavar="DIR"),
    flag("--every", "of a video, each N-th frame", type=int, default=30, metavar="N"),
    flag(
        "--near",
        "set aside what differs in at most BITS of 256; 0: only exact copies",
        type=int,
        default=26,
        metavar="BITS",
    ),
    flag("--private", "URLs may lead to this machine and network", action="store_true"),
)
DEMO_PICTURES = Action(
    _demo_pictures,
    "60 elevator panels to label, or to go on with, in a new folder",
    flags=(
        flag("--to", "the new folder", required=True, metavar="DIR"),
        flag("--labelled", "with labels, and the mistakes that people make", action="store_true"),
        flag(
            "--more", "the 60 that arrive later; their labels have no mistake", action="store_true"
        ),
    ),
)
COMMANDS = {
    "collect": Command({"": Action(_collect, flags=FLAGS)}),
    "demo": Command({"pictures": DEMO_PICTURES}, default=None),
}
