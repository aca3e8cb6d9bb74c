"""What types alone cannot say of the configuration's values: choices, bounds, forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from odtrain.addresses import is_in_store, is_remote
from odtrain.config.bounds import Rules
from odtrain.config.data_name import is_folder_name
from odtrain.config.schema import (
    STORED,
    Config,
    CutConfig,
    DataConfig,
    ModelConfig,
    PredictConfig,
    TilesConfig,
    TrainConfig,
)
from odtrain.errors import ConfigError
from odtrain.io.packages import FORM, packaged

LINES = "Give {NAME: [x,y,x,y]} in pixels for a line, with three corners or more for a zone."
SHOWN_LENGTH = 60
"""Of a value that is refused."""


def check_values(section: Any, prefix: str = "") -> None:
    """Check a section, or the whole configuration, by the rules of its keys.

    Args:
        section: one of `schema`'s.
        prefix: its dotted key, with a dot behind it.

    Raises:
        ConfigError: naming the key and what would have been right.
    """
    for field in fields(section):
        value, key = getattr(section, field.name), f"{prefix}{field.name}"
        if is_dataclass(value):
            check_values(value, f"{key}.")
        else:
            _check_value(key, value, field.metadata)
    for check in FORMS.get(type(section), ()):
        check(section)


def _check_value(key: str, value: Any, rules: Rules) -> None:
    choices, least, most = (rules.get(name) for name in ("choices", "at_least", "at_most"))
    if choices and value not in choices:
        raise ConfigError(f"{key}={value}", "no such choice.", choices_of(choices))
    if "each_of" in rules:
        _check_each(key, value, rules["each_of"])
    if least is not None and value is not None and value < least:
        raise ConfigError(f"{key}={value}", "too small.", f"Give at least {least}.")
    if most is not None and value > most:
        raise ConfigError(f"{key}={value}", "too large.", f"Give at most {most}.")
    if (word := rules.get("number_or")) and value != word and not _is_count(value):
        raise ConfigError(f"{key}={value}", "no such choice.", f"Give {word}, or 1 or more.")
    if "folder_name" in rules and not is_folder_name(value):
        shown = value if len(value) <= SHOWN_LENGTH else f"{value[:SHOWN_LENGTH]}..."
        problem = "cannot be the name of a folder."
        raise ConfigError(f"{key}={shown}", problem, "Give one word, such as raccoon.")
    if "fraction" in rules:
        _check_fraction(key, value, rules["fraction"])


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_fraction(key: str, value: float, of: str) -> None:
    remedy = "Give 0 to 1." if of == "all" else "Give 0 or more, and less than 1."
    if not 0 <= value <= 1 or (of == "part" and value == 1):
        raise ConfigError(f"{key}={value}", "not a fraction.", remedy)


def _check_each(key: str, names: Sequence[str], choices: Sequence[str]) -> None:
    for name in names:
        if name not in choices:
            raise ConfigError(f"{key}: {name}", "no such choice.", choices_of(choices))
    if not names:
        raise ConfigError(f"{key}=[]", "names no file to make.", choices_of(choices))


def choices_of(choices: Sequence[str | None]) -> str:
    """The remedy where one of these is to be chosen."""
    return f"Choose one of: {', '.join(choice or 'null' for choice in choices)}."


def _check_folds(data: DataConfig) -> None:
    if data.folds == 1:
        raise ConfigError(
            "data.folds", "1 fold leaves nothing to train on.", "Give 0, or 2 or more."
        )
    if data.fold and data.fold >= data.folds:
        raise ConfigError(
            f"data.fold={data.fold}",
            f"is not one of {data.folds} folds.",
            "The first fold is 0; data.folds says how many there are.",
        )


def _check_threshold(predict: PredictConfig) -> None:
    threshold: object = predict.threshold
    if threshold == STORED:
        return
    scores = list(threshold.values()) if isinstance(threshold, dict) else [threshold]
    numbers = [x for x in scores if isinstance(x, int | float) and not isinstance(x, bool)]
    if not scores or len(numbers) < len(scores) or not all(0 <= score <= 1 for score in numbers):
        raise ConfigError(
            f"predict.threshold={threshold}",
            "not a score.",
            "Give 0 to 1, {CLASS: SCORE, default: SCORE}, or stored.",
        )


def _check_lines(predict: PredictConfig) -> None:
    if predict.lines is None:
        return
    if not isinstance(predict.lines, dict):
        raise ConfigError(f"predict.lines={predict.lines}", "no names with points.", LINES)
    for name, numbers in predict.lines.items():
        listed = numbers if isinstance(numbers, list) else []
        real = all(isinstance(x, int | float) and not isinstance(x, bool) for x in listed)
        if not real or len(listed) < 4 or len(listed) % 2 or listed[:2] == listed[2:]:
            raise ConfigError(
                f"predict.lines: {name}={numbers}",
                "no line and no zone.",
                LINES,
            )
    if not predict.track:
        raise ConfigError("predict.lines", "counts tracks alone.", "Set predict.track=true too.")


def _check_cut(cut: CutConfig) -> None:
    _check_tile("data.tiles.size", cut.size, None)


def _check_tiles(tiles: TilesConfig) -> None:
    _check_tile("tiles.size", tiles.size, STORED)


def _check_tile(key: str, size: Any, word: str | None) -> None:
    sides = size if isinstance(size, list) else [size]
    whole = all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
    if size in (None, word) or (
        whole and len(sides) in (1, 2) and all(32 <= s <= 8192 for s in sides)
    ):
        return
    others = f", {word}" if word else ""
    raise ConfigError(
        f"{key}={size}",
        "not a size in pixels.",
        f"Give one number from 32 to 8192, [height,width]{others} or null.",
    )


def _check_box_scales(model: ModelConfig) -> None:
    scales = model.box_scales
    if len(scales) != 4 or min(scales) <= 0:
        raise ConfigError(
            f"model.box_scales={scales}",
            "not four positive factors.",
            "Give those of y, x, height and width.",
        )


def _check_manual(train: TrainConfig) -> None:
    steps, rates = train.manual_steps, train.manual_rates
    if len(steps) != len(rates) or steps != sorted(set(steps)) or any(step < 1 for step in steps):
        raise ConfigError(
            f"train.manual_steps={steps} train.manual_rates={rates}",
            "not one learning rate for each step, steps rising.",
            "For example train.manual_steps=[3000,4000] train.manual_rates=[0.002,0.0002].",
        )


def _check_input_size(model: ModelConfig) -> None:
    sides = model.input_size if isinstance(model.input_size, list) else [model.input_size]
    whole = all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
    if not whole or len(sides) > 2 or not all(32 <= side <= 4096 for side in sides):
        raise ConfigError(
            f"model.input_size={model.input_size}",
            "not a size in pixels.",
            "Give one number from 32 to 4096, or [height,width].",
        )
    step = model.input_multiple
    if any(side % step for side in sides):
        least = step * max(1, max(sides) // step)
        raise ConfigError(
            f"model.input_size={model.input_size}",
            f"{model.name} takes multiples of {step} pixels alone: its coarsest map has cells that large.",
            f"Give {least} or {least + step}, for example.",
        )


def _check_sources(model: ModelConfig) -> None:
    if model.zoo is None:
        return
    form = f"Give http or https addresses, {FORM}."
    if not model.zoo.sources:
        raise ConfigError("model.zoo.sources=[]", "names no address.", form)
    for source in model.zoo.sources:
        if packaged(source) is None and not source.startswith(("http://", "https://")):
            raise ConfigError(f"model.zoo.sources: {source}", "no address.", form)


def _check_loss(train: TrainConfig) -> None:
    """What publishers' own losses are made of cannot be exchanged."""
    others: dict[str, tuple[Any, Any]] = {
        "train.box_loss": (train.box_loss, "huber"),
        "train.assigner": (train.assigner, "iou"),
    }
    if train.loss == "retinanet":
        others["train.label_smoothing"] = (train.label_smoothing, 0)
    for key, (value, published) in others.items():
        if train.loss in ("retinanet", "efficientdet") and value != published:
            raise ConfigError(
                f"{key}={value}",
                f"train.loss={train.loss} is the publisher's own, with {key}={published}.",
                "Give train.loss=quality_focal or train.loss=varifocal too, or leave it out.",
            )
    if train.label_smoothing and train.loss in ("quality_focal", "varifocal"):
        raise ConfigError(
            f"train.label_smoothing={train.label_smoothing:g}",
            f"train.loss={train.loss} asks for how well each box fits already.",
            "Leave one of the two out.",
        )


