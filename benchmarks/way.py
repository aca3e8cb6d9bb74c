"""The way a command takes through the modules of odtrain, on a tiny run.

    python benchmarks/way.py train data.images=DIR data.name=tiny train.steps=4 ...

Each function counts when it is entered for the first time, in the main thread. Functions entered one after
the other in one module are one stay in it; a stay in a module that was left before is a return. So a
picture or a step more changes nothing, and what is counted is how often a reader who follows the command
has to open another file, and how often one that was closed already.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from types import CodeType, FrameType

ROOM = "odtrain"


def entered(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """(module, function) in the order in which one command enters them for the first time."""
    seen: dict[tuple[str, str], None] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.partition(".")[0] == ROOM and _is_written(frame.f_code):
            seen.setdefault((module, f"{frame.f_code.co_firstlineno} {frame.f_code.co_name}"))

    main = command()
    sys.setprofile(note)
    try:
        main(list(arguments))
    finally:
        sys.setprofile(None)
    return list(seen)


def _is_written(code: CodeType) -> bool:
    """Whether it is a function that stands in a file for people to read.

    Bodies of modules and classes are none; <lambda> and <genexpr> are parts of one; what dataclasses
    generate is written nowhere; of AutoGraph's translations, those of whole functions stand for them.
    """
    if not code.co_flags & inspect.CO_OPTIMIZED or code.co_name.startswith("<"):
        return False
    translated = "__autograph_generated_file" in code.co_filename
    return code.co_name.startswith("tf__") if translated else not code.co_filename.startswith("<")


def command() -> Callable[[list[str]], int]:
    """The program's `main`, wherever this version keeps it."""
    for place in ("odtrain.cli.main", "odtrain.cli"):
        with contextlib.suppress(ModuleNotFoundError):
            main: Callable[[list[str]], int] = importlib.import_module(place).main
            return main
    raise ModuleNotFoundError("odtrain is not installed here.")


def counted(way: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Functions entered, modules seen, stays in a module, and returns to one left before."""
    stays = [module for module, _ in itertools.groupby(module for module, _ in way)]
    modules = len(set(stays))
    return {
        "functions": len(way),
        "modules": modules,
        "stays": len(stays),
        "returns": len(stays) - modules,
    }


if __name__ == "__main__":
    print(json.dumps(counted(entered(sys.argv[1:]))))
