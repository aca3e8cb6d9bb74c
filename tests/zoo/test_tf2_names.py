"""Checkpoints of the TensorFlow 2 Object Detection API, written from Keras layers that it names so."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from odtrain.config.compose import section
from odtrain.config.schema import ModelConfig, PyramidConfig, SharedPredictorConfig
from odtrain.models.build import build_detector
from odtrain.zoo import restore as zoo
from odtrain.zoo.tf2_names import tf2_name

FEATURES, PREDICTOR = "FeatureExtractor/MobilenetV2", "WeightSharedConvolutionalBoxPredictor"
DEPTH, CLASSES, ANCHORS = 16, 2, 6


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f"{FEATURES}/Conv/weights", "Conv1/kernel"),
        (f"{FEATURES}/Conv/BatchNorm/beta", "bn_Conv1/beta"),
        (
            f"{FEATURES}/expanded_conv/depthwise/depthwise_weights",
            "expanded_conv_depthwise/depthwise_kernel",
        ),
        (f"{FEATURES}/expanded_conv_1/expand/BatchNorm/gamma", "block_1_expand_BN/gamma"),
        (f"{FEATURES}/Conv_1/BatchNorm/moving_mean", "Conv_1_bn/moving_mean"),
        (f"{FEATURES}/fpn/projection_3/biases", "projection_3/bias"),
        (
            f"{FEATURES}/fpn/smoothing_2/pointwise_weights",
            "smoothing_2_depthwise_conv/pointwise_kernel",
        ),
        (
            f"{FEATURES}/fpn/bottom_up_Conv2d_20/BatchNorm/moving_variance",
            "bottom_up_Conv2d_20_batchnorm/moving_variance",
        ),
        (
            f"{PREDICTOR}/PredictionTower/conv2d_0/depthwise_weights",
            "PredictionTower/conv2d_0/depthwise_kernel",
        ),
        (
            f"{PREDICTOR}/PredictionTower/conv2d_3/BatchNorm/feature_4/gamma",
            "PredictionTower/conv2d_3/BatchNorm/feature_4/gamma",
        ),
        (f"{PREDICTOR}/ClassPredictor/biases", "ClassPredictor/bias"),
        ("BoxPredictor_0/ClassPredictor/biases", None),
        ("FeatureExtractor/MobilenetV1/Conv2d_0/weights", None),
    ],
)
def test_names_of_variables(name, expected):
    assert tf2_name(name) == expected


def config(**changes) -> ModelConfig:
    options = {
        "input_size": 64,
        "depth_multiplier": 0.35,
        "min_depth": 8,
        "last_channels": 3657,  # 1280 after the depth multiplier: Keras leaves it there
        "pyramid": section(PyramidConfig, depth=46),
        "shared_predictor": section(SharedPredictorConfig, depth=DEPTH, layers=2),
    }
    return section(
        ModelConfig, name="mine", architecture="ssd_mobilenet_v2_fpnlite", **{**options, **changes}
    )


def built(layer: tf_keras.layers.Layer, channels: int) -> tf_keras.layers.Layer:
    layer(tf.zeros((1, 4, 4, channels)))  # so that its variables have its name
    return layer


def split(name: str, filters: int, channels: int, bias: bool = False) -> tf_keras.layers.Layer:
    return built(tf_keras.layers.SeparableConv2D(filters, 3, use_bias=bias, name=name), channels)


def batch_norm(name: str, channels: int) -> tf_keras.layers.Layer:
    return built(tf_keras.layers.BatchNormalization(name=name), channels)


class Extractor(tf.Module):
    """The attributes of `ssd_mobilenet_v2_fpn_keras`."""

    def __init__(self) -> None:
        super().__init__()
        self.classification_backbone = tf_keras.applications.MobileNetV2(
            (64, 64, 3), alpha=0.35, include_top=False, weights=None
        )
        widths = {1: 16, 2: 32, 3: 1280}
        self._fpn_features_generator = tf.Module()
        self._fpn_features_generator.top_layers = [
            built(tf_keras.layers.Conv2D(DEPTH, 1, name=f"projection_{i}"), width)
            for i, width in widths.items()
        ]
        self._fpn_features_generator.conv_layers = [
            [
                split(f"smoothing_{i}_depthwise_conv", DEPTH, DEPTH),
                batch_norm(f"smoothing_{i}_batchnorm", DEPTH),
            ]
            for i in (1, 2)
        ]
        names = [f"bottom_up_Conv2d_{i}" for i in (20, 21)]
        self._coarse_feature_layers = [
            [split(f"{name}_depthwise_conv", DEPTH, DEPTH), batch_norm(f"{name}_batchnorm", DEPTH)]
            for name in names
        ]


class Predictor(tf.Module):
    """The attributes of the predictor that all maps share; `model/_box_predictor`."""

    def __init__(self) -> None:
        super().__init__()
        names = [f"PredictionTower/conv2d_{i}" for i in range(2)]
        convolutions = [split(name, DEPTH, DEPTH) for name in names]
        self._base_tower_layers_for_heads = {
            "box_encodings": [
                [
                    [convolution, batch_norm(f"{name}/BatchNorm/feature_{level}", DEPTH)]
                    for name, convolution in zip(names, convolutions, strict=True)
                ]
                for level in range(5)
            ]
        }
        self._box_prediction_head = tf.Module()
        self._box_prediction_head._box_encoder_layers = [
            split("BoxPredictor", ANCHORS * 4, DEPTH, bias=True)
        ]
        self._class_head = tf.Module()
        self._class_head.layers = [
            split("ClassPredictor", ANCHORS * (CLASSES + 1), DEPTH, bias=True)
        ]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A tarball's folder as the TensorFlow 2 zoo lays it out, and its network."""
    model = tf.Module()
    model._feature_extractor, model._box_predictor = Extractor(), Predictor()
    random = np.random.default_rng(0)
    variables = tf.train.Checkpoint(model=model)
    for variable in model.variables:
        variable.assign(random.normal(size=variable.shape))
    folder = tmp_path_factory.mktemp("fpnlite") / "checkpoint"
    tf.train.CheckpointManager(variables, str(folder), max_to_keep=1).save(checkpoint_number=0)
    return model, folder


def test_every_variable_of_fpnlite_is_restored(published):
    model, folder = published
    detector = build_detector(config(), CLASSES)
    report = zoo.restore(detector, folder)
    assert report.count("restored") == len(report.rows) == len(model.variables)
    assert report.unused == {"training state": 2}
    ours = sorted(float(tf.norm(v)) for v in detector.variables_by_name().values())
    np.testing.assert_allclose(ours, sorted(float(tf.norm(v)) for v in model.variables))


def test_other_classes_begin_anew(published):
    report = zoo.restore(build_detector(config(), 5), published[1])
    rows = [row for row in report.rows if row.status != "restored"]
    assert {(row.name, row.reason) for row in rows} == {
        (f"{PREDICTOR}/ClassPredictor/pointwise_weights", "2 classes in the checkpoint, 5 here"),
        (f"{PREDICTOR}/ClassPredictor/biases", "2 classes in the checkpoint, 5 here"),
    }
