"""Train the golden network as TensorFlow 1.15 did, in a process of its own, and save what came out.

The goldens' train-mode numbers depend on how batch norm rounds its sums: the pictures have 16 grey
levels, so adding up 45,000 equal float32 numbers one after the other, as TensorFlow 1.15 does, is
off always in the same direction, and the network's random weights magnify that to 0.006 in its
outputs and 3 % in its gradients. TensorFlow 2 sums in blocks. So here batch norm alone is replaced
by one that sums row after row, and oneDNN is off (the caller sets TF_ENABLE_ONEDNN_OPTS=0), with
the two threads that the goldens were made with.

    python tests/support/golden_training.py GOLDEN_FOLDER OUTPUT.npz
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import tensorflow as tf
import tf_keras

from odtrain.config.compose import section
from odtrain.config.schema import AnchorConfig, ModelConfig, PyramidConfig, SharedPredictorConfig
from odtrain.models import resnet_v1
from odtrain.models.build import build_detector
from odtrain.models.ssd import SSD
from odtrain.training.losses import detection_loss
from odtrain.training.optimizers import TF1RMSprop
from odtrain.training.target_assigner import assign

LITE = {
    "input_size": 320,
    "encode_background_as_zeros": True,
    "batch_norm_decay": 0.97,
    "localization_weight": 0.25,  # the reference divides by the four codes instead
    "focal_alpha": 0.75,
}
PYRAMID = {
    "input_size": 320,
    "min_depth": 16,
    "encode_background_as_zeros": True,
    "batch_norm_decay": 0.997,
    "localization_weight": 0.25,
    "shared_predictor": section(SharedPredictorConfig, depth=32),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "ssd_mobilenet_v1": {},
    "ssd_mobilenet_v2": {"min_negatives_per_image": 3},
    "ssdlite_mobilenet_v2": {"min_negatives_per_image": 3},
    "ssdlite_mobilenet_v3_large": LITE,
    "ssdlite_mobilenet_v3_small": LITE,
    "ssdlite_mobilenet_edgetpu": LITE,
    "ssdlite_mobiledet_cpu": LITE,
    "ssdlite_mobiledet_dsp": LITE,
    "ssdlite_mobiledet_edgetpu": LITE,
    "ssdlite_mobiledet_gpu": LITE,
    "ssd_mobilenet_v1_fpn": {**PYRAMID, "pyramid": section(PyramidConfig, depth=32)},
    "ssd_resnet50_v1_fpn": {**PYRAMID, "l2": 0.0004, "pyramid": section(PyramidConfig, depth=64)},
    "ssd_mobilenet_v2_fpnlite": {
        **PYRAMID,
        "input_size": 256,
        "min_depth": 8,
        "class_bias": -4.6,
        "pyramid": section(PyramidConfig, depth=32),
    },
    "ssd_mobilenet_v2_mnasfpn": {
        **PYRAMID,
        "min_depth": 8,
        "class_bias": -4.6,
        "pyramid": section(
            PyramidConfig, max_level=6, depth=24, anchor_scale=3.0, scales_per_octave=3
        ),
    },
    "ssd_mobilenet_v1_ppn": {
        "min_depth": 16,
        "encode_background_as_zeros": True,
        "batch_norm_decay": 0.97,
        "localization_weight": 0.375,
        "focal_alpha": 0.75,
        "anchors": section(AnchorConfig, min_scale=0.15, reduce_boxes_in_lowest_layer=False),
        "shared_predictor": section(SharedPredictorConfig, depth=64, layers=1),
    },
    "ssd_inception_v2": {},
}
"""What each golden's pipeline.config asks for beyond `ModelConfig`'s own values."""


def golden_config(name: str) -> ModelConfig:
    """The network of a golden, whose name is that of its architecture."""
    common = {"input_size": 300, "depth_multiplier": 0.25, "min_depth": 8}
    return section(ModelConfig, **{"name": name, "architecture": name, **common, **OPTIONS[name]})


def loss_kind(golden: Any) -> str:
    return "hard_mining" if "infer/hem_selected_0" in golden.files else "focal"


def network_input(golden: Any) -> np.ndarray:
    """(2, H, W, 3) float32 from -1 to 1; ResNet's golden holds 0-255 less the mean colour."""
    preprocessed = golden["preprocessed"]
    if preprocessed.min() >= -1:
        return preprocessed
    return (preprocessed + np.array(resnet_v1.MEAN_COLOUR, np.float32)) / np.float32(127.5) - 1


def row_after_row(x: np.ndarray) -> np.ndarray:
    """(C,) float32 sums over all but the last axis, added in order."""
    return np.add.reduce(x.reshape(-1, x.shape[-1]), axis=0)


def normalise(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, epsilon: np.float32
) -> list[np.ndarray]:
    share = np.float32(x.shape[-1] / x.size)
    mean = row_after_row(x) * share
    centred = x - mean
    variance = row_after_row(centred * centred) * share
    scale = 1 / np.sqrt(variance + epsilon) * gamma
    return [centred * scale + beta, mean, variance]


