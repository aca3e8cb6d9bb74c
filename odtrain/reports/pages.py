"""Every page that odtrain writes or serves: the files of `templates/`, filled in, with all they need inside.

`base.html` frames each page, `design.css` is the one stylesheet, `design.js` the one script library; a page may
have a script of its own beside its template. Both are inlined, and the page's policy names them by their
digests: nothing else runs, and nothing is loaded.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from odtrain_runtime.plain import plain_lines

TEMPLATES = Path(__file__).parent / "templates"


class Page(NamedTuple):
    """A page and the Content-Security-Policy that it needs."""

    text: str
    policy: str


def page(name: str, **values: Any) -> str:
    """A page to keep, of the template `name`; text is escaped, `| tojson` is safe in a script."""
    return _filled(name, "", values).text


def served_page(name: str) -> Page:
    """A page that asks the server it came from, and nobody else, for what it shows."""
    return _filled(name, "; connect-src 'self'; media-src blob:", {})


def _filled(name: str, more: str, values: dict[str, Any]) -> Page:
    style, script = (_inlined(name, suffix) for suffix in ("css", "js"))
    policy = (
        f"default-src 'none'; img-src data: blob:; style-src {_digest(style)}; "
        f"script-src {_digest(script)}; base-uri 'none'; form-action 'none'{more}"
    )
    template = _templates().get_template(f"{name}.html")
    return Page(template.render(values, style=style, script=script, policy=policy), policy)


@functools.cache
def _inlined(name: str, suffix: str) -> Markup:
    """What all pages share, and what this one has of its own, of CSS or JS."""
    files = [TEMPLATES / f"{part}.{suffix}" for part in ("design", name)]
    return Markup("".join(file.read_text(encoding="utf-8") for file in files if file.is_file()))


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@functools.cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("odtrain.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.policies["json.dumps_function"] = _dumped
    templates.policies["json.dumps_kwargs"] = {}  # else it sorts keys, which are columns
    return templates


def _finalize(value: Any) -> Any:
    """What is about to be escaped, without what would turn or hide it."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else plain_lines(value)


def _dumped(value: Any) -> str:
    return json.dumps(_plain(value), separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {_plain(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return plain_lines(value) if isinstance(value, str) else value


def as_jpeg(image: Image.Image, quality: int) -> str:
    """An RGB picture as the `src` of an <img>."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
