"""The TensorFlow 1 Object Detection API's pipeline.config, as settings of odtrain that do the same.

Every field is asked for by name. What has no counterpart here, and what nobody asked for, is told with its
line: nothing is dropped in silence. Names and defaults are those of the API's files in `protos/`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from odtrain.errors import DataError
from odtrain.io.textproto import Field, Message, Token, parse

EXAMPLE = "It is the file whose first lines are: model { ssd { num_classes: 90"
PLACEHOLDER = "PATH_TO_BE_CONFIGURED"
"""What the samples say where a path belongs."""

Value = bool | float | int | str | None | list[float] | list[int]

EXTRACTORS: dict[tuple[str, bool], str] = {
    ("ssd_mobilenet_v1", False): "ssd_mobilenet_v1",
    ("ssd_mobilenet_v2", False): "ssd_mobilenet_v2",
    ("ssd_mobilenet_v2", True): "ssdlite_mobilenet_v2",
    ("ssd_mobilenet_v1_fpn", False): "ssd_mobilenet_v1_fpn",
    ("ssd_mobilenet_v1_ppn", False): "ssd_mobilenet_v1_ppn",
    ("ssd_resnet50_v1_fpn", False): "ssd_resnet50_v1_fpn",
    ("ssd_inception_v2", False): "ssd_inception_v2",
    ("ssd_mobilenet_v3_large", True): "ssdlite_mobilenet_v3_large",
    ("ssd_mobilenet_v3_small", True): "ssdlite_mobilenet_v3_small",
    ("ssd_mobiledet_cpu", True): "ssdlite_mobiledet_cpu",
}
"""(type of the feature extractor, whether the predictors are split) -> architecture."""
PLAIN_PREDICTORS = ("ssd_mobilenet_v1", "ssd_mobilenet_v2", "ssd_inception_v2")
"""Architectures whose predictors' kernels can be of any size."""
WITH_PYRAMID = ("ssd_mobilenet_v1_fpn", "ssd_resnet50_v1_fpn")
SHARED_KERNEL = {"ssd_mobilenet_v1_ppn": 1}
"""Sides of the convolutions before a shared predictor; 3 where it is not said."""

OWN_DECAY = dict.fromkeys(
    [
        *("ssd_mobilenet_v1", "ssd_mobilenet_v1_fpn", "ssd_mobilenet_v1_ppn", "ssd_mobilenet_v2"),
        *("ssdlite_mobilenet_v2", "ssd_inception_v2"),
    ],
    0.9997,
)
"""slim's decay of batch norm in base networks that do not take the extractor's."""

NO_RATIO = 100_000.0
"""Negatives for each positive where the miner has no limit."""
ALL_ANCHORS = 1_000_000
BOX_SCALES = {"y": 10.0, "x": 10.0, "height": 5.0, "width": 5.0}
CODE_SIZE = 4

WITHOUT_INFLUENCE = frozenset(
    "use_matmul_gather inplace_batchnorm_update batch_norm_trainable use_static_shapes sync_replicas "
    "startup_delay_steps replicas_to_aggregate keep_checkpoint_every_n_hours batch_queue_capacity "
    "num_batch_queue_threads prefetch_queue_capacity max_number_of_boxes unpad_groundtruth_tensors "
    "num_readers shuffle shuffle_buffer_size filenames_shuffle_buffer_size num_epochs queue_capacity "
    "min_after_dequeue num_parallel_batches num_prefetch_batches read_block_length prefetch_size "
    "num_parallel_map_calls anchorwise_output op name include_source_id eval_config "
    "dropout_keep_probability".split()
)
"""Fields about speed, queues, several machines and when to evaluate: they do not change what is learned."""


