"""What the layout of the code measures, for a checkout or a worktree of another version.

    python benchmarks/structure.py [CHECKOUT]

Prints a Markdown table: how full the largest folder is, how many functions are handed the whole
configuration, how long modules and functions are. docs/design.md has what was seen before the rooms and after.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

LONG = 300
"""Lines of a module above which it is counted as long."""


def trees(checkout: Path) -> dict[Path, ast.Module]:
    """Every module of the package, parsed."""
    files = sorted((checkout / "odtrain").rglob("*.py"))
    return {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    """Functions and methods, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def takes_whole_config(function: ast.FunctionDef) -> bool:
    """Whether a parameter is annotated as the whole `Config`."""
    given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return any(one.annotation and ast.unparse(one.annotation) == "Config" for one in given)


def body_lines(function: ast.FunctionDef) -> int:
    """Lines of a function's body without its docstring."""
    first = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - first[0].lineno + 1 if first else 0


def measured(checkout: Path) -> dict[str, float]:
    """What is counted, by what it is called in the table."""
    parsed = trees(checkout)
    folders = Counter(file.parent for file in parsed if file.name != "__init__.py")
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in parsed}
    bodies = [body_lines(one) for tree in parsed.values() for one in functions(tree)]
    return {
        "modules": sum(folders.values()),
        "modules in the largest folder": max(folders.values()),
        "functions that take the whole Config": sum(
            takes_whole_config(one) for tree in parsed.values() for one in functions(tree)
        ),
        f"modules over {LONG} lines": sum(lines > LONG for lines in lengths.values()),
        "lines of the longest module": max(lengths.values()),
        "lines in all": sum(lengths.values()),
        "functions": len(bodies),
        "median lines of a body": statistics.median(bodies),
        "90th percentile": statistics.quantiles(bodies, n=10)[-1],
    }


if __name__ == "__main__":
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]
    print("| | |\n|---|---|")
    for what, number in measured(place).items():
        print(f"| {what} | {number:g} |")
