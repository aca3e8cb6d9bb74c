"""Look whether this kit is whole and runs here: files, form, labels, threads, time.

python selftest.py [PICTURE]
Needs numpy and ai-edge-litert (or tflite-runtime); with a picture, pillow too.
"""

import hashlib
import sys
import time

import numpy as np
from detect import HERE, KIT, Interpreter, as_input, framed


def check(holds: bool, what: str) -> None:
    print(f"{'holds' if holds else 'FAILS'}: {what}")
    if not holds:
        sys.exit(1)


def outputs(pixels: np.ndarray, threads: int) -> list[np.ndarray]:
    """Boxes, classes, scores and count, by position, and last the median of 20 runs in ms."""
    model = Interpreter(str(HERE / KIT["file"]), num_threads=threads)
    model.allocate_tensors()
    (image,) = model.get_input_details()
    times = []
    for _ in range(20):
        model.set_tensor(image["index"], pixels)
        begun = time.perf_counter()
        model.invoke()
        times.append(1000 * (time.perf_counter() - begun))
    found = [model.get_tensor(each["index"]) for each in model.get_output_details()]
    return [*found, np.median(times)]


lines = (HERE / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
for digest, _, name in (line.partition("  ") for line in lines):
    check(hashlib.sha256((HERE / name).read_bytes()).hexdigest() == digest, f"{name} is whole")

shape = (1, KIT["height"], KIT["width"], 3)
noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
pixels = framed(sys.argv[1])[0] if sys.argv[1:] else noise
(boxes, classes, scores, count, _), *others = [outputs(as_input(pixels), n) for n in (1, 2, 3, 4)]
check(pixels.shape == shape, f"the input is {KIT['dtype']}, 1 x height x width x 3: {shape}")
rows = scores.shape[1]
shapes = [each.shape for each in (boxes, classes, scores, count)]
check(
    shapes == [(1, rows, 4), (1, rows), (1, rows), (1,)],
    f"boxes, classes, scores, count: {rows} rows",
)
names = KIT["class_names"]
known = np.isin(classes[0, : int(count[0])], range(len(names))).all()
check(bool(known), f"classes are 0 to {len(names) - 1}: {', '.join(names)}")
same = [np.array_equal(a, b) for found in others for a, b in zip((boxes, classes, scores), found)]
check(all(same), "the same with 1, 2, 3 and 4 threads")
print(f"3 threads take {others[1][-1]:.1f} ms here (median of 20)")