@dataclass
class Imported:
    """What a pipeline.config comes to.

    Attributes:
        file: it.
        values: dotted key of odtrain -> value.
        num_classes: that the file says, None if it says nothing.
        label_map: that the file names, None if it names none.
        train_records: paths, as they are written.
        eval_records: the same of what is evaluated.
        checkpoint: that training starts from; None for random weights.
        changed: what is done in another way, a sentence each.
        lost: what could not be carried over, a sentence each.
        ignored: names of fields that do not change the result.
    """

    file: Path
    values: dict[str, Value] = field(default_factory=dict)
    num_classes: int | None = None
    label_map: str | None = None
    train_records: list[str] = field(default_factory=list)
    eval_records: list[str] = field(default_factory=list)
    checkpoint: str | None = None
    changed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def lose(self, place: Token, what: str) -> None:
        """Note what could not be carried over, by line."""
        self.lost.append(f"line {place.line}: {what}")

    def change(self, place: Token, what: str) -> None:
        """Note what is done in another way, by line."""
        self.changed.append(f"line {place.line}: {what}")

    def expect(self, message: Message, name: str, ours: Value, default: Value) -> None:
        """Note a field whose value, or default, is another than what odtrain always does."""
        read: Callable[[str], Value] = message.word
        if isinstance(ours, bool):
            read = message.truth
        elif isinstance(ours, int | float):
            read = message.number
        found = message.one(name)
        value = default if found is None else read(name)
        if value != ours:
            said = f"{name}: {_shown(value)}" + ("" if found else " (its default)")
            self.lose(found.token if found else message.start, f"{said}; here {_shown(ours)}.")


def read_pipeline(file: Path) -> Imported:
    """Read a pipeline.config.

    Raises:
        DataError: it cannot be read, has a typo (told with line and column), or is of a network that
            odtrain does not build.
    """
    pipeline = parse(file, EXAMPLE)
    found = Imported(file)
    _model(_ssd(pipeline), found)
    _train(pipeline, found)
    _readers(pipeline, found)
    _rewriter(pipeline, found)
    pipeline.message("eval_config")
    _leftovers(pipeline, found)
    return found


def _ssd(pipeline: Message) -> Message:
    model = pipeline.message("model")
    if model is None:
        raise DataError(pipeline.reader.file, "holds no model { }.", EXAMPLE)
    ssd = model.message("ssd")
    if ssd is None:
        other = model.fields[0].token if model.fields else model.start
        remedy = "Start from an SSD: odtrain zoo lists them."
        raise model.reader.fail(other, f"{other.text}: odtrain builds SSDs alone.", remedy)
    return ssd


# ---- the model


def _model(ssd: Message, found: Imported) -> None:
    found.num_classes = ssd.whole("num_classes")
    found.values["model.architecture"] = _architecture(ssd)
    _input_size(ssd, found)
    _extractor(_needed(ssd, "feature_extractor"), found)
    _predictor(_needed(ssd, "box_predictor"), found)
    _anchors(_needed(ssd, "anchor_generator"), found)
    _coding(ssd, found)
    _loss(ssd, found)
    _post_processing(ssd, found)


def _needed(message: Message, name: str) -> Message:
    found = message.message(name)
    if found is None:
        raise message.reader.fail(message.start, f"{message.start.text} has no {name} {{ }}.")
    return found


def _architecture(ssd: Message) -> str:
    extractor = _needed(ssd, "feature_extractor")
    kind = extractor.text("type")
    predictor = _needed(ssd, "box_predictor").message("convolutional_box_predictor")
    split = bool(predictor and predictor.truth("use_depthwise"))
    name = EXTRACTORS.get((kind or "", split))
    if name is None:
        known = sorted({each for each, _ in EXTRACTORS})
        near = difflib.get_close_matches(kind or "", known, n=1)
        wrong = f'no network here is a "{kind}" with {"split" if split else "plain"} predictors.'
        remedy = f"Did you mean {near[0]}? " if near and kind not in known else ""
        where = extractor.one("type")
        place = extractor.start if where is None else where.token
        raise extractor.reader.fail(place, wrong, f"{remedy}Known: {', '.join(known)}.")
    return name


def _input_size(ssd: Message, found: Imported) -> None:
    resizer = _needed(ssd, "image_resizer")
    fixed = resizer.message("fixed_shape_resizer")
    found.values["model.resize"] = "stretch"
    if fixed is not None:
        sides = [fixed.whole("height") or 300, fixed.whole("width") or 300]
    else:
        fixed = _needed(resizer, "keep_aspect_ratio_resizer")
        fixed.whole("min_dimension")
        sides = [fixed.whole("max_dimension") or 1024] * 2
        found.values["model.resize"] = "pad"
        if fixed.truth("pad_to_max_dimension"):
            what = "keep_aspect_ratio_resizer pads with black; here with the mean colour."
            found.change(fixed.start, what)
        else:
            what = f"keep_aspect_ratio_resizer without padding; here padded to {sides[0]} pixels."
            found.lose(fixed.start, what)
    found.expect(fixed, "resize_method", "BILINEAR", "BILINEAR")
    found.expect(fixed, "convert_to_grayscale", False, False)
    found.values["model.input_size"] = sides[0] if sides[0] == sides[1] else sides


