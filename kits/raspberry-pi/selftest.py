"""Look whether this kit is whole and runs here: files, labels, threads, time.

python selftest.py
"""

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from detect import THREADS

import odtrain_runtime
from odtrain_runtime.errors import OdtrainError
from odtrain_runtime.predictor import SUMS, check_sums

HERE = Path(__file__).resolve().parent
KIT = json.loads((HERE / "kit.json").read_text(encoding="utf-8"))


def check(holds: bool, what: str) -> None:
    print(f"{'holds' if holds else 'FAILS'}: {what}")
    if not holds:
        sys.exit(1)


for line in (HERE / SUMS).read_text(encoding="utf-8").splitlines():
    name = line.partition("  ")[2]
    try:
        check_sums(HERE / name)
    except OdtrainError as error:
        check(False, str(error).splitlines()[0])
    check(True, f"{name} is whole")

noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
detectors = [odtrain_runtime.load(HERE / KIT["file"], threads=n) for n in (1, 2, 3, 4)]
(first, *others) = [each.predict(noise)[0] for each in detectors]
names = detectors[0].class_names
check(list(names) == KIT["class_names"], f"the file's classes are {', '.join(names)}")
check(bool(np.isin(first.classes, range(1, len(names) + 1)).all()), "it finds no other class")
same = [
    np.array_equal(first.boxes, one.boxes) and np.array_equal(first.scores, one.scores)
    for one in others
]
check(all(same), "the same with 1, 2, 3 and 4 threads")
times = []
for _ in range(20):
    begun = time.perf_counter()
    detectors[THREADS - 1].predict(noise)
    times.append(1000 * (time.perf_counter() - begun))
print(
    f"a 640 x 480 picture takes {statistics.median(times):.1f} ms here with {THREADS} threads (median of 20)"
)
