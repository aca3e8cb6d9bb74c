"""`odtrain collect`."""

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
COMMANDS = {"collect": Command({"": Action(_collect, flags=FLAGS)})}
