"""What is shown while something lasts: a bar in a terminal, lines of their own elsewhere.

One thread looks after all that lasts, so that a bar moves and a line comes also while one part takes
long. Where no terminal is, and where CI is set, nothing is drawn: the lines go the way of all others,
`odtrain.system.logs`. Nothing is coloured anywhere.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager, suppress
from types import TracebackType
from typing import Any, Generic, TypeVar

from tqdm import tqdm

from odtrain.system import logs
from odtrain_runtime.native_stderr import PEOPLE

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

TICK = 0.5
"""Seconds between looks at what lasts."""
SOON = 1.0
"""Seconds after which it is said what is being done."""
FIRST, SHARE, LONGEST = 2.0, 0.2, 60.0
"""Seconds between lines: at least, of those gone by, and at most."""


USUAL_SIZE: dict[str, Any] = {"ncols": 80, "nrows": 24}
"""Of a terminal that does not know its own."""


def is_drawn() -> bool:
    """Whether somebody sees a bar move: on a terminal that no build server keeps."""
    kept = os.environ.get("CI", "").lower() not in ("", "0", "false")
    return not kept and os.environ.get("TERM") != "dumb" and PEOPLE.isatty()


class Bar(Generic[Item]):
    """How far something is, whatever it is counted in; ended by the last item, or as a context manager."""

    def __init__(
        self,
        items: Iterable[Item] | None = None,
        *,
        doing: str,
        unit: str = "picture",
        total: int | None = None,
        done: int = 0,
        delay: float = 0.0,
        leave: bool = True,
        counted: bool = True,
    ) -> None:
        """Begin.

        Args:
            items: to iterate over.
            doing: what is done, in a word or two; nothing is shown of what has no name.
            unit: one of the parts; `B` for bytes.
            total: parts there are; None for as many as items, where these know.
            done: parts that were there before.
            delay: seconds that nothing is shown for.
            leave: whether the last state stays.
            counted: whether there are parts; else `doing` and the time are shown.
        """
        self._items, self.doing, self._unit, self.counted = items, doing, unit, counted
        self.total = len(items) if total is None and isinstance(items, Sized) else total
        self.n = self._before = done
        self._delay, self._leave, self._noted = delay, leave, ""
        self._began = self._updated = time.monotonic()
        self._bar: tqdm[Any] | None = None
        self._lock, self._closed, self._shown = threading.RLock(), not doing, False
        if doing:
            _WATCH.add(self)
        if not delay and is_drawn():
            self.tick()

    def __iter__(self) -> Iterator[Item]:
        """The items, each counted when the next one is asked for."""
        with self:
            for item in self._items or ():
                yield item
                self.update()

    def __enter__(self) -> Bar[Item]:
        """It has begun already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it; of what broke off, and of what nobody waited for, nothing more is said."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._erase(self._leave)
            waited = self._shown or self._lasted >= SOON
            if waited and self._leave and kind is None and not is_drawn() and self._is_told():
                logger.info(self._last_line())
        _WATCH.drop(self)

    def update(self, parts: int = 1) -> None:
        """So many more are done."""
        self.n, self._updated = self.n + parts, time.monotonic()
        if self._bar is not None:
            self._bar.update(parts)

    def note(self, text: str) -> None:
        """What is shown beside the numbers from now on."""
        self._noted = text
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)

    def tick(self) -> None:
        """Show how it stands, if it is time to."""
        with self._lock:
            if self._closed or not self._is_told():
                return
            quiet = time.monotonic() - max(_WATCH.since, logs.last_said())
            if is_drawn():
                if (
                    self._bar is not None
                    or (self._lasted if self.counted else quiet) >= self._delay
                ):
                    with suppress(OSError):  # a terminal that is gone stops nothing
                        self._draw()
            elif quiet >= self._until_next():
                self._shown = True
                logger.info(self._line())

    def covered(self) -> None:
        """Something else is shown now."""
        with self._lock:
            if not self.counted:
                self._erase(leave=False)

    @property
    def _lasted(self) -> float:
        return time.monotonic() - self._began

    def _is_told(self) -> bool:
        """Whether it is wished for: with -q it is not, and a library says nothing by itself but bars."""
        least = logs.told()
        return self.counted if least is None else least <= logging.INFO

    # ---- drawn

    def _draw(self) -> None:
        if self._bar is not None:
            self._bar.refresh()
            return
        self._bar = tqdm(
            total=self.total,
            initial=self._before,
            desc=self.doing,
            unit=self._unit,
            unit_scale=self._unit == "B",
            leave=self._leave,
            file=PEOPLE,
            **({"dynamic_ncols": True} if _knows_its_width() else USUAL_SIZE),
            bar_format=None if self.counted else "{desc} ({elapsed})",
        )
        self._bar.start_t = time.time() - self._lasted
        self._bar.set_postfix_str(self._noted, refresh=False)
        self._bar.update(self.n - self._before)

    def _erase(self, leave: bool) -> None:
        if self._bar is not None:
            self._bar.leave = leave
            with suppress(OSError):
                self._bar.close()
            self._bar, _WATCH.since = None, time.monotonic()

    # ---- in lines

    def _until_next(self) -> float:
        if not self._shown:
            return max(self._delay, SOON)
        return min(max(FIRST, SHARE * self._lasted), LONGEST)

    def _line(self) -> str:
        if not self.counted:
            gone = f": {duration(self._lasted)} so far" if self._lasted >= FIRST else " ..."
            return f"{self.doing}{gone}"
        done = self.n - self._before
        when = f"{duration(self._lasted)} so far" if self._lasted >= FIRST else ""
        if self.total is not None and done > 0:
            left = (self._updated - self._began) / done * (self.total - self.n)
            left -= time.monotonic() - self._updated
            when = f"about {duration(max(left, 0))} left"
        return ", ".join(filter(None, [self._count(), when, self._noted]))

    def _last_line(self) -> str:
        return ", ".join(
            filter(None, [f"{self._count()} in {duration(self._lasted)}", self._noted])
        )

    def _count(self) -> str:
        if self._unit == "B":
            of = f" of {self.total / 1e6:.1f}" if self.total else ""
            return f"{self.doing}: {self.n / 1e6:.1f}{of} MB"
        of = f" of {self.total:,}" if self.total is not None else ""
        many = "" if (self.n if self.total is None else self.total) == 1 else "s"
        return f"{self.doing}: {self.n:,}{of} {self._unit}{many}"


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Inside, or in the function that it decorates: it is said what is being done, if it lasts."""
    with Bar[None](doing=what, delay=SOON, leave=False, counted=False):
        yield


def ready() -> None:
    """What was waited for is there, and stays until somebody ends it: nothing more is said of the waiting."""
    _WATCH.end()


def aside() -> AbstractContextManager[None]:
    """Inside, what is drawn makes way for something that is printed."""
    return tqdm.external_write_mode(file=PEOPLE)


def _knows_its_width() -> bool:
    """Some terminals of other programs say that they are 0 wide, and tqdm would draw nothing there."""
    try:
        return os.get_terminal_size(PEOPLE.fileno()).columns > 0
    except (OSError, ValueError):
        return False


def duration(seconds: float) -> str:
    """A time that people wait, rounded."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class _Watch:
    """What lasts at this moment, the innermost last, and the thread that looks after it.

    What has parts is shown before what has none, and of its kind the innermost.

    Attributes:
        since: when it began to be silent, but for what `logs` says.
    """

    def __init__(self) -> None:
        self._lasting: list[Bar[Any]] = []
        self._lock = threading.RLock()
        self._looked_after = False
        self.since = time.monotonic()

    def add(self, one: Bar[Any]) -> None:
        with self._lock:
            if self._lasting:
                self._lasting[-1].covered()
            else:
                self.since = time.monotonic()
            self._lasting.append(one)
            if not self._looked_after:
                self._looked_after = True
                threading.Thread(target=self._look, name="odtrain-progress", daemon=True).start()

    def drop(self, one: Bar[Any]) -> None:
        with self._lock:
            self._lasting.remove(one)

    def end(self) -> None:
        with self._lock:
            lasting = list(self._lasting)
        for one in reversed(lasting):
            one.__exit__(None, None, None)

    def _look(self) -> None:
        while True:
            time.sleep(TICK)
            with self._lock:
                if not self._lasting:
                    self._looked_after = False
                    return
                counted = [one for one in self._lasting if one.counted]
                shown = (counted or self._lasting)[-1]
            shown.tick()


_WATCH = _Watch()
