"""Label files that hypothesis writes, valid, then broken in one place: what may come of them.

    PYTHONPATH=tests python -m support.generated_labels --examples 20000

gives each format its share of the examples and prints what failed. No file may give a traceback, take more
than five seconds, have a file opened that is none of the data set, or give a box that is not in it.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import json
import re
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.fuzz_readers import try_input

from odtrain.io.tfrecord import BYTES, FLOATS, INTS, encode_example, frame
from odtrain.labels.formats.reading import Corners, decode
from odtrain.labels.formats.recognise import Sources, read_labels

SIZE = (120, 80)
NAMES = ("cat", "dog", "판 넬", "a b", "R&D <1>", 'say "hi"', "x,y")
CLOSE = 1e-4
"""Relative, by which a side may differ from what the numbers of the file give: float32, and sums."""
ROUNDED = 2.0**-50
"""Relative, of sides whose difference is taken: beside 1e20 a width of 1 is lost."""
NUMBERS = [
    re.compile(rf"[-+]?(?:\d+{point}?\d*|{point}\d+)(?:[eE][-+]?\d+)?") for point in (r"\.", ",")
]


class Item(NamedTuple):
    """An object: its class, and its box in pixels of `SIZE`."""

    name: str
    box: Corners


ITEMS = st.lists(
    st.builds(
        lambda name, x, y, w, h: Item(name, (x, y, min(x + w, SIZE[0]), min(y + h, SIZE[1]))),
        st.sampled_from(NAMES),
        st.integers(0, SIZE[0] - 1),
        st.integers(0, SIZE[1] - 1),
        st.integers(1, 60),
        st.integers(1, 60),
    ),
    max_size=4,
)
PICTURES = st.lists(ITEMS, min_size=1, max_size=3)

# ---- valid files, of the pictures p1.jpg, p2.jpg, ...


def voc(pictures: Sequence[Sequence[Item]]) -> bytes:
    """Of the first picture."""
    objects = "".join(
        f"<object><name>{escape(item.name)}</name><difficult>0</difficult><bndbox>"
        + "".join(
            f"<{side}>{value}</{side}>"
            for side, value in zip(("xmin", "ymin", "xmax", "ymax"), item.box, strict=True)
        )
        + "</bndbox></object>"
        for item in pictures[0]
    )
    size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>"
    return f"<annotation><filename>p1.jpg</filename>{size}{objects}</annotation>".encode()


def cvat(pictures: Sequence[Sequence[Item]]) -> bytes:
    """Of pictures, and of a video of as many frames."""

    def box(item: Item, more: str = "") -> str:
        sides = zip(("xtl", "ytl", "xbr", "ybr"), item.box, strict=True)
        return " ".join([f"<box {more}", *(f'{side}="{value}"' for side, value in sides)])

    quoted = {name: escape(name, {'"': "&quot;"}) for name in NAMES}
    images = "".join(
        f'<image id="{i}" name="p{i}.jpg" width="{SIZE[0]}" height="{SIZE[1]}">'
        + "".join(box(item, f'label="{quoted[item.name]}"') + "/>" for item in items)
        + "</image>"
        for i, items in enumerate(pictures, start=1)
    )
    tracks = ""
    for i, items in enumerate(pictures):
        for item in items:
            shape = box(item, f'frame="{i}" outside="0"')
            tracks += f'<track id="{i}" label="{quoted[item.name]}">{shape}/></track>'
    return f"<annotations><version>1.1</version>{images}{tracks}</annotations>".encode()


def yolo(pictures: Sequence[Sequence[Item]]) -> bytes:
    """Of the first picture, whose classes are those of the list beside it: 0, 1, 2."""
    lines = []
    for item in pictures[0]:
        xmin, ymin, xmax, ymax = item.box
        centre = (xmin + xmax) / 2 / SIZE[0], (ymin + ymax) / 2 / SIZE[1]
        sides = (xmax - xmin) / SIZE[0], (ymax - ymin) / SIZE[1]
        numbers = " ".join(f"{value:.6f}" for value in (*centre, *sides))
        lines.append(f"{NAMES.index(item.name) % 2} {numbers}\n")
    return "".join(lines).encode()


def csv_table(pictures: Sequence[Sequence[Item]]) -> bytes:
    """The tutorial's."""
    rows = [
        f'p{i}.jpg,{SIZE[0]},{SIZE[1]},"{item.name.replace(chr(34), chr(34) * 2)}",'
        f"{','.join(map(str, item.box))}\n"
        for i, items in enumerate(pictures, start=1)
        for item in items
    ]
    return "".join(["filename,width,height,class,xmin,ymin,xmax,ymax\n", *rows]).encode()


