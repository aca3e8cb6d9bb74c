"""Memory that runs out is no finding, and nothing that a stranger writes costs more than its size."""

from __future__ import annotations

import errno
import os
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image
from support.pictures import draw_picture, label_picture

from odtrain.cli.main import main
from odtrain.collect.collect import MOST_REFUSED, collect
from odtrain.dataset.checks.class_names import MOST_COMPARED, probable, slips
from odtrain.dataset.place import MOST_UNKNOWN, of_known_classes
from odtrain.io.tfrecord import BYTES, encode_example, frame
from odtrain.labels.annotations import LabelledImage, LabelledObject
from odtrain.labels.formats.recognise import Sources, read_labels
from odtrain.labels.formats.tfrecords import MOST_USELESS, unpack
from odtrain.labels.label_map import label_map_text, read_label_map
from odtrain.media.images import inspect
from odtrain_runtime.pictures import DamagedError

SIZE = (64, 48)
SECONDS = 5
"""Of processor time, by far more than any of these takes, and less than any took before."""


@contextmanager
def in_time():
    began = time.process_time()
    yield
    assert time.process_time() - began < SECONDS


# ---- memory


@pytest.fixture
def pets(tmp_path, monkeypatch):
    """The arguments that name six good pictures."""
    for i in range(6):
        label_picture(tmp_path / f"pets/p{i}.jpg", SIZE, [("cat", 4, 6, 30, 40)], seed=i)
    monkeypatch.chdir(tmp_path)
    return ["data.images=pets", "data.name=pets", "data.validation_fraction=0"]


def raising(error):
    def load(self, *_, **__):
        raise error

    return load


ENDED = (
    ": close other programs, or ask for less at once: data.workers=1, train.batch_size, train.cache_mb, "
    "model.input_size. Nothing is wrong with your files.\n"
)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError("out of memory error when reading image file"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    ],
    ids=["Python's", "Pillow's", "the system's"],
)
@pytest.mark.parametrize("command", [["check"], ["check", "--fix", "new"], ["prepare"]])
def test_memory_that_runs_out_ends_the_command_with_one_line(
    pets, command, error, monkeypatch, capsys
):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", raising(error))
    assert main([*command, *pets]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"Memory ran out while decoding pets/p0.jpg{ENDED}")
    assert not Path("new").exists()


def test_memory_that_runs_out_while_a_file_is_read_is_no_finding(pets, monkeypatch, capsys):
    whole = Path.read_bytes

    def read_bytes(self):
        if self.suffix == ".jpg":
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return whole(self)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert main(["check", *pets]) == 1
    assert capsys.readouterr() == ("", f"Memory ran out{ENDED}")


def test_memory_that_runs_out_over_exif_is_not_taken_for_broken_exif(tmp_path, monkeypatch):
    file = draw_picture(tmp_path / "a.jpg", SIZE, [])
    monkeypatch.setattr(Image.Image, "getexif", raising(MemoryError()))
    with pytest.raises(MemoryError):
        inspect(file, file.read_bytes(), None)


# ---- costs


def images(names):
    box = (0.0, 0.0, 1.0, 1.0)
    return [
        LabelledImage(Path(f"{i}.jpg"), None, 10, 10, (LabelledObject(name, box, False, False),))
        for i, name in enumerate(names)
    ]


def test_a_label_map_of_many_classes_is_read_in_time(tmp_path):
    file = tmp_path / "m.pbtxt"
    file.write_text(label_map_text(tuple(f"class {i}" for i in range(30_000))))
    with in_time():
        assert len(read_label_map(file)) == 30_000


def test_names_of_many_letters_are_no_slips_and_compared_in_time():
    long = "a" * 10_000
    with in_time():
        assert slips(images([long] * 30 + [long[:-1]]), ()) == {}
        assert probable(long, [long[:-1]]) is None


