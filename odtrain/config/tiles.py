"""Which tiles the settings mean: those that training cuts, and those that are looked at afterwards."""

from __future__ import annotations

from typing import Any

from odtrain.config.schema import STORED, Config, CutConfig, DataConfig, TilesConfig
from odtrain_runtime.tiles import Tiles


def training_tiles(data: DataConfig) -> Tiles | None:
    """What `data.tiles` cuts the training pictures into; None where they stay whole."""
    return _tiles(data.tiles)


def tiles_in_use(asked: TilesConfig, stored: Tiles | None) -> Tiles | None:
    """What a picture is looked at by; None where it is looked at as a whole alone.

    Args:
        asked: `predict.tiles` or `evaluate.tiles`.
        stored: what the model was trained, or judged, with.
    """
    return stored if asked.size == STORED else _tiles(asked)


def judging_tiles(config: Config) -> Tiles | None:
    """What a training's pictures are looked at by when it is validated, tested and exported."""
    return tiles_in_use(config.evaluate.tiles, training_tiles(config.data))


def _tiles(asked: TilesConfig | CutConfig) -> Tiles | None:
    size: Any = asked.size
    if size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    return Tiles(int(height), int(width), asked.overlap, asked.whole)
