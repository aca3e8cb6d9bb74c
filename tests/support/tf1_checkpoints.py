"""Checkpoints as TensorFlow 1's Saver writes them: by the names of variables."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf


def write_checkpoint(prefix: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    """Write arrays under their names; the folder is made."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    names = sorted(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(tensors[name]) for name in names],
    )
    return prefix