def _extractor(extractor: Message, found: Imported) -> None:
    architecture = found.values["model.architecture"]
    depth, narrowest = extractor.number("depth_multiplier"), extractor.whole("min_depth")
    found.values["model.depth_multiplier"] = 1.0 if depth is None else depth
    found.values["model.min_depth"] = 16 if narrowest is None else narrowest
    if architecture in PLAIN_PREDICTORS or architecture == "ssdlite_mobilenet_v2":
        found.values["model.separable_extras"] = bool(extractor.truth("use_depthwise"))
    elif architecture not in WITH_PYRAMID and architecture != "ssd_mobilenet_v1_ppn":
        found.expect(extractor, "use_depthwise", True, False)
    else:
        found.expect(extractor, "use_depthwise", False, False)
    found.expect(extractor, "pad_to_multiple", 1, 1)
    found.expect(extractor, "use_explicit_padding", False, False)
    values = _hyperparameters(extractor, found)
    _base_hyperparameters(extractor, values, found)
    for key in ("l2", "batch_norm_decay", "batch_norm_epsilon"):
        if key in values:
            found.values[f"model.{key}"] = values[key]
    pyramid = extractor.message("fpn")
    if architecture in WITH_PYRAMID:
        depth_of_maps = pyramid.whole("additional_layer_depth") if pyramid else None
        found.values["model.pyramid.depth"] = depth_of_maps or 256
        if pyramid:
            pyramid.whole("min_level"), pyramid.whole("max_level")


def _base_hyperparameters(extractor: Message, values: dict[str, Value], found: Imported) -> None:
    """The base network's own batch norm, which counts where the file does not override it."""
    overridden = extractor.truth("override_base_feature_extractor_hyperparams")
    if "batch_norm_decay" not in values:
        what = "conv_hyperparams without batch_norm; here every layer has one."
        found.lose(extractor.start, what)
    elif (
        not overridden
        and found.values["model.architecture"] in OWN_DECAY
        and values["batch_norm_decay"] != OWN_DECAY[str(found.values["model.architecture"])]
    ):
        what = (
            f"batch_norm of the base network keeps its own decay, not {values['batch_norm_decay']}; "
            "here one for all layers."
        )
        found.lose(extractor.start, what)


def _hyperparameters(parent: Message, found: Imported) -> dict[str, Value]:
    """`l2`, `initializer`, `initializer_stddev`, `batch_norm_decay`, `batch_norm_epsilon` as far as given."""
    params = parent.message("conv_hyperparams")
    if params is None:
        return {}
    found.expect(params, "activation", "RELU_6", "RELU")
    values: dict[str, Value] = {}
    regularizer = params.message("regularizer")
    l2 = regularizer.message("l2_regularizer") if regularizer else None
    if l2 is not None:
        weight = l2.number("weight")
        values["l2"] = 1.0 if weight is None else weight
    values |= _initializer(params, found)
    norm = params.message("batch_norm")
    if norm is not None:
        decay, epsilon = norm.number("decay"), norm.number("epsilon")
        values["batch_norm_decay"] = 0.999 if decay is None else decay
        values["batch_norm_epsilon"] = 0.001 if epsilon is None else epsilon
        found.expect(norm, "scale", True, False)
        found.expect(norm, "center", True, True)
        found.expect(norm, "train", True, True)
    return values


def _initializer(params: Message, found: Imported) -> dict[str, Value]:
    initializer = params.message("initializer")
    if initializer is None:
        return {}
    for name in ("truncated_normal", "random_normal"):
        normal = initializer.message(f"{name}_initializer")
        if normal is not None:
            found.expect(normal, "mean", 0.0, 0.0)
            stddev = normal.number("stddev")
            return {"initializer": name, "initializer_stddev": 1.0 if stddev is None else stddev}
    scaling = initializer.message("variance_scaling_initializer")
    if scaling is None:
        return {}
    found.expect(scaling, "factor", 2.0, 2.0)
    found.expect(scaling, "uniform", False, False)
    found.expect(scaling, "mode", "FAN_IN", "FAN_IN")
    return {"initializer": "he"}


