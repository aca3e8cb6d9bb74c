from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from odtrain.media.images import choose_frame, encode, finding_of, frame_count, inspect
from odtrain_runtime.pictures import UnusableError

FILE = Path("img.jpg")


def noise(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def turned(orientation: int, size: tuple[int, int] = (40, 30)) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(noise(size=size), "JPEG", exif=exif)


def in_record(data: bytes, size: tuple[int, int] | None = None, file: Path = FILE) -> Image.Image:
    return Image.open(io.BytesIO(encode(file, data, inspect(file, data, size))))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(saved(noise(), "JPEG"), id="JPEG"),
        pytest.param(saved(noise("L"), "JPEG"), id="grey JPEG"),
        pytest.param(saved(noise(), "PNG"), id="PNG"),
        pytest.param(saved(noise("L"), "PNG"), id="grey PNG"),
    ],
)
def test_what_training_can_decode_goes_into_records_as_it_is(data):
    picture = inspect(FILE, data, (40, 30))
    assert encode(FILE, data, picture) is data
    assert (picture.width, picture.height) == (40, 30)


@pytest.mark.parametrize(
    ("data", "kind", "mode"),
    [
        pytest.param(saved(noise("CMYK"), "JPEG"), "JPEG", "CMYK", id="CMYK"),
        pytest.param(saved(noise("RGBA"), "PNG"), "PNG", "RGBA", id="RGBA"),
        pytest.param(saved(noise("LA"), "PNG"), "PNG", "LA", id="grey and alpha"),
        pytest.param(saved(noise("P"), "PNG"), "PNG", "P", id="palette"),
        pytest.param(saved(noise("P"), "PNG", transparency=b"\0\1"), "PNG", "P", id="see-through"),
        pytest.param(saved(noise("1"), "PNG"), "PNG", "1", id="black and white"),
        pytest.param(saved(noise(), "BMP"), "BMP", "RGB", id="BMP"),
        pytest.param(saved(noise(), "WEBP", lossless=True), "WEBP", "RGB", id="WebP"),
        pytest.param(saved(noise("P"), "GIF"), "GIF", "P", id="GIF"),
        pytest.param(saved(noise(), "TIFF"), "TIFF", "RGB", id="TIFF"),
    ],
)
def test_every_other_kind_is_encoded_anew(data, kind, mode):
    file = Path(f"img.{kind.lower()}")
    picture = inspect(file, data, (40, 30))
    record = in_record(data, file=file)
    stored = "JPEG" if kind == "JPEG" else "PNG"
    assert (record.format, record.mode) == (stored, "RGB")
    grey = ["OD204"] if mode in ("LA", "1") else []
    assert [note.code for note in picture.notes] == [*grey, "OD203"]
    assert picture.notes[-1].cause == f"{kind} {mode} is stored in the records as {stored.lower()}."
    if stored == "PNG":
        expected = Image.open(io.BytesIO(data)).convert("RGBA").convert("RGB")
        assert record.tobytes() == expected.tobytes()


def test_sixteen_bits_become_eight_over_the_whole_range():
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    record = in_record(saved(Image.fromarray(values), "PNG"), file=Path("img.png"))
    assert np.asarray(record)[0, :, 0].tolist() == [0, 1, 128, 255]


def mpo(orientation: int) -> bytes:
    """Two JPEGs in one file, as phones and drones write a picture and its preview."""
    exif, second = Image.Exif(), Image.new("RGB", (20, 15), "red")
    exif[0x0112] = orientation
    data = saved(noise(), "MPO", save_all=True, append_images=[second], exif=exif, quality=95)
    assert Image.open(io.BytesIO(data)).format == "MPO"
    return data


def test_of_two_jpegs_in_one_the_first_counts(tmp_path):
    (tmp_path / "img.jpg").write_bytes(mpo(1))
    picture = inspect(FILE, mpo(1), (40, 30))
    assert (picture.format, picture.width, picture.height, picture.notes) == ("MPO", 40, 30, ())
    assert frame_count(tmp_path / "img.jpg") == 1
    assert in_record(mpo(1)).size == (40, 30)


def test_the_first_of_two_jpegs_is_turned_as_its_exif_says():
    data = mpo(6)
    upright = Image.open(io.BytesIO(data)).transpose(Image.Transpose.ROTATE_270)
    record = in_record(data, size=(30, 40))
    assert (record.format, record.size) == ("JPEG", (30, 40))
    apart = np.abs(np.asarray(record, int) - np.asarray(upright, int))
    assert apart.mean() < 5


def test_of_an_animated_webp_the_first_picture_counts():
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    data = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    file = Path("img.webp")
    causes = {note.code: note.cause for note in inspect(file, data, (40, 30)).notes}
    assert causes["OD109"] == "holds 2 frames."
    assert in_record(data, file=file).getpixel((5, 5)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("orientation", "stored", "labelled", "expected"),
    [
        pytest.param(1, (40, 30), (40, 30), (1, False), id="no turn"),
        pytest.param(6, (40, 30), (40, 30), (1, False), id="labelled as stored"),
        pytest.param(6, (40, 30), (30, 40), (6, False), id="labelled upright"),
        pytest.param(6, (40, 30), None, (6, True), id="no size"),
        pytest.param(8, (40, 40), (40, 40), (8, True), id="square"),
        pytest.param(3, (40, 30), (40, 30), (3, True), id="half turn"),
    ],
)
def test_the_size_in_the_label_decides_the_frame(orientation, stored, labelled, expected):
    assert choose_frame(stored, orientation, labelled) == expected