def test_many_names_are_compared_in_time():
    names = [f"{'abcdefghij'[i % 10] * 9}{i}" for i in range(MOST_COMPARED + 1)]
    with in_time():
        assert slips(images([*names, *["often"] * 100]), ()) == {}


def test_many_unknown_names_are_told_in_time(tmp_path):
    file = tmp_path / "m.pbtxt"
    file.write_text(label_map_text(tuple(f"{'b' * 5000}{i}" for i in range(100))))
    with in_time():
        _, findings = of_known_classes(str(file), images(["a" * 5000 + str(i) for i in range(200)]))
    told = [finding.cause for finding in findings if finding.code == "OD007"]
    assert sum("nearest is" in cause for cause in told) == MOST_UNKNOWN
    assert told[-1].endswith('199" is not in the label map.')


@pytest.mark.parametrize(
    "comment", [b"#" + b"x" * 20_000_000, b"# x\n" * 5_000_000], ids=["one comment", "many"]
)
def test_a_ppm_that_is_nearly_all_comment_is_refused_in_time(comment):
    with in_time(), pytest.raises(DamagedError, match="has a header of more than 65,536 bytes"):
        inspect(Path("a.ppm"), b"P6\n" + comment + b"\n1 1 255\nabc", None)


@pytest.mark.parametrize("kind", [b"P4 800 800\n", b"P5 300 300 255\n", b"P6 200 200 255\n"])
def test_a_ppm_full_of_comment_signs_is_a_picture(kind):
    assert inspect(Path("a.ppm"), kind + b"#" * 120_000, None).format == "PPM"


def test_a_file_of_empty_records_is_left_in_time(tmp_path):
    file = tmp_path / "a.record"
    file.write_bytes(frame(b"") * 300_000)
    with in_time():
        labels, findings = read_labels(Sources([file], unpacked=True), tmp_path, "auto")
        assert unpack([file], tmp_path / "out") == []
    assert labels.entries == []
    cause = f"has more than {MOST_USELESS:,} records without a picture; it is not read any further."
    assert [each.cause for each in findings if each.code == "OD030"] == [cause]


def test_many_records_of_one_name_are_named_in_time(tmp_path):
    file = tmp_path / "a.record"
    file.write_bytes(frame(encode_example({"image/encoded": (BYTES, [b"\xff\xd8\xff"])})) * 20_000)
    with in_time():
        labels, _ = read_labels(Sources([file], unpacked=True), tmp_path, "auto")
    assert [labels.entries[i].names[0] for i in (0, 1, -1)] == [
        "a/image.jpg",
        "a/image-2.jpg",
        "a/image-20000.jpg",
    ]


def test_an_archive_of_damaged_pictures_is_left_after_many(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for i in range(MOST_REFUSED + 500):
            archive.writestr(f"{i}.jpg", b"x")
    done = collect([str(tmp_path / "a.zip")], tmp_path / "out")
    assert len(done.refused) == MOST_REFUSED + 1
    assert (done.refused[-1].source, done.refused[-1].why) == (
        str(tmp_path / "a.zip"),
        "10,000 of its pictures cannot be used; the rest was not looked at.",
    )


def test_copies_set_aside_are_numbered_without_looking_at_all_of_them_each_time(
    tmp_path, monkeypatch
):
    for i in range(60):
        draw_picture(tmp_path / f"in/{i}.jpg", SIZE, []).write_bytes(
            draw_picture(tmp_path / "one.jpg", SIZE, []).read_bytes() + bytes([i])
        )
    asked = []
    whole = Path.glob
    monkeypatch.setattr(Path, "glob", lambda self, *a, **k: asked.append(a) or whole(self, *a, **k))
    collect([str(tmp_path / "in")], tmp_path / "out")
    names = sorted(file.name for file in (tmp_path / "out-duplicates").iterdir())
    assert names == sorted(f"img1-copy{i}.jpg" for i in range(1, 60))
    assert len(asked) < 5