def _predictor(box_predictor: Message, found: Imported) -> None:
    architecture = str(found.values["model.architecture"])
    shared = architecture in WITH_PYRAMID or architecture in SHARED_KERNEL
    kind = ("weight_shared_" if shared else "") + "convolutional_box_predictor"
    predictor = _needed(box_predictor, kind)
    kernel = predictor.whole("kernel_size")
    if shared:
        found.values["model.shared_predictor.depth"] = predictor.whole("depth") or 0
        layers = predictor.whole("num_layers_before_predictor")
        found.values["model.shared_predictor.layers"] = layers or 0
        found.expect(predictor, "kernel_size", SHARED_KERNEL.get(architecture, 3), 3)
        found.expect(predictor, "share_prediction_tower", architecture in SHARED_KERNEL, False)
        found.expect(predictor, "use_depthwise", False, False)
        found.expect(predictor, "use_dropout", False, False)
    else:
        if architecture in PLAIN_PREDICTORS:
            found.values["model.predictor_kernel"] = 1 if kernel is None else kernel
        else:
            found.expect(predictor, "kernel_size", 3, 1)
        for name in ("min_depth", "max_depth", "num_layers_before_predictor"):
            found.expect(predictor, name, 0, 0)
        found.expect(predictor, "use_dropout", False, True)
        found.expect(predictor, "apply_sigmoid_to_scores", False, False)
    found.expect(predictor, "box_code_size", CODE_SIZE, CODE_SIZE)
    found.values["model.class_bias"] = predictor.number("class_prediction_bias_init") or 0.0
    values = _hyperparameters(predictor, found)
    for key in ("initializer", "initializer_stddev"):
        if key in values:
            found.values[f"model.{key}"] = values[key]
    if "l2" in values and values["l2"] != found.values.get("model.l2", values["l2"]):
        what = f"l2_regularizer of the predictor, {values['l2']:g}; here one for all layers."
        found.lose(predictor.start, what)


def _anchors(generator: Message, found: Imported) -> None:
    if found.values["model.architecture"] in WITH_PYRAMID:
        anchors = _needed(generator, "multiscale_anchor_generator")
        for name, ours in (("min_level", 3), ("max_level", 7), ("scales_per_octave", 2)):
            value = anchors.whole(name)
            found.values[f"model.pyramid.{name}"] = ours if value is None else value
        scale = anchors.number("anchor_scale")
        found.values["model.pyramid.anchor_scale"] = 4.0 if scale is None else scale
        found.values["model.pyramid.aspect_ratios"] = _numbers(anchors, "aspect_ratios")
        found.expect(anchors, "normalize_coordinates", True, True)
        return
    anchors = _needed(generator, "ssd_anchor_generator")
    layers = anchors.whole("num_layers")
    found.values["model.anchors.num_layers"] = 6 if layers is None else layers
    for name, default in (("min_scale", 0.2), ("max_scale", 0.95)):
        scale = anchors.number(name)
        found.values[f"model.anchors.{name}"] = default if scale is None else scale
    found.values["model.anchors.aspect_ratios"] = _numbers(anchors, "aspect_ratios")
    reduced = anchors.truth("reduce_boxes_in_lowest_layer")
    found.values["model.anchors.reduce_boxes_in_lowest_layer"] = reduced is not False
    found.expect(anchors, "interpolated_scale_aspect_ratio", 1.0, 1.0)
    for name in ("base_anchor_height", "base_anchor_width"):
        found.expect(anchors, name, 1.0, 1.0)


def _numbers(message: Message, name: str) -> list[float]:
    fields = message.all(name)
    if not fields:
        raise message.reader.fail(message.start, f"{message.start.text} has no {name}.")
    return [message.number_of(each) for each in fields]


