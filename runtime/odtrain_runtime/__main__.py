"""`python -m odtrain_runtime predict FILE PICTURE...` and `python -m odtrain_runtime serve FILE`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from odtrain_runtime import __version__
from odtrain_runtime.answers import as_json
from odtrain_runtime.callers import TOKEN_VARIABLE, read_token
from odtrain_runtime.errors import OdtrainError
from odtrain_runtime.pictures import UnusableError, read_upright
from odtrain_runtime.predictor import load
from odtrain_runtime.serve import Limits, serve

FILE = "a .tflite, or a folder as `odtrain models download` leaves it"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status."""
    given = _parser().parse_args(arguments)
    try:
        return int(given.run(given))
    except OdtrainError as error:
        print(error, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m odtrain_runtime", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    predict = commands.add_parser("predict", help="a line of JSON for each picture")
    predict.add_argument("file", type=Path, metavar="FILE", help=FILE)
    predict.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE")
    predict.set_defaults(run=_predict)
    server = commands.add_parser("serve", help="POST a picture to /detect, GET /health")
    server.add_argument("file", type=Path, metavar="FILE", help=FILE)
    server.add_argument("--host", default="127.0.0.1", help="address to listen at (%(default)s)")
    server.add_argument("--port", type=int, default=8766, help="0: any free one (%(default)s)")
    server.add_argument(
        "--allowed-host",
        dest="allowed_hosts",
        action="append",
        default=[],
        metavar="NAME",
        help="another name by which it may be called; may be repeated",
    )
    server.add_argument(
        "--auth-token-file",
        type=Path,
        metavar="FILE",
        help=f"holds the token that callers must show; else {TOKEN_VARIABLE}",
    )
    server.set_defaults(run=_serve)
    for command in (predict, server):
        command.add_argument(
            "--threshold", type=float, default=0.5, help="lowest score told (%(default)s)"
        )
    return parser


def _predict(given: argparse.Namespace) -> int:
    """Print what is in each picture; 1 if one could not be read."""
    detector = load(given.file)
    status = 0
    for file in given.pictures:
        try:
            image = read_upright(file)
        except UnusableError as error:
            print(error, file=sys.stderr)
            status = 1
            continue
        begun = time.perf_counter()
        found = detector.detect(image).above(given.threshold)
        milliseconds = 1000 * (time.perf_counter() - begun)
        answer = as_json(image, found, detector.class_names, milliseconds)
        print(json.dumps({"picture": str(file), **answer}, ensure_ascii=False), flush=True)
    return status


def _serve(given: argparse.Namespace) -> int:
    token = read_token(given.auth_token_file)
    limits = Limits(given.threshold, allowed_hosts=given.allowed_hosts, token=token)
    serve(load(given.file, workers=os.cpu_count() or 1), given.host, given.port, limits)
    return 0


if __name__ == "__main__":
    sys.exit(main())
