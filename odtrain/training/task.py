"""One training step of a detector, as Model Garden's trainer calls it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import tensorflow as tf
import tf_keras
from official.core import base_task
from official.core.base_trainer import Trainer
from official.core.config_definitions import ExperimentConfig

from odtrain.config.schema import TrainConfig
from odtrain.models.replicas import replicas_in_sync, summed
from odtrain.models.ssd import SSD
from odtrain.training.input_pipeline import Batch
from odtrain.training.loss_parts import Sums, Way
from odtrain.training.losses import divisor_of, loss_sums, training_loss

EXPLODED = 1e5
"""A total loss above this is taken for divergence: healthy runs start at 10 to 200."""
ROWS = 32
"""Of boxes a picture, in whose multiples batches are compiled for."""
LOSSES = ("localization_loss", "classification_loss", "regularization_loss")


class DetectionTask(base_task.Task):  # type: ignore[misc]
    """One training step of an SSD, as Model Garden's trainer calls it."""

    def __init__(
        self,
        detector: SSD,
        config: TrainConfig,
        batches: tf.data.Dataset,
        others: Sequence[SSD] = (),
        quantized: bool = False,
    ) -> None:
        """Hold what is trained.

        Args:
            detector: whose variables learn.
            config: how.
            batches: what from.
            others: the same variables behind networks of other inputs; with `detector` they are counted by
                what the batches say of `sizes`.
            quantized: steps are computed as the int8 file will compute.
        """
        super().__init__(params=None)
        self._detector = detector
        self._detectors = (detector, *others)
        self._network: Any = detector.quantized if quantized else detector.network
        self._config = config
        self._batches = batches
        same = tf.VariableAggregation.ONLY_FIRST_REPLICA
        self.diverged_step = tf.Variable(-1, dtype=tf.int64, trainable=False, aggregation=same)
        self.diverged_loss = tf.Variable(0.0, trainable=False, aggregation=same)

    def trainer(self, optimizer: tf_keras.optimizers.Optimizer) -> Trainer:
        """What takes such steps, with Model Garden's loop."""
        return Trainer(
            ExperimentConfig(),
            self,
            self._detector,
            optimizer,
            evaluate=False,
            train_dataset=self.build_inputs(None),
        )

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
        encodings, logits = self._network(detector.normalize(batch["images"]), training=training)
        way = Way.of(self._config)
        parts = training_loss(detector, batch, encodings, logits, self._config.loss, way)
        return _named(*parts, detector.regularization() / replicas_in_sync())

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
        config = self._config
        in_one = config.accumulate == len(self._detectors) == 1 and not config.jit
        compute = self._at_once if in_one else self._in_passes
        losses, gradients = compute(inputs, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        whole = tf.unstack(summed(tf.stack(list(losses.values()))), num=len(losses))
        losses = dict(zip(losses, whole, strict=True))
        self._watch(losses["loss"], optimizer.iterations)
        for metric in metrics:
            metric.update_state(losses[metric.name])
        return losses

    def _at_once(
        self, batch: Batch, variables: Sequence[tf.Variable]
    ) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        """`losses` of a share of a batch, and their gradients."""
        with tf.GradientTape() as tape:
            losses = self.losses(batch)
        return losses, _gradients(tape, losses["loss"], variables)

    def _in_passes(
        self, batch: Batch, variables: Sequence[tf.Variable]
    ) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        """The same, computed part by part, each at the size that was drawn for the batch.

        Only one part's activations are held at a time. The parts are what `train.jit` compiles. What replicas
        say to each other stays outside: what a size computes is a branch that each of them takes by itself.
        """
        passes, detector, jit = self._config.accumulate, self._detector, self._config.jit
        pictures = tf.shape(batch["images"])[0] // passes

        computed = [partial(self._sums, each, variables) for each in self._detectors]
        if jit:
            computed = [tf.function(each, jit_compile=True, autograph=False) for each in computed]
            batch = _of_few_shapes(batch)

        def one(number: tf.Tensor, sums: Sums, gradients: list[tf.Tensor]) -> tuple[Any, ...]:
            rows = slice(number * pictures, (number + 1) * pictures)
            part = {key: value[rows] for key, value in batch.items()}
            at_sizes = [partial(each, part) for each in computed]
            own, more = (
                tf.switch_case(part["sizes"][0], at_sizes) if at_sizes[1:] else at_sizes[0]()
            )
            added = Sums(*map(tf.add, sums, own))
            return number + 1, added, list(map(tf.add, gradients, more))

        start = (0, Sums(0.0, 0.0, 0.0), [tf.zeros_like(variable) for variable in variables])
        _, sums, gradients = tf.while_loop(
            lambda number, *_: number < passes, one, start, parallel_iterations=1
        )
        divisor = divisor_of(self._config.loss, summed(sums.positives))
        with tf.GradientTape() as tape:
            regularization = detector.regularization() / replicas_in_sync()
        held = _gradients(tape, regularization, variables)
        losses = _named(sums.localization / divisor, sums.classification / divisor, regularization)
        return losses, [a / divisor + b for a, b in zip(gradients, held, strict=True)]

    def _sums(
        self, detector: SSD, variables: Sequence[tf.Variable], batch: Batch
    ) -> tuple[Sums, list[tf.Tensor]]:
        """The sums of a detector's losses in a part of a batch, and their gradients."""
        config, images, network = self._config, batch["images"], self._network
        if detector is not self._detector:
            images, network = tf.image.resize(images, detector.config.size), detector.network
        with tf.GradientTape() as tape:
            encodings, logits = network(detector.normalize(images), training=True)
            own = loss_sums(detector, batch, encodings, logits, config.loss, Way.of(config))
            both = own.localization + own.classification
        return own, _gradients(tape, both, variables)

    def _watch(self, loss: tf.Tensor, step: tf.Tensor) -> None:
        healthy = tf.math.is_finite(loss) & (loss < EXPLODED)
        first = ~healthy & (self.diverged_step < 0)
        self.diverged_loss.assign(tf.where(first, loss, self.diverged_loss))
        self.diverged_step.assign(tf.where(first, tf.cast(step, tf.int64), self.diverged_step))


def _of_few_shapes(batch: Batch) -> Batch:
    """The batch with empty rows for boxes up to a multiple of `ROWS`: XLA compiles for each shape anew."""
    more = -tf.shape(batch["boxes"])[1] % ROWS
    padded = {
        key: tf.pad(batch[key], [[0, 0], [0, more]] + [[0, 0]] * (len(batch[key].shape) - 2))
        for key in ("boxes", "classes")
    }
    return {**batch, **padded}


def _named(*parts: tf.Tensor) -> dict[str, tf.Tensor]:
    """The parts of a loss by name, and `loss`, their sum."""
    return dict(zip(LOSSES, parts, strict=True)) | {"loss": tf.add_n(parts)}


def _gradients(
    tape: tf.GradientTape, loss: tf.Tensor, variables: Sequence[tf.Variable]
) -> list[tf.Tensor]:
    """Layers that only the regulariser reaches have scales and offsets without a gradient: 0."""
    zero = tf.UnconnectedGradients.ZERO
    gradients: list[tf.Tensor] = tape.gradient(loss, variables, unconnected_gradients=zero)
    return gradients
