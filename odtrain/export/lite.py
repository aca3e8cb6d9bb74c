"""The four kinds of .tflite: the network in its own number format, suppression in float behind it."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import tensorflow as tf

from odtrain.errors import ConfigError
from odtrain.export.int8.rungs import PLAIN, RUNG, taken_of
from odtrain.export.raw_outputs import ENCODINGS, SCORES
from odtrain.export.suppression import (
    BUILTIN,
    OPERATOR,
    BuiltinSuppression,
    OperatorSuppression,
)
from odtrain.export_formats import INT8
from odtrain.model_files.tflite_join import joined
from odtrain.model_files.tflite_metadata import with_metadata
from odtrain.models.blocks import hard_swish
from odtrain.models.form import Form, traced_for
from odtrain.models.int8.quantized import Quantized
from odtrain.models.layers import LevelBatchNorm
from odtrain.models.ssd import SSD
from odtrain.structures import UInt8Image
from odtrain.system import timing_lock as turns
from odtrain_runtime.native_stderr import STDERR, stderr_into


@contextmanager
def told_only_of_failures() -> Iterator[None]:
    """What TensorFlow prints past Python's `sys.stderr` is shown where an export fails, else dropped."""
    logger = tf.get_logger()  # it names the temporary folder that it writes to
    level = logger.level
    with tempfile.TemporaryFile() as said:
        try:
            logger.setLevel(logging.WARNING)
            with stderr_into(said):
                yield
        except Exception:
            said.seek(0)
            os.write(STDERR, said.read())
            raise
        finally:
            logger.setLevel(level)


Network = Callable[[tf.Tensor], tuple[tf.Tensor, ...]]
"""From (1, H, W, 3) pictures of -1 to 1 to encodings and logits."""


class LiteWriter:
    """Makes files of one network; it is traced once a form, and its suppression converted once for all."""

    def __init__(self, detector: SSD, calibration: Iterable[UInt8Image], nms: str) -> None:
        """`calibration`: clean training pictures of any size, read for an int8 file without trained ranges."""
        self.detector = detector
        self.calibration = calibration
        self.nms = nms
        self._traced: dict[tuple[Form, bool], tuple[tf.Module, Any]] = {}

    def content(
        self,
        name: str,
        class_names: Sequence[str],
        passport: Mapping[str, str],
        form: Form | None = None,
    ) -> bytes:
        """The file of a format, complete; of the network in the format's own form, or in another.

        Raises:
            ConfigError: there are no pictures to calibrate with.
        """
        facts = {RUNG: PLAIN} if name == INT8 else {}
        network = self.network(name, form)
        return self.finished(network, class_names, {**passport, **facts})

    def network(self, name: str, form: Form | None = None) -> bytes:
        """The network in a format, without built-in suppression and without metadata.

        Raises:
            ConfigError: there are no pictures to calibrate with.
        """
        trained = self.detector.trained_int8 if name == INT8 else None
        module, function = self._network(form or LITE_FORMS.get(name, Form.LITE_FLOAT), trained)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
        converter.allow_custom_ops = self.nms in OPERATOR
        # Of a graph alone it makes the same operators as of a SavedModel, which it would write and
        # read back first, for five times the time.
        converter.experimental_lower_to_saved_model = self.nms in OPERATOR
        settings = _take_ranges if trained else LITE_SETTINGS[name]
        settings(converter, self)
        with warnings.catch_warnings():  # of inputs that the calibration has given ranges to
            warnings.filterwarnings("ignore", "Statistics for quantized inputs were expected")
            content: bytes = converter.convert()
        return content

    def finished(
        self, network: bytes, class_names: Sequence[str], passport: Mapping[str, str]
    ) -> bytes:
        """A network as a complete file; one by a rung says in its passport what takes it."""
        if RUNG in passport:
            passport = {**passport, **taken_of(network)}
        if self.nms == BUILTIN:
            network = joined(network, sorted((ENCODINGS, SCORES)), self._suppression)
        return with_metadata(network, class_names, passport)

    def _network(self, form: Form, trained: Quantized | None) -> tuple[tf.Module, Any]:
        """The network as it is, or as it was `trained` for int8."""
        key = (form if self._has_forms else Form.PLAIN, trained is not None)
        if key not in self._traced:
            plain = partial(self.detector.network, training=False)
            module = _Network(self.detector, trained.deployed if trained else plain, self.nms)
            with traced_for(key[0]):
                self._traced[key] = module, module.run.get_concrete_function()
        return self._traced[key]

    @cached_property
    def _has_forms(self) -> bool:
        """Whether the network is not the same in every form."""
        return any(
            isinstance(layer, LevelBatchNorm) or getattr(layer, "activation", None) is hard_swish
            for layer in self.detector.network._flatten_layers()
        )

    @cached_property
    def _suppression(self) -> bytes:
        module = BuiltinSuppression(self.detector)
        function = module.suppress.get_concrete_function()
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
        content: bytes = converter.convert()
        return content


