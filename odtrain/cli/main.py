"""The `odtrain` command: reads flags and overrides, composes the configuration, calls one function.

Nothing heavy is imported before a command is known to be well-formed: help and wrong overrides answer
at once.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path

from odtrain import __version__
from odtrain.cli.parse import parse
from odtrain.command import show
from odtrain.errors import OdtrainError, is_of_memory, os_remedy
from odtrain.secrets import hide_arguments, hide_in_tracebacks, masked
from odtrain.system.processor import choose_onednn
from odtrain_runtime.plain import plain

LESS_MEMORY = (
    "close other programs, or ask for less at once: data.workers=1, train.batch_size, train.cache_mb, "
    "model.input_size. Nothing is wrong with your files."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0 done, 1 an error the user can act on, 130 interrupted.
    """
    hide_in_tracebacks()
    if arguments is None:
        hide_arguments()
        # Else TensorFlow looks for the Keras that odtrain does not use, and imports it: a second or two.
        os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
        # Python would look through all objects of TensorFlow once more as it ends, for seconds.
        atexit.register(gc.freeze)
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        from odtrain.cli.help import overview

        return _shown(overview())
    if arguments[0] == "--version":
        return _shown(f"odtrain {__version__}")
    choose_onednn()
    try:
        return _run(arguments)
    except OdtrainError as error:
        print(masked(str(error)), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    except Exception as error:
        told = _told(error)
        if told is None:
            raise
        print(masked(told), file=sys.stderr)
        return 1


def _told(error: Exception) -> str | None:
    """What is said of an error that is no fault of the program; None of one that is."""
    if is_of_memory(error):
        return _out_of_memory(error)
    if not isinstance(error, OSError) or (remedy := os_remedy(error)) is None:
        return None
    where = plain(error.filename or error.filename2 or _fullest())
    return f"{where}: {error.strerror}.\n  {remedy}"


def _fullest() -> str:
    """The folder that an error without a name is of: the one whose disk has the least room."""
    import shutil
    import tempfile

    here, temporary = str(Path.cwd()), tempfile.gettempdir()
    named = {here: here, temporary: f"{temporary} (TMPDIR)"}
    return named[min(named, key=lambda folder: shutil.disk_usage(folder).free)]


def _out_of_memory(error: BaseException) -> str:
    """One line; of a process that was killed, which is how memory runs out there."""
    killed = isinstance(error, BrokenExecutor)
    problem = "A process was killed" if killed else "Memory ran out"
    during = f" while {error}" if str(error).startswith("decoding ") else ""
    return f"{problem}{during}: {LESS_MEMORY}"


def _run(arguments: Sequence[str]) -> int:
    if arguments[0] == "--complete":
        from odtrain.cli.completion import candidates

        return _shown("\n".join(candidates(arguments[1:])))
    asked = parse(arguments)
    if asked.typed.help:
        from odtrain.cli.help import of_command

        return _shown(of_command(asked))
    invocation = asked.invocation()
    from odtrain.system import loading, logs, progress

    logs.show(asked.typed.verbosity)
    loading.calm_tensorflow(asked.typed.verbosity)
    loading.say_what_loads()
    with logs.remembering(), progress.doing("Starting" if asked.action.stays else "Working"):
        return asked.action.run(invocation)


def _shown(text: str) -> int:
    show(text)
    return 0
