"""The configuration: what may be set, its types, and how `conf/` and overrides are composed.

Values and their explanations live in `conf/`; the dataclasses here give each key its type, so that a
wrong key, type or choice is an error before anything starts.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from odtrain.errors import ConfigError
from odtrain.export_formats import FORMATS

PACKAGE = Path(__file__).resolve().parent


@dataclass
class DataConfig:
    """Which pictures and labels, and how they are split."""

    name: str = MISSING
    images: str = MISSING
    annotations: str | None = None
    format: str = "auto"
    label_map: str | None = None
    train_list: str | None = None
    validation_list: str | None = None
    test_list: str | None = None
    test_fraction: float = 0.2
    validation_fraction: float = 0.1
    folds: int = 0
    fold: int = 0
    seed: int = 0
    prepared: str = MISSING
    shards: int | None = None
    workers: int | None = None


@dataclass
class AnchorConfig:
    """The reference's `ssd_anchor_generator`: sizes and shapes, fractions of the picture's short side."""

    num_layers: int = 6
    min_scale: float = 0.2
    max_scale: float = 0.95
    aspect_ratios: list[float] = field(default_factory=lambda: [1.0, 2.0, 0.5, 3.0, 0.3333])
    reduce_boxes_in_lowest_layer: bool = True


@dataclass
class PyramidConfig:
    """The reference's `fpn` and `multiscale_anchor_generator`: maps of strides 2^level, and anchors."""

    min_level: int = 3
    max_level: int = 7
    depth: int = 256
    anchor_scale: float = 4.0
    scales_per_octave: int = 2
    aspect_ratios: list[float] = field(default_factory=lambda: [1.0, 2.0, 0.5])


@dataclass
class SharedPredictorConfig:
    """The reference's `weight_shared_convolutional_box_predictor`: one predictor for all maps."""

    depth: int = 256
    layers: int = 4


@dataclass
class ZooEntry:
    """Where a published model is to be had, and what its publishers measured."""

    url: str = MISSING
    sha256: str | None = None
    coco_map: float | None = None
    speed_ms: float | None = None
    source: str | None = None


@dataclass
class ModelConfig:
    """The network and the constants that the reference's pipeline.config gives it."""

    name: str = MISSING
    architecture: str = MISSING
    input_size: Any = MISSING
    input_multiple: int = 1
    resize: str = "stretch"
    depth_multiplier: float = 1.0
    min_depth: int = 16
    anchors: AnchorConfig = field(default_factory=AnchorConfig)
    pyramid: PyramidConfig = field(default_factory=PyramidConfig)
    shared_predictor: SharedPredictorConfig = field(default_factory=SharedPredictorConfig)
    separable_extras: bool | None = None
    predictor_kernel: int | None = None
    encode_background_as_zeros: bool = False
    batch_norm_decay: float = 0.9997
    batch_norm_epsilon: float = 0.001
    l2: float = 0.00004
    initializer: str = "truncated_normal"
    initializer_stddev: float = 0.03
    class_bias: float = 0.0
    box_scales: list[float] = field(default_factory=lambda: [10.0, 10.0, 5.0, 5.0])
    matched_iou: float = 0.5
    huber_delta: float = 1.0
    localization_weight: float = 1.0
    classification_weight: float = 1.0
    num_hard_examples: int = 3000
    mining_iou: float = 0.99
    max_negatives_per_positive: float = 3.0
    min_negatives_per_image: int = 0
    focal_gamma: float = 2.0
    focal_alpha: float = 0.25
    nms_iou: float = 0.6
    max_detections: int = 100
    zoo: ZooEntry | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the network's input, in pixels."""
        if isinstance(self.input_size, int):
            return (self.input_size, self.input_size)
        height, width = self.input_size
        return (int(height), int(width))


@dataclass
class TrainConfig:
    """How the network is trained."""

    steps: int = MISSING
    batch_size: int = MISSING
    checkpoint: str | None = None
    restore: str = "backbone"
    loss: str = "hard_mining"
    optimizer: str = "momentum"
    learning_rate: float = MISSING
    momentum: float = 0.9
    rmsprop_decay: float = 0.9
    rmsprop_epsilon: float = 1.0
    schedule: str = "cosine"
    warmup_steps: int = 0
    warmup_learning_rate: float = 0.0
    manual_steps: list[int] = field(default_factory=list)
    manual_rates: list[float] = field(default_factory=list)
    decay_steps: int | None = None
    decay_factor: float = 0.95
    schedule_steps: int | None = None
    clip_norm: float | None = None
    ema_decay: float | None = None
    batch_norm: str = "trained"
    freeze: int = 0
    precision: str = "fp32"
    seed: int = 0
    resume: str | None = None
    max_minutes: float | None = None
    patience: int | None = None
    log_every: int = 10
    checkpoint_every: int = 100
    cache_mb: int = 512
    trace_batches: bool = False


