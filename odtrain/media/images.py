"""Picture files: what they hold, whether they are whole, and the bytes that go into a record.

Pictures come from strangers: only harmless formats are opened, and none beyond a pixel limit.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from odtrain.findings import Finding
from odtrain.media.phash import difference_hash
from odtrain.structures import UInt8Image

FORMATS: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".mpo"),
    "PNG": (".png",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
"""Pillow's name of each format that is read, and the suffixes that tell the truth about it."""
OPENED = tuple(name for name in FORMATS if name != "MPO")
"""What Pillow may open; it opens MPO (what phones write: JPEG and a preview) by way of JPEG."""
SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
UNSUPPORTED_SUFFIXES = frozenset(
    (".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".psd", ".cr2", ".nef", ".arw", ".dng")
)
PIXEL_LIMIT = 89_478_485
"""Pillow's own bound against decompression bombs: a quarter of a GiB at three bytes a pixel."""
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # we refuse beyond it
JPEG_QUALITY = 95
TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation (EXIF 2.32, tag 0x0112) -> what shows the picture upright."""
ORIENTATION_TAG = 0x0112
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


class UnusableError(Exception):
    """A picture that cannot be used; carries the finding that says why."""

    def __init__(self, finding: Finding) -> None:
        """Carry `finding`."""
        super().__init__(str(finding))
        self.finding = finding


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
    image = _open_image(file, data)
    orientation, ambiguous = choose_frame(image.size, _exif_orientation(image), labelled_size)
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


def read_upright(file: Path) -> UInt8Image:
    """The picture as people see it: (H, W, 3) RGB, turned as its EXIF orientation says.

    Raises:
        UnusableError: it cannot be read, is damaged, too large, or of a format that is not read.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UnusableError(_damaged(file, error)) from None
    return decode(file, data)


def read_turned(file: Path, orientation: int) -> UInt8Image:
    """The picture in the frame of its labels: (H, W, 3) RGB, turned as `Picture.orientation` says.

    Raises:
        UnusableError: it cannot be read, is damaged, too large, or of a format that is not read.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UnusableError(_damaged(file, error)) from None
    return np.asarray(upright_rgb(file, _open_image(file, data), orientation))


def decode(file: Path, data: bytes, pixel_limit: int = PIXEL_LIMIT) -> UInt8Image:
    """`read_upright` of a file's bytes; `file` is where they came from, for messages.

    Raises:
        UnusableError: no picture, damaged, too large, or of a format that is not read.
    """
    image = _open_image(file, data, pixel_limit)
    return np.asarray(upright_rgb(file, image, _exif_orientation(image)))


def turned_by_exif(file: Path, data: bytes) -> bool:
    """Whether EXIF asks to turn or mirror the picture in `data`."""
    try:
        return _exif_orientation(_open_image(file, data)) != 1
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


def _open_image(file: Path, data: bytes, pixel_limit: int = PIXEL_LIMIT) -> Image.Image:
    """The picture in `data`, its header read, its pixels not yet.

    Raises:
        UnusableError: no picture, not of `FORMATS`, or beyond the limit of pixels.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=OPENED)
    except UnidentifiedImageError:
        raise UnusableError(_unidentified(file, data)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnusableError(_too_large(file)) from None
    except Exception as error:  # Pillow's plugins let anything out when the bytes are damaged
        raise UnusableError(_damaged(file, error)) from None
    if image.width * image.height > pixel_limit:
        raise UnusableError(_too_large(file, pixel_limit))
    return image


def upright_rgb(file: Path, image: Image.Image, orientation: int) -> Image.Image:
    """The whole picture in RGB, turned as EXIF's `orientation` says; alpha is dropped.

    Raises:
        UnusableError: the pixels cannot be decoded, or do not fit 8 bits.
    """
    try:
        image.load()
    except Exception as error:  # Pillow's plugins let anything out when the bytes are damaged
        raise UnusableError(_damaged(file, error)) from None
    rgb = _to_rgb(file, image)
    return rgb.transpose(TRANSPOSE[orientation]) if orientation in TRANSPOSE else rgb


def _to_rgb(file: Path, image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bits(file, image)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # convert would copy


def _eight_bits(file: Path, image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """(H, W) grey values 0-255 of a 16-bit picture."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        cause = f"{'float' if image.mode == 'F' else '32-bit'} values have no fixed white."
        raise UnusableError(Finding.of("OD011", file, cause))
    return np.round(values / 257).astype(np.uint8)  # 257 = 65535 / 255


def _exif_orientation(image: Image.Image) -> int:
    """The EXIF orientation 1-8; 1 where there is none or it is not readable."""
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # a broken EXIF block says nothing about the pixels
        return 1
    return value if value in TRANSPOSE else 1


def _taken(image: Image.Image) -> tuple[str, str] | None:
    """Camera and moment of the exposure, None where EXIF does not have both."""
    try:
        exif = image.getexif()
        moment = str(exif.get_ifd(EXIF_FOLDER).get(TAKEN_TAG, "")).strip("\0 ")
        camera = f"{exif.get(MAKE_TAG, '')} {exif.get(MODEL_TAG, '')}".replace("\0", "").strip()
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
    rgb = upright_rgb(file, _open_image(file, data), picture.orientation)
    encoded = io.BytesIO()
    if record_format(picture.format) == "jpeg":
        rgb.save(encoded, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        rgb.save(encoded, "PNG")
    return encoded.getvalue()


def _damaged(file: Path, error: Exception) -> Finding:
    text = str(error).rstrip(".") or type(error).__name__
    return Finding.of("OD010", file, f"cannot be decoded: {text}.")


def _too_large(file: Path, pixel_limit: int = PIXEL_LIMIT) -> Finding:
    return Finding.of("OD019", file, f"has more than {pixel_limit // 1_000_000} million pixels.")


def _unidentified(file: Path, data: bytes) -> Finding:
    if not data:
        return Finding.of("OD010", file, "is empty.")
    if data[4:8] == b"ftyp" or file.suffix.lower() in UNSUPPORTED_SUFFIXES:
        return Finding.of("OD011", file, f"{file.suffix or 'this format'} is not read.")
    if data.lstrip()[:1] == b"<":
        return Finding.of("OD010", file, "holds text such as a web page, not a picture.")
    return Finding.of("OD010", file, "is not a picture, or its beginning is damaged.")
