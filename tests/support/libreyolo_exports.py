"""Networks of LibreYOLO with random weights, exported by its own code, and what its own programs find.

Run by a Python that has `libreyolo[onnx,rfdetr]`: `libreyolo_exports.py PICTURES OUT [NAME...]`. Of each
network OUT gets NAME.onnx and NAME.json: picture -> boxes (xyxy, pixels), scores and classes that LibreYOLO
finds with that file, nothing suppressed.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from libreyolo import LibreDFINE, LibreRFDETR, LibreRTDETR, LibreYOLO9, LibreYOLOX
from libreyolo.backends.onnx import OnnxBackend
from libreyolo.models.rtdetr import model as rtdetr
from PIL import Image

CLASSES = 3
LEAST, IOU, MOST, KEPT = 0.001, 1.0, 300, 50
NETWORKS = {
    "yolox": (LibreYOLOX, "n", 160, r"head\.(cls|obj)_preds"),
    "yolo9": (LibreYOLO9, "t", 160, r"head\.cv3\.\d\.2"),
    "dfine": (LibreDFINE, "n", 256, r"score_head"),
    "rtdetr": (LibreRTDETR, "r18", 160, r"score_head|class_embed"),
    "rfdetr": (LibreRFDETR, "n", 384, r"class_embed"),
}
"""Name -> its class, size, side of its input in pixels, and which layers give scores."""


def main(arguments: Sequence[str]) -> None:
    pictures = sorted(Path(arguments[0]).iterdir())
    out = Path(arguments[1])
    for name in arguments[2:] or NETWORKS:
        model, side = network(name, pictures[:4])
        model.export(
            format="onnx", imgsz=side, output_path=str(out / f"{name}.onnx"), simplify=False
        )
        exported = OnnxBackend(str(out / f"{name}.onnx"), device="cpu")
        found = {file.name: predicted(exported, file) for file in pictures}
        (out / f"{name}.json").write_text(json.dumps(found))


def network(name: str, pictures: Sequence[Path]) -> tuple[Any, int]:
    """A network whose features have the spread of a trained one's, and whose scores differ."""
    kind, size, side, scoring = NETWORKS[name]
    torch.manual_seed(0)
    rtdetr.RTDETR_CONFIGS["r18"]["backbone_pretrained"] = False  # weights that would be fetched
    model = kind({} if name == "rfdetr" else None, size=size, nb_classes=CLASSES, device="cpu")
    norms = [each for each in model.model.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of all pictures
    model.model.eval()
    for norm in norms:
        norm.train()
    levels = 1 if name == "yolox" else 255
    shown = [Image.open(file).convert("RGB").resize((side, side)) for file in pictures]
    batch = np.stack([np.asarray(each, np.float32) / levels for each in shown]).transpose(
        0, 3, 1, 2
    )
    with torch.no_grad():
        model.model(torch.from_numpy(np.ascontiguousarray(batch)))
        model.model.eval()
        for key, weights in model.model.named_parameters():
            if re.search(scoring, key) and key.endswith("bias"):
                weights.fill_(1.0 if "obj" in key else -3.0)
            elif re.search(scoring, key):
                weights.normal_(0, 0.3 / np.sqrt(weights[0].numel()))
    return model, side


def predicted(model: Any, file: Path) -> dict[str, Any]:
    """What its own program finds in a picture."""
    found = model.predict(str(file), conf=LEAST, iou=IOU, max_det=MOST)
    boxes = (found[0] if isinstance(found, list) else found).boxes
    order = np.argsort(-np.asarray(boxes.conf), kind="stable")[:KEPT]
    return {
        "boxes": np.asarray(boxes.xyxy)[order].tolist(),
        "scores": np.asarray(boxes.conf)[order].tolist(),
        "classes": np.asarray(boxes.cls)[order].astype(int).tolist(),
    }


if __name__ == "__main__":
    main(sys.argv[1:])