@dataclass
class AugmentConfig:
    """What is changed in a picture each time it is trained on."""

    flip: bool = True
    crop: bool = True
    crop_area: float = 0.1
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0


@dataclass
class EvaluateConfig:
    """How detections are scored."""

    every: int = 0
    bootstrap: int = 1000
    drawn: int = 16
    precision: float = 0.9
    split: str = "test"


@dataclass
class ExportConfig:
    """Which files are made of a trained model, and what they must keep."""

    formats: list[str] = MISSING
    max_map_drop: float = 0.02
    nms: str = "regular"
    calibration_pictures: int = 100


@dataclass
class BenchmarkConfig:
    """How an exported file is timed."""

    runs: int = 50
    threads: int = 1


@dataclass
class TrackingConfig:
    """Where runs are recorded."""

    uri: str | None = None
    experiment: str = MISSING
    run_name: str | None = None
    system_metrics: bool = True
    flush_seconds: float = 5.0


@dataclass
class RegistryConfig:
    """Under which name models are registered, and what promotes them."""

    name: str = MISSING
    promote: str = "auto"
    format: str | None = None
    max_map_loss: float = 0.0
    max_latency_ms: float | None = None
    max_size_mb: float | None = None


@dataclass
class PredictConfig:
    """What prediction shows, and how it works through many pictures."""

    threshold: Any = 0.5
    drawn: bool = True
    xml: bool = False
    xml_every_seconds: float = 1.0
    label_map: str | None = None
    workers: int | None = None
    threads: int = 1
    max_seconds: float | None = None
    max_download_mb: float = 500.0
    max_download_seconds: float = 300.0


@dataclass
class WebcamConfig:
    """Where the live page is served, and to whom."""

    host: str = "127.0.0.1"
    port: int = 8765
    allowed_hosts: list[str] = field(default_factory=list)
    open_browser: bool = True


@dataclass
class ServeConfig:
    """Where a model is served, to whom, and how large a request may be."""

    host: str = "127.0.0.1"
    port: int = 8766
    allowed_hosts: list[str] = field(default_factory=list)
    open_browser: bool = True
    max_megabytes: float = 20.0
    max_megapixels: float = 50.0


@dataclass
class ZooConfig:
    """Where published weights are looked for."""

    mirrors: list[str] = field(default_factory=list)


@dataclass
class SweepConfig:
    """Which trainings are tried, and what they are judged by."""

    name: str = MISSING
    storage: str | None = None
    n_trials: int = MISSING
    workers: int = 1
    max_minutes: float | None = None
    sampler: str = "tpe"
    seed: int = 0
    formats: list[str] = MISSING
    directions: dict[str, str] = MISSING
    max_latency_ms: float | None = None
    max_size_mb: float | None = None
    stop_hopeless: bool = True
    judged_from: float = 0.25
    gain: float = 1.0
    margin: float = 0.02
    latency_noise: float = 0.1
    grace: float = 60.0
    keep: str = "all"
    overrides: list[str] = field(default_factory=list)
    baselines: list[Any] = field(default_factory=list)
    space: dict[str, Any] = MISSING


@dataclass
class Config:
    """Everything a command can be told."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    benchmark: BenchmarkConfig = field(default_factory=BenchmarkConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    registry: RegistryConfig = field(default_factory=RegistryConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)
    zoo: ZooConfig = field(default_factory=ZooConfig)
    webcam: WebcamConfig = field(default_factory=WebcamConfig)
    serve: ServeConfig = field(default_factory=ServeConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    outputs: str = MISSING
    source: str | None = None
    input: str | None = None
    output: str | None = None


def shipped(name: str) -> Path:
    """A folder that comes with odtrain: inside the installed package, else beside it in a checkout."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name


