"""One training step of a detector, as Model Garden's trainer calls it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras
from official.core import base_task

from odtrain.config.schema import TrainConfig
from odtrain.models.replicas import replicas_in_sync, summed
from odtrain.models.ssd import SSD
from odtrain.training.input_pipeline import Batch
from odtrain.training.losses import training_loss

EXPLODED = 1e5
"""A total loss above this is taken for divergence: healthy runs start at 10 to 200."""
LOSSES = ("localization_loss", "classification_loss", "regularization_loss")


class DetectionTask(base_task.Task):  # type: ignore[misc]
    """One training step of an SSD, as Model Garden's trainer calls it."""

    def __init__(self, detector: SSD, config: TrainConfig, batches: tf.data.Dataset) -> None:
        super().__init__(params=None)
        self._detector = detector
        self._config = config
        self._batches = batches
        same = tf.VariableAggregation.ONLY_FIRST_REPLICA
        self.diverged_step = tf.Variable(-1, dtype=tf.int64, trainable=False, aggregation=same)
        self.diverged_loss = tf.Variable(0.0, trainable=False, aggregation=same)

    def build_model(self) -> SSD:
        """The detector under training."""
        return self._detector

    def build_inputs(self, params: Any, input_context: Any = None) -> tf.data.Dataset:
        """The batches under training."""
        return self._batches

    def build_metrics(self, training: bool = True) -> list[tf_keras.metrics.Metric]:
        """Means of the loss's parts between two logs."""
        return [tf_keras.metrics.Mean(name) for name in LOSSES]

    def losses(self, batch: Batch, training: bool = True) -> dict[str, tf.Tensor]:
        """The parts of the loss of a replica's share of a batch, by name, and `loss`, their sum.

        Those of all replicas add up to the batch's.
        """
        detector = self._detector
        encodings, logits = detector.network(detector.normalize(batch["images"]), training=training)
        parts = training_loss(detector, batch, encodings, logits, self._config.loss)
        values = (*parts, detector.regularization() / replicas_in_sync())
        return dict(zip(LOSSES, values, strict=True)) | {"loss": tf.add_n(values)}

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def train_step(
        self,
        inputs: Batch,
        model: SSD,
        optimizer: tf_keras.optimizers.Optimizer,
        metrics: Sequence[tf_keras.metrics.Metric] = (),
    ) -> dict[str, tf.Tensor]:
        """Forward, backward, update; remembers the first batch whose loss left the numbers."""
        variables = model.network.trainable_variables
        with tf.GradientTape() as tape:
            losses = self.losses(inputs)
        # Layers that only the regulariser reaches have scales and offsets without a gradient.
        gradients = tape.gradient(
            losses["loss"], variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        whole = tf.unstack(summed(tf.stack(list(losses.values()))), num=len(losses))
        losses = dict(zip(losses, whole, strict=True))
        self._watch(losses["loss"], optimizer.iterations)
        for metric in metrics:
            metric.update_state(losses[metric.name])
        return losses

    def _watch(self, loss: tf.Tensor, step: tf.Tensor) -> None:
        healthy = tf.math.is_finite(loss) & (loss < EXPLODED)
        first = ~healthy & (self.diverged_step < 0)
        self.diverged_loss.assign(tf.where(first, loss, self.diverged_loss))
        self.diverged_step.assign(tf.where(first, tf.cast(step, tf.int64), self.diverged_step))
