"""Which pictures show one scene: copies, near duplicates, frames of a video, shots of a burst.

Such pictures must not be drawn into different splits: what is then measured is how well the network
remembers. Names alone are no evidence, since everybody numbers pictures: neighbours in a sequence count
as one scene only where they look alike too.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from odtrain.labels.annotations import normalised
from odtrain.media.images import Picture
from odtrain.media.phash import BITS, near_groups
from odtrain.structures import FloatArray
from odtrain_runtime.seen.looks import HASH_SIDE

FRAMES = 50
"""Two neighbours in a numbered sequence are one scene if at most so many bits differ, ..."""
RUN = 72
"""... and three or more if each differs from the next in at most so many. Both after the view was moved by
the up to three cells (19 % of its width) and two rows that fit best. So 80 photographs of raccoons each
differ in at most 72 bits from their own view moved by 2, 4, 5, 8 or 10 % (by 3 % in 97 of 100, by 15 % in
96); the least between 199 different neighbours is 87, and 54 among 798 panels drawn to one pattern."""
MOVES = tuple((down, right) for down in range(-2, 3) for right in range(-3, 4))
BURST_SECONDS = 2
BURST = 80
"""Pictures of one camera within `BURST_SECONDS` are one scene if at most so many bits differ."""
TELLING = 64
"""A hash with fewer bits of either kind is that of a plain surface, and tells nothing."""
NUMBERED = re.compile(r"^(.*?)(\d+)(\D*)$")
EXIF_TIME = "%Y:%m:%d %H:%M:%S"

Group = tuple[Path, ...]
"""Two or more pictures, in the order of their names."""


class Scenes(NamedTuple):
    """Groups of pictures, each list ordered by its groups' first members.

    Attributes:
        same: equal pixel by pixel.
        near: hanging together by near likeness; equal ones too.
        whole: hanging together by any evidence: equal, near, or neighbours in a sequence or in time.
    """

    same: tuple[Group, ...]
    near: tuple[Group, ...]
    whole: tuple[Group, ...]


def find_scenes(pictures: Mapping[Path, Picture]) -> Scenes:
    """The scenes among `pictures`; neither their order nor their folders matter."""
    order = sorted(pictures, key=lambda file: (natural_order(file), pictures[file].pixels))
    telling = [file for file in order if _tells(pictures[file].likeness)]
    same = _by_pixels(order, pictures)
    in_sequence = [*_frames(telling, pictures), *_bursts(telling, pictures)]
    equal = _joined(order, same)
    alike = near_groups([pictures[file].likeness for file in telling])
    near = [[telling[position] for position in group] for group in alike]
    return Scenes(
        equal,
        _joined(order, [*same, *near]),
        _joined(order, [*same, *near, *in_sequence]),
    )


def natural_order(file: Path) -> tuple[str, int, str]:
    """The key that sorts img2 before img10: stem up to its last number, the number, the rest."""
    numbered = NUMBERED.match(normalised(file.stem))
    rest = file.suffix.lower()
    if numbered is None:
        return normalised(file.stem), -1, rest
    return numbered[1], int(numbered[2]), f"{numbered[3]}{rest}"


def _tells(likeness: str) -> bool:
    ones = int(likeness, 16).bit_count()
    return min(ones, BITS - ones) >= TELLING


def _by_pixels(order: Sequence[Path], pictures: Mapping[Path, Picture]) -> list[list[Path]]:
    groups: dict[str, list[Path]] = defaultdict(list)
    for file in order:
        groups[pictures[file].pixels].append(file)
    return [group for group in groups.values() if len(group) > 1]


def _frames(order: Sequence[Path], pictures: Mapping[Path, Picture]) -> Iterator[list[Path]]:
    """Neighbours in a numbered sequence that look alike."""
    sequences: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for file in order:
        stem, number, rest = natural_order(file)
        if number >= 0:
            sequences[stem, rest].append(file)
    for sequence in sequences.values():
        bits = _neighbour_bits(sequence, pictures)
        close, run = bits <= FRAMES, bits <= RUN
        beside = np.append(run[1:], False) | np.append(False, run[:-1])
        pairs = zip(pairwise(sequence), close | (run & beside), strict=True)
        yield from ([*pair] for pair, alike in pairs if alike)


def _bursts(order: Sequence[Path], pictures: Mapping[Path, Picture]) -> Iterator[list[Path]]:
    """Pictures that one camera took at nearly the same time and that are not clearly different."""
    cameras: dict[str, list[tuple[datetime, Path]]] = defaultdict(list)
    for file in order:
        camera, moment = pictures[file].taken or ("", "")
        try:
            cameras[camera].append((datetime.strptime(moment, EXIF_TIME), file))
        except ValueError:
            continue
    for taken in cameras.values():
        taken.sort(key=lambda pair: pair[0])
        bits = _neighbour_bits([file for _, file in taken], pictures)
        for ((earlier, first), (later, second)), n in zip(pairwise(taken), bits, strict=True):
            if (later - earlier).total_seconds() <= BURST_SECONDS and n <= BURST:
                yield [first, second]


def _neighbour_bits(files: Sequence[Path], pictures: Mapping[Path, Picture]) -> FloatArray:
    """(N - 1,) in how many bits each likeness differs from the next, moved to where it fits best."""
    packed = np.frombuffer(
        bytes.fromhex("".join(pictures[file].likeness for file in files)), np.uint8
    )
    bits = np.unpackbits(packed).reshape(-1, HASH_SIDE, HASH_SIDE)
    least = np.full(len(files[1:]), BITS, np.float32)
    for down, right in MOVES:
        one, other = bits[:-1][_window(down, right)], bits[1:][_window(-down, -right)]
        differ = np.mean(one ^ other, axis=(1, 2), dtype=np.float32) * BITS
        least = np.minimum(least, differ)
    return least


def _window(down: int, right: int) -> tuple[slice, slice, slice]:
    """What of each (N, rows, columns) grid another one covers that lies `down` and `right` of it."""
    rows = slice(max(0, down), HASH_SIDE + min(0, down))
    return slice(None), rows, slice(max(0, right), HASH_SIDE + min(0, right))


def _joined(order: Sequence[Path], groups: Iterable[Sequence[Path]]) -> tuple[Group, ...]:
    """Groups that share a picture made one, in the order of the pictures."""
    parent = {file: file for file in order}

    def root(file: Path) -> Path:
        while parent[file] != file:
            parent[file] = file = parent[parent[file]]
        return file

    for first, *others in groups:
        for other in others:
            parent[root(other)] = root(first)
    members: dict[Path, list[Path]] = defaultdict(list)
    for file in order:
        members[root(file)].append(file)
    return tuple(tuple(group) for group in members.values() if len(group) > 1)
