"""What the step of one replica says to the others with which it shares a batch."""

from __future__ import annotations

import tensorflow as tf


def summed(value: tf.Tensor) -> tf.Tensor:
    """The sum of `value` over all replicas, within the step of one; itself where there is one."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def replicas_in_sync() -> int:
    """How many replicas share the step that is computed."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync)