def test_a_quarter_turn_is_baked_into_the_record():
    data = turned(6)
    picture = inspect(FILE, data, (30, 40))
    record = in_record(data, (30, 40))
    assert (picture.width, picture.height) == record.size == (30, 40)
    assert record.getexif().get(0x0112) is None
    upright = np.asarray(Image.open(io.BytesIO(data))).transpose(1, 0, 2)[:, ::-1]
    assert np.abs(np.asarray(record).astype(int) - upright).mean() < 4  # noise loses most in JPEG


def test_a_picture_labelled_as_stored_is_left_as_stored():
    data = turned(6)
    assert encode(FILE, data, inspect(FILE, data, (40, 30))) is data


def test_the_pixel_digest_of_a_jpeg_is_of_what_its_pixels_follow_from():
    exif = Image.Exif()
    exif[0x010E] = "a remark"
    first = saved(noise(), "JPEG")
    remarked = saved(noise(), "JPEG", exif=exif, comment="another remark")
    digest = inspect(Path("img.jpg"), first, None).pixels
    assert remarked != first
    assert inspect(Path("img.jpg"), remarked, None).pixels == digest
    assert inspect(Path("img.jpg"), saved(noise(), "JPEG", quality=80), None).pixels != digest
    assert inspect(Path("img.jpg"), saved(noise(), "JPEG", keep_rgb=True), None).pixels != digest


def test_the_pixel_digest_is_of_the_pixels_alone():
    image = noise()
    small, large = (saved(image, "PNG", compress_level=level) for level in (9, 0))
    first, second = (inspect(Path("img.png"), data, None) for data in (small, large))
    assert first.content != second.content
    assert first.pixels == second.pixels
    other = saved(image.transpose(Image.Transpose.ROTATE_90), "PNG")
    assert inspect(Path("img.png"), other, None).pixels != first.pixels


def test_a_wrong_extension_is_a_warning_and_the_bytes_decide():
    picture = inspect(FILE, saved(noise(), "PNG"), (40, 30))
    (note,) = picture.notes
    assert picture.format == "PNG"
    assert (note.code, note.severity) == ("OD101", "warning")
    assert note.cause == "the name says .jpg, the bytes are PNG."


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("P", (8, 8), colour) for colour in (0, 1, 2)]
    for frame in frames:
        frame.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    picture = inspect(Path("img.gif"), data, None)
    assert [note.code for note in picture.notes] == ["OD109", "OD203"]
    assert in_record(data, file=Path("img.gif")).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("data", "code", "cause"),
    [
        pytest.param(b"", "OD010", "is empty.", id="empty"),
        pytest.param(
            saved(Image.new("RGB", (40, 30)), "JPEG")[:-2],
            "OD010",
            "cannot be decoded: image file is truncated (4 bytes not processed).",
            id="truncated JPEG",
        ),
        pytest.param(
            b"\n<!DOCTYPE html><html>",
            "OD010",
            "holds text such as a web page, not a picture.",
            id="web page",
        ),
        pytest.param(
            b"version https://git-lfs.github.com/spec/v1\noid sha256:5a",
            "OD010",
            "is what git-lfs leaves in place of a picture.",
            id="git-lfs",
        ),
        pytest.param(
            b"\0" * 100,
            "OD010",
            "is not a picture, or its beginning is damaged.",
            id="zeros",
        ),
        pytest.param(
            b"\0\0\0\x18ftypheic" + b"\0" * 50, "OD011", "is HEIC, which is not read.", id="HEIC"
        ),
        pytest.param(
            saved(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"),
            "OD011",
            "float values have no fixed white.",
            id="float TIFF",
        ),
        pytest.param(
            b"P6 10000 10000 255 ", "OD019", "has more than 89 million pixels.", id="too large"
        ),
        pytest.param(
            b"P6 90000 90000 255 ", "OD019", "has more than 89 million pixels.", id="a bomb"
        ),
    ],
)
def test_a_picture_that_cannot_be_used_is_a_finding(data, code, cause):
    with pytest.raises(UnusableError) as caught:
        inspect(FILE, data, None)
    finding = finding_of(caught.value)
    assert (finding.code, finding.severity, finding.cause) == (code, "error", cause)


def test_who_has_not_brought_pictures_of_git_lfs_is_told_how():
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:5a\nsize 9\n"
    with pytest.raises(UnusableError) as caught:
        inspect(FILE, pointer, None)
    assert finding_of(caught.value).remedy == "Bring the picture with `git lfs pull`."


def test_a_truncated_png_is_a_finding():
    with pytest.raises(UnusableError) as caught:
        inspect(FILE, saved(noise(), "PNG")[:-400], None)
    assert finding_of(caught.value).code == "OD010"
