"""Training: the references' losses on Model Garden's task and trainer, stoppable and resumable.

A checkpoint holds the network, the optimizer's slots, the averaged weights, the step and the `Progress`
(best score, patience, time spent); the batches follow from the step alone
(`odtrain.training.input_pipeline`). Whatever
happens between two checkpoints is done again after a resume, and nothing else.

Where several workers train (`odtrain.training.team`), each runs all of this: saving and reading the moving
statistics takes all of them. The chief's checkpoints are the training's; those of the others are thrown away.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape
from pathlib import Path

import tensorflow as tf
from official.core.base_trainer import Trainer

from odtrain.config.schema import TrainConfig
from odtrain.config.sizes import input_sizes
from odtrain.errors import TrainingError
from odtrain.io.atomic import sync
from odtrain.models.build import copy_weights, plain_copy
from odtrain.models.ssd import SSD
from odtrain.structures import Detect
from odtrain.system import timing_lock as turns
from odtrain.system.progress import Bar
from odtrain.training.optimizers import build_optimizer
from odtrain.training.quantized import quantized_from
from odtrain.training.schedules import learning_rate
from odtrain.training.task import LOSSES, DetectionTask
from odtrain.training.team import ALONE, LOST, Team

NOT_TRANSLATED = (IndexError, RuntimeError, ValueError)
"""What TensorFlow's C++ raises from damaged checkpoints where it forgets to raise errors of its own."""


CHANCE = "chance of a gain"
"""What a validation may say beside its scores: how likely it is, 0-1, that the best one so far is beaten."""
UNLIKELY = 0.25
"""A chance below which an evaluation counts as one without a gain."""
LOSS_PARTS = 20
"""Of the training, of each of which the mean loss is kept."""


class Progress(tf.train.experimental.PythonState):  # type: ignore[misc]
    """What training must remember beside its variables; saved inside every checkpoint."""

    def __init__(self) -> None:
        self.best_map = -1.0
        self.best_step = 0
        self.evaluated_step = 0
        self.evaluations_without_gain = 0
        self.seconds = 0.0
        self.curve: list[tuple[int, float]] = []
        self.losses = [(0.0, 0)] * LOSS_PARTS
        self.last_map: float | None = None

    def serialize(self) -> str:
        """JSON text for the checkpoint."""
        mine = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return json.dumps(mine)

    def deserialize(self, string_value: str) -> None:
        """Take over the JSON text of a checkpoint."""
        for name, value in json.loads(string_value).items():
            setattr(self, name, value)


@dataclass(frozen=True)
class Fitted:
    """How a training ended.

    Attributes:
        step: steps trained in all.
        best_step: the step whose weights scored best on validation, 0 without validation.
        best_map: their validation mAP, -1 without validation.
        stopped: why training ended before its last step, None if it did not.
        seconds: time spent training and validating, over all sessions.
        curve: step and mAP of every validation.
        losses: mean total loss of each twentieth of the steps that was trained.
        last_map: validation mAP of the last weights, where averaged ones were validated before.
    """

    step: int
    best_step: int
    best_map: float
    stopped: str | None
    seconds: float
    curve: tuple[tuple[int, float], ...] = ()
    losses: tuple[float, ...] = ()
    last_map: float | None = None


@dataclass(frozen=True)
class Listener:
    """What `fit` tells the caller as it goes.

    Attributes:
        metrics: (values by name, step), every `log_every` steps and at every evaluation.
        before_checkpoint: called before a checkpoint is written, so that nothing logged can be lost
            that the checkpoint counts as done.
        after_evaluation: called when the checkpoints of an evaluated step are on disk.
        machine: says how busy the machine of a worker is, for the chief's `metrics`.
    """

    metrics: Callable[[dict[str, float], int], None]
    before_checkpoint: Callable[[], object]
    after_evaluation: Callable[[int], None]
    machine: Callable[[], Mapping[str, float]] = dict