def _check_jit(train: TrainConfig) -> None:
    if train.jit and train.batch_norm == "synchronized":
        raise ConfigError(
            "train.jit=true",
            "what XLA compiles does not speak with other devices, as train.batch_norm=synchronized does.",
            "Leave one of the two out.",
        )


def _check_multi_scale(train: TrainConfig) -> None:
    other = {"train.jit=true": train.jit, "train.quantize_from": train.quantize_from is not None}
    for key in (key for key, given in other.items() if given and train.multi_scale):
        raise ConfigError(
            f"train.multi_scale={train.multi_scale:g}",
            f"steps of several sizes do not go together with {key}.",
            "Leave one of the two out.",
        )


def _check_accumulate(train: TrainConfig) -> None:
    if train.batch_size != "auto" and train.batch_size % train.accumulate:
        raise ConfigError(
            f"train.accumulate={train.accumulate}",
            f"does not divide train.batch_size={train.batch_size}.",
            f"Give train.batch_size={-(-train.batch_size // train.accumulate) * train.accumulate}, "
            "for example.",
        )


def _check_quantize_from(train: TrainConfig) -> None:
    begins = train.quantize_from
    if begins is None:
        return
    if begins >= train.steps:
        raise ConfigError(
            f"train.quantize_from={begins}",
            f"is behind the last of {train.steps} steps: nothing would be trained so.",
            f"Give {train.steps * 3 // 4}, for example, or leave it out.",
        )
    if begins == 0 and train.checkpoint is None:
        raise ConfigError(
            "train.quantize_from=0",
            "random weights have no batch norm statistics, which are kept from there on.",
            f"Give {train.steps * 3 // 4}, for example, or weights: train.checkpoint=zoo.",
        )


