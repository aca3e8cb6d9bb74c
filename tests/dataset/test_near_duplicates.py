"""Which pictures belong together: copies, near duplicates, frames of a video, shots of a burst."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image
from support.photographs import pan, photograph

from odtrain.dataset.near_duplicates import find_scenes, natural_order
from odtrain.media.images import inspect


def jpeg(image: Image.Image, taken: str = "", camera: str = "Canon") -> bytes:
    exif = Image.Exif()
    if taken:
        exif[0x0110] = camera
        exif.get_ifd(0x8769)[0x9003] = taken
    data = io.BytesIO()
    image.save(data, "JPEG", exif=exif)
    return data.getvalue()


def grouped(pictures: Mapping[str, bytes], kind: str = "whole") -> list[list[str]]:
    held = {Path(name): inspect(Path(name), data, None) for name, data in pictures.items()}
    return [[file.name for file in group] for group in getattr(find_scenes(held), kind)]


def test_pictures_that_are_merely_numbered_are_no_scene():
    assert grouped({f"img{i}.jpg": jpeg(photograph(i)) for i in range(1, 13)}) == []


def test_frames_of_a_video_are_one_scene_and_in_the_order_of_their_numbers():
    frames = {f"frame_{30 * i}.jpg": jpeg(view) for i, view in enumerate(pan(4, 12, 10))}
    others = {f"img{i}.jpg": jpeg(photograph(i)) for i in range(5)}
    assert grouped({**others, **frames}) == [[f"frame_{30 * i}.jpg" for i in range(12)]]


def test_only_neighbours_make_a_sequence():
    first, second = pan(4, 2, 10)
    pictures = {"img1.jpg": first, "img2.jpg": photograph(8), "img3.jpg": second}
    assert grouped({name: jpeg(image) for name, image in pictures.items()}) == []


def test_a_copy_that_was_scaled_is_near_and_a_second_file_of_the_same_bytes_is_the_same():
    original = jpeg(photograph(1))
    pictures = {
        "a.jpg": original,
        "b.jpg": jpeg(photograph(1).resize((120, 120))),
        "c.jpg": original,
        "d.jpg": jpeg(photograph(2)),
    }
    assert grouped(pictures, "same") == [["a.jpg", "c.jpg"]]
    assert grouped(pictures, "near") == [["a.jpg", "b.jpg", "c.jpg"]]


def test_shots_of_one_camera_within_two_seconds_are_a_burst():
    views = pan(5, 2, 20)
    moments = ["2024:05:06 10:11:12", "2024:05:06 10:11:14"]
    burst = {f"DSC{i}x.jpg": jpeg(view, moments[i]) for i, view in enumerate(views)}
    assert grouped({**burst, "z.jpg": jpeg(photograph(9), moments[0])}) == [
        ["DSC0x.jpg", "DSC1x.jpg"]
    ]


@pytest.mark.parametrize(
    ("moment", "camera"),
    [
        pytest.param("2024:05:06 10:11:15", "Canon", id="three seconds later"),
        pytest.param("2024:05:06 10:11:12", "Nikon", id="another camera"),
        pytest.param("yesterday", "Canon", id="no moment"),
    ],
)
def test_shots_that_are_no_burst(moment, camera):
    first, second = pan(5, 2, 20)
    pictures = {
        "a.jpg": jpeg(first, "2024:05:06 10:11:12"),
        "b.jpg": jpeg(second, moment, camera),
    }
    assert grouped(pictures) == []


def test_plain_pictures_are_alike_only_where_they_are_equal():
    plain = {f"{shade}.jpg": jpeg(Image.new("RGB", (90, 90), (shade,) * 3)) for shade in (9, 99)}
    assert grouped({**plain, "twin.jpg": plain["9.jpg"]}) == [["9.jpg", "twin.jpg"]]


def test_neither_the_order_of_files_nor_their_folders_matter():
    frames = {f"f{i}.jpg": jpeg(view) for i, view in enumerate(pan(4, 5, 10))}
    moved = {f"{name[1]}/deep/{name}": data for name, data in reversed(frames.items())}
    assert grouped(moved) == grouped(frames) == [["f0.jpg", "f1.jpg", "f2.jpg", "f3.jpg", "f4.jpg"]]


def test_names_are_ordered_as_people_count():
    names = ["img10.jpg", "img2.jpg", "a.jpg", "img2b.jpg"]
    ordered = sorted(map(Path, names), key=natural_order)
    assert [file.name for file in ordered] == ["a.jpg", "img2.jpg", "img2b.jpg", "img10.jpg"]
