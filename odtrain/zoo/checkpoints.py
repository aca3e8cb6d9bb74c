"""Checkpoints as tables of variables, their kinds, and what network they are of.

TF1's name variables. Those of TensorFlow 2, Model Garden's and ours, name the objects that hold them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from odtrain.config.schema import ModelConfig
from odtrain.errors import CheckpointError, first_line
from odtrain.zoo.tf2_names import tf2_name

Shape = tuple[int, ...]

AVERAGE = "/ExponentialMovingAverage"
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
OBJECT_DETECTION = "model/_feature_extractor/"
"""How keys of backbones begin in checkpoints of the TensorFlow 2 Object Detection API."""

RANGES = "fake-quantisation ranges"
"""What training with simulated 8-bit arithmetic leaves beside the weights."""

CHECKPOINT_KINDS: list[tuple[str, str]] = [
    (r"(^|/)global_step(/\.ATTRIBUTES/.*)?$", "step counter"),
    (AVERAGE + "$", "moving averages"),
    (
        r"(act_quant|weights_quant|quant)[^/]*/.*(min|max|biased|local_step)",
        RANGES,
    ),
    (r"/(RMSProp|Momentum|Adam|Adagrad)(_\d+)?$|(^|/)beta[12]_power$", "optimizer slots"),
    (r"^(optimizer|averages|progress|step|save_counter)\b|" + OBJECT_GRAPH, "training state"),
]
"""Variables that only training or quantising needs, by a pattern of their names."""

RETINANET = "a RetinaNet of Model Garden"

NETWORKS: list[tuple[str, tuple[str, ...]]] = [
    ("ssd_mobilenet_v1_fpn", ("MobilenetV1/fpn/",)),
    ("ssd_mobilenet_v1_ppn", ("MobilenetV1/", "WeightSharedConvolutionalBoxPredictor/")),
    ("ssd_mobilenet_v1", ("MobilenetV1/",)),
    ("ssd_mobilenet_v2_fpnlite", ("MobilenetV2/fpn/", "/PredictionTower/")),
    ("ssd_mobilenet_v2_mnasfpn", ("MnasFPN/",)),
    ("ssdlite_mobilenet_v2", ("MobilenetV2/", "BoxEncodingPredictor_depthwise/")),
    ("ssd_mobilenet_v2", ("MobilenetV2/",)),
    ("ssdlite_mobilenet_v3", ("MobilenetV3/",)),
    ("ssdlite_mobilenet_edgetpu", ("MobilenetEdgeTPU/",)),
    ("ssdlite_mobiledet_cpu", ("MobileDetCPU/",)),
    ("ssdlite_mobiledet_dsp", ("MobileDetDSP/",)),
    ("ssdlite_mobiledet_edgetpu", ("MobileDetEdgeTPU/",)),
    ("ssdlite_mobiledet_gpu", ("MobileDetGPU/",)),
    ("efficientdet_lite", ("efficientnet-lite", "fpn_cells/", "class_net/")),
    ("an EfficientDet of automl", ("fpn_cells/", "class_net/")),
    ("a Faster R-CNN", ("FirstStageFeatureExtractor/",)),
    ("ssd_inception_v2", ("InceptionV2/",)),
    ("ssd_resnet50_v1_fpn", ("resnet_v1_50/", "/fpn/")),
    ("a ResNet", ("resnet_v",)),
    (RETINANET, ("head/_classifier/",)),
    ("another network of the TensorFlow 2 Object Detection API", (OBJECT_DETECTION,)),
    ("a TensorFlow 2 checkpoint of another program", ("/.ATTRIBUTES/",)),
]
"""Networks by parts of variable names that must all occur; the first that fits counts."""

DEPTH_LAYERS = {
    "MobilenetV1/Conv2d_13_pointwise/weights": 1024,
    "MobilenetV2/expanded_conv_16/project/weights": 320,
    "MobilenetV1/Conv2d_0/weights": 32,
    "InceptionV2/Mixed_5c/Branch_0/Conv2d_0a_1x1/weights": 352,
}
"""Layers whose number of channels gives the depth multiplier away, and that number at depth 1."""

OWN_KEY = re.compile(r"network/(?!.*\.OPTIMIZER_SLOT)")
"""Keys of the network itself in a checkpoint that odtrain wrote."""


@dataclass
class Checkpoint:
    """The variables of one checkpoint.

    Attributes:
        where: what the user calls it.
        shapes: of all its variables, by key.
        aliases: keys by the variables' own names, where those differ (object-based checkpoints).
        layers: keys by Keras' layer and weight, in checkpoints of the TensorFlow 2 Object Detection API.
        places: keys by the identity of the network's variables that have the same place among the
            checkpoint's objects.
        averages: whether moving averages are taken before the variables themselves.
        keys: key of each variable of the network that `shape_of` found.
    """

    where: Path
    reader: Any
    shapes: dict[str, Shape]
    aliases: dict[str, str]
    layers: dict[str, str] = field(default_factory=dict)
    places: dict[int, str] = field(default_factory=dict)
    averages: bool = False
    keys: dict[str, str] = field(default_factory=dict)

    def shape_of(self, name: str, variable: Any) -> Shape | None:
        """The shape kept for the network's variable with the checkpoint name `name`, or None.

        Looked for as such, without the detector's scope (slim's classification checkpoints), under
        the variable's own name, at its place among the objects, under the name that the TensorFlow 2
        Object Detection API has for it, and last, or first with `averages`, as a moving average of each.
        """
        own = (
            self.aliases.get(variable.name.split(":")[0]),
            self.places.get(id(variable)),
            self.layers.get(tf2_name(name) or ""),
        )
        names = [name, name.removeprefix("FeatureExtractor/"), *filter(None, own)]
        averaged = [plain + AVERAGE for plain in names]
        for key in [*averaged, *names] if self.averages else [*names, *averaged]:
            if key in self.shapes:
                self.keys[name] = key
                return self.shapes[key]
        return None

    def value(self, name: str) -> NDArray[np.float32]:
        """The values for a variable that `shape_of` found.

        Raises:
            CheckpointError: they cannot be read, or are not all finite.
        """
        try:
            values: NDArray[np.float32] = self.reader.get_tensor(self.keys[name])
        except Exception as error:  # TensorFlow raises bare RuntimeErrors and its own here
            raise broken(self.where, error) from error
        if not np.isfinite(values).all():
            raise CheckpointError(
                self.where,
                f"{self.keys[name]} is not finite: the training that wrote it had diverged.",
                "Take an earlier checkpoint, or the published weights again.",
            )
        return values

    def unused(self) -> dict[str, int]:
        """Numbers of variables that `shape_of` never found, by kind, most first."""
        left = set(self.shapes) - set(self.keys.values())
        return dict(Counter(map(kind_of, sorted(left))).most_common())


def read_checkpoint(
    prefix: Path,
    where: Path,
    objects: Mapping[str, Any] | None = None,
    averages: bool = False,
) -> Checkpoint:
    """The checkpoint of that prefix; values are read when they are asked for.

    Args:
        prefix: its files.
        where: what the user calls it, for messages.
        objects: parts of a network, by the names that object-based checkpoints give them.
        averages: whether moving averages are taken before the variables themselves.

    Raises:
        CheckpointError: its files are truncated or not a checkpoint's.
    """
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes = {k: tuple(v) for k, v in reader.get_variable_to_shape_map().items()}
        if objects and OBJECT_GRAPH in shapes:
            places = _places(prefix, reader, objects)
            return Checkpoint(where, reader, shapes, {}, places=places, averages=averages)
        names = _names(reader) if OBJECT_GRAPH in shapes else {}
        aliases = {name: key for key, name in names.items() if OWN_KEY.match(key)}
        return Checkpoint(where, reader, shapes, aliases, _layers(names), averages=averages)
    except Exception as error:  # TensorFlow raises bare RuntimeErrors and its own here
        raise broken(where, error) from error


def _places(prefix: Path, reader: Any, objects: Mapping[str, Any]) -> dict[int, str]:
    """Keys of the variables in `objects` that an object-based checkpoint has at the same place."""
    graph = TrackableObjectGraph.FromString(reader.get_tensor(OBJECT_GRAPH))
    matched = tf.train.CheckpointView(str(prefix)).match(tf.train.Checkpoint(**objects))
    return {
        id(variable): graph.nodes[node].attributes[0].checkpoint_key
        for node, variable in matched.items()
        if isinstance(variable, tf.Variable) and graph.nodes[node].attributes
    }


def _names(reader: Any) -> dict[str, str]:
    """The names of the variables in an object-based checkpoint, by key."""
    graph = TrackableObjectGraph.FromString(reader.get_tensor(OBJECT_GRAPH))
    attributes = [attribute for node in graph.nodes for attribute in node.attributes]
    return {each.checkpoint_key: each.full_name for each in attributes}


def _layers(names: Mapping[str, str]) -> dict[str, str]:
    """Keys by every ending of the names of the TensorFlow 2 Object Detection API; scopes before it differ."""
    found: dict[str, str] = {}
    if not any(key.startswith(OBJECT_DETECTION) for key in names):
        return found
    for key, name in names.items():
        if key.startswith("model/") and ".OPTIMIZER_SLOT" not in key:
            parts = name.split("/")
            found |= {"/".join(parts[i:]): key for i in range(len(parts))}
    return found


def broken(where: Path, error: Exception) -> CheckpointError:
    """What to say about files that TensorFlow cannot read."""
    return CheckpointError(
        where,
        f"cannot be read: {first_line(error)}.",
        "Its files are truncated or not a checkpoint's. Unpack or download them again.",
    )


def kind_of(name: str) -> str:
    """What a variable that the network has no use for was for."""
    return next(
        (kind for pattern, kind in CHECKPOINT_KINDS if re.search(pattern, name)), "other variables"
    )


def describe_checkpoint(shapes: Mapping[str, Shape], config: ModelConfig) -> tuple[str, str]:
    """What network a checkpoint seems to be of, and what to do with it under `config`."""
    network = network_named(shapes)
    if network is None:
        return (
            "no network known here",
            "Give the published weights of this model: train.checkpoint=zoo.",
        )
    depth = depth_of(shapes)
    if network == config.architecture and depth not in (None, config.depth_multiplier):
        remedy = f"Set model.depth_multiplier={depth:g}, or give another train.checkpoint."
        return f"{network} of depth {depth:g}", remedy
    looks = network if depth is None else f"{network} of depth {depth:g}"
    return looks, "Choose the model that it is of (model=NAME), or give another train.checkpoint."


def network_named(shapes: Mapping[str, Shape]) -> str | None:
    """The name in `NETWORKS` that the variables' names fit; None where none does."""
    names = "\n".join(shapes)
    return next((name for name, parts in NETWORKS if all(part in names for part in parts)), None)


def depth_of(shapes: Mapping[str, Shape]) -> float | None:
    """The depth multiplier that a checkpoint was trained with, from the width of one layer."""
    for ending, width in DEPTH_LAYERS.items():
        for key, shape in shapes.items():
            if key.endswith(ending):
                return shape[-1] / width
    return None
