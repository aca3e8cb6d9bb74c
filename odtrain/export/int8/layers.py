"""What each layer of an int8 file gives, beside the same layer of the float32 file, in the same pictures.

TensorFlow's own QuantizationDebugger looks into a model that it quantises for itself, with operators to
compare by in it; here the files themselves are run, whatever made them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odtrain.export.int8.graph import Graph, readable
from odtrain.structures import FloatArray, UInt8Image
from odtrain_runtime.model_files import load_detector

SUFFIX = "_quantized"
"""What ai-edge-quantizer writes behind the name of a tensor that it adds."""
LOST_DB = 10.0
"""A channel with less signal-to-noise than this is lost: its error is a third of what it says."""
EMPTY = 1e-6
"""A layer whose largest number is below this says nothing: a head without objects, at the end of a training."""
Float64Array = NDArray[np.float64]


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        name: as the converter named what it gives.
        snr_db: 10 log10 of signal (mean square in float32) by noise (mean square of the difference).
        cosine: of the angle between both, 1 where they point the same way.
        lost_channels: share of the channels with numbers in them whose own signal-to-noise is below `LOST_DB`.
        low: the smallest number that the file's range holds; NaN where the layer is in float32.
        high: the largest.
        used_low: the smallest that occurred in float32.
        used_high: the largest.
        saturated: share of the float32 numbers beyond the range, cut off in the file.
    """

    name: str
    snr_db: float
    cosine: float
    lost_channels: float
    low: float
    high: float
    used_low: float
    used_high: float
    saturated: float


@dataclass
class _Sums:
    """Of one layer, over pictures; the first four by channel."""

    signal: Float64Array | float = 0.0
    noise: Float64Array | float = 0.0
    product: Float64Array | float = 0.0
    other: Float64Array | float = 0.0
    seen: int = 0
    beyond: int = 0
    low: float = np.inf
    high: float = -np.inf

    def add(self, exact: FloatArray, found: FloatArray, limits: tuple[float, float]) -> None:
        channels = exact.shape[-1] if exact.ndim else 1
        a, b = (each.reshape(-1, channels).astype(np.float64) for each in (exact, found))
        self.signal = self.signal + (a * a).sum(axis=0)
        self.noise = self.noise + ((a - b) ** 2).sum(axis=0)
        self.product = self.product + (a * b).sum(axis=0)
        self.other = self.other + (b * b).sum(axis=0)
        self.seen += a.size
        self.beyond += int((a < limits[0]).sum() + (a > limits[1]).sum())
        self.low, self.high = min(self.low, float(a.min())), max(self.high, float(a.max()))


def compare_layers(exact: Path, file: Path, pictures: Iterable[UInt8Image]) -> list[Layer]:
    """Every layer that both files have under the same name, the one with the least signal-to-noise first.

    Args:
        exact: a float32 .tflite of the network.
        file: the int8 .tflite of the same.
        pictures: of any size.
    """
    sides = [_Opened(exact), _Opened(file)]
    names = [name for name in sides[0].places if name in sides[1].places]
    sums: dict[str, _Sums] = {name: _Sums() for name in names}
    limits = {name: sides[1].limits(name) for name in names}
    for picture in pictures:
        for side in sides:
            side.run(picture)
        for name in names:
            ranged, step = limits[name]
            bounds = (ranged[0] - step / 2, ranged[1] + step / 2)
            sums[name].add(sides[0].value(name), sides[1].value(name), bounds)
    told = (name for name in names if max(-sums[name].low, sums[name].high) > EMPTY)
    found = [_layer(name, sums[name], limits[name][0]) for name in told]
    return sorted(found, key=lambda layer: layer.snr_db)


def _layer(name: str, sums: _Sums, limits: tuple[float, float]) -> Layer:
    signal, noise = np.atleast_1d(sums.signal), np.atleast_1d(sums.noise)
    there = signal > signal.max() * 1e-12
    lost = noise[there] * 10 ** (LOST_DB / 10) > signal[there]
    length = np.sqrt(signal.sum() * np.sum(sums.other))
    finite = np.isfinite(limits[0])
    return Layer(
        name,
        _decibels(signal.sum(), noise.sum()),
        float(np.sum(sums.product) / length) if length > 0 else 1.0,
        float(lost.mean()) if there.any() else 0.0,
        limits[0] if finite else np.nan,
        limits[1] if finite else np.nan,
        sums.low,
        sums.high,
        sums.beyond / sums.seen,
    )


def _decibels(signal: float, noise: float) -> float:
    """Of two powers; 0 where there is no signal, and infinite where there is no noise."""
    if not noise > 0:
        return np.inf
    return float(10 * np.log10(signal / noise)) if signal > 0 else 0.0


@dataclass
class _Opened:
    """A file whose layers can be read after each run."""

    file: Path
    places: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        content = self.file.read_bytes()
        self.prepare = load_detector(self.file).prepare
        self.interpreter = readable(content)
        (image,) = self.interpreter.get_input_details()
        self.image: int = image["index"]
        self.details: Mapping[int, Any] = {
            each["index"]: each for each in self.interpreter.get_tensor_details()
        }
        self.places = dict(_named(Graph.read(content)))

    def run(self, picture: UInt8Image) -> None:
        self.interpreter.set_tensor(self.image, self.prepare(picture))
        self.interpreter.invoke()

    def value(self, name: str) -> FloatArray:
        """What a layer gave, as real numbers."""
        place = self.places[name]
        given = self.interpreter.get_tensor(place)
        scale, zero = self.details[place]["quantization"]
        real: FloatArray = (given.astype(np.float32) - zero) * scale if scale else given
        return real

    def limits(self, name: str) -> tuple[tuple[float, float], float]:
        """The ends of a layer's range, and the step between its levels; infinite and 0 in float32."""
        each = self.details[self.places[name]]
        scale, zero = each["quantization"]
        if not scale:
            return (-np.inf, np.inf), 0.0
        bounds = np.iinfo(each["dtype"])
        return (float(bounds.min - zero) * scale, float(bounds.max - zero) * scale), float(scale)


def _named(graph: Graph) -> Iterator[tuple[str, int]]:
    for place, node in graph.nodes.items():
        yield node.name.removesuffix(SUFFIX), place