def coco(pictures: Sequence[Sequence[Item]]) -> bytes:
    """All of them, boxes and outlines."""
    annotations = [
        {
            "id": 100 * i + j,
            "image_id": i,
            "category_id": NAMES.index(item.name),
            "bbox": [*item.box[:2], item.box[2] - item.box[0], item.box[3] - item.box[1]],
            "iscrowd": 0,
        }
        for i, items in enumerate(pictures, start=1)
        for j, item in enumerate(items, start=1)
    ]
    images = [
        {"id": i, "file_name": f"p{i}.jpg", "width": SIZE[0], "height": SIZE[1]}
        for i in range(1, len(pictures) + 1)
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(NAMES)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    return json.dumps(document, ensure_ascii=False).encode()


def createml(pictures: Sequence[Sequence[Item]]) -> bytes:
    """All of them, by centre and size."""
    document = [
        {
            "image": f"p{i}.jpg",
            "annotations": [
                {
                    "label": item.name,
                    "coordinates": {
                        "x": (item.box[0] + item.box[2]) / 2,
                        "y": (item.box[1] + item.box[3]) / 2,
                        "width": item.box[2] - item.box[0],
                        "height": item.box[3] - item.box[1],
                    },
                }
                for item in items
            ],
        }
        for i, items in enumerate(pictures, start=1)
    ]
    return json.dumps(document).encode()


def labelme(pictures: Sequence[Sequence[Item]]) -> bytes:
    """Of the first picture."""
    shapes = [
        {"label": item.name, "points": [item.box[:2], item.box[2:]], "shape_type": "rectangle"}
        for item in pictures[0]
    ]
    sizes = {"imageWidth": SIZE[0], "imageHeight": SIZE[1]}
    return json.dumps({"shapes": shapes, "imagePath": "p1.jpg", **sizes}).encode()


def label_studio(pictures: Sequence[Sequence[Item]]) -> bytes:
    """The full export."""
    tasks = [
        {
            "id": i,
            "data": {"image": f"/data/upload/p{i}.jpg"},
            "annotations": [
                {
                    "result": [
                        {
                            "type": "rectanglelabels",
                            "original_width": SIZE[0],
                            "original_height": SIZE[1],
                            "value": {
                                "x": 100 * item.box[0] / SIZE[0],
                                "y": 100 * item.box[1] / SIZE[1],
                                "width": 100 * (item.box[2] - item.box[0]) / SIZE[0],
                                "height": 100 * (item.box[3] - item.box[1]) / SIZE[1],
                                "rectanglelabels": [item.name],
                            },
                        }
                        for item in items
                    ]
                }
            ],
        }
        for i, items in enumerate(pictures, start=1)
    ]
    return json.dumps(tasks).encode()


def records(pictures: Sequence[Sequence[Item]]) -> list[bytes]:
    """The payload of each record."""
    payloads = []
    for i, items in enumerate(pictures, start=1):
        sides = {
            f"image/object/bbox/{side}": (FLOATS, [item.box[k] / SIZE[k % 2] for item in items])
            for k, side in enumerate(("xmin", "ymin", "xmax", "ymax"))
        }
        texts = [item.name.encode() for item in items]
        features = {
            "image/encoded": (BYTES, [b"\xff\xd8\xff" + bytes([i])]),
            "image/filename": (BYTES, [f"p{i}.jpg".encode()]),
            "image/width": (INTS, [SIZE[0]]),
            "image/height": (INTS, [SIZE[1]]),
            "image/object/class/text": (BYTES, texts),
            **sides,
        }
        payloads.append(encode_example(features))
    return payloads


# ---- which boxes a file has


class Numbers:
    """The numbers that stand in a file, for looking sides up."""

    def __init__(self, values: Sequence[float]) -> None:
        """Any order; what is no number is passed over."""
        self.values = sorted(value for value in values if value == value)

    def __contains__(self, wanted: object) -> bool:
        """Whether one of them is nearly `wanted`."""
        assert isinstance(wanted, float | int)
        return self.holds(wanted)

    def holds(self, wanted: float, among: float = 0.0) -> bool:
        """Whether one of them is nearly `wanted`, a difference of sides as large as `among`."""
        slack = max(CLOSE * max(1.0, abs(wanted)), ROUNDED * among)
        at = bisect.bisect_left(self.values, wanted - slack)
        return at < len(self.values) and self.values[at] <= wanted + slack


def in_text(data: bytes) -> Numbers:
    """Every number that can be read anywhere in a text, with point or comma."""
    text = decode(data)[0]
    starts = [i for i, sign in enumerate(text) if sign.isdecimal() or sign in "+-.,"]
    found = [pattern.match(text, start) for start in starts for pattern in NUMBERS]
    return Numbers([float(match[0].replace(",", ".")) for match in found if match])


def in_records(data: bytes) -> Numbers:
    """Every four bytes as a float."""
    return Numbers([struct.unpack_from("<f", data, i)[0] for i in range(len(data) - 3)])


def as_corners(box: Corners, known: Numbers) -> bool:
    """All sides are numbers of the file."""
    return all(side in known for side in box)


def as_size(box: Corners, known: Numbers) -> bool:
    """Corner and size are."""
    sides = box[2] - box[0], box[3] - box[1]
    return as_corners(box, known) or _all_hold((*box[:2], *sides), box, known)


def as_centre(box: Corners, known: Numbers) -> bool:
    """Centre and size are, or all sides: an outline's."""
    centre = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    sides = box[2] - box[0], box[3] - box[1]
    return as_corners(box, known) or _all_hold((*centre, *sides), box, known)


def _all_hold(values: Sequence[float], box: Corners, known: Numbers) -> bool:
    return all(known.holds(value, max(map(abs, box))) for value in values)


def as_percent(box: Corners, known: Numbers) -> bool:
    """Corner and size are, in percent; turned boxes are not generated, but a mutation may turn one."""
    xmin, ymin, xmax, ymax = (100 * side for side in box)
    return as_size((xmin, ymin, xmax, ymax), known)


class Format(NamedTuple):
    """How files of a format are written, and how its boxes are found in them."""

    suffix: str
    write: Callable[[Sequence[Sequence[Item]]], bytes | list[bytes]]
    holds: Callable[[Corners, Numbers], bool]


FORMATS = {
    "voc": Format(".xml", voc, as_corners),
    "cvat": Format(".xml", cvat, as_corners),
    "yolo": Format(".txt", yolo, as_centre),
    "csv": Format(".csv", csv_table, as_corners),
    "coco": Format(".json", coco, as_size),
    "createml": Format(".json", createml, as_centre),
    "labelme": Format(".json", labelme, as_corners),
    "label_studio": Format(".json", label_studio, as_percent),
    "tfrecord": Format(".record", records, as_corners),
}

# ---- one mutation

WORDS = (
    *(
        b"",
        b" ",
        b"\n",
        b",",
        b";",
        b"0",
        b"-1",
        b"1e999",
        b"NaN",
        b"null",
        b"{}",
        b"[]",
        b'"',
        b"<",
        b"&",
    ),
    *(
        b"</object>",
        b"<object>",
        b"99999999999999999999",
        b"\xff\xfe",
        b"\x00",
        b"\xb0\xa1",
        b"\\ud800",
    ),
)
MUTATIONS = st.tuples(
    st.sampled_from(("none", "delete", "repeat", "replace", "flip", "cut", "swap lines", "number")),
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 60),
    st.sampled_from(WORDS),
)


