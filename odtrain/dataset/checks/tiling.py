"""What became of the training pictures that were cut into tiles."""

from __future__ import annotations

from collections.abc import Iterator

from odtrain.config.schema import CutConfig
from odtrain.dataset.tiles import Cut
from odtrain.findings import Finding


def tile_findings(config: CutConfig, cut: Cut) -> Iterator[Finding]:
    """OD124, OD125 and OD235."""
    where = f"data.tiles.size={config.size}"
    if not cut.parted:
        cause = "no training picture is larger than such a tile: none was cut."
        return (yield Finding.of("OD124", where, cause))
    tiles, least = sum(piece.window is not None for piece in cut.pieces), config.min_visible
    empty, kept = cut.empty
    cause = (
        f"{cut.parted} training pictures were cut into {tiles} tiles; {kept} of {empty} tiles without an "
        f"object were kept, and {cut.left_out} pieces of boxes of which a tile shows less than {least:g} "
        "were left out."
    )
    yield Finding.of("OD235", where, cause)
    for image, item in cut.lost:
        cause = f"no tile shows {least:g} of it or more: it is not trained on."
        file = image.label_file or image.image
        yield Finding.of("OD125", file, cause, image.describe(item), picture=image.image)
