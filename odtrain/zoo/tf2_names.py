"""What the TensorFlow 2 Object Detection API calls the variables of SSD MobileNet v2 FPNLite.

Its checkpoints name objects, and keep with each variable the name of the Keras layer that holds it; those names
are what is compared here. The convolutions' can be read in graphs that it exported, those of batch norm in
its code (`keras_models/mobilenet_v2.py`, `feature_map_generators.py`, `convolutional_keras_box_predictor.py`).
"""

from __future__ import annotations

import re

KERNELS = {
    "weights": "kernel",
    "depthwise_weights": "depthwise_kernel",
    "pointwise_weights": "pointwise_kernel",
    "biases": "bias",
}
"""Keras' names of what slim calls so; batch norm's are the same in both."""

LAYERS = [
    (r"FeatureExtractor/MobilenetV2/Conv", "Conv1", "bn_Conv1"),
    (r"FeatureExtractor/MobilenetV2/Conv_1", "Conv_1", "Conv_1_bn"),
    (
        r"FeatureExtractor/MobilenetV2/expanded_conv/(\w+)",
        r"expanded_conv_\1",
        r"expanded_conv_\1_BN",
    ),
    (
        r"FeatureExtractor/MobilenetV2/expanded_conv_(\d+)/(\w+)",
        r"block_\1_\2",
        r"block_\1_\2_BN",
    ),
    (r"FeatureExtractor/MobilenetV2/fpn/(projection_\d+)", r"\1", None),
    (
        r"FeatureExtractor/MobilenetV2/fpn/((?:smoothing|bottom_up_Conv2d)_\d+)",
        r"\1_depthwise_conv",
        r"\1_batchnorm",
    ),
    (
        r"WeightSharedConvolutionalBoxPredictor/(PredictionTower/conv2d_\d+)",
        r"\1",
        r"\1/BatchNorm",
    ),
    (r"WeightSharedConvolutionalBoxPredictor/((?:Box|Class)Predictor)", r"\1", None),
]
"""Pattern of slim's layer, then Keras' layer and its batch norm; None for none."""


def tf2_name(name: str) -> str | None:
    """Keras' layer and weight, such as `block_1_expand_BN/gamma`, of slim's name; None for other networks."""
    layer, normalised, weight = name.partition("/BatchNorm/")
    if not normalised:
        layer, _, weight = name.rpartition("/")
    for pattern, plain, batch_norm in LAYERS:
        keras = batch_norm if normalised else plain
        if keras is not None and (match := re.fullmatch(pattern, layer)):
            return f"{match.expand(keras)}/{KERNELS.get(weight, weight)}"
    return None