def mutated(data: bytes, mutation: tuple[str, float, int, bytes]) -> bytes:
    """`data` broken in one place."""
    kind, share, length, word = mutation
    at = int(share * len(data))
    until = min(len(data), at + length)
    if kind == "number":
        found = list(re.finditer(rb"[0-9.]+", data)) or [None]
        match = found[int(share * len(found))]
        return data if match is None else data[: match.start()] + word + data[match.end() :]
    if kind == "swap lines":
        lines = data.splitlines(keepends=True)
        at = int(share * len(lines))
        return b"".join([*lines[at:], *lines[:at]])
    flipped = bytes([data[at] ^ (1 << length % 8)]) if data else b""
    return {
        "none": data,
        "delete": data[:at] + data[until:],
        "repeat": data[:until] + data[at:until] + data[until:],
        "replace": data[:at] + word + data[until:],
        "flip": data[:at] + flipped + data[at + 1 :],
        "cut": data[:at],
    }[kind]


def _whole(written: bytes | list[bytes], mutation: tuple[str, float, int, bytes]) -> bytes:
    """The file; of records one is broken and framed right, or the file itself is broken."""
    if isinstance(written, bytes):
        return mutated(written, mutation)
    if mutation[2] % 4 == 0:
        return mutated(b"".join(map(frame, written)), mutation)
    at = mutation[2] % len(written)
    payloads = [mutated(one, mutation) if i == at else one for i, one in enumerate(written)]
    return b"".join(map(frame, payloads))


