"""One at a time at a registered model, also from several machines.

MLflow sets an alias whatever it was before, so that two who each look first and set it then can undo one
another. It has no lock either; but tags of a model are registers that everybody can read and each one
writes under a key of its own. Lamport's bakery (A New Solution of Dijkstra's Concurrent Programming
Problem, Communications of the ACM 17(8), 1974) makes a lock of those: draw a number above all others, wait
for those with a lower one. Whoever does not renew its tag for a while counts as dead.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from odtrain.errors import TrackingError

QUEUE = "odtrain.queue."
CHOOSING = 0
"""In place of a number while one is drawn."""
RENEW_SECONDS = 5.0
DEAD_SECONDS = 30.0
"""A tag that has not changed for so long was left behind. Everybody measures by the own clock."""
POLL_SECONDS = 0.2


class Lease:
    """A place in the queue at a registered model.

    Attributes:
        key: the tag that holds it.
    """

    def __init__(self, client: MlflowClient, model: str) -> None:
        self.key = f"{QUEUE}{uuid.uuid4().hex}"
        self._client = client
        self._model = model
        self._number = CHOOSING
        self._beat = 0
        self._seen: dict[str, tuple[str, float]] = {}
        self._done = threading.Event()
        self._writing = threading.Lock()

    def acquire(self) -> None:
        """Wait for the turn."""
        self._enqueue()
        renewed = time.monotonic()
        while not self._is_first():
            time.sleep(POLL_SECONDS)
            if time.monotonic() - renewed > RENEW_SECONDS:
                self._write()
                renewed = time.monotonic()
        threading.Thread(target=self._keep, name="odtrain-lease", daemon=True).start()

    def check(self) -> None:
        """Make sure that nobody has taken this process for dead.

        Raises:
            TrackingError: somebody has.
        """
        if self.key not in self._queue():
            raise TrackingError(
                f"models:/{self._model}",
                "this process was held up for so long that others went on without it.",
                "Try again.",
            )

    def release(self) -> None:
        """Let the next one go on."""
        self._done.set()
        with self._writing:
            self._remove(self.key)

    def _enqueue(self) -> None:
        self._number = CHOOSING
        self._write()
        self._number = 1 + max(map(_number, self._queue().values()), default=0)
        self._write()

    def _is_first(self) -> bool:
        queue = self._queue()
        if self.key not in queue:
            self._enqueue()
            return False
        own = (self._number, self.key)
        others = [(_number(text), key) for key, text in queue.items() if key != self.key]
        return all(number != CHOOSING and (number, key) > own for number, key in others)

    def _queue(self) -> dict[str, str]:
        """The tags of those in the queue, without those left behind."""
        tags = self._client.get_registered_model(self._model).tags
        queue = {key: text for key, text in tags.items() if key.startswith(QUEUE)}
        now, seen = time.monotonic(), {}
        for key, text in list(queue.items()):
            before = self._seen.get(key)
            seen[key] = before if before is not None and before[0] == text else (text, now)
            if key != self.key and now - seen[key][1] > DEAD_SECONDS:
                self._remove(key)
                del queue[key]
        self._seen = seen
        return queue

    def _write(self) -> None:
        self._beat += 1
        text = f"{self._number} {self._beat}"
        self._client.set_registered_model_tag(self._model, self.key, text)

    def _keep(self) -> None:
        while not self._done.wait(RENEW_SECONDS):
            with self._writing, contextlib.suppress(Exception):
                if not self._done.is_set() and self.key in self._queue():
                    self._write()

    def _remove(self, key: str) -> None:
        try:
            self._client.delete_registered_model_tag(self._model, key)
        except MlflowException as problem:
            if problem.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise


def _number(text: str) -> int:
    number = text.partition(" ")[0]
    return int(number) if number.isdigit() else CHOOSING


@contextlib.contextmanager
def alone_at(client: MlflowClient, model: str) -> Iterator[Lease]:
    """Be the only one to change the aliases of a registered model, for a few requests."""
    lease = Lease(client, model)
    try:
        lease.acquire()
        yield lease
    finally:
        lease.release()
