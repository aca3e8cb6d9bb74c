"""The rungs: ways to bring a float32 network to whole numbers, by ai-edge-quantizer's recipes."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from odtrain.export.int8.graph import Graph
from odtrain.export.int8.ranges import CHOICES, Range, Spread
from odtrain.model_files.operators import shares
from odtrain.model_files.tflite_input import taking_bytes

RUNG, TAKEN = "int8", "int8_"
"""Keys of an int8 file's passport: by which rung it was made, and, with the name of an accelerator behind it,
how many of the network's operators that takes."""
PLAIN = "plain"
"""The converter's own int8, with the ranges of `export.calibration_pictures` pictures."""
MORE_PICTURES = 4
"""Times as many pictures as the plain way is calibrated with, by which every rung is."""
BEST = "best"
"""The choice of ranges by which the file in int8 throughout lost the least."""
LAYERS_IN_FLOAT = 0.15
"""Most operators, as a share of all, that the rung of single layers leaves in float32."""
LOST_CHANNELS = 0.1
"""A tensor with fewer lost channels stays in int8."""


@dataclass(frozen=True)
class Rung:
    """A way.

    Attributes:
        name: as tables and passports have it.
        ranges: a key of `ranges.CHOICES`, or `BEST`.
        bits: between operators; weights have 8.
        in_float: what stays in float32: `heads`, `layers` (those whose channels differ most), both, or nothing.
    """

    name: str
    ranges: str = BEST
    bits: int = 8
    in_float: str = ""


RUNGS = (
    Rung("more pictures", "whole"),
    Rung("without outliers", "most"),
    Rung("least error", "least_error"),
    Rung("heads in float", in_float="heads"),
    Rung("layers in float", in_float="layers"),
    Rung("heads and layers in float", in_float="heads layers"),
    Rung("int16 between layers", "whole", bits=16),
)
"""From the one that runs on most accelerators to the one that runs on fewest."""


@dataclass(frozen=True)
class Network:
    """A network to bring to whole numbers.

    Attributes:
        content: a .tflite in float32, without suppression or with the detection operator.
        spreads: what flows in it.
    """

    content: bytes
    spreads: Mapping[str, Spread]

    def quantized(self, rung: Rung, ranges: str) -> bytes | None:
        """The network by a rung, taking bytes; None where the rung would leave nothing else than others.

        Args:
            rung: one of `RUNGS`.
            ranges: the key of `CHOICES` that `BEST` stands for.
        """
        choose = CHOICES[ranges if rung.ranges == BEST else rung.ranges]
        graph = Graph.read(self.content)
        in_float = set().union(
            *(PARTS[part](graph, self.spreads) for part in rung.in_float.split())
        )
        if any(not PARTS[part](graph, self.spreads) for part in rung.in_float.split()):
            return None
        chosen = {name: choose(spread) for name, spread in self.spreads.items()}
        return taking_bytes(_by_recipe(self.content, chosen, rung.bits, graph.names(in_float)))


def for_accelerators(passport: Mapping[str, str]) -> bool:
    """Whether all of an int8 file's network is in 8 bits; files of before the rungs were."""
    way = passport.get(RUNG, PLAIN)
    return all(rung.bits == 8 and not rung.in_float for rung in RUNGS if rung.name == way)


def taken_of(network: bytes) -> dict[str, str]:
    """What a passport says of which accelerator takes how many operators, as `taken/all`."""
    return {f"{TAKEN}{name}": share for name, share in shares(network).items()}


def _heads(graph: Graph, spreads: Mapping[str, Spread]) -> set[int]:
    """What is computed for boxes alone, or for scores alone."""
    return graph.heads


def _layers(graph: Graph, spreads: Mapping[str, Spread]) -> set[int]:
    """What gives and what reads the tensors of which most channels are lost."""
    lost = {
        place: spreads[node.name].lost_channels()
        for place, node in graph.nodes.items()
        if node.name in spreads
    }
    worst = sorted((p for p in lost if lost[p] >= LOST_CHANNELS), key=lambda p: -lost[p])
    chosen: set[int] = set()
    for place in worst:
        more = chosen | graph.around([place])
        if len(more) > LAYERS_IN_FLOAT * len(graph.nodes):
            break
        chosen = more
    return chosen


PARTS = {"heads": _heads, "layers": _layers}
"""What `Rung.in_float` may name."""


def _by_recipe(
    content: bytes, ranges: Mapping[str, Range], bits: int, in_float: Collection[str]
) -> bytes:
    """int8 weights, `bits` between operators, and the operators that give `in_float` in float32."""
    from ai_edge_quantizer import qtyping, quantizer, recipe_manager

    recipe, operation = recipe_manager.RecipeManager(), qtyping.TFLOperationName
    recipe.add_static_config(".*", operation.ALL_SUPPORTED, bits, 8)
    for end in (operation.INPUT, operation.OUTPUT):
        recipe.add_quantization_config(".*", end, algorithm_key="no_quantize")
    if in_float:  # what an operator gives, each name with a semicolon behind it, is its scope there
        names = "|".join(map(re.escape, sorted(in_float)))
        pattern = f"^(?:{names});?$"
        recipe.add_quantization_config(
            pattern, operation.ALL_SUPPORTED, algorithm_key="no_quantize"
        )
    given = {
        name: {"min": np.array([low]), "max": np.array([high])}
        for name, (low, high) in ranges.items()
    }
    # It draws a bar, and LiteRT says that looking into tensors takes memory.
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = quantizer.Quantizer(content, recipe.get_quantization_recipe())
        return bytes(made.quantize(given, enable_progress_report=False).quantized_model)
