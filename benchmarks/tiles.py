"""Small buttons in large pictures: two trainings of equal time, with tiles and without, on the same pictures.

    python -m benchmarks.tiles DIR [--pictures N] [--steps N] [--tile-steps N] [--size N] [OVERRIDE ...]

draws pictures of 2,400 x 1,800 pixels into DIR, in which a button is about 20 pixels wide, trains on whole
pictures, then on tiles for at most the same time, both with the overrides, and keeps the result in
DIR/tiles.json. A large picture takes longer to read than a tile, so that the same time is more steps. Both are
scored on whole pictures. The same command goes on where it was stopped: pictures and a training that are done
stay.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.random import Generator
from PIL import Image
from tqdm import tqdm

from odtrain.config.shipped import shipped
from odtrain.evaluation.coco import COCO_METRICS, class_ids, run_coco
from odtrain.evaluation.saved_detections import EVALUATED, FOLDER, read_kept, read_labelled
from odtrain.io import markdown
from odtrain.structures import Detections, FloatArray, GroundTruth, pairwise_iou

SIZE = (2400, 1800)
"""Width and height of a picture."""
BUTTON = 20
"""Pixels that the narrower side of a picture's middle button gets."""
PANELS = 14
"""On each picture, as far as they find room."""
RESAMPLES = 500
SHOWN = 0.5
SMALL = list(COCO_METRICS).index("mAP_small")


# ---- pictures


def _draw() -> ModuleType:
    """The script that draws the panels, which is no part of the package."""
    file = shipped("data/panels") / "draw.py"
    spec = importlib.util.spec_from_file_location("draw_panels", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def draw_pictures(folder: Path, counts: dict[str, int], seed: int = 0) -> None:
    """Pictures of each split with their labels, as labelImg writes them; those that are there stay."""
    panels = _draw()
    for split, count in counts.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        for number in tqdm(range(count), desc=f"draw {split}"):
            file = folder / split / f"large-{split}-{number:04d}.png"
            if not file.with_suffix(".xml").is_file():
                image, boxes = _large(panels, np.random.default_rng([seed, number]), split, number)
                image.save(file.with_suffix(".jpg"), quality=92)
                xml = panels.voc_xml(split, file.with_suffix(".jpg").name, SIZE, boxes)
                file.with_suffix(".xml").write_text(xml, encoding="utf-8")


def _large(
    panels: ModuleType, random: Generator, split: str, number: int
) -> tuple[Image.Image, list[tuple[str, Any]]]:
    """A wall with panels far away, and what is on them: class and xmin, ymin, xmax, ymax."""
    coarse = random.integers(90, 190, (9, 12, 3), np.uint8)
    canvas = Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)
    taken: list[tuple[int, int, int, int]] = []
    boxes: list[tuple[str, Any]] = []
    for place in range(PANELS):
        jpeg, xml = panels.draw_picture(0, split, 1 + number * PANELS + place)
        objects = _objects(xml)
        if not objects:
            continue
        sides = [min(box[2] - box[0], box[3] - box[1]) for _, box in objects]
        scale = BUTTON / float(np.median(sides))
        with Image.open(io.BytesIO(jpeg)) as drawn:
            panel = drawn.convert("RGB")
        size = (round(panel.width * scale), round(panel.height * scale))
        left, top = (int(random.integers(0, SIZE[side] - size[side])) for side in (0, 1))
        area = (left, top, left + size[0], top + size[1])
        if any(
            a[0] < area[2] and area[0] < a[2] and a[1] < area[3] and area[1] < a[3] for a in taken
        ):
            continue
        taken.append(area)
        canvas.paste(panel.resize(size, Image.Resampling.LANCZOS), (left, top))
        corner = np.array([left, top, left, top])
        boxes += [(name, box * scale + corner) for name, box in objects]
    return canvas, boxes


def _objects(xml: str) -> list[tuple[str, FloatArray]]:
    found = []
    for item in ElementTree.fromstring(xml).iter("object"):
        corners = [
            float(item.findtext(f"bndbox/{side}", "0")) for side in ("xmin", "ymin", "xmax", "ymax")
        ]
        found.append((item.findtext("name", ""), np.array(corners)))
    return found


# ---- trainings


