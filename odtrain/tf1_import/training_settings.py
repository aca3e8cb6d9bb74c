"""The training of a pipeline.config, as settings `train.*` and `augment.*`."""

from __future__ import annotations

from collections.abc import Callable

from odtrain.errors import DataError
from odtrain.io.textproto import Field, Message
from odtrain.tf1_import.imported import EXAMPLE, Imported, needed, pass_over


def read_training(pipeline: Message, found: Imported) -> None:
    """Carry over how a network is trained.

    Raises:
        DataError: the file says nothing of it, or gives no optimizer or learning rate.
    """
    train = pipeline.message("train_config")
    if train is None:
        raise DataError(pipeline.reader.file, "holds no train_config { }.", EXAMPLE)
    batch, steps = train.whole("batch_size"), train.whole("num_steps")
    found.values["train.batch_size"] = 32 if batch is None else batch
    if steps:
        found.values["train.steps"] = steps
    else:
        what = (
            "num_steps is not given, which means without end; train.steps is what ends a training."
        )
        found.change(train.start, what)
    found.values["train.schedule_steps"] = None
    found.values["train.freeze"] = 0
    found.values["train.precision"] = "fp32"
    _optimizer(needed(train, "optimizer"), pipeline, found)
    clip = train.one("gradient_clipping_by_norm")
    norm = train.number_of(clip) if clip else 0.0
    found.values["train.clip_norm"] = norm or None
    if clip and norm:
        what = (
            f"gradient_clipping_by_norm: {norm:g} for each variable; here for all of them together."
        )
        found.lose(clip.token, what)
    if train.truth("add_regularization_loss") is False:
        found.values["model.l2"] = 0.0
    found.expect(train, "bias_grad_multiplier", 0.0, 0.0)
    found.expect(train, "merge_multiple_label_boxes", False, False)
    _first_weights(train, found)
    _augmentation(train, found)


def _optimizer(optimizer: Message, pipeline: Message, found: Imported) -> None:
    names = {"rmsprop": "rms_prop_optimizer", "momentum": "momentum_optimizer"}
    kinds = {ours: optimizer.message(name) for ours, name in names.items()}
    kinds["adam"] = optimizer.message("adam_optimizer")
    given = {name: message for name, message in kinds.items() if message is not None}
    if len(given) != 1:
        problem = "optimizer is one of rms_prop_optimizer, momentum_optimizer, adam_optimizer."
        raise optimizer.reader.fail(optimizer.start, problem)
    ((name, message),) = given.items()
    found.values["train.optimizer"] = name
    if name != "adam":
        momentum = message.number("momentum_optimizer_value")
        found.values["train.momentum"] = 0.9 if momentum is None else momentum
    if name == "rmsprop":
        decay, epsilon = message.number("decay"), message.number("epsilon")
        found.values["train.rmsprop_decay"] = 0.9 if decay is None else decay
        found.values["train.rmsprop_epsilon"] = 1.0 if epsilon is None else epsilon
    _learning_rate(needed(message, "learning_rate"), found)
    kept, rate = optimizer.truth("use_moving_average"), optimizer.number("moving_average_decay")
    evaluation = pipeline.message("eval_config")
    used = bool(evaluation and evaluation.truth("use_moving_averages")) and kept is not False
    for metrics in evaluation.all("metrics_set") if evaluation else []:
        if evaluation and not evaluation.text_of(metrics).startswith("coco"):
            what = f"metrics_set: {evaluation.text_of(metrics)}; here COCO's metrics."
            found.change(metrics.token, what)
    found.values["train.ema_decay"] = (rate or 0.9999) if used else None


def _learning_rate(rate: Message, found: Imported) -> None:
    for name, carry in SCHEDULES.items():
        schedule = rate.message(name)
        if schedule is not None:
            found.values["train.warmup_steps"] = 0
            found.values["train.warmup_learning_rate"] = 0.0
            return carry(schedule, found)
    raise rate.reader.fail(rate.start, f"learning_rate is one of {', '.join(SCHEDULES)}.")


def _constant(schedule: Message, found: Imported) -> None:
    rate = schedule.number("learning_rate")
    found.values["train.schedule"] = "constant"
    found.values["train.learning_rate"] = 0.002 if rate is None else rate


def _exponential(schedule: Message, found: Imported) -> None:
    rate, steps = schedule.number("initial_learning_rate"), schedule.whole("decay_steps")
    factor, stairs = schedule.number("decay_factor"), schedule.truth("staircase")
    found.values["train.schedule"] = "exponential" if stairs is False else "step"
    found.values["train.learning_rate"] = 0.002 if rate is None else rate
    found.values["train.decay_steps"] = 4_000_000 if steps is None else steps
    found.values["train.decay_factor"] = 0.95 if factor is None else factor
    found.expect(schedule, "burnin_steps", 0, 0)
    found.expect(schedule, "burnin_learning_rate", 0.0, 0.0)
    found.expect(schedule, "min_learning_rate", 0.0, 0.0)


