"""TensorFlow.js graph models, as their converter writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write_model(
    folder: Path,
    constants: Mapping[str, NDArray[Any]],
    nodes: Sequence[Mapping[str, Any]] = (),
    quantization: Mapping[str, Any] | None = None,
    kind: str = "DT_FLOAT",
) -> Path:
    """model.json and its weights in two files; `kind` is the graph's own of all constants."""
    folder.mkdir(exist_ok=True)
    weights, content = [], b""
    for name, value in constants.items():
        row = {"name": name, "shape": list(value.shape), "dtype": str(value.dtype)}
        if quantization:
            row["quantization"] = quantization
            value = np.rint((value - quantization["min"]) / quantization["scale"]).astype(np.uint8)
        weights.append(row)
        content += value.tobytes()
    (folder / "a.bin").write_bytes(content[:7])
    (folder / "b.bin").write_bytes(content[7:])
    graph = [{"name": n, "op": "Const", "attr": {"dtype": {"type": kind}}} for n in constants]
    model = {
        "modelTopology": {"node": [*graph, *nodes], "versions": {"producer": 561}},
        "weightsManifest": [{"paths": ["a.bin", "b.bin"], "weights": weights}],
    }
    (folder / "model.json").write_text(json.dumps(model))
    return folder / "model.json"
