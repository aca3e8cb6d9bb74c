"""How long a step takes here and how much memory its pictures take, measured in a process of its own.

    python -m odtrain.recipes.probe CONFIG.yaml CLASSES ANSWER.json

That process may run out of memory, and TensorFlow's devices are chosen once in each: this one's stay free.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from odtrain.config.compose import as_yaml, from_yaml
from odtrain.config.schema import Config, replaced
from odtrain.config.sizes import input_sizes
from odtrain.recipes.rules import Speed
from odtrain.system.progress import doing

FEW, MORE = 2, 8
"""Pictures in the two batches whose memory is compared."""
STEPS = 3
"""That are timed, behind one that builds the graph."""
SHARE_OF_MEMORY = 0.7
"""Of what is free: pictures being read, and validation, take some too."""
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"))
SECONDS = 300
OBJECTS = 4
"""In each made-up picture."""


@doing("Measuring a step")
def measure(config: Config, classes: int) -> Speed | None:
    """The speed of a step of the configured network; None where the process did not come through."""
    with tempfile.TemporaryDirectory() as scratch:
        asked, answer = Path(scratch, "config.yaml"), Path(scratch, "answer.json")
        asked.write_text(as_yaml(config), encoding="utf-8")
        command = [sys.executable, "-m", __name__, str(asked), str(classes), str(answer)]
        try:
            subprocess.run(
                command, capture_output=True, env=_environment(), timeout=SECONDS, check=False
            )
            measured = json.loads(answer.read_text(encoding="utf-8"))
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return None
    few, more, gpu = measured["few"], measured["more"], measured["gpu"]
    each = max(1.0, (more - few) / (MORE - FEW))
    room = SHARE_OF_MEMORY * free_memory() - (few - FEW * each)
    return Speed(measured["seconds"] / MORE, None if gpu else max(1, int(room / each)))


def _environment() -> dict[str, str]:
    """The process finds this odtrain, whatever is installed, and is one by itself."""
    own = {key: value for key, value in os.environ.items() if key != "TF_CONFIG"}
    return {
        **own,
        "TF_USE_LEGACY_KERAS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }


def free_memory() -> int:
    """Bytes that this machine, or this container, has left."""
    free = psutil.virtual_memory().available
    try:
        most, used = (file.read_text(encoding="ascii").strip() for file in LIMITS)
        return free if most == "max" else min(free, int(most) - int(used))
    except (OSError, ValueError):
        return free


def main() -> None:
    """In the process of its own: two batches, each as often as is needed."""
    asked, classes, answer = sys.argv[1:]
    config = from_yaml(Path(asked).read_text(encoding="utf-8"))
    import tensorflow as tf

    # Memory has to hold the largest input of all; over a training steps last as long as at the model's own.
    largest = max(input_sizes(config.model, config.train.multi_scale))
    at_largest = replaced(config, {"model.input_size": list(largest)})
    few, _ = _steps(at_largest, int(classes), FEW, 1)
    more, seconds = _steps(at_largest, int(classes), MORE, STEPS)
    if largest != config.model.size:
        _, seconds = _steps(config, int(classes), MORE, STEPS)
    gpu = bool(tf.config.list_physical_devices("GPU"))
    values = {"few": few, "more": more, "seconds": seconds, "gpu": gpu}
    Path(answer).write_text(json.dumps(values), encoding="utf-8")


def _steps(config: Config, classes: int, pictures: int, count: int) -> tuple[int, float]:
    """The most bytes that this process has held until then, and the seconds of the quickest step."""
    import tensorflow as tf

    from odtrain.models.build import build_detector
    from odtrain.training.optimizers import build_optimizer
    from odtrain.training.schedules import learning_rate
    from odtrain.training.task import DetectionTask

    train = replace(
        config.train, batch_size=pictures, accumulate=1, steps=max(10, config.train.steps)
    )
    precision = "fp32" if train.precision == "auto" else train.precision
    trained = train.batch_norm != "frozen"
    detector = build_detector(
        config.model,
        classes,
        frozen_stages=train.freeze,
        batch_norm_trained=trained,
        precision=precision,
    )
    optimizer = build_optimizer(train, learning_rate(train))
    optimizer.build(detector.network.trainable_variables)
    task = DetectionTask(detector, train, None)
    made_up = made_up_batch(config, classes, pictures)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def step(batch: dict[str, Any]) -> Any:
        return task.train_step(batch, detector, optimizer)["loss"]

    step(made_up).numpy()
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        step(made_up).numpy()
        times.append(time.perf_counter() - begun)
    return peak_memory(), min(times)


def peak_memory() -> int:
    """The most that this process has held, in bytes.

    The system counts in kilobytes, macOS in bytes, and Windows elsewhere.
    """
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def made_up_batch(config: Config, classes: int, pictures: int) -> dict[str, Any]:
    """Noise with boxes, as `input_pipeline.Batch` has it, without what no loss reads."""
    import numpy as np
    import tensorflow as tf

    draw = np.random.default_rng(0)
    starts = draw.uniform(0, 0.6, (pictures, OBJECTS, 2))
    boxes = np.concatenate([starts, starts + 0.3], axis=2).astype(np.float32)
    images = draw.uniform(0, 255, (pictures, *config.model.size, 3)).astype(np.float32)
    return {
        "images": tf.constant(images),
        "boxes": tf.constant(boxes),
        "classes": tf.constant(draw.integers(1, classes + 1, (pictures, OBJECTS))),
        "counts": tf.fill([pictures], OBJECTS),
    }


if __name__ == "__main__":
    main()