class _Network(tf.Module):  # type: ignore[misc]
    """The network for one normalised picture, up to what goes into suppression or through the operator.

    It holds the variables alone: of a Keras model among its attributes the converter would first save
    every layer as a function of its own, which takes ten times as long as all the rest.
    """

    def __init__(self, detector: SSD, network: Network, nms: str) -> None:
        super().__init__(name="odtrain")
        self.weights = list(detector.variables_by_name().values())
        self.background = detector.background
        self.operator = OperatorSuppression(detector, OPERATOR[nms]) if nms in OPERATOR else None
        signature = [tf.TensorSpec((1, *detector.config.size, 3), tf.float32, "images")]
        self.run = tf.function(
            lambda images: self._after(*network(images)),
            input_signature=signature,
            autograph=False,
        )

    def _after(self, encodings: tf.Tensor, logits: tf.Tensor) -> Any:
        if self.operator is not None:
            return self.operator(encodings, tf.sigmoid(logits))
        return {ENCODINGS: encodings, SCORES: tf.sigmoid(logits[:, :, self.background :])}


def _keep_float(converter: Any, writer: LiteWriter) -> None:
    """Float32 throughout is the converter's default."""


def _halve_weights(converter: Any, writer: LiteWriter) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


def _quantize_weights(converter: Any, writer: LiteWriter) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]


def _quantize_all(converter: Any, writer: LiteWriter) -> None:
    """uint8 pictures in, float32 detections out: as uint8, class ids would be rounded."""
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.float32
    converter.representative_dataset = lambda: _calibration(writer)


def _take_ranges(converter: Any, writer: LiteWriter) -> None:
    """The same of a network that was trained for it: the ranges are in the graph, and no picture is read."""
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.float32


def _calibration(writer: LiteWriter) -> Iterator[list[tf.Tensor]]:
    detector = writer.detector
    for image in calibrating("tflite_int8", writer.calibration):
        yield [detector.normalize(detector.resize(image))[None]]


def calibrating(name: str, pictures: Iterable[UInt8Image]) -> Iterator[UInt8Image]:
    """The pictures that the ranges of a file in whole numbers are measured with.

    Raises:
        ConfigError: there are none.
    """
    empty = True
    for image in turns.giving_way(pictures):
        empty = False
        yield image
    if empty:
        raise ConfigError(
            "export.formats",
            f"{name} is calibrated with training pictures, and there are none.",
            f"Leave {name} out, or give the dataset training pictures.",
        )


LITE_SETTINGS: dict[str, Callable[[Any, LiteWriter], None]] = {
    "tflite_fp32": _keep_float,
    "tflite_fp16": _halve_weights,
    "tflite_dynamic": _quantize_weights,
    "tflite_int8": _quantize_all,
}

LITE_FORMS = {INT8: Form.LITE_INT8}
"""Of the formats that do not compute in float."""
