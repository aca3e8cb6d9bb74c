"""Runs the commands of docs/tutorial.md, and puts what they print below them, in all its languages.

    python docs/fill_tutorial.py FOLDER

FOLDER is made, and is where the commands are run; in the text it is called /home/you.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGES = ("tutorial.md", "tutorial.ko.md")
SHOWN_AS = "/home/you"
STEP = re.compile(r"```sh\n(?P<command>[^`]*?)\n```\n\n```\n(?P<printed>.*?)\n```", re.DOTALL)
"""A command, and what it prints; commands that are only shown have nothing below them."""
LEFT_OUT = "\n\nWhere to look:"
"""What is printed from here on is the same behind every training."""


def run(commands: Sequence[str], folder: Path) -> Iterator[str]:
    """What each prints, in a folder of their own."""
    for command in commands:
        done = subprocess.run(
            command, shell=True, cwd=folder, stdout=subprocess.PIPE, text=True, check=False
        )
        print(f"{done.returncode}  {command}", file=sys.stderr)
        if done.returncode and not done.stdout:
            raise SystemExit("That failed: the pages stay as they are.")
        yield done.stdout.partition(LEFT_OUT)[0].strip("\n").replace(str(folder), SHOWN_AS)


def main(folder: Path) -> None:
    """Follow the tutorial in the folder, and write both pages anew."""
    folder.mkdir(parents=True)
    pages = {name: (HERE / name).read_text(encoding="utf-8") for name in PAGES}
    commands = [step["command"] for step in STEP.finditer(pages[PAGES[0]])]
    printed = list(run(commands, folder.resolve()))
    for name, text in pages.items():
        (HERE / name).write_text(filled(text, iter(printed)), encoding="utf-8")


def filled(text: str, printed: Iterator[str]) -> str:
    """A page with what its commands print now."""
    return STEP.sub(
        lambda step: f"```sh\n{step['command']}\n```\n\n```\n{next(printed)}\n```", text
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
