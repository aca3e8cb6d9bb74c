"""The network of a pipeline.config, as settings `model.*` and what of `train.*` goes with it."""

from __future__ import annotations

import difflib

from odtrain.io.textproto import Message
from odtrain.tf1_import.imported import Imported, Value, needed, pass_over

FPNLITE, MNASFPN = "ssd_mobilenet_v2_fpnlite", "ssd_mobilenet_v2_mnasfpn"
TF2_FPNLITE, TF2_LAST_CHANNELS = "ssd_mobilenet_v2_fpn_keras", 1280
"""TensorFlow 2's type of FPNLite, and the width in which it has left the backbone's last convolution."""

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
    ("ssd_mobilenet_edgetpu", True): "ssdlite_mobilenet_edgetpu",
    ("ssd_mobiledet_cpu", True): "ssdlite_mobiledet_cpu",
    ("ssd_mobiledet_dsp", True): "ssdlite_mobiledet_dsp",
    ("ssd_mobiledet_edgetpu", True): "ssdlite_mobiledet_edgetpu",
    ("ssd_mobiledet_gpu", True): "ssdlite_mobiledet_gpu",
    ("ssd_mobilenet_v2_fpn", True): FPNLITE,
    (TF2_FPNLITE, True): FPNLITE,
    ("ssd_mobilenet_v2_mnasfpn", True): MNASFPN,
}
"""(type of the feature extractor, whether the predictors are split) -> architecture."""
PLAIN_PREDICTORS = ("ssd_mobilenet_v1", "ssd_mobilenet_v2", "ssd_inception_v2")
"""Architectures whose predictors' kernels can be of any size."""
SPLIT_PYRAMID = (FPNLITE, MNASFPN)
WITH_PYRAMID = ("ssd_mobilenet_v1_fpn", "ssd_resnet50_v1_fpn", *SPLIT_PYRAMID)
SHARED_KERNEL = {"ssd_mobilenet_v1_ppn": 1}
"""Sides of the convolutions before a shared predictor; 3 where it is not said."""
ONE_TOWER = (*SHARED_KERNEL, *SPLIT_PYRAMID)
"""Architectures whose boxes and classes share the layers before the predictor."""

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


def read_model(ssd: Message, found: Imported) -> None:
    """Carry over what a network is, and how it is trained on its boxes."""
    found.num_classes = ssd.whole("num_classes")
    found.values["model.architecture"] = _architecture(ssd)
    _input_size(ssd, found)
    _extractor(needed(ssd, "feature_extractor"), found)
    _predictor(needed(ssd, "box_predictor"), found)
    _anchors(needed(ssd, "anchor_generator"), found)
    _coding(ssd, found)
    _loss(ssd, found)
    _post_processing(ssd, found)


def _architecture(ssd: Message) -> str:
    extractor = needed(ssd, "feature_extractor")
    kind = extractor.text("type")
    predictors = needed(ssd, "box_predictor")
    shared = (kind or "", True) in EXTRACTORS and "fpn" in (kind or "")
    predictor = predictors.message(
        f"{'weight_shared_' if shared else ''}convolutional_box_predictor"
    )
    split = bool(predictor and predictor.truth("use_depthwise"))
    name = EXTRACTORS.get((kind or "", split))
    if name is None:
        known = sorted({each for each, _ in EXTRACTORS})
        near = difflib.get_close_matches((kind or "").removesuffix("_keras"), known, n=1)
        wrong = f'no network here is a "{kind}" with {"split" if split else "plain"} predictors.'
        remedy = f"Did you mean {near[0]}? " if near and kind not in known else ""
        where = extractor.one("type")
        place = extractor.start if where is None else where.token
        raise extractor.reader.fail(place, wrong, f"{remedy}Known: {', '.join(known)}.")
    return name


def _input_size(ssd: Message, found: Imported) -> None:
    resizer = needed(ssd, "image_resizer")
    fixed = resizer.message("fixed_shape_resizer")
    found.values["model.resize"] = "stretch"
    if fixed is not None:
        sides = [fixed.whole("height") or 300, fixed.whole("width") or 300]
    else:
        fixed = needed(resizer, "keep_aspect_ratio_resizer")
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
    elif architecture == FPNLITE or architecture not in (*WITH_PYRAMID, "ssd_mobilenet_v1_ppn"):
        found.expect(extractor, "use_depthwise", True, False)
    else:
        found.expect(extractor, "use_depthwise", False, False)
    found.expect(extractor, "pad_to_multiple", 1, 1)
    found.expect(extractor, "use_explicit_padding", False, False)
    values = _hyperparameters(extractor, found)
    if architecture == FPNLITE:
        of_tf2 = extractor.text("type") == TF2_FPNLITE
        found.values["model.last_channels"] = TF2_LAST_CHANNELS if of_tf2 else None
    if architecture == MNASFPN:  # its extractor has its own
        extractor.truth("override_base_feature_extractor_hyperparams")
    else:
        _base_hyperparameters(extractor, values, found)
        _take_hyperparameters(values, found)
    pyramid = extractor.message("fpn")
    if architecture in WITH_PYRAMID:
        depth_of_maps = pyramid.whole("additional_layer_depth") if pyramid else None
        found.values["model.pyramid.depth"] = depth_of_maps or (
            48 if architecture == MNASFPN else 256
        )
        if pyramid:
            pyramid.whole("min_level"), pyramid.whole("max_level")


def _take_hyperparameters(values: dict[str, Value], found: Imported) -> None:
    for key in ("l2", "batch_norm_decay", "batch_norm_epsilon"):
        if key in values:
            found.values[f"model.{key}"] = values[key]


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
    predictor = needed(box_predictor, kind)
    kernel = predictor.whole("kernel_size")
    if shared:
        found.values["model.shared_predictor.depth"] = predictor.whole("depth") or 0
        layers = predictor.whole("num_layers_before_predictor")
        found.values["model.shared_predictor.layers"] = layers or 0
        found.expect(predictor, "kernel_size", SHARED_KERNEL.get(architecture, 3), 3)
        found.expect(predictor, "share_prediction_tower", architecture in ONE_TOWER, False)
        found.expect(predictor, "use_depthwise", architecture in SPLIT_PYRAMID, False)
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
    if architecture == MNASFPN:
        _take_hyperparameters(values, found)
    if "l2" in values and values["l2"] != found.values.get("model.l2", values["l2"]):
        what = f"l2_regularizer of the predictor, {values['l2']:g}; here one for all layers."
        found.lose(predictor.start, what)


def _anchors(generator: Message, found: Imported) -> None:
    if found.values["model.architecture"] in WITH_PYRAMID:
        anchors = needed(generator, "multiscale_anchor_generator")
        for name, ours in (("min_level", 3), ("max_level", 7), ("scales_per_octave", 2)):
            value = anchors.whole(name)
            found.values[f"model.pyramid.{name}"] = ours if value is None else value
        scale = anchors.number("anchor_scale")
        found.values["model.pyramid.anchor_scale"] = 4.0 if scale is None else scale
        found.values["model.pyramid.aspect_ratios"] = _numbers(anchors, "aspect_ratios")
        found.expect(anchors, "normalize_coordinates", True, True)
        return
    anchors = needed(generator, "ssd_anchor_generator")
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
    loss = needed(ssd, "loss")
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
        pass_over(place)
    found.values["model.classification_weight"] = classes * _classification(loss, found)


def _classification(loss: Message, found: Imported) -> float:
    """Which anchors count how much; by what the weight of the classes is to be multiplied."""
    kind = needed(loss, "classification_loss")
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
