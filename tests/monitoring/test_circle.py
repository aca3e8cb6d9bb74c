"""The whole circle, by the commands that people give: serve, notice, label, train from the champion, judge."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import requests
from lxml import etree
from mlflow import MlflowClient
from PIL import Image, ImageEnhance
from support.commands import TINY_RUN, odtrain
from support.pictures import Labelled, label_picture

from odtrain.labelling.prelabel import read_manifest

SIZE = (96, 80)
LEARNED, SEEN = 60, 30
SETTINGS = (
    *TINY_RUN,
    "data.images=mine",
    "data.test_fraction=0.4",
    "data.validation_fraction=0",
    "export.formats=[tflite_fp32]",
    "registry.min_objects=0",
)


def draw(folder: Path, numbers: range) -> None:
    """Labelled pictures with one or two large boxes."""
    for number in numbers:
        random = np.random.default_rng(number)
        objects: list[Labelled] = []
        for k in range(1 + number % 2):
            width, height = (int(side) for side in random.integers(24, 40, 2))
            x, y = int(random.integers(1, 96 - width)), int(random.integers(1, 80 - height))
            name = ("circle", "square")[(number + k) % 2]
            objects.append((name, x, y, x + width, y + height))
        label_picture(folder / f"img{number}.png", SIZE, objects, seed=number)


def darkened(file: Path) -> bytes:
    """As it is when the lamp gives a quarter of its light."""
    stream = io.BytesIO()
    with Image.open(file) as image:
        ImageEnhance.Brightness(image.convert("RGB")).enhance(0.25).save(stream, "PNG")
    return stream.getvalue()


def serve(folder: Path, pictures: list[bytes]) -> None:
    """Serve version 1 with a log, send the pictures one by one, and end it by Ctrl-C."""
    command = [
        sys.executable, "-m", "odtrain", "serve", "source=models:/shapes/1", "serve.log=seen",
        "serve.log_pictures=1", "serve.port=0", "serve.open_browser=false",
    ]  # fmt: skip
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        (address,) = re.findall(r"http://\S+/", server.stdout.readline())
        for picture in pictures:
            assert requests.post(f"{address}detect", data=picture, timeout=60).status_code == 200
        server.send_signal(signal.SIGINT)
        server.wait(60)


def kept_in(folder: Path) -> list[str]:
    """Names of the pictures that were kept, in the order in which they were sent."""
    (file,) = folder.glob("log-*")
    return [json.loads(line)["picture"] for line in file.read_text().splitlines()[1:]]


def correct(folder: Path, labels: dict[str, Path]) -> None:
    """Verify each copy with the labels of the picture that it shows, as somebody in labelImg would."""
    for row in read_manifest(folder)[1]:
        root = etree.parse(labels[Path(row.source).name]).getroot()
        root.set("verified", "yes")
        root.find("filename").text = row.name
        (folder / row.name).with_suffix(".xml").write_bytes(etree.tostring(root))


@pytest.mark.long
def test_serve_log_drift_prelabel_correct_train_from_the_champion_and_judge(tmp_path):
    def done(*arguments: str, status: int = 0) -> str:
        result = odtrain(list(arguments), tmp_path)
        assert result.returncode == status, result.stderr
        return result.stdout

    draw(tmp_path / "mine", range(LEARNED))
    draw(tmp_path / "later", range(LEARNED, LEARNED + SEEN))
    done("train", *SETTINGS)

    originals = sorted((tmp_path / "later").glob("*.png"))
    serve(tmp_path, [darkened(file) for file in originals])
    names = kept_in(tmp_path / "seen")
    assert len(names) == SEEN

    said = done("drift", "seen", "--against", "models:/shapes/1", status=3)
    assert "the light (" in said.splitlines()[0]
    (listed,) = re.findall(r"input=(\S+pictures\.txt)", said)

    done("prelabel", "source=models:/shapes/1", f"input={listed}", *SETTINGS)
    kinds = zip(names, originals, strict=True)
    correct(tmp_path / "to_label", {name: file.with_suffix(".xml") for name, file in kinds})
    taken = done("prelabel", "merge", "input=to_label", *SETTINGS)
    assert taken.startswith(f"{SEEN} pictures taken into shapes; 0 are not verified yet.")

    said = done("train", "train.checkpoint=models:/shapes/1", *SETTINGS)
    assert re.search(r"models:/shapes/2", said)
    version = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_model_version("shapes", "2")
    assert version.tags["odtrain.gate.against"] == "1"
    assert version.tags["odtrain.gate"]
