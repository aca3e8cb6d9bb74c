"""Executes notebooks and keeps what they show, without progress bars and log lines.

    python notebooks/execute.py [NAME...]

Each runs in an empty folder; nothing but the notebook is changed.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent
SHIPPED = ("quickstart", "own_data", "compare_and_promote", "sweep")
"""Those that need neither a camera nor files of the reader's own."""
MOST_SECONDS = 3600
NOT_SHOWN = re.compile(r"\r(?!\r*\n?$)|^INFO:")
"""Lines of progress bars, and of logs."""


def execute(file: Path) -> None:
    """Run a notebook in an empty folder, and write it back with what a reader wants to see of it."""
    notebook = nbformat.read(file, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        where = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=MOST_SECONDS, resources=where).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when each began and ended
        if cell.cell_type == "code":
            cell.outputs = [shown for each in cell.outputs if (shown := _to_show(each)) is not None]
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, file)


def _to_show(output: NotebookNode) -> NotebookNode | None:
    """An output without what only matters while it runs; None if nothing is left."""
    if output.output_type == "stream":
        lines = output.text.splitlines(keepends=True)
        output.text = "".join(line for line in lines if not NOT_SHOWN.search(line))
        return output if output.name == "stdout" and output.text else None
    if "image/jpeg" in output.get("data", {}):
        output.data.pop("image/png", None)  # the same picture, larger
    return output


if __name__ == "__main__":
    for name in sys.argv[1:] or SHIPPED:
        execute(HERE / f"{name}.ipynb")
