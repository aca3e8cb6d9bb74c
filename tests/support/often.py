"""What repeats for every network: a few of them at every run, the others before a release."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def long_but(names: Iterable[str], always: Collection[str]) -> list[Any]:
    """The names as a test's parameters, marked long but for those that are run always."""
    return [
        pytest.param(name, marks=[] if name in always else [pytest.mark.long]) for name in names
    ]
