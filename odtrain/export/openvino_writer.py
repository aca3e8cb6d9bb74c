"""A network as an OpenVINO model, made of its ONNX: in float32, or in whole numbers by NNCF.

What the .onnx says of itself OpenVINO keeps in the .xml (`rt_info/framework`).
"""

from __future__ import annotations

import io
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odtrain.export.lite import calibrating
from odtrain.export.onnx_writer import RAW, not_here, onnx_content, reading_of
from odtrain.models.ssd import SSD
from odtrain.structures import UInt8Image
from odtrain_runtime.others.openvino_file import nobody_told
from odtrain_runtime.others.raw_model import PictureInput, tensor_of
from odtrain_runtime.others.reading import Reading

FILE = "model.xml"
INT8 = "openvino_int8"
NEAR_A_SIXTH = 0.01


def write_openvino(
    detector: SSD,
    name: str,
    class_names: Sequence[str],
    passport: Mapping[str, str],
    calibration: Iterable[UInt8Image],
    folder: Path,
) -> None:
    """Write a network to a folder, as `model.xml` and `model.bin`.

    Args:
        detector: in float32.
        name: of the format.
        class_names: index 0 = class id 1.
        passport: the texts that say where the model comes from.
        calibration: pictures of any size, with which the ranges of whole numbers are measured.
        folder: replaced.

    Raises:
        ConfigError: OpenVINO or NNCF is not there, or there are no pictures.
    """
    openvino = _imported(name, "OpenVINO", "openvino")
    if name == INT8:
        nncf, shown = _imported(name, "NNCF", "nncf"), _prepared(detector, calibration)
    content = onnx_content(detector, name, class_names, passport)
    model = openvino.Core().read_model(content)
    keep_sixths(model)
    if name == INT8:
        model = _quantized(nncf, model, shown)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    openvino.save_model(model, folder / FILE, compress_to_fp16=False)


def keep_sixths(model: Any) -> None:
    """Keep MobileNet v3's hard sigmoid, relu6(x + 3) times 0.16667, from being computed with a sixth.

    OpenVINO takes it for its own where the factor is about a sixth, and scores are 4e-4 off. Multiplied before
    it is cut off at 0 and at six times the factor it is the same to the last bit, and another form.
    """
    from openvino import opset13

    for node in model.get_ordered_ops():
        factor, cut = _constant_and_other(node, "Multiply")
        if factor is None or not 0 < abs(factor - np.float32(1 / 6)) < NEAR_A_SIXTH:
            continue
        six, high = _constant_and_other(cut.get_node(), "Minimum")
        zero, low = _constant_and_other(high.get_node(), "Maximum") if high else (None, None)
        if (six, zero) != (6, 0):
            continue
        within = opset13.maximum(opset13.multiply(low, factor), zero * factor)
        result = opset13.minimum(within, six * factor).output(0)
        for target in node.output(0).get_target_inputs():
            target.replace_source_output(result)


def _constant_and_other(node: Any, kind: str) -> tuple[Any, Any]:
    """The one number that an operation of a kind has as a constant, and its other input; None for none."""
    if node.get_type_name() != kind:
        return None, None
    for mine, other in ((0, 1), (1, 0)):
        constant = node.input_value(mine).get_node()
        if constant.get_type_name() == "Constant" and constant.data.size == 1:
            return np.float32(constant.data.reshape(())), node.input_value(other)
    return None, None


def _imported(name: str, program: str, package: str) -> Any:
    try:
        with nobody_told():
            return import_module(package)
    except ImportError:
        raise not_here(f"{name} is written by {program}", "openvino") from None


def _prepared(detector: SSD, calibration: Iterable[UInt8Image]) -> list[NDArray[Any]]:
    """The pictures as the file takes them."""
    size = detector.config.size
    how = Reading(**{**reading_of(detector, INT8), "size": size})
    takes = PictureInput(False, size, np.dtype(np.uint8))
    return [tensor_of(each, how, takes) for each in calibrating(INT8, calibration)]


def _quantized(nncf: Any, model: Any, tensors: list[NDArray[Any]]) -> Any:
    """The model with its network in whole numbers of 8 bits; what makes detections stays in float32.

    Weights lie around zero, activations need not: as in `tflite_int8`.
    """
    nncf.set_log_level(logging.ERROR)
    network = _network(model)
    behind = [each.get_friendly_name() for each in model.get_ops() if each not in network]
    with redirect_stdout(io.StringIO()):  # bars of its own
        return nncf.quantize(
            model,
            nncf.Dataset(tensors),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(tensors),
            ignored_scope=nncf.IgnoredScope(names=behind, validate=False),
        )


def _network(model: Any) -> set[Any]:
    """What computes encodings and logits; these are outputs no longer."""
    results = [each for each in model.get_results() if _names(each) & set(RAW)]
    left = [result.input_value(0).get_node() for result in results]
    for result in results:
        model.remove_result(result)
    found: set[Any] = set()
    while left:
        node = left.pop()
        if node not in found:
            found.add(node)
            left += [each.get_node() for each in node.input_values()]
    return found


def _names(result: Any) -> set[str]:
    names: set[str] = result.input_value(0).get_names()
    return names
