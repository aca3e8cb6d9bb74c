"""Picture files: what they hold, whether they are whole, and the bytes that go into a record.

Pictures come from strangers: only harmless formats are opened, and none beyond a pixel limit.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from odtrain.findings import Finding
from odtrain.io.remote.files import local
from odtrain.media.phash import difference_hash
from odtrain.structures import UInt8Image
from odtrain_runtime.pictures import (
    CONVERT,
    FORMATS,
    OPENED,
    PULL,
    TooManyPixelsError,
    UnsupportedError,
    UnusableError,
    exif_orientation,
    open_image,
    read_bytes,
    upright_rgb,
)

SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
JPEG_QUALITY = 95
START_OF_SCAN, FILL = 0xDA, 0xFF
MARKERS_WITH_LENGTH = (0xC0, 0xFE)
METADATA_MARKERS = frozenset((*range(0xE1, 0xEE), 0xEF, 0xFE))
"""JPEG's application data but APP0 and APP14, and comments (ITU-T T.81, table B.1)."""
EXIF_FOLDER, TAKEN_TAG = 0x8769, 0x9003
MAKE_TAG, MODEL_TAG = 0x010F, 0x0110
"""Where EXIF 2.32 has the moment of the exposure (DateTimeOriginal), and whose camera it was."""


@dataclass(frozen=True)
class Picture:
    """What one picture file holds.

    Attributes:
        format: Pillow's name of it, from the bytes.
        height: in pixels, after `orientation` was applied.
        width: in pixels, after `orientation` was applied.
        orientation: the EXIF orientation that the labels' frame asks to apply, 1 = none.
        ambiguous: the file has an EXIF orientation, and the label's size cannot tell the frame.
        verbatim: the file's bytes can go into a record as they are.
        content: sha256 of the file, hexadecimal.
        pixels: sha256 of height, width and the RGB bytes after `orientation`, hexadecimal.
        likeness: `likeness.difference_hash` of those pixels.
        taken: camera and moment of the exposure as EXIF has them; None where it has not both.
        notes: what is odd about the file, though it can be used.
    """

    format: str
    height: int
    width: int
    orientation: int
    ambiguous: bool
    verbatim: bool
    content: str
    pixels: str
    likeness: str
    taken: tuple[str, str] | None = None
    notes: tuple[Finding, ...] = ()


def finding_of(error: UnusableError) -> Finding:
    """The finding that says why a picture cannot be used."""
    kinds = {TooManyPixelsError: "OD019", UnsupportedError: "OD011"}
    known = error.args[2] in (*CONVERT.values(), PULL)
    code = kinds.get(type(error), "OD010")
    return Finding.of(code, error.args[0], error.cause, remedy=error.args[2] if known else None)


def inspect(file: Path, data: bytes, labelled_size: tuple[int, int] | None) -> Picture:
    """Decode `data` whole and say what it holds.

    Args:
        file: where `data` was read, for findings.
        data: the file's bytes.
        labelled_size: (width, height) that the label file gives, which decides whether its boxes
            were drawn on the picture as stored or as shown upright.

    Raises:
        UnusableError: the picture is damaged, too large, or of a format that is not read.
    """
    image = open_image(file, data)
    orientation, ambiguous = choose_frame(image.size, exif_orientation(image), labelled_size)
    verbatim = orientation == 1 and _trainable_as_is(image, data)
    rgb = upright_rgb(file, image, orientation)
    return Picture(
        format=str(image.format),
        height=rgb.height,
        width=rgb.width,
        orientation=orientation,
        ambiguous=ambiguous,
        verbatim=verbatim,
        content=hashlib.sha256(data).hexdigest(),
        pixels=(verbatim and _jpeg_digest(image, data)) or _pixel_digest(rgb),
        likeness=difference_hash(rgb),
        taken=_taken(image),
        notes=tuple(_oddities(file, image, verbatim)),
    )


def read_turned(file: Path, orientation: int) -> UInt8Image:
    """The picture in the frame of its labels: (H, W, 3) RGB, turned as `Picture.orientation` says.

    Raises:
        UnusableError: it cannot be read, is damaged, too large, or of a format that is not read.
    """
    try:
        here = local(file, as_held=True)
    except FileNotFoundError:  # which is said as of any file
        here = file
    return np.asarray(upright_rgb(file, open_image(file, read_bytes(here)), orientation))


def turned_by_exif(file: Path, data: bytes) -> bool:
    """Whether EXIF asks to turn or mirror the picture in `data`."""
    try:
        return exif_orientation(open_image(file, data)) != 1
    except UnusableError:
        return False


def without_exif(data: bytes) -> bytes:
    """A JPEG without its EXIF segments, so that every tool shows it as stored; else `data` itself.

    Segments are marker, length of two bytes that counts itself, content (ISO/IEC 10918-1 B.1.1.4);
    0xE1 is APP1, 0xDA begins the pixels.
    """
    if not data.startswith(b"\xff\xd8"):
        return data
    kept, position = [data[:2]], 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        segment = data[position:end]
        if not (segment[1] == 0xE1 and segment[4:10] == b"Exif\0\0"):
            kept.append(segment)
        position = end
    return b"".join([*kept, data[position:]])


def frame_count(file: Path) -> int:
    """How many pictures a readable picture file holds; the previews that phones add do not count."""
    with Image.open(file, formats=OPENED) as image:
        return 1 if image.format == "MPO" else _frames(image)


