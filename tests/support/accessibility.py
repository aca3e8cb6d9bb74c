"""What axe-core finds wrong with a page, in light and dark, on a desk and on a phone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

LOOKS = [(theme, width) for theme in ("light", "dark") for width in (1280, 390)]
RUN = "axe.run(document, {resultTypes: ['violations']}).then(arguments[arguments.length - 1])"
MOST_BYTES = 300_000
"""Of a page without its pictures."""


def look(opened, theme, width):
    """Show the page as it is with this theme, in a window of this width."""
    features = [{"name": "prefers-color-scheme", "value": theme}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def serious(opened):
    """Theme, width, rule and element of everything serious or critical on the page that is open."""
    package = pytest.importorskip("axe_core_python")
    opened.execute_script((Path(package.__file__).parent / "axe.min.js").read_text("utf-8"))
    found = []
    for theme, width in LOOKS:
        look(opened, theme, width)
        for each in opened.execute_async_script(RUN)["violations"]:
            if each["impact"] in ("serious", "critical"):
                found += [(theme, width, each["id"], node["html"][:300]) for node in each["nodes"]]
    return found


def wider_than_the_window(opened):
    """Widths at which the page has to be moved sideways."""
    wide = []
    for theme, width in LOOKS:
        look(opened, theme, width)
        if opened.execute_script("return document.documentElement.scrollWidth") > width:
            wide.append(width)
    return wide


def bytes_without_pictures(page):
    return len(re.sub(r"data:image/[a-z]+;base64,[\w+/=]*", "", page).encode())