def _coding(ssd: Message, found: Imported) -> None:
    """How boxes are written as numbers, and which anchor is given which object."""
    coder = ssd.message("box_coder")
    boxes = coder.message("faster_rcnn_box_coder") if coder else None
    if boxes is not None:
        given = [boxes.number(f"{side}_scale") for side in BOX_SCALES]
        defaults = BOX_SCALES.values()
        scales = [own if each is None else each for each, own in zip(given, defaults, strict=True)]
        found.values["model.box_scales"] = scales
    similarity = ssd.message("similarity_calculator")
    if similarity is not None:
        similarity.message("iou_similarity")
    matcher = ssd.message("matcher")
    argmax = matcher.message("argmax_matcher") if matcher else None
    if argmax is not None:
        matched = argmax.number("matched_threshold")
        found.values["model.matched_iou"] = 0.5 if matched is None else matched
        found.expect(argmax, "unmatched_threshold", found.values["model.matched_iou"], 0.5)
        found.expect(argmax, "ignore_thresholds", False, False)
        found.expect(argmax, "negatives_lower_than_unmatched", True, True)
        found.expect(argmax, "force_match_for_each_row", True, False)
    found.values["model.encode_background_as_zeros"] = bool(ssd.truth("encode_background_as_zeros"))
    frozen = bool(ssd.truth("freeze_batchnorm"))
    found.values["train.batch_norm"] = "frozen" if frozen else "trained"
    found.expect(ssd, "negative_class_weight", 1.0, 1.0)


def _loss(ssd: Message, found: Imported) -> None:
    loss = _needed(ssd, "loss")
    weights = [loss.number(f"{part}_weight") for part in ("localization", "classification")]
    boxes, classes = (1.0 if weight is None else weight for weight in weights)
    if ssd.truth("normalize_loc_loss_by_codesize"):
        boxes /= CODE_SIZE
    found.values["model.localization_weight"] = boxes
    found.expect(ssd, "normalize_loss_by_num_matches", True, True)
    localization = loss.message("localization_loss")
    smooth = localization.message("weighted_smooth_l1") if localization else None
    delta = smooth.number("delta") if smooth else None
    found.values["model.huber_delta"] = 1.0 if delta is None else delta
    if localization is not None and smooth is None and localization.fields:
        place = localization.fields[0]
        found.lose(place.token, f"{place.name}; here the smooth L1 loss.")
        localization.asked.add(place.name)
        _pass_over(place)
    found.values["model.classification_weight"] = classes * _classification(loss, found)


def _classification(loss: Message, found: Imported) -> float:
    """Which anchors count how much; by what the weight of the classes is to be multiplied."""
    kind = _needed(loss, "classification_loss")
    focal = kind.message("weighted_sigmoid_focal")
    sigmoid = kind.message("weighted_sigmoid")
    miner = loss.message("hard_example_miner")
    if focal is None and sigmoid is None:
        place = kind.fields[0].token if kind.fields else kind.start
        found.lose(place, f"{place.text}; here the sigmoid loss.")
        kind.all(place.text)
    if miner is not None and focal is None:
        _miner(miner, found)
        return 1.0
    if miner is not None:
        found.lose(miner.start, "hard_example_miner: with the focal loss all anchors count.")
        loss.all("hard_example_miner")
        for each in miner.fields:
            miner.asked.add(each.name)
    gamma = (focal.number("gamma") if focal else 0.0) or 0.0
    if focal is not None and focal.one("gamma") is None:
        gamma = 2.0
    alpha = focal.number("alpha") if focal else None
    found.values["train.loss"] = "focal"
    found.values["model.focal_gamma"] = gamma
    found.values["model.focal_alpha"] = 0.5 if alpha is None else alpha
    return 2.0 if alpha is None else 1.0  # without alpha both sides count whole, not half


def _miner(miner: Message, found: Imported) -> None:
    found.values["train.loss"] = "hard_mining"
    count = miner.whole("num_hard_examples")
    found.values["model.num_hard_examples"] = 64 if count is None else count or ALL_ANCHORS
    overlap = miner.number("iou_threshold")
    found.values["model.mining_iou"] = 0.7 if overlap is None else overlap
    found.expect(miner, "loss_type", "CLASSIFICATION", "BOTH")
    ratio = miner.number("max_negatives_per_positive") or 0.0
    found.values["model.max_negatives_per_positive"] = ratio or NO_RATIO
    if not ratio:
        what = "max_negatives_per_positive: 0, no limit; here no negatives in pictures without objects."
        found.lose(miner.start, what)
    found.values["model.min_negatives_per_image"] = miner.whole("min_negatives_per_image") or 0


