"""Ask TensorFlow Serving what is in a picture: class, score, left, top, right, bottom, a line each.

python -m pip install numpy pillow
python client.py http://127.0.0.1:8501 PICTURE [THRESHOLD]
"""

import json
import sys
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
KIT = json.loads((HERE / "kit.json").read_text(encoding="utf-8"))


def ask(server: str, pixels: np.ndarray) -> dict[str, list]:
    """What the server says of (1, height, width, 3) uint8 pixels."""
    body = json.dumps({"signature_name": "serving_default", "inputs": pixels.tolist()})
    url = f"{server.rstrip('/')}/v1/models/{KIT['slug']}:predict"
    request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["outputs"]


def main(server: str, picture: str, threshold: float = 0.5) -> None:
    upright = ImageOps.exif_transpose(Image.open(picture)).convert("RGB")
    found = ask(server, np.asarray(upright)[None])
    rows = zip(*(found[f"detection_{key}"][0] for key in ("boxes", "classes", "scores")))
    for (top, left, bottom, right), label, score in rows:
        if score >= float(threshold):
            name = KIT["class_names"][int(label) - 1]  # ids begin at 1
            sides = (left * upright.width, top * upright.height, right * upright.width)
            print(name, f"{score:.2f}", *map(round, sides), round(bottom * upright.height))


if __name__ == "__main__":
    main(*sys.argv[1:])
