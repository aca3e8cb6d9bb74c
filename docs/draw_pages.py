"""Draws the pictures of README.md and docs/ui.md from what is shipped: trainings of the demo's panels.

    python docs/draw_pages.py FOLDER [NAME...]

Trainings, and the sweep, are made in FOLDER where it has none; their pages are looked at in headless
Chromium (selenium of the extra `test`, and the programs chromium and chromedriver). NAMEs are pictures, such
as `run`; all of them otherwise.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from socket import create_server
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver

import odtrain
from odtrain.media.draw import draw, fit
from odtrain.tracking.views import RUNS, SHARED, Pages

ROOT = Path(__file__).resolve().parents[1]
PANELS, PICTURES = ROOT / "data/panels/images/test", ROOT / "docs/pictures"
MODEL = "models:/panels@champion"
TRAININGS = ("train", "train train.steps=500 model.depth_multiplier=0.5", "train train.steps=500")
SWEEP = "sweep sweep.n_trials=6 sweep.max_minutes=20"
WIDTH, HEIGHT = 1280, 760
FOUND = (70, 61, 11, 5, 52, 38, 46, 23)
"""Test panels that show what there is: few and many buttons, near and far, light and dark."""
SHOWN_FROM = 0.3
"""Score; the network is small and was trained for minutes."""
ACROSS, SIDES = 4, (300, 226)
"""Of the sheet: how many beside each other, and the width and height of each, in pixels."""
SETTLED, LOADED = 4, 120
"""Seconds after which a page that has loaded has drawn its charts, and in which it has to load."""
LOADING = "//*[contains(@class, 'skeleton') or contains(@class, 'spin')]"
BESIDE = "(//*[text()='MLflow Assistant']/ancestor::*[.//button][1]//button)[last()]"
"""Closes what MLflow opens beside its pages at first."""

SEARCH = "//input[@placeholder='Search metric charts']"

SCROLL = "document.querySelector('img[src*=val]').scrollIntoView({block: 'center'})"


# ---- what there is to be seen


def command(words: str) -> list[str]:
    """What starts a command of odtrain."""
    return [sys.executable, "-m", "odtrain", *words.split()]


def make(folder: Path) -> None:
    """The trainings and the sweep, where the folder has none."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "mlflow.db").exists():
        for words in (*TRAININGS, SWEEP, "report latest --to report.html"):
            subprocess.run(command(words), cwd=folder, check=True)


def runs(stage: str) -> list[Run]:
    """Finished runs of a stage, the first first."""
    client = MlflowClient("sqlite:///mlflow.db")
    found = client.search_runs(["0"], f"tags.`odtrain.stage` = '{stage}'", order_by=["start_time"])
    return [run for run in found if "mlflow.parentRunId" not in run.data.tags]


