"""Look whether this kit is whole, and whether its SavedModel has the signature that client.py asks.

python selftest.py
Needs tensorflow and numpy; no server.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

HERE = Path(__file__).resolve().parent
KIT = json.loads((HERE / "kit.json").read_text(encoding="utf-8"))
OUTPUTS = ["detection_boxes", "detection_classes", "detection_scores", "num_detections"]


def check(holds: bool, what: str) -> None:
    print(f"{'holds' if holds else 'FAILS'}: {what}")
    if not holds:
        sys.exit(1)


lines = (HERE / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
for digest, _, name in (line.partition("  ") for line in lines):
    check(hashlib.sha256((HERE / name).read_bytes()).hexdigest() == digest, f"{name} is whole")

detect = tf.saved_model.load(str(HERE / KIT["file"])).signatures["serving_default"]
given = detect.structured_input_signature[1]
check(list(given) == ["inputs"], "serving_default takes `inputs`")
check(given["inputs"].dtype == tf.uint8, "`inputs` are uint8 pictures")
check(given["inputs"].shape.as_list() == [None, None, None, 3], "of any number, height and width")
check(sorted(detect.structured_outputs) == OUTPUTS, f"it gives {', '.join(OUTPUTS)}")
noise = np.random.default_rng(0).integers(0, 256, (2, 96, 128, 3), np.uint8)
found = {key: value.numpy() for key, value in detect(inputs=tf.constant(noise)).items()}
sizes = {key: len(value) for key, value in found.items()}
check(set(sizes.values()) == {2}, "two pictures in one request have two answers")
labels = [found["detection_classes"][i, : int(found["num_detections"][i])] for i in range(2)]
names = KIT["class_names"]
known = np.isin(np.concatenate(labels), range(1, len(names) + 1)).all()
check(bool(known), f"classes are 1 to {len(names)}: {', '.join(names)}")