def _taken(image: Image.Image) -> tuple[str, str] | None:
    """Camera and moment of the exposure, None where EXIF does not have both."""
    try:
        exif = image.getexif()
        moment = str(exif.get_ifd(EXIF_FOLDER).get(TAKEN_TAG, "")).strip("\0 ")
        camera = f"{exif.get(MAKE_TAG, '')} {exif.get(MODEL_TAG, '')}".replace("\0", "").strip()
    except MemoryError:
        raise
    except Exception:  # a broken EXIF block says nothing about the pixels
        return None
    return (camera, moment) if camera and moment else None


def choose_frame(
    stored: tuple[int, int], orientation: int, labelled: tuple[int, int] | None
) -> tuple[int, bool]:
    """Which orientation to apply so that the boxes fit, and whether that is a guess.

    labelImg before 1.8.4, and most converters, label the picture as stored; everything newer labels
    it upright. A quarter turn shows in the size that the label file gives, a half turn does not.

    Args:
        stored: (width, height) as stored.
        orientation: EXIF's.
        labelled: (width, height) in the label file.
    """
    if orientation == 1:
        return 1, False
    quarter_turn = orientation >= 5 and stored[0] != stored[1]
    if quarter_turn and labelled == stored:
        return 1, False
    return orientation, not (quarter_turn and labelled == stored[::-1])


def _trainable_as_is(image: Image.Image, data: bytes) -> bool:
    """Whether TensorFlow decodes these bytes to the same RGB: 8-bit grey or RGB, JPEG or PNG."""
    if image.mode not in ("L", "RGB") or "transparency" in image.info:
        return False
    if image.format == "PNG":
        bit_depth = data[24]  # in IHDR, which comes first: 8 signature, 8 chunk head, 4 + 4 sizes
        return bit_depth == 8
    return image.format in ("JPEG", "MPO")


def _jpeg_digest(image: Image.Image, data: bytes) -> str | None:
    """sha256 of all in a JPEG that its pixels follow from; None for what is not a plain JPEG.

    That is the file without comments and application data such as EXIF; JFIF's (APP0) and Adobe's
    (APP14) stay, because they name the colour space (ITU-T T.81 B.1.1.3, T.872 6.1 and 6.5.3).
    Packing and hashing the pixels themselves takes a third of the time that decoding takes.
    """
    if image.format not in ("JPEG", "MPO"):
        return None
    digest = hashlib.sha256(b"jpeg:")
    start = 2  # behind the start of the image
    while data[start : start + 1] == b"\xff" and len(data) > start + 4:
        marker = data[start + 1]
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        if marker == START_OF_SCAN:
            digest.update(data[start:])
            return digest.hexdigest()
        if marker == FILL or not MARKERS_WITH_LENGTH[0] <= marker <= MARKERS_WITH_LENGTH[1]:
            return None
        if marker not in METADATA_MARKERS:
            digest.update(data[start:end])
        start = end
    return None


def _pixel_digest(rgb: Image.Image) -> str:
    digest = hashlib.sha256(f"{rgb.height}x{rgb.width}:".encode())
    digest.update(rgb.tobytes())
    return digest.hexdigest()


def _oddities(file: Path, image: Image.Image, verbatim: bool) -> list[Finding]:
    notes = []
    kind = str(image.format)
    if file.suffix.lower() not in FORMATS[kind]:
        notes.append(
            Finding.of(
                "OD101", file, f"the name says {file.suffix or 'nothing'}, the bytes are {kind}."
            )
        )
    if image.mode.startswith(("1", "L", "I")):
        notes.append(Finding.of("OD204", file, "has one channel only."))
    if kind != "MPO" and _frames(image) > 1:
        notes.append(Finding.of("OD109", file, f"holds {_frames(image)} frames."))
    if not verbatim:
        cause = f"{kind} {image.mode} is stored in the records as {record_format(kind)}."
        notes.append(Finding.of("OD203", file, cause))
    return notes


def _frames(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except MemoryError:
        raise
    except Exception:  # later frames may be damaged, which does not matter for the first
        return 1


def record_format(pillow_format: str) -> str:
    """`jpeg` or `png`: what a picture of this format is in a record."""
    return "jpeg" if pillow_format in ("JPEG", "MPO") else "png"


def encode(file: Path, data: bytes, picture: Picture) -> bytes:
    """The bytes for a record, in `record_format`: the file's own, or its pixels encoded anew.

    Raises:
        UnusableError: the file has changed since it was inspected, and cannot be decoded.
    """
    if picture.verbatim:
        return data
    return encode_pixels(upright(file, data, picture), picture)


def upright(file: Path, data: bytes, picture: Picture) -> Image.Image:
    """The RGB pixels of a picture in the frame of its labels.

    Raises:
        UnusableError: the file has changed since it was inspected, and cannot be decoded.
    """
    return upright_rgb(file, open_image(file, data), picture.orientation)


def encode_pixels(rgb: Image.Image, picture: Picture) -> bytes:
    """The pixels of a picture, or of a part of it, in its `record_format`."""
    encoded = io.BytesIO()
    if record_format(picture.format) == "jpeg":
        rgb.save(encoded, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        rgb.save(encoded, "PNG")
    return encoded.getvalue()
