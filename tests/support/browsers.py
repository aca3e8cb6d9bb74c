"""Pages in headless Chromium."""

from __future__ import annotations

import shutil
import time

import pytest


@pytest.fixture
def browser(tmp_path):
    """Opens headless Chromium with more flags; skips where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("needs the programs chromium and chromedriver")
    opened = []

    def browser(*flags):
        options = webdriver.ChromeOptions()
        options.binary_location = programs[0]
        quiet = "no-first-run disable-background-networking disable-component-update disable-sync"
        for flag in (
            *(f"--{name}" for name in f"headless no-sandbox disable-gpu {quiet}".split()),
            f"--user-data-dir={tmp_path}/browser",
            *flags,
        ):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService(programs[1])
        opened.append(webdriver.Chrome(options=options, service=service))
        return opened[-1]

    yield browser
    for each in opened:
        each.quit()


def soon(condition, seconds=30):
    """What `condition` gives once that counts as true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found
