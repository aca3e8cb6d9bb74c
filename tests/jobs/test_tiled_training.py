"""A training on tiles, from its pictures to what its files do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.commands import TINY_RUN, odtrain
from support.pictures import label_picture

from odtrain.config.compose import compose_config
from odtrain.evaluation.saved_detections import read_kept
from odtrain.model_source import open_source
from odtrain_runtime.model_files import load_detector
from odtrain_runtime.tiles import Tiles

pytestmark = [pytest.mark.slow, pytest.mark.long]

TILES = Tiles(64, 64, 0.25, whole=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two steps on pictures of 144 x 112, beside which they lie."""
    folder = tmp_path_factory.mktemp("tiled")
    for seed in range(12):
        x, y = 5 + 9 * seed, 5 + 6 * seed
        objects = [("circle", x, y, x + 24, y + 24), ("square", 110 - x, y, 134 - x, y + 30)]
        label_picture(folder / "pictures" / f"img{seed}.png", (144, 112), objects, seed=seed)
    overrides = [
        f"data.images={folder / 'pictures'}",
        *TINY_RUN,
        *("data.tiles.size=64", "data.tiles.overlap=0.25", "export.formats=[pb,tflite_fp32]"),
    ]
    done = odtrain(["train", *overrides], folder)
    assert done.returncode == 0, done.stderr
    (one,) = (folder / "outputs/Default").iterdir()
    return one


def test_each_file_carries_the_tiles_and_does_with_them_what_the_checkpoint_does(run):
    for name in ("frozen_inference_graph.pb", "model.tflite"):
        assert load_detector(run / "export" / name).tiles == TILES
    kept = run / "eval/detections"
    judged, file = (read_kept(kept / f"{each}.npz").detections for each in ("evaluated", "pb"))
    for ours, theirs in zip(judged, file, strict=True):
        assert np.allclose(ours.scores[:10], theirs.scores[:10], atol=1e-4)


def test_the_run_says_how_long_a_picture_takes(run):
    text = "".join(file.read_text() for file in run.glob("**/journal.jsonl"))
    said = (run / "run.log").read_text(encoding="utf-8")
    assert "eval/ms_per_picture" in text or "tiles of 64 x 64 that overlap by 0.25" in said
    assert (
        "Looked at by tiles of 64 x 64 that overlap by 0.25 and the whole picture; scored on whole pictures."
        in said
    )
    assert json.loads((run / "eval/metrics.json").read_text())["images"] >= 2


def test_a_run_and_its_files_are_opened_with_their_tiles_unless_others_are_asked_for(
    run, monkeypatch
):
    monkeypatch.chdir(run.parents[2])
    image = np.random.default_rng(0).integers(0, 255, (112, 144, 3), np.uint8)
    for name in (run.name, str(run / "export/model.tflite")):
        source = open_source(name, compose_config([]))
        assert source.tiles == TILES
        plain = open_source(
            name,
            compose_config(["predict.tiles.size=null"]),
            tiles=_predict("predict.tiles.size=null"),
        )
        assert plain.tiles is None
        assert len(plain.detect(image)) != len(source.detect(image))
        other = open_source(name, compose_config([]), tiles=_predict("predict.tiles.size=[64,80]"))
        assert other.tiles == Tiles(64, 80, 0.2, whole=True)


def _predict(override):
    return compose_config([override]).predict.tiles