def compose_config(overrides: Sequence[str], config_dir: str | None = None) -> Config:
    """Compose `conf/` and the overrides, check every key, type and choice, return typed values.

    Args:
        overrides: Hydra's `key=value`; a text value may hold any character without quoting.
        config_dir: a folder of the user's own configs, searched beside `conf/`.

    Raises:
        ConfigError: an override cannot be read, names an unknown key or choice, or has a wrong type.
    """
    conf = Path(os.environ.get("ODTRAIN_CONF", shipped("conf")))
    ConfigStore.instance().store(name="base_config", node=Config)
    OmegaConf.register_new_resolver(
        "shipped", lambda name: str(shipped(name)), replace=True, use_cache=False
    )
    quoted = [_quoted(override) for override in overrides]
    if config_dir is not None and not Path(config_dir).is_dir():
        raise ConfigError(f"--config-dir {config_dir}", "no such folder.", "Give a folder.")
    _check_names(overrides, [conf, *([Path(config_dir)] if config_dir else [])])
    if config_dir is not None:
        quoted.append(f'hydra.searchpath=["file://{Path(config_dir).resolve()}"]')
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf), version_base="1.3"):
            composed = compose("config", overrides=quoted)
        config = cast(Config, OmegaConf.to_object(composed))
    except (HydraException, OmegaConfBaseException) as error:
        raise _explained(error, overrides) from error
    except AssertionError as error:  # OmegaConf's, about a key inside a section that is null
        remedy = "Choose one that has it: model=NAME for model.zoo."
        raise ConfigError(" ".join(overrides), "a section of a key is null.", remedy) from error
    check_values(config)
    return config


def as_dict(config: Config) -> dict[str, Any]:
    """Plain nested values, in the order of the dataclasses."""
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(config)))