@contextmanager
def served(words: str) -> Iterator[str]:
    """A page of odtrain: its address, while the command runs."""
    with closing(create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(command(words.format(port=port)))
    try:
        while not _answers(address):
            time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait()


def _answers(address: str) -> bool:
    try:
        urlopen(address).close()
    except URLError:
        return False
    return True


# ---- how it is looked at


def browser() -> WebDriver:
    """Headless Chromium, in the size of the pictures."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for flag in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "hide-scrollbars",
        "force-color-profile=srgb",
    ):
        options.add_argument(f"--{flag}")
    opened = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    opened.set_window_size(WIDTH, HEIGHT)
    return opened


class Looking:
    """A browser, and the servers of the pages, which start when a page is asked for."""

    def __init__(self, closes: ExitStack):
        self.closes = closes
        self.browser = browser()
        closes.callback(self.browser.quit)
        self.mlflow = cache(lambda: closes.enter_context(served("ui --port {port}")))

    def pages(self) -> Pages:
        """Addresses of the pages of MLflow, which is started at the first call."""
        return Pages(self.mlflow(), "0", RUNS)

    def keep(self, address: str, name: str, prepare: Callable[[], None] = lambda: None) -> None:
        """The page at the address, as docs/pictures/NAME.png."""
        self.browser.get("about:blank")  # an address that differs behind its # alone loads nothing
        self.browser.get(address)
        time.sleep(SETTLED)
        end = time.monotonic() + LOADED
        while self.browser.find_elements(By.XPATH, LOADING) and time.monotonic() < end:
            time.sleep(0.5)
        for _ in range(2):  # it opens late
            for each in self.browser.find_elements(By.XPATH, BESIDE):
                each.click()
            time.sleep(SETTLED)
        prepare()
        time.sleep(SETTLED)
        self.browser.save_screenshot(str(PICTURES / f"{name}.png"))


# ---- the pictures


def found(looking: Looking) -> None:
    """Pictures of the test split, with what the registered model finds in them."""
    files = [PANELS / f"panel-test-{number:04d}.jpg" for number in FOUND]
    drawn = []
    for file, each in zip(
        files, odtrain.load(MODEL).predict(files, threshold=SHOWN_FROM), strict=True
    ):
        picture = np.asarray(Image.open(file).convert("RGB"))
        sheet = draw(fit(picture, 480, 640), each, each.class_names, threshold=SHOWN_FROM)
        drawn.append(Image.fromarray(sheet).resize(SIDES, Image.Resampling.LANCZOS))
    width, height = SIDES
    whole = Image.new("RGB", (ACROSS * width, len(files) // ACROSS * height))
    for place, each in enumerate(drawn):
        whole.paste(each, (place % ACROSS * width, place // ACROSS * height))
    whole.save(PICTURES / "found.jpg", quality=88)


def run(looking: Looking) -> None:
    """A run's page: what made it, its scores, its files."""

    def whole() -> None:
        for each in looking.browser.find_elements(By.XPATH, "//*[text()='Show more']")[:1]:
            each.click()

    looking.keep(looking.pages().run(runs("train")[0].info.run_id), "run", whole)


def losses(looking: Looking) -> None:
    """A run's curves of training."""

    def train() -> None:
        looking.browser.find_element(By.XPATH, SEARCH).send_keys("train/")

    address = looking.pages().run(runs("train")[0].info.run_id, "model-metrics")
    looking.keep(address, "losses", train)


def models(looking: Looking) -> None:
    """The table of runs."""
    looking.keep(looking.pages().table, "models")


def detections(looking: Looking) -> None:
    """Charts of the runs, with what was found by step."""
    tags = MlflowClient("sqlite:///mlflow.db").get_experiment("0").tags
    with_pictures = (
        key for key, text in tags.items() if key.startswith(SHARED) and "IMAGE" in text
    )
    shown = replace(looking.pages(), view=min(with_pictures).removeprefix(SHARED))

    def into_view() -> None:
        looking.browser.execute_script(SCROLL)

    looking.keep(shown.charts, "detections", into_view)


def version(looking: Looking) -> None:
    """A version with the gate's report."""
    looking.keep(looking.pages().version("panels", "1"), "version")


def front(looking: Looking) -> None:
    """The files of a sweep."""
    sweep = runs("sweep")[-1]
    file = MlflowClient("sqlite:///mlflow.db").download_artifacts(sweep.info.run_id, "front.html")
    looking.keep(Path(file).as_uri(), "front")


def report(looking: Looking) -> None:
    """The report of a run."""
    looking.keep(Path("report.html").resolve().as_uri(), "report")


def serve(looking: Looking) -> None:
    """The page of `odtrain serve` with a picture."""

    def drop() -> None:
        file = looking.browser.find_element(By.ID, "file")
        file.send_keys(str(PANELS / f"panel-test-{FOUND[0]:04d}.jpg"))
        time.sleep(SETTLED)

    words = f"serve source={MODEL} serve.port={{port}} serve.open_browser=false"
    address = looking.closes.enter_context(served(words))
    looking.keep(address, "serve", drop)


DRAWN = (found, run, losses, models, detections, version, front, report, serve)


def main(folder: Path, names: list[str]) -> None:
    """Draw the named pictures, or all, from what the folder has."""
    make(folder)
    os.chdir(folder)
    with ExitStack() as closes:
        looking = Looking(closes)
        for one in DRAWN:
            if not names or one.__name__ in names:
                one(looking)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