def generated(name: str) -> st.SearchStrategy[bytes]:
    """Files of a format, broken in one place."""
    return st.builds(
        lambda pictures, mutation: _whole(FORMATS[name].write(pictures), mutation),
        PICTURES,
        MUTATIONS,
    )


def boxes(name: str, data: bytes, folder: Path) -> Iterator[Corners]:
    """The boxes that a file of this format and content gives."""
    form = FORMATS[name]
    file = folder / f"p1{form.suffix}"
    file.write_bytes(data)
    names = folder / "classes.txt"
    names.write_text("cat\ndog\n")
    try:
        given = Sources([file], [names], frozenset(["p1", "p2", "p3"]), True)
        labels, _ = read_labels(given, folder, name)
    finally:
        file.unlink()
        names.unlink()
    for entry in labels.entries:
        yield from (item.xyxy for item in entry.objects)


def try_generated(name: str, data: bytes, folder: Path) -> None:
    """Read a file by every reader that may get it.

    Raises:
        AssertionError: a box is not in the file, or what `try_input` says.
    """
    form = FORMATS[name]
    try_input(f"p1{form.suffix}", data, folder)
    known = in_records(data) if form.suffix == ".record" else in_text(data)
    for box in boxes(name, data, folder):
        assert form.holds(box, known), (box, data)


def run(name: str, examples: int, folder: Path) -> None:
    """Try so many generated files of a format; the same ones each time.

    Raises:
        AssertionError: of the smallest file that hypothesis finds to fail.
    """

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(data=generated(name))
    def holds(data: bytes) -> None:
        try_generated(name, data, folder)

    form, valid = FORMATS[name], _whole(FORMATS[name].write([[]]), ("none", 0.0, 1, b""))
    with contextlib.suppress(AssertionError):  # what is imported late is imported now
        try_input(f"p1{form.suffix}", valid, folder)
    holds()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--only", choices=FORMATS)
    arguments = parser.parse_args()
    chosen, failed = [arguments.only] if arguments.only else list(FORMATS), 0
    for each in chosen:
        share, started = -(-arguments.examples // len(chosen)), time.process_time()
        with tempfile.TemporaryDirectory() as temporary:
            try:
                run(each, share, Path(temporary))
                said = "none failed"
            except Exception as error:
                failed, said = failed + 1, f"FAILED: {type(error).__name__}: {str(error)[:2000]}"
        print(f"{each}: {share} files, {said}; {time.process_time() - started:.0f} s", flush=True)
    sys.exit(bool(failed))
