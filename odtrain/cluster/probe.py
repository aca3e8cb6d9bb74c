"""Joining a Ray, or seeing whether one can be joined: Ray waits for minutes where none is.

python -m odtrain.cluster.probe ADDRESS
"""

from __future__ import annotations

import logging
import signal
import sys
import threading


def join(address: str) -> None:
    """Have this process join a Ray, which says nothing here."""
    import ray

    before = signal.getsignal(signal.SIGTERM)
    ray.init(
        address=address,
        log_to_driver=False,
        configure_logging=False,
        logging_level=logging.ERROR,
    )
    if threading.current_thread() is threading.main_thread():
        signal.signal(
            signal.SIGTERM, before
        )  # Ray has put up its own, which ends the process at once


def main(address: str) -> int:
    """Join and leave; the exit status."""
    import ray

    try:
        join(address)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