class Fit:
    """A training that can be stopped at any moment and goes on from its last checkpoint."""

    def __init__(
        self, detector: SSD, config: TrainConfig, folder: Path, team: Team = ALONE
    ) -> None:
        """Build optimizer and checkpoints around a detector whose weights are loaded.

        Args:
            detector: what is trained, made in the team's scope; its variables are changed in place.
            config: how.
            folder: where `last/` and `best/` checkpoints are kept.
            team: who trains.

        Raises:
            ConfigError: the network has other variables at another of the sizes it is to be trained at.
        """
        for torn in folder.glob("*/*_temp"):  # by a kill while it was written
            shutil.rmtree(torn)
        self.detector = detector
        self.config = config
        self.team = team
        self._learning_rate = learning_rate(config)
        with team.scope():
            self.optimizer = build_optimizer(config, self._learning_rate)
            self.optimizer.build(detector.network.trainable_variables)
            _, *others = input_sizes(detector.config, config.multi_scale)
            self._others = [detector.at_size(size) for size in others]
        self.progress = Progress()
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._plain: SSD | None = None
        self._quantized_from = quantized_from(config)
        learned = detector.learned()
        everything = tf.train.Checkpoint(
            step=self.step, optimizer=self.optimizer, progress=self.progress, **learned
        )
        self._last = tf.train.CheckpointManager(everything, folder / "last", max_to_keep=2)
        best = tf.train.Checkpoint(**learned)
        self._best = tf.train.CheckpointManager(best, folder / "best", max_to_keep=1)
        self._stop_asked: str | None = None
        self._agreed: str | None = None

    def ask_to_stop(self, reason: str) -> None:
        """End after the steps under way, with a checkpoint; safe to call from a signal handler."""
        self._stop_asked = reason

    def resume(self) -> int:
        """Take over the newest readable checkpoint, if there is one; return the steps it holds.

        The other workers take over what the chief has then, first weights included.

        Raises:
            TrainingError: there are checkpoints, and none can be read.
        """
        if self.team.chief:
            self._restore_newest()
        self.progress.deserialize(self.team.said(self.progress.serialize())[0])
        self.team.take_over(
            [*self.detector.state_by_name().values(), *self.optimizer.variables, self.step]
        )
        return int(self.step.numpy())

    def _restore_newest(self) -> None:
        checkpoints = self._last.checkpoints
        for checkpoint in reversed(checkpoints):
            try:
                status = self._last.checkpoint.restore(checkpoint)
            except (tf.errors.OpError, *NOT_TRANSLATED):
                continue
            status.assert_existing_objects_matched()
            return
        if checkpoints:
            raise TrainingError(
                self._last.directory,
                "none of its checkpoints can be read.",
                "Begin a new run without train.resume.",
            )

    def as_detect(self) -> Detect:
        """The network as it is now, as a function of one picture; as its int8 file, once that is trained.

        Where replicas share the training it is a copy: reading their moving statistics takes all workers, and
        what each of them looks at is its own affair.
        """
        quantized = int(self.step.numpy()) > self._quantized_from
        if self.team.strategy is None:
            return self.detector.as_detect(quantized)
        if self._plain is None:
            self._plain = plain_copy(self.detector)
        else:
            copy_weights(self.detector, self._plain)
        return self._plain.as_detect(quantized)

    def run(
        self,
        batches: Callable[[int], tf.data.Dataset],
        file_names: Callable[[int], list[str]],
        validate: Callable[[], dict[str, float]] | None,
        validate_every: int,
        listener: Listener,
    ) -> Fitted:
        """Train to the last step, or until patience or time run out.

        Args:
            batches: the batches from a step on, of each this process's shares.
            file_names: of the pictures of a step, for messages.
            validate: scores the network on the validation split; must hold `mAP`.
            validate_every: steps between validations, 0 = at the end only.
            listener: told as it goes.

        Raises:
            TrainingError: the loss left the numbers.
            tf.errors.OpError: one of `team.LOST`, where another worker is gone.
        """
        start = int(self.step.numpy())
        task, trainer = self._begun(batches, start)
        built = True
        stopped = self._caught_up(start, validate, validate_every, listener)
        with Bar[None](doing="train", unit="step", total=self.config.steps, done=start) as bar:
            bar.note("the first step builds the graph")
            while (step := int(self.step.numpy())) < self.config.steps and not stopped:
                turns.give_way()
                began = time.monotonic()
                if step == self._quantized_from and not built:
                    bar.note("the first step that is quantised builds the graph anew")
                    task, trainer = self._begun(batches, step)
                    built = True
                chunk = min(self._log_every() - step % self._log_every(), self.config.steps - step)
                logs = trainer.train(tf.constant(chunk))
                self.step.assign_add(chunk)
                step += chunk
                self._raise_if_diverged(task, file_names)
                speed = chunk * self.config.batch_size / (time.monotonic() - began)
                # The chunk that builds the graph has not the speed of a step.
                self._log(logs, None if built else speed, step, listener)
                built = False
                self._note_loss(step, chunk, _number(logs["training_loss"]))
                bar.note(f"loss {_number(logs['training_loss']):.3f}, {speed:.1f} images/s")
                bar.update(chunk)
                stopped = self._after_chunk(step, began, validate, validate_every, listener)
        last = self.progress
        curve = tuple((int(at), score) for at, score in last.curve)
        losses = tuple(total / count for total, count in last.losses if count)
        return Fitted(
            step, last.best_step, last.best_map, stopped, last.seconds, curve, losses, last.last_map
        )

    def load_best(self) -> None:
        """Take the weights that training chose: best on validation, else the last or averaged ones.

        The optimizer's averages are only meaningful while the network holds the last weights.

        Raises:
            TrainingError: the chosen weights cannot be written to `best/`.
        """
        kept = self._has_best() and self._best.latest_checkpoint
        if self.team.said("kept" if kept else "")[0]:
            if self.team.chief:
                self._best.checkpoint.restore(self._best.latest_checkpoint).assert_consumed()
            self.team.take_over(self.detector.state_by_name().values())
            return
        if self.config.ema_decay:
            self.optimizer.finalize_variable_values(self.detector.network.trainable_variables)
        self._save(self._best, int(self.step.numpy()))

    def _begun(
        self, batches: Callable[[int], tf.data.Dataset], step: int
    ) -> tuple[DetectionTask, Trainer]:
        """What computes the steps behind `step`."""
        with self.team.scope():
            shares = self.team.distribute(lambda: batches(step))
            quantized = step >= self._quantized_from
            task = DetectionTask(self.detector, self.config, shares, self._others, quantized)
            trainer = task.trainer(self.optimizer)
        trainer.global_step.assign(step)
        return task, trainer

    def beats_best(self, score: float) -> bool:
        """Whether weights that score so on validation are to be kept."""
        return score > self.progress.best_map or not self._has_best()

    def _has_best(self) -> bool:
        """Whether there are best weights; of a training that is quantised by now, such as were so too."""
        best = self.progress.best_step
        return best > 0 and not best <= self._quantized_from < int(self.step.numpy())

    def _caught_up(
        self,
        step: int,
        validate: Callable[[], dict[str, float]] | None,
        validate_every: int,
        listener: Listener,
    ) -> str | None:
        """Validate if an interruption cut that off; the reason to stop before another step, if any."""
        due = step > 0 and (self._is_due(step, validate_every) or self._out_of_time())
        if validate and due and step > self.progress.evaluated_step:
            self._validate(validate, step, listener)
        return self._reason_to_stop(step)

    def _after_chunk(
        self,
        step: int,
        began: float,
        validate: Callable[[], dict[str, float]] | None,
        validate_every: int,
        listener: Listener,
    ) -> str | None:
        """Checkpoint and validate where due; the reason to stop, if there is one."""
        self.progress.seconds += time.monotonic() - began
        self._agree(step, listener)
        due = self._is_due(step, validate_every) or self._out_of_time()
        if self._stop or due or self._is_due(step, self.config.checkpoint_every):
            listener.before_checkpoint()
            self._save(self._last, step)
        if validate and due and not self._stop:
            began = time.monotonic()
            self._validate(validate, step, listener)
            self.progress.seconds += time.monotonic() - began
            self._agree(step, listener)
        return self._reason_to_stop(step)

    def _agree(self, step: int, listener: Listener) -> None:
        """All workers stop for the first reason that one has, and take the chief's time.

        Here a worker that is lost is noticed, and the chief hears how busy the machines of the others are.
        """
        if self.team.workers == 1:
            return
        mine = [self._stop_asked, self.progress.seconds, listener.machine()]
        said = [json.loads(each) for each in self.team.said(json.dumps(mine))]
        self._agreed = next((reason for reason, *_ in said if reason), None)
        self.progress.seconds = said[0][1]
        for rank, (*_, machine) in enumerate(said):
            if machine:
                values = {f"system/worker_{rank}/{name}": one for name, one in machine.items()}
                listener.metrics(values, step)

    @property
    def _stop(self) -> str | None:
        """Why to stop, as all workers have agreed: what only one knows of comes with the next chunk."""
        return self._stop_asked if self.team.workers == 1 else self._agreed

    def _reason_to_stop(self, step: int) -> str | None:
        """A signal counts at the last step too: what comes after training is not begun then."""
        if self._stop or step == self.config.steps:
            return self._stop
        patience = self.config.patience
        if (
            patience
            and not step <= self._quantized_from < math.inf
            and self.progress.evaluations_without_gain >= patience
        ):
            return f"no better mAP in {patience} evaluations"
        return self._out_of_time()

    def _save(self, manager: tf.train.CheckpointManager, step: int) -> None:
        try:
            manager.save(checkpoint_number=step, options=ON_DISK)
            sync(Path(manager.directory, "checkpoint"))
        except (tf.errors.OpError, OSError) as error:
            if self.team.workers > 1 and isinstance(error, LOST):
                raise
            raise TrainingError(
                manager.directory,
                f"the checkpoint of step {step} cannot be written: {_first_sentence(error)}",
                "Free space there or make it writable, then go on from the one before it: "
                "train.resume=auto.",
            ) from error

    def _validate(
        self, validate: Callable[[], dict[str, float]], step: int, listener: Listener
    ) -> None:
        progress = self.progress
        with self._averaged():
            scores = validate()
            progress.evaluated_step = step
            chance = scores.pop(CHANCE, None)
            if not self._keep_if_best(scores["mAP"], step) and (chance or 0.0) < UNLIKELY:
                progress.evaluations_without_gain += 1
        progress.curve.append((step, scores["mAP"]))
        if self.config.ema_decay and step == self.config.steps:
            progress.last_map = validate()["mAP"]
            self._keep_if_best(progress.last_map, step)
        listener.metrics({f"val/{name}": value for name, value in scores.items()}, step)
        listener.after_evaluation(step)

    def _keep_if_best(self, score: float, step: int) -> bool:
        """Whether the weights that the network holds scored best, and are kept therefore."""
        progress = self.progress
        if not self.beats_best(score):
            return False
        progress.best_map, progress.best_step = score, step
        progress.evaluations_without_gain = 0
        self._save(self._best, step)
        return True

    def _note_loss(self, step: int, chunk: int, loss: float) -> None:
        """Of the `chunk` steps up to `step`."""
        part = (step - 1) * LOSS_PARTS // self.config.steps
        total, count = self.progress.losses[part]
        self.progress.losses[part] = (total + chunk * loss, count + chunk)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Inside, the network holds the averaged weights if the optimizer keeps any."""
        if not self.config.ema_decay:
            yield
            return
        variables = self.detector.network.trainable_variables
        raw = [variable.numpy() for variable in variables]
        self.optimizer.finalize_variable_values(variables)
        try:
            yield
        finally:
            for variable, value in zip(variables, raw, strict=True):
                variable.assign(value)

    def _log_every(self) -> int:
        return max(1, self.config.log_every)

    def _is_due(self, step: int, every: int) -> bool:
        """True at the first logged step at or after each multiple of `every`, and at the end."""
        if step == self.config.steps:
            return True
        return every > 0 and step // every > (step - self._log_every()) // every

    def _out_of_time(self) -> str | None:
        limit = self.config.max_minutes
        if limit and self.progress.seconds >= 60 * limit:
            return f"train.max_minutes={limit:g} are over"
        return None

    def _log(
        self, logs: dict[str, tf.Tensor], speed: float | None, step: int, listener: Listener
    ) -> None:
        values = {f"train/{name}": _number(logs[name]) for name in (*LOSSES, "learning_rate")}
        values["train/loss"] = _number(logs["training_loss"])
        if speed is not None:
            values["train/images_per_second"] = speed
        listener.metrics(values, step)

    def _raise_if_diverged(
        self, task: DetectionTask, file_names: Callable[[int], list[str]]
    ) -> None:
        step = int(task.diverged_step.numpy())
        if step < 0:
            return
        names = ", ".join(file_names(step))
        rate = float(self._learning_rate(step - 1))
        raise TrainingError(
            f"step {step}",
            f"the loss became {float(task.diverged_loss.numpy()):g} at learning rate {rate:.3g}, "
            f"in the batch of {names}.",
            f"Most often the learning rate is too high: try train.learning_rate="
            f"{self.config.learning_rate / 10:g}, or train.clip_norm=10. If it returns with the same "
            "pictures, look at their labels: odtrain check. The last good checkpoint is kept.",
        )


def _number(value: tf.Tensor) -> float:
    """Of a scalar, which every replica has where there are several."""
    return float(tf.convert_to_tensor(value))


def _on_disk(prefix: str) -> None:
    """Have the files of a checkpoint on disk before it is the newest one and an older one is deleted."""
    sync(*Path(prefix).parent.glob(f"{escape(Path(prefix).name)}.*"))


ON_DISK = tf.train.CheckpointOptions(experimental_write_callbacks=[_on_disk])


def _first_sentence(error: tf.errors.OpError | OSError) -> str:
    """What went wrong, without the nodes of TensorFlow's graph."""
    text = error.strerror if isinstance(error, OSError) else error.message
    line = str(text).partition("\n")[0]
    return re.sub(r"^\{\{.*?\}\} |\s*\[Op:.*", "", line).rpartition("; ")[2] + "."
