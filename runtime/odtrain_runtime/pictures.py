"""Picture files as people see them: upright, RGB, 8 bits a channel.

Pictures come from strangers: only harmless formats are opened, and none beyond a pixel limit.
"""

from __future__ import annotations

import errno
import io
import re
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from odtrain_runtime.errors import OdtrainError
from odtrain_runtime.structures import UInt8Image

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
UNSUPPORTED_SUFFIXES = frozenset(
    (".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".psd", ".cr2", ".nef", ".arw", ".dng")
)
PIXEL_LIMIT = 89_478_485
"""Pillow's own bound against decompression bombs: a quarter of a GiB at three bytes a pixel."""
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # we refuse beyond it
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
OUT_OF_MEMORY = "out of memory"
"""In what Pillow's decoders say when memory ran out (ImageFile.ERRORS, -9)."""
MOST_HEADER = 65_536
"""Bytes of a PPM's header, with its comments, which Pillow reads one by one."""
GIVE_ANOTHER = "Give an undamaged copy of the picture."
BRANDS = {
    **dict.fromkeys(
        (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), "HEIC"
    ),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"isom", b"iso2", b"mp41", b"mp42", b"avc1", b"M4V", b"qt"), "a video"),
    b"crx": "a raw picture (CR3)",
}
"""The major brand of an ISO base media file (ISO/IEC 14496-12, 4.3) -> what people call it."""
NOT_READ = {
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"8BPS": "a Photoshop file",
    b"%PDF": "a PDF",
    b"FUJIFILMCCD-RAW": "a raw picture (RAF)",
    b"<svg": "SVG",
}
"""How files of other formats begin -> what people call them."""
POINTER = b"version https://git-lfs.github.com/spec/"
"""How a file begins that git-lfs leaves in place of one that it has not brought."""
PULL = "Bring the picture with `git lfs pull`."
CONVERT = {
    kind: f"Convert it: {tool} OLD NEW.jpg, or with ImageMagick: magick OLD NEW.jpg"
    for kind, tool in (("HEIC", "heif-convert"), ("AVIF", "avifdec"))
}
SAVE_ANEW = "Save it as JPEG or PNG, 8 bits a channel."


class UnusableError(OdtrainError):
    """A picture that cannot be used."""

    @property
    def cause(self) -> str:
        """What is wrong with it: the second part of a sentence about the picture."""
        return str(self.args[1])


class DamagedError(UnusableError):
    """The file cannot be read, is no picture, or not a whole one."""


class UnsupportedError(UnusableError):
    """A picture of a format that is not read."""


class TooManyPixelsError(UnusableError):
    """A picture beyond the limit of pixels."""


def read_upright(file: Path) -> UInt8Image:
    """The picture as people see it: (H, W, 3) RGB, turned as its EXIF orientation says.

    Raises:
        UnusableError: it cannot be read, is damaged, too large, or of a format that is not read.
    """
    return decode(file, read_bytes(file))


def read_bytes(file: Path) -> bytes:
    """What is in a file.

    Raises:
        UnusableError: it cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise _damaged(file, error) from None


def decode(file: Path, data: bytes, pixel_limit: int = PIXEL_LIMIT) -> UInt8Image:
    """`read_upright` of a file's bytes; `file` is where they came from, for messages.

    Raises:
        UnusableError: no picture, damaged, too large, or of a format that is not read.
    """
    image = open_image(file, data, pixel_limit)
    return np.asarray(upright_rgb(file, image, exif_orientation(image)))


def open_image(file: Path, data: bytes, pixel_limit: int = PIXEL_LIMIT) -> Image.Image:
    """The picture in `data`, its header read, its pixels not yet.

    Raises:
        UnusableError: no picture, not of `FORMATS`, or beyond the limit of pixels.
    """
    if data[:1] == b"P" and _long_comment(data):
        raise DamagedError(file, f"has a header of more than {MOST_HEADER:,} bytes.", GIVE_ANOTHER)
    try:
        image = Image.open(io.BytesIO(data), formats=OPENED)
    except UnidentifiedImageError:
        raise _unidentified(file, data) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(file) from None
    except Exception as error:  # Pillow's plugins let anything out when the bytes are damaged
        raise _damaged(file, error) from None
    if image.width * image.height > pixel_limit:
        raise _too_large(file, pixel_limit)
    return image


def _long_comment(data: bytes) -> bool:
    """Whether a PPM begins with a comment, or comments, without end."""
    head = data[:MOST_HEADER]
    parts = re.sub(rb"#[^\r\n]*", b" ", head).split(None, 4)
    needed = 3 if data[1:2] in (b"1", b"4") else 4  # those of two colours give no brightest one
    return len(data) > MOST_HEADER and data[1:2].isdigit() and len(parts) < needed


def upright_rgb(file: Path, image: Image.Image, orientation: int) -> Image.Image:
    """The whole picture in RGB, turned as EXIF's `orientation` says; alpha is dropped.

    Raises:
        UnusableError: the pixels cannot be decoded, or do not fit 8 bits.
    """
    try:
        image.load()
    except Exception as error:  # Pillow's plugins let anything out when the bytes are damaged
        raise _damaged(file, error) from None
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
        raise UnsupportedError(file, cause, SAVE_ANEW)
    return np.round(values / 257).astype(np.uint8)  # 257 = 65535 / 255


def exif_orientation(image: Image.Image) -> int:
    """The EXIF orientation 1-8; 1 where there is none or it is not readable."""
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except MemoryError:
        raise
    except Exception:  # a broken EXIF block says nothing about the pixels
        return 1
    return value if value in TRANSPOSE else 1


def _damaged(file: Path, error: Exception) -> DamagedError:
    """What a plugin's complaint says of a picture.

    Raises:
        MemoryError: memory ran out, which says nothing of the picture.
    """
    short = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if short or isinstance(error, MemoryError) or OUT_OF_MEMORY in str(error):
        raise MemoryError(f"decoding {file}") from None
    text = str(error).rstrip(".") or type(error).__name__
    return DamagedError(file, f"cannot be decoded: {text}.", GIVE_ANOTHER)


def _too_large(file: Path, pixel_limit: int = PIXEL_LIMIT) -> TooManyPixelsError:
    cause = f"has more than {pixel_limit // 1_000_000} million pixels."
    return TooManyPixelsError(file, cause, "Scale it down; detectors see far fewer pixels.")


def _kind_of(data: bytes) -> str | None:
    """What people call a format that is not read, by the file's first bytes; None for others."""
    if data[4:8] == b"ftyp":
        return BRANDS.get(data[8:12].strip(b" \0"), "a video or a picture of a format like MP4")
    return next((kind for start, kind in NOT_READ.items() if data.startswith(start)), None)


def _unidentified(file: Path, data: bytes) -> UnusableError:
    if not data:
        return DamagedError(file, "is empty.", GIVE_ANOTHER)
    if kind := _kind_of(data):
        return UnsupportedError(
            file, f"is {kind}, which is not read.", CONVERT.get(kind, SAVE_ANEW)
        )
    if file.suffix.lower() in UNSUPPORTED_SUFFIXES:
        return UnsupportedError(file, f"{file.suffix} is not read.", SAVE_ANEW)
    if data.startswith(POINTER):
        return DamagedError(file, "is what git-lfs leaves in place of a picture.", PULL)
    if data.lstrip()[:1] == b"<":
        return DamagedError(file, "holds text such as a web page, not a picture.", GIVE_ANOTHER)
    return DamagedError(file, "is not a picture, or its beginning is damaged.", GIVE_ANOTHER)
