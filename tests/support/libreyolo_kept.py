"""Keeps of each network of `libreyolo_exports` what it says of one picture, and what LibreYOLO makes of that.

`libreyolo_kept.py EXPORTS PICTURES OUT`, run where odtrain is: a few kilobytes a network, for the fast tests.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from odtrain_runtime.model_files import load_detector, open_model
from odtrain_runtime.others.raw_model import corner_of, share_of, unbatched
from odtrain_runtime.pictures import read_upright

KEPT = 20


def main(arguments: Sequence[str]) -> None:
    exports, pictures, out = map(Path, arguments)
    for file in sorted(exports.glob("*.onnx")):
        detector, model = load_detector(file), open_model(file, 1)
        found = json.loads(file.with_suffix(".json").read_text())
        name = min(found, key=lambda each: (pictures / each).stat().st_size)
        image = read_upright(pictures / name)
        outputs = unbatched(file, model.compute(detector.prepare(image)))
        how = replace(detector.reading, iou=1.0)
        padded = how.resize != "stretch"
        height, width = image.shape[:2]
        xyxy = np.array(found[name]["boxes"][:KEPT]) / [width, height, width, height]
        known = [each < how.num_classes for each in found[name]["classes"][:KEPT]]
        wanted = {
            "boxes": xyxy[known][:, [1, 0, 3, 2]].tolist(),
            "scores": np.array(found[name]["scores"][:KEPT])[known].tolist(),
            "classes": (np.array(found[name]["classes"][:KEPT])[known] + 1).tolist(),
        }
        np.savez_compressed(
            out / f"libreyolo_{file.stem}.npz",
            reading=how.as_json(),
            found=json.dumps(wanted),
            origin=corner_of(image.shape, how) if padded else np.zeros(4),
            extent=share_of(image.shape, how) if padded else np.ones(4),
            **{f"output_{key}": value for key, value in outputs.items()},
        )


if __name__ == "__main__":
    main(sys.argv[1:])