def _check_prepared(data: DataConfig) -> None:
    if is_remote(data.prepared) and not is_in_store(data.prepared):
        raise ConfigError(
            f"data.prepared={data.prepared}",
            "is on the web, where nothing can be written.",
            "Give a folder, or one of a store: s3://BUCKET/FOLDER.",
        )


def _check_outputs(config: Config) -> None:
    if is_remote(config.outputs):
        raise ConfigError(
            f"outputs={config.outputs}",
            "is elsewhere, and a run is worked on here.",
            "Give a folder. A server keeps the files of runs in a store: odtrain server --artifacts "
            f"{config.outputs}",
        )
    if is_remote(config.output or "") and not is_in_store(config.output or ""):
        raise ConfigError(
            f"output={config.output}",
            "is on the web, where nothing can be written.",
            "Give a folder, or one of a store: s3://BUCKET/FOLDER.",
        )


FORMS: dict[type, tuple[Callable[[Any], None], ...]] = {
    CutConfig: (_check_cut,),
    Config: (_check_outputs,),
    DataConfig: (_check_folds, _check_prepared),
    TilesConfig: (_check_tiles,),
    ModelConfig: (_check_input_size, _check_box_scales, _check_sources),
    TrainConfig: (
        _check_manual,
        _check_loss,
        _check_accumulate,
        _check_jit,
        _check_multi_scale,
        _check_quantize_from,
    ),
    PredictConfig: (_check_threshold, _check_lines),
}
"""What goes beyond a rule for one key, by section."""