def normalise_backwards(
    error: np.ndarray,
    x: np.ndarray,
    gamma: np.ndarray,
    epsilon: np.float32,
    mean: np.ndarray,
    variance: np.ndarray,
) -> list[np.ndarray]:
    n = np.float32(x.size // x.shape[-1])
    centred, scale = x - mean, 1 / np.sqrt(variance + epsilon)
    offset, product = row_after_row(error), row_after_row(error * centred)
    slope = centred * (product / n / (variance + epsilon))
    return [gamma * scale * (error - offset / n - slope), product * scale, offset]


@tf.custom_gradient
def batch_norm(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: tf.Tensor) -> Any:
    y, mean, variance = tf.numpy_function(normalise, [x, gamma, beta, epsilon], [tf.float32] * 3)

    def gradient(error: tf.Tensor, *_: tf.Tensor) -> list[tf.Tensor]:
        inputs = [error, x, gamma, epsilon, mean, variance]
        found = tf.numpy_function(normalise_backwards, inputs, [tf.float32] * 3)
        shaped = zip(found, (x, gamma, beta), strict=True)
        return [*(tf.ensure_shape(a, b.shape) for a, b in shaped), tf.zeros_like(epsilon)]

    return (
        tf.ensure_shape(y, x.shape),
        tf.ensure_shape(mean, gamma.shape),
        tf.ensure_shape(variance, gamma.shape),
    ), gradient


class RowAfterRowBatchNorm(tf_keras.layers.BatchNormalization):
    """Batch norm in training, summing as TensorFlow 1.15 does."""

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        y, mean, variance = batch_norm(x, self.gamma, self.beta, tf.constant(self.epsilon))
        n = tf.cast(tf.size(x) // x.shape[-1], tf.float32)
        share = 1 - self.momentum
        self.moving_mean.assign_sub((self.moving_mean - mean) * share)
        self.moving_variance.assign_sub((self.moving_variance - variance * n / (n - 1)) * share)
        return y


def padded_truth(golden: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(2, 6, 4) boxes, (2, 6) classes and (2,) counts; the padding is junk that must not matter."""
    boxes, classes = np.full((2, 6, 4), 0.5, np.float32), np.full((2, 6), 2, np.int64)
    counts = []
    for image in range(2):
        truth = golden[f"groundtruth_boxes_{image}"]
        boxes[image, : len(truth)] = truth
        classes[image, : len(truth)] = golden[f"groundtruth_classes_{image}"]
        counts.append(len(truth))
    return boxes, classes, np.array(counts)


def restore(detector: SSD, checkpoint: Path) -> None:
    reader = tf.train.load_checkpoint(str(checkpoint))
    for name, variable in detector.variables_by_name().items():
        variable.assign(reader.get_tensor(name))


def train(golden_folder: Path, detector: SSD) -> dict[str, np.ndarray]:
    golden, config = np.load(golden_folder / "golden.npz"), detector.config
    restore(detector, golden_folder / "model.ckpt")
    optimizer = TF1RMSprop(0.004, rho=0.9, momentum=0.9, epsilon=1.0)
    optimizer.build(detector.trainable_variables)
    names = {id(variable): name for name, variable in detector.variables_by_name().items()}
    targets = assign(detector.anchors, *padded_truth(golden), 3, config)

    @tf.function
    def step() -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            encodings, logits = detector.network(network_input(golden), training=True)
            boxes = detector.decode(encodings)
            kind = loss_kind(golden)
            losses = detection_loss(targets, encodings, logits, boxes, config, kind)
            total = losses.localization + losses.classification + detector.regularization()
        gradients = tape.gradient(
            total, detector.trainable_variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        optimizer.apply_gradients(zip(gradients, detector.trainable_variables, strict=True))
        norms = {
            f"gradient/{names[id(v)]}": tf.norm(g)
            for g, v in zip(gradients, detector.trainable_variables, strict=True)
        }
        return {
            "encodings": encodings,
            "logits": logits,
            **losses._asdict(),
            **norms,
            "total": total,
        }

    first = {name: value.numpy() for name, value in step().items()}
    weights = {f"after/{n}": v.numpy() for n, v in detector.variables_by_name().items()}
    has_five = (golden_folder / "optimizer_trajectory.npz").is_file()
    later = [float(step()["total"]) for _ in range(5 if has_five else 0)]
    return first | weights | {"totals": np.array([first["total"], *later])}


if __name__ == "__main__":
    tf.config.threading.set_intra_op_parallelism_threads(2)
    with (
        mock.patch("tf_keras.layers.BatchNormalization", RowAfterRowBatchNorm),
        mock.patch("odtrain.models.layers.LevelBatchNorm", RowAfterRowBatchNorm),
    ):
        network = build_detector(golden_config(Path(sys.argv[1]).name), 3)
    np.savez(sys.argv[2], **train(Path(sys.argv[1]), network))