def _post_processing(ssd: Message, found: Imported) -> None:
    post = ssd.message("post_processing")
    if post is None:
        return
    found.expect(post, "score_converter", "SIGMOID", "IDENTITY")
    nms = post.message("batch_non_max_suppression")
    if nms is None:
        return
    overlap, total = nms.number("iou_threshold"), nms.whole("max_total_detections")
    found.values["model.nms_iou"] = 0.6 if overlap is None else overlap
    found.values["model.max_detections"] = 100 if total is None else total
    found.expect(nms, "max_detections_per_class", found.values["model.max_detections"], 100)
    threshold = nms.one("score_threshold")
    if threshold is not None and nms.number_of(threshold) > 1e-8:
        what = (
            f"score_threshold: {nms.number_of(threshold):g}; here files and evaluation keep detections "
            "from 1e-8 on, and predict.threshold is what people see."
        )
        found.change(threshold.token, what)


# ---- training


def _train(pipeline: Message, found: Imported) -> None:
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
    _optimizer(_needed(train, "optimizer"), pipeline, found)
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
    _learning_rate(_needed(message, "learning_rate"), found)
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
                _pass_over(each)
            else:
                carry(each.value, found)


def _pass_over(each: Field) -> None:
    """Nothing inside is told one by one: the field as a whole was."""
    if isinstance(each.value, Message):
        for inner in each.value.fields:
            each.value.asked.add(inner.name)
            _pass_over(inner)


def _flip(option: Message, found: Imported) -> None:
    found.values["augment.flip"] = True
    found.expect(option, "probability", 0.5, 0.5)
    option.all("keypoint_flip_permutation")


def _ssd_crop(option: Message, found: Imported) -> None:
    found.values |= {"augment.crop": True, "augment.crop_area": 0.1}
    if option.fields:
        found.lose(option.start, "operations of ssd_random_crop: here the seven of the original.")
        _pass_over(Field(option.start, option))


def _crop(option: Message, found: Imported) -> None:
    area = option.number("min_area")
    found.values |= {"augment.crop": True, "augment.crop_area": 0.1 if area is None else area}
    what = "random_crop_image: here a crop of the same least area, by the rules of ssd_random_crop."
    found.change(option.start, what)
    _pass_over(Field(option.start, option))


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


# ---- the rest


def _readers(pipeline: Message, found: Imported) -> None:
    training, evaluation = (pipeline.messages(f"{n}_input_reader") for n in ("train", "eval"))
    for readers, records in ((training, found.train_records), (evaluation, found.eval_records)):
        for reader in readers:
            found.label_map = found.label_map or reader.text("label_map_path") or None
            reader.all("label_map_path")
            source = reader.message("tf_record_input_reader")
            if source is not None:
                records += [source.text_of(each) for each in source.all("input_path")]
            found.expect(reader, "sample_1_of_n_examples", 1, 1)


def _rewriter(pipeline: Message, found: Imported) -> None:
    rewriter = pipeline.one("graph_rewriter")
    if rewriter is not None:
        what = (
            "graph_rewriter: training with simulated quantisation; here int8 files are made after "
            "training, with ranges measured on your pictures."
        )
        found.lose(rewriter.token, what)
        _pass_over(rewriter)


def _leftovers(pipeline: Message, found: Imported) -> None:
    """Tell every field that nobody asked for."""
    evaluation = pipeline.message("eval_config")
    if evaluation is not None:
        _pass_over(Field(evaluation.start, evaluation))
    asked = _names(pipeline)
    for each in pipeline.left():
        if each.name in WITHOUT_INFLUENCE:
            found.ignored.append(each.name)
            continue
        near = difflib.get_close_matches(each.name, sorted(asked - {each.name}), n=1, cutoff=0.8)
        hint = f" Did you mean {near[0]}?" if near else ""
        shown = f": {each.value.text}" if isinstance(each.value, Token) else ""
        found.lose(each.token, f"{each.name}{shown} is not known here.{hint}")


def _names(message: Message) -> set[str]:
    """Every name that was asked for, at any depth."""
    inner = [each.value for each in message.fields if isinstance(each.value, Message)]
    return message.asked.union(*(_names(each) for each in inner))


def _shown(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
