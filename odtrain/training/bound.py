"""The least time that training can take: its convolutions, at the speed of this machine's matrix product."""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

PASSES = 3
"""Forward, gradient of the input, gradient of the kernel: each takes as many multiplications."""
ROUNDS = 3
"""Products that are timed at least."""


class Product(NamedTuple):
    """How fast matrices are multiplied, in 10^9 additions and multiplications.

    Attributes:
        gflops: a second, on all threads that TensorFlow has.
        gflop_per_cpu_second: a second of processor time.
    """

    gflops: float
    gflop_per_cpu_second: float


def time_matrix_product(dtype: str = "float32", size: int = 2048, seconds: float = 0.4) -> Product:
    """Multiply two (size, size) matrices for so long, and take the best: others may be at work."""
    # NumPy's: TensorFlow's random numbers are the training's.
    drawn = np.random.default_rng(0).random((2, size, size), np.float32)
    first, second = tf.cast(drawn[0], dtype), tf.cast(drawn[1], dtype)
    product = tf.function(tf.matmul)
    wall: list[float] = []
    cpu: list[float] = []
    end = time.perf_counter() + seconds
    while len(wall) < 1 + ROUNDS or time.perf_counter() < end:
        start, used = time.perf_counter(), time.process_time()
        product(first, second)[0, 0].numpy()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
    work = 2 * size**3 / 1e9
    return Product(work / min(wall[1:]), work / min(cpu[1:]))


def gflop_of_training(network: Any) -> float | None:
    """Additions and multiplications of a network's convolutions in a step, for one picture, in 10^9.

    A layer that is not trained only runs forward. None where convolutions lie inside layers that do not show
    what they are applied to.
    """
    layers = [layer for layer in network._flatten_layers() if hasattr(layer, "kernel_size")]
    if not all(layer.inbound_nodes for layer in layers):
        return None
    return sum(_gflop_forward(layer) * (PASSES if layer.trainable else 1) for layer in layers)


def _gflop_forward(layer: Any) -> float:
    """Every output cell of a convolution takes the whole kernel; of a depthwise one, its own part.

    A layer that several maps share is counted for each.
    """
    kernels = [
        getattr(layer, name)
        for name in ("kernel", "depthwise_kernel", "pointwise_kernel")
        if getattr(layer, name, None) is not None
    ]
    cells = sum(math.prod(node.output_shapes[1:3]) for node in layer.inbound_nodes)
    return float(2 * cells * sum(math.prod(kernel.shape) for kernel in kernels) / 1e9)