def as_yaml(config: Config) -> str:
    """The configuration as YAML that `from_yaml` reads back."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def from_yaml(text: str) -> Config:
    """Read what `as_yaml` wrote.

    Raises:
        ConfigError: it was written by a version whose keys differ.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.create(text))
        return cast(Config, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        remedy = "Use the odtrain version named in the run's tag odtrain.version."
        raise ConfigError("config.yaml of the run", _first_line(error), remedy) from error


def flattened(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"train": {"steps": 5}}` as `{"train.steps": 5}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


CHOICES: dict[str, list[Any]] = {
    "data.format": [
        *("auto", "voc", "yolo", "coco", "createml", "labelme", "label_studio"),
        *("cvat", "csv", "tfrecord"),
    ],
    "model.resize": ["stretch", "pad"],
    "model.initializer": ["truncated_normal", "random_normal", "he"],
    "train.restore": ["backbone", "all"],
    "train.loss": ["hard_mining", "focal", "retinanet"],
    "train.optimizer": ["rmsprop", "momentum", "adam"],
    "train.schedule": [
        "constant",
        "step",
        "exponential",
        "manual",
        "cosine",
        "cosine_after_warmup",
    ],
    "train.batch_norm": ["trained", "frozen"],
    "train.precision": ["fp32", "bf16"],
    "evaluate.split": ["train", "validation", "test"],
    "export.nms": ["regular", "fast"],
    "registry.promote": ["auto", "never"],
    "registry.format": [None, *FORMATS],
    "sweep.sampler": ["tpe", "nsga2", "random"],
    "sweep.keep": ["all", "front"],
}
STORED_THRESHOLDS = "stored"
"""`predict.threshold`: the scores that the model's file carries."""
AT_LEAST = {
    "data.folds": 0,
    "data.fold": 0,
    "data.seed": 0,
    "data.shards": 1,
    "model.input_multiple": 1,
    "model.depth_multiplier": 0.01,
    "model.max_detections": 1,
    "train.steps": 1,
    "train.batch_size": 1,
    "train.learning_rate": 0,
    "train.warmup_steps": 0,
    "train.warmup_learning_rate": 0,
    "train.freeze": 0,
    "train.seed": 0,
    "train.log_every": 1,
    "train.checkpoint_every": 1,
    "train.cache_mb": 0,
    "evaluate.every": 0,
    "evaluate.bootstrap": 0,
    "export.calibration_pictures": 1,
    "benchmark.runs": 1,
    "benchmark.threads": 1,
    "predict.threads": 1,
    "predict.workers": 1,
    "predict.xml_every_seconds": 0,
    "predict.max_seconds": 0,
    "predict.max_download_mb": 0,
    "predict.max_download_seconds": 0,
    "webcam.port": 0,
    "serve.port": 0,
    "sweep.n_trials": 1,
    "sweep.workers": 1,
    "sweep.margin": 0,
    "sweep.latency_noise": 0,
    "sweep.grace": 1,
    "sweep.seed": 0,
}
FRACTIONS = [
    "registry.max_map_loss",
    "data.test_fraction",
    "data.validation_fraction",
    "augment.crop_area",
    "augment.brightness",
    "augment.contrast",
    "augment.saturation",
    "sweep.gain",
    "sweep.judged_from",
]


def check_values(config: Config) -> None:
    """Check what types alone cannot: choices, ranges, the form of `model.input_size`.

    Raises:
        ConfigError: naming the key and what would have been right.
    """
    values = flattened(as_dict(config))
    for key, choices in CHOICES.items():
        if values[key] not in choices:
            raise ConfigError(f"{key}={values[key]}", "no such choice.", _one_of(choices))
    for key in ("export.formats", "sweep.formats"):
        for name in values[key]:
            if name not in FORMATS:
                raise ConfigError(f"{key}: {name}", "no such choice.", _one_of(list(FORMATS)))
        if not values[key]:
            raise ConfigError(f"{key}=[]", "names no file to make.", _one_of(list(FORMATS)))
    for key, least in AT_LEAST.items():
        if values[key] is not None and values[key] < least:
            raise ConfigError(f"{key}={values[key]}", "too small.", f"Give at least {least}.")
    for key in FRACTIONS:
        if not 0 <= values[key] <= 1:
            raise ConfigError(f"{key}={values[key]}", "not a fraction.", "Give 0 to 1.")
    _check_input_size(config.model)
    _check_threshold(config.predict.threshold)
    _check_box_scales(config.model.box_scales)
    _check_manual(config.train)


def _check_threshold(threshold: object) -> None:
    if threshold == STORED_THRESHOLDS:
        return
    scores = list(threshold.values()) if isinstance(threshold, dict) else [threshold]
    numbers = [x for x in scores if isinstance(x, int | float) and not isinstance(x, bool)]
    if not scores or len(numbers) < len(scores) or not all(0 <= score <= 1 for score in numbers):
        raise ConfigError(
            f"predict.threshold={threshold}",
            "not a score.",
            "Give 0 to 1, {CLASS: SCORE, default: SCORE}, or stored.",
        )


def _check_box_scales(scales: Sequence[float]) -> None:
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


def _one_of(choices: Sequence[str | None]) -> str:
    return f"Choose one of: {', '.join(choice or 'null' for choice in choices)}."


def _quoted(override: str) -> str:
    """Quote the value of an override that Hydra's grammar cannot read as it stands."""
    if "=" not in override:
        remedy = "Settings are given as key=value, for example train.steps=500."
        raise ConfigError(override, "not a setting.", remedy)
    key, value = override.split("=", 1)
    try:
        parsed = OverridesParser.create().parse_override(override)
        readable = not (parsed.is_sweep_override() and _is_text(key))
    except HydraException:
        readable = False
    if not readable:
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'{key}="{escaped}"'
    return override


def _is_text(key: str) -> bool:
    value = flattened(as_dict(Config())).get(key.lstrip("+~"), 0)
    return value is None or isinstance(value, str)


def _check_names(overrides: Sequence[str], folders: Sequence[Path]) -> None:
    """Check that every override names a known key or group, and a choice that exists.

    Raises:
        ConfigError: it does not.
    """
    known = sorted(flattened(as_dict(Config())))
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        groups = [folder / key for folder in folders if (folder / key).is_dir()]
        choices = sorted(path.stem for group in groups for path in group.glob("*.yaml"))
        if groups and value != "null" and value not in choices:
            raise ConfigError(override, "no such choice.", _one_of(choices))
        if not groups and not any(_within(key, name) for name in known):
            near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
            section = [name for name in known if name.startswith(key.split(".")[0] + ".")]
            remedy = "Did you mean: " if near else "Known keys: "
            raise ConfigError(
                override, "no such key.", remedy + ", ".join(near or section or known)
            )


def _within(key: str, name: str) -> bool:
    """True where one of two dotted keys is, or lies inside, the other."""
    return f"{key}.".startswith(f"{name}.") or f"{name}.".startswith(f"{key}.")


def _explained(error: BaseException, overrides: Sequence[str]) -> ConfigError:
    """Hydra's error in our form: the override at fault where its value is named in the reasons."""
    reasons = [_first_line(error)]
    while error.__cause__ is not None:
        error = error.__cause__
        reasons.append(_first_line(error))
    remedy = "odtrain COMMAND --cfg shows what was composed."
    for override in overrides:
        value = override.partition("=")[2]
        if any(f"'{value}'" in reason or override in reason for reason in reasons):
            remedy = "Give a value of that type; odtrain --help names where every key is explained."
            return ConfigError(override, reasons[-1], remedy)
    return ConfigError("configuration", reasons[-1], remedy)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
