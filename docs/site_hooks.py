"""What MkDocs calls while it builds the site: pages that are made, and files that lie outside docs/.

Pages link to files of the repository as GitHub has them (`../examples/run_labelimg.py`). On the site these
files are below `repository/`, and so are the pages of `OUTSIDE`, whose links are turned the same way.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import reference  # noqa: E402  beside this file, which MkDocs does not put on the path

OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "runtime/README.md")
"""Pages of the site that lie outside docs/, from the repository's root."""
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)")
SHELF = "repository/"


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages of the reference, and what pages link to outside docs/."""
    for uri, text in reference.pages().items():
        files.append(File.generated(config, uri, content=text))
    for path in sorted(_linked()):
        made = File.generated(config, SHELF + path, abs_src_path=str(ROOT / path))
        files.append(made)
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Turn the links between docs/ and the rest of the repository to where the site has them."""
    uri = page.file.src_uri
    home = PurePosixPath(uri.removeprefix(SHELF) if uri.startswith(SHELF) else f"docs/{uri}").parent

    def turned(match: re.Match[str]) -> str:
        path = _path(home, match[1])
        if not (ROOT / path).is_file():
            return match[0]
        place = path.removeprefix("docs/") if path.startswith("docs/") else SHELF + path
        return f"]({posixpath.relpath(place, posixpath.dirname(uri) or '.')}{match[2] or ''})"

    return LINK.sub(turned, markdown)


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Say of a Korean page that it is Korean."""
    return output.replace('lang="en"', 'lang="ko"', 1) if ".ko." in page.file.src_uri else output


def _linked() -> set[str]:
    """Files outside docs/ that a page names, and that those pages name in turn."""
    found: set[str] = set()
    waiting = [*OUTSIDE, *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]
    while waiting:
        page = waiting.pop()
        for path in {*_links(page), *([page] if page in OUTSIDE else [])} - found:
            if not path.startswith("docs/") and (ROOT / path).is_file():
                found.add(path)
                waiting += [path] if path.endswith(".md") else []
    return found


def _links(page: str) -> Iterator[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    yield from (_path(PurePosixPath(page).parent, match[1]) for match in LINK.finditer(text))


def _path(home: PurePosixPath, link: str) -> str:
    return posixpath.normpath(str(home / link))
