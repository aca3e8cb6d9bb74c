"""The code that a registered version carries, kept apart from that of the process that loads it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def kept_apart() -> Iterator[None]:
    """Load a version inside: what it puts first on `sys.path` is not for this process.

    Versions carry `odtrain_runtime`; those registered before it had that name carry a part of `odtrain`,
    whose modules have other names than ours and are imported as if ours were not there.
    """
    path, ours = list(sys.path), _take_odtrain()
    try:
        yield
    finally:
        _take_odtrain()
        sys.modules.update(ours)
        sys.path[:] = path


def _take_odtrain() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name.partition(".")[0] == "odtrain"]
    return {name: sys.modules.pop(name) for name in names}
