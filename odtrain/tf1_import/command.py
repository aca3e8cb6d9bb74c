"""`odtrain import`."""

from __future__ import annotations

from pathlib import Path

from odtrain.command import Action, Command, Invocation, flag, say


def _import(invocation: Invocation) -> int:
    from odtrain.tf1_import.experiment import import_pipeline

    flags = invocation.flags
    say(import_pipeline(Path(flags.file).expanduser(), Path(flags.to).expanduser(), flags.name))
    return 0


FLAGS = (
    flag("file", "the pipeline.config"),
    flag("--to", "folder of your configs", default="configs", metavar="DIR"),
    flag("--name", "of the experiment; else that of the file", metavar="NAME"),
)
COMMANDS = {"import": Command({"": Action(_import, flags=FLAGS)})}