def _manual(schedule: Message, found: Imported) -> None:
    rate = schedule.number("initial_learning_rate")
    found.values["train.schedule"] = "manual"
    found.values["train.learning_rate"] = 0.002 if rate is None else rate
    changes = schedule.messages("schedule")
    steps = [each.whole("step") or 0 for each in changes]
    rates = [each.number("learning_rate") for each in changes]
    found.values["train.manual_steps"] = steps
    found.values["train.manual_rates"] = [0.002 if each is None else each for each in rates]
    found.expect(schedule, "warmup", False, False)


def _cosine(schedule: Message, found: Imported) -> None:
    base, total = schedule.number("learning_rate_base"), schedule.whole("total_steps")
    first, warmup = schedule.number("warmup_learning_rate"), schedule.whole("warmup_steps")
    warmup = 10_000 if warmup is None else warmup
    found.values["train.schedule"] = "cosine_after_warmup"
    found.values["train.learning_rate"] = 0.002 if base is None else base
    found.values["train.decay_steps"] = 4_000_000 if total is None else total
    found.values["train.warmup_learning_rate"] = 0.0002 if first is None else first
    found.values["train.warmup_steps"] = warmup
    found.expect(schedule, "hold_base_rate_steps", 0, 0)
    steps = found.values.get("train.steps")
    if isinstance(steps, int) and warmup > steps // 5:
        what = f"warmup_steps: {warmup}; here a fifth of the steps at most, {steps // 5}."
        found.change(schedule.start, what)


SCHEDULES: dict[str, Callable[[Message, Imported], None]] = {
    "constant_learning_rate": _constant,
    "exponential_decay_learning_rate": _exponential,
    "manual_step_learning_rate": _manual,
    "cosine_decay_learning_rate": _cosine,
}


def _first_weights(train: Message, found: Imported) -> None:
    found.checkpoint = train.text("fine_tune_checkpoint") or None
    kind = train.text("fine_tune_checkpoint_type") or ""
    detection = train.truth("from_detection_checkpoint") or kind == "detection"
    everything = bool(train.truth("load_all_detection_checkpoint_vars")) and detection
    whole = everything or kind in ("full", "fine_tune")
    found.values["train.restore"] = "all" if whole else "backbone"
    frozen = train.all("freeze_variables")
    if frozen:
        names = ", ".join(train.text_of(each) for each in frozen)
        what = f"freeze_variables: {names}; train.freeze keeps whole stages of the backbone."
        found.lose(frozen[0].token, what)


def _augmentation(train: Message, found: Imported) -> None:
    found.values |= {"augment.flip": False, "augment.crop": False}
    found.values |= {f"augment.{name}": 0.0 for name in ("brightness", "contrast", "saturation")}
    for option in train.messages("data_augmentation_options"):
        for each in option.fields:
            carry = AUGMENTATIONS.get(each.name)
            option.asked.add(each.name)
            if carry is None or not isinstance(each.value, Message):
                found.lose(each.token, f"{each.name}: not done here.")
                pass_over(each)
            else:
                carry(each.value, found)


def _flip(option: Message, found: Imported) -> None:
    found.values["augment.flip"] = True
    found.expect(option, "probability", 0.5, 0.5)
    option.all("keypoint_flip_permutation")


def _ssd_crop(option: Message, found: Imported) -> None:
    found.values |= {"augment.crop": True, "augment.crop_area": 0.1}
    if option.fields:
        found.lose(option.start, "operations of ssd_random_crop: here the seven of the original.")
        pass_over(Field(option.start, option))


def _crop(option: Message, found: Imported) -> None:
    area = option.number("min_area")
    found.values |= {"augment.crop": True, "augment.crop_area": 0.1 if area is None else area}
    what = "random_crop_image: here a crop of the same least area, by the rules of ssd_random_crop."
    found.change(option.start, what)
    pass_over(Field(option.start, option))


def _brightness(option: Message, found: Imported) -> None:
    delta = option.number("max_delta")
    found.values["augment.brightness"] = 0.2 if delta is None else delta


def _factor(name: str) -> Callable[[Message, Imported], None]:
    def carry(option: Message, found: Imported) -> None:
        least, most = option.number("min_delta"), option.number("max_delta")
        low, high = 0.8 if least is None else least, 1.25 if most is None else most
        reach = round(max(1 - low, high - 1), 6)
        found.values[f"augment.{name}"] = reach
        if abs((1 - low) - (high - 1)) > 1e-6:
            what = f"{option.start.text}: factors {low:g} to {high:g}; here {1 - reach:g} to {1 + reach:g}."
            found.change(option.start, what)

    return carry


AUGMENTATIONS: dict[str, Callable[[Message, Imported], None]] = {
    "random_horizontal_flip": _flip,
    "ssd_random_crop": _ssd_crop,
    "random_crop_image": _crop,
    "random_adjust_brightness": _brightness,
    "random_adjust_contrast": _factor("contrast"),
    "random_adjust_saturation": _factor("saturation"),
}
