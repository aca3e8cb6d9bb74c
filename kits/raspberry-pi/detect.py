"""Find objects in pictures, or in what the Pi's camera sees: a line of JSON for each picture.

python detect.py PICTURE...
python detect.py camera
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import odtrain_runtime

HERE = Path(__file__).resolve().parent
KIT = json.loads((HERE / "kit.json").read_text(encoding="utf-8"))
THRESHOLD = float(os.environ.get("THRESHOLD", "0.5"))
THREADS = 3


def camera() -> Iterator[tuple[str, np.ndarray]]:
    """Pictures of the camera, RGB, for ever: apt install python3-picamera2."""
    from picamera2 import Picamera2

    device = Picamera2()
    # What libcamera calls BGR888 lies in memory as red, green, blue.
    device.configure(device.create_video_configuration({"size": (640, 480), "format": "BGR888"}))
    device.start()
    while True:
        yield time.strftime("%Y-%m-%dT%H:%M:%S"), device.capture_array("main")


def main(words: list[str]) -> None:
    detector = odtrain_runtime.load(HERE / KIT["file"], threads=THREADS)
    pictures = camera() if words == ["camera"] else zip(words, words)
    for name, picture in pictures:
        begun = time.perf_counter()
        (found,) = detector.predict(picture)
        sure = found.above(THRESHOLD)
        milliseconds = 1000 * (time.perf_counter() - begun)
        objects = [
            {"class": KIT["class_names"][int(number) - 1], "score": round(float(score), 3)}
            | {"box": [round(float(side), 4) for side in box]}  # ymin, xmin, ymax, xmax, 0 to 1
            for box, score, number in zip(sure.boxes, sure.scores, sure.classes)
        ]
        print(
            json.dumps({"picture": name, "ms": round(milliseconds, 1), "objects": objects}),
            flush=True,
        )


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit(__doc__)
    main(sys.argv[1:])
