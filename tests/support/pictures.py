"""Small labelled pictures, as labelImg leaves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

Labelled = tuple[str, int, int, int, int]
"""Class name, xmin, ymin, xmax, ymax in pixels, as labelImg writes them."""


def write_xml(
    file: Path, filename: str, size: tuple[int, int], objects: list[Labelled], depth: int = 3
) -> Path:
    """Write `file` as labelImg does; `size` is (width, height)."""
    lines = [
        "<annotation>",
        f"\t<folder>{file.parent.name}</folder>",
        f"\t<filename>{filename}</filename>",
        f"\t<path>C:\\Users\\someone\\Desktop\\{filename}</path>",
        "\t<source>\n\t\t<database>Unknown</database>\n\t</source>",
        f"\t<size>\n\t\t<width>{size[0]}</width>\n\t\t<height>{size[1]}</height>",
        f"\t\t<depth>{depth}</depth>\n\t</size>",
        "\t<segmented>0</segmented>",
    ]
    for name, *corners in objects:
        tags = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        box = "".join(f"\t\t\t<{tag}>{value}</{tag}>\n" for tag, value in tags)
        lines.append(
            f"\t<object>\n\t\t<name>{name}</name>\n\t\t<pose>Unspecified</pose>\n"
            "\t\t<truncated>0</truncated>\n\t\t<difficult>0</difficult>\n"
            f"\t\t<bndbox>\n{box}\t\t</bndbox>\n\t</object>"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([*lines, "</annotation>\n"]), encoding="utf-8")
    return file


def draw_picture(file: Path, size: tuple[int, int], objects: list[Labelled], seed: int = 0) -> Path:
    """Noise with one bright rectangle per object, saved in the format that the suffix names."""
    picture = Image.new("RGB", size)
    for name, *corners in objects:
        colour = {"circle": (170, 10, 10), "square": (10, 10, 170)}.get(name, (10, 170, 10))
        ImageDraw.Draw(picture).rectangle(corners, fill=colour)
    noise = np.random.default_rng(seed).integers(0, 80, (size[1], size[0], 3), np.uint8)
    picture = Image.fromarray(np.asarray(picture) + noise)
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file)
    return file


def label_picture(
    picture: Path,
    size: tuple[int, int],
    objects: list[Labelled],
    labels: Path | None = None,
    seed: int = 0,
) -> Path:
    """Draw `picture` and write its XML beside it, or into the folder `labels`."""
    draw_picture(picture, size, objects, seed)
    xml = (labels or picture.parent) / f"{picture.stem}.xml"
    return write_xml(xml, picture.name, size, objects)


TINY: dict[str, tuple[tuple[int, int], list[Labelled]]] = {
    "img1.jpg": ((64, 48), [("circle", 4, 6, 30, 40)]),
    "img2.png": ((48, 64), [("square", 10, 12, 40, 50), ("circle", 1, 1, 9, 9)]),
    "img3.jpg": ((80, 60), []),
    "img4.jpg": ((64, 64), [("square", 20, 20, 60, 64)]),
}
"""Picture name: (width, height), objects. Four boxes of two classes; img3.jpg is background."""


SHAPES = [f"판 {i}.png" if i % 5 == 0 else f"img{i}.jpg" for i in range(20)]
"""Picture names of the fixture `shapes`, some with letters and spaces that not every tool expects."""


CAMERA = "Camera of Somebody 0123456789"
"""Whose camera it was, as `with_exif` writes it; searched for where it must not be."""
COMMENT = "Taken at 51 Somewhere Street"


def with_exif(file: Path) -> Path:
    """Give a JPEG a camera, a place and a comment; its pixels stay as they are stored."""
    exif = Image.Exif()
    exif[0x0110] = CAMERA
    exif.get_ifd(0x8825)[1] = "N"  # GPS: which half of the earth
    exif.get_ifd(0x8825)[2] = (51.0, 30.0, 26.0)
    block = exif.tobytes()
    data = file.read_bytes()
    parts = [data[:2]]
    for marker, content in ((b"\xff\xe1", block), (b"\xff\xfe", COMMENT.encode())):
        parts += [marker, (len(content) + 2).to_bytes(2, "big"), content]
    file.write_bytes(b"".join([*parts, data[2:]]))
    return file
