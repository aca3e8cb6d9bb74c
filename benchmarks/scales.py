"""What `train.multi_scale` costs: `python -m benchmarks.scales SPAN [OVERRIDE ...]`, a process for each span.

A made-up batch, fp32, one device. Prints the seconds until the first step is done, the time of a step at each
size (the quickest of three), and the most memory that the process has held.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from typing import Any

from odtrain.config.compose import compose_config
from odtrain.config.sizes import input_sizes
from odtrain.recipes.probe import made_up_batch, peak_memory
from odtrain.system.processor import this_processor

CLASSES = 6
TIMED = 3


def main(words: list[str]) -> None:
    """Of the settings that the words make."""
    import tensorflow as tf

    from odtrain.models.build import build_detector
    from odtrain.training.optimizers import build_optimizer
    from odtrain.training.schedules import learning_rate
    from odtrain.training.task import DetectionTask

    config = compose_config([f"train.multi_scale={words[0]}", *words[1:]])
    train = replace(config.train, precision="fp32")
    sizes = input_sizes(config.model, train.multi_scale)
    begun = time.perf_counter()
    detector = build_detector(config.model, CLASSES)
    optimizer = build_optimizer(train, learning_rate(train))
    optimizer.build(detector.network.trainable_variables)
    task = DetectionTask(detector, train, None, [detector.at_size(size) for size in sizes[1:]])
    batch = made_up_batch(config, CLASSES, train.batch_size)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def step(batch: dict[str, Any]) -> Any:
        return task.train_step(batch, detector, optimizer)["loss"]

    def seconds(number: int) -> float:
        started = time.perf_counter()
        step(batch | {"sizes": tf.fill([train.batch_size], number)}).numpy()
        return time.perf_counter() - started

    seconds(0)
    first = time.perf_counter() - begun
    steps = {
        f"{height}x{width}": min(seconds(number) for _ in range(TIMED))
        for number, (height, width) in enumerate(sizes)
    }
    timed = ", ".join(f"{size} {1000 * each:.0f} ms" for size, each in steps.items())
    print(
        f"{config.model.name}, batch {train.batch_size}: first step done after {first:.1f} s; {timed};"
    )
    print(f"{peak_memory() / 1e9:.2f} GB; {this_processor().name}, load {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main(sys.argv[1:])
