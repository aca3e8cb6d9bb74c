"""Pages that need no network: the files of `templates/` filled in, with their pictures inside them."""

from __future__ import annotations

import base64
import functools
import io
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from odtrain_runtime.plain import plain_lines


def page(template: str, **values: Any) -> str:
    """A file of `templates/` with `values` in it; text is escaped, `| tojson` is safe in a script."""
    return _templates().get_template(template).render(values)


@functools.cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("odtrain.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        finalize=_finalize,
    )
    templates.policies["json.dumps_kwargs"] = {}  # else it sorts keys, which are columns
    return templates


def _finalize(value: Any) -> Any:
    """What is about to be escaped, without what would turn or hide it."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else plain_lines(value)


def embedded(data: bytes, kind: str) -> str:
    """A picture's file as the `src` of an <img>; `kind` is png or jpeg."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def as_jpeg(image: Image.Image, quality: int) -> str:
    """An RGB picture as the `src` of an <img>."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return embedded(stream.getvalue(), "jpeg")