def train(folder: Path, name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """What a training in a process of its own came to, now or before: its folder, seconds and numbers."""
    settings = [
        *("data.name=large_panels", f"data.images={folder / 'pictures'}"),
        *(f"data.prepared={folder / f'prepared-{name}'}", f"outputs={folder / 'outputs'}"),
        *(f"tracking.uri=sqlite:///{folder / 'mlflow.db'}", "tracking.system_metrics=false"),
        *(
            "export.formats=[tflite_fp32]",
            "registry.promote=never",
            "data.validation_fraction=0",
            "train.cache_mb=1000",
            "train.resume=auto",
        ),
        *overrides,
    ]
    kept = folder / f"trained-{name}.json"
    result: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {}
    if result.get("settings") != settings:
        subprocess.run([sys.executable, "-c", TRAIN, str(kept), *settings], check=True)
        result = json.loads(kept.read_text())
    return result


TRAIN = """
import json, os, sys, odtrain
from odtrain.config.compose import compose_config
from odtrain.tracking.runs import read_summary
result = odtrain.train(sys.argv[2:])
history = read_summary(result.run_id, compose_config(sys.argv[2:]).tracking).metrics
metrics = {name: points[-1][1] for name, points in history.items()}
ours = {"folder": str(result.folder), "seconds": result.seconds, "metrics": metrics}
ours |= {"settings": sys.argv[2:], "load": os.getloadavg()[0]}
open(sys.argv[1], "w").write(json.dumps(ours))
"""


# ---- numbers


def map_small(
    truths: Sequence[GroundTruth], found: Sequence[Detections], names: Sequence[str]
) -> float:
    """COCO's mAP of objects up to 32 x 32 pixels."""
    return float(run_coco(truths, found, class_ids(truths, found, names)).stats[SMALL])


def paired(
    truths: Sequence[GroundTruth],
    sides: Sequence[Sequence[Detections]],
    names: Sequence[str],
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile interval of the second side's mAP_small less the first's, over the pictures."""
    random = np.random.default_rng(seed)
    differences = []
    for _ in tqdm(range(RESAMPLES), desc="resample"):
        rows = random.integers(0, len(truths), len(truths)).tolist()
        drawn = [truths[row] for row in rows]
        first, second = (map_small(drawn, [side[row] for row in rows], names) for side in sides)
        differences.append(second - first)
    low, high = np.quantile(differences, [0.025, 0.975]).tolist()
    return low, high


def doubles(truths: Sequence[GroundTruth], found: Sequence[Detections]) -> float:
    """Per 100 objects, detections from score `SHOWN` on that meet an object another one meets already."""
    more = 0
    for truth, each in zip(truths, found, strict=True):
        shown = each.above(SHOWN)
        meet = pairwise_iou(truth.boxes, shown.boxes) >= 0.5
        meet &= truth.classes[:, None] == shown.classes[None]
        more += int(np.maximum(meet.sum(axis=1) - 1, 0).sum())
    return 100 * more / sum(len(truth.classes) for truth in truths)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw, train twice, compare, keep and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--pictures", type=int, default=60, help="to train on; a third as many test"
    )
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--tile-steps", type=int, help="on tiles; 3 times as many by default")
    parser.add_argument("--size", type=int, default=320, help="of a tile")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="of both trainings")
    given = parser.parse_intermixed_args(arguments)
    folder = given.folder.resolve()
    draw_pictures(
        folder / "pictures", {"train": given.pictures, "test": max(2, given.pictures // 3)}
    )
    both = [f"train.batch_size={min(8, given.pictures)}", *given.overrides]
    whole = train(folder, "whole", [f"train.steps={given.steps}", *both])
    minutes = whole["seconds"]["train"] / 60
    more = [f"data.tiles.size={given.size}", f"train.max_minutes={minutes}"]
    tile_steps = given.tile_steps or 3 * given.steps
    tiles = train(folder, "tiles", [f"train.steps={tile_steps}", *both, *more])
    places = [Path(each["folder"]) / "eval" / FOLDER for each in (whole, tiles)]
    plain, split = map(read_labelled, places)
    order = [plain.keys.index(key) for key in split.keys]
    found = [read_kept(place / f"{EVALUATED}.npz").detections for place in places]
    sides = [[found[0][row] for row in order], found[1]]
    scores = [map_small(split.truths, side, split.class_names) for side in sides]
    result = {
        "pictures": given.pictures,
        "tile": given.size,
        "steps, whole": given.steps,
        "steps, tiles": tile_steps,
        "mAP_small, whole": scores[0],
        "mAP_small, tiles": scores[1],
        "difference": scores[1] - scores[0],
        "its interval": paired(split.truths, sides, split.class_names),
        "seconds trained, whole": whole["seconds"]["train"],
        "seconds trained, tiles": tiles["seconds"]["train"],
        "doubles per 100 objects": doubles(split.truths, found[1]),
        "ms a picture, tiles": tiles["metrics"].get("eval/ms_per_picture"),
        "load, whole": whole["load"],
        "load, tiles": tiles["load"],
    }
    (folder / "tiles.json").write_text(json.dumps(result, indent=1))
    print("\n".join(markdown.table(("what", "value"), [[k, str(v)] for k, v in result.items()])))


if __name__ == "__main__":
    main()
