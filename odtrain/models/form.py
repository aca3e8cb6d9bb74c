"""How a network is written down for those who convert it: equal in float32, unequal in what comes of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum, auto


class Form(Enum):
    """What a network is traced for.

    Attributes:
        PLAIN: TensorFlow itself: training, evaluation, graphs.
        LITE_FLOAT: a .tflite that computes in float: a kernel that maps of several sizes share is stored
            once, since each map's batch norm stays apart from it.
        LITE_INT8: a .tflite that computes in int8: hard swish is made of operators that XNNPACK and
            accelerators have in int8.
    """

    PLAIN = auto()
    LITE_FLOAT = auto()
    LITE_INT8 = auto()


_FORM = ContextVar("_FORM", default=Form.PLAIN)


@contextmanager
def traced_for(form: Form) -> Iterator[None]:
    """Networks that are called within are written down in this form."""
    token = _FORM.set(form)
    try:
        yield
    finally:
        _FORM.reset(token)


def form() -> Form:
    """The form that is asked for."""
    return _FORM.get()
