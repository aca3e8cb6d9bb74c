from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from support.pictures import TINY, label_picture, write_xml

from odtrain.config.compose import section
from odtrain.config.schema import DataConfig
from odtrain.dataset.prepare import prepare
from odtrain.dataset.read import parse_example, read_dataset, read_examples, read_names, read_truths
from odtrain.dataset.shards import write_shard
from odtrain.errors import DataError
from odtrain.io.tfrecord import decode_example, index_records
from odtrain.system.workers import WORTH_PROCESSES

HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax"
PREPARE = """
import sys
from odtrain.config.compose import section
from odtrain.config.schema import DataConfig
from odtrain.dataset.prepare import prepare
prepare(section(DataConfig, name="tiny", images=sys.argv[1], prepared=sys.argv[2], test_fraction=0.5))
"""
LIMIT_FILES = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
"""
"""No file of the process may grow beyond 2 kB, as if the disk were full."""


def config(folder: Path, **values: object) -> DataConfig:
    values = {"prepared": str(folder.parent / "prepared"), "test_fraction": 0.5, **values}
    return section(DataConfig, name="tiny", images=str(folder), **values)


def all_files(folder: Path) -> dict[str, bytes]:
    """Everything that is prepared, without what says where and when."""
    files = sorted(folder.iterdir())
    return {f.name: f.read_bytes() for f in files if f.name != "state.json"}


def stats(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_ino for file in folder.glob("*.record-*")}


def test_the_files_have_the_contracts_names(tiny_voc):
    dataset = prepare(config(tiny_voc, shards=2, validation_fraction=0))
    assert sorted(file.name for file in dataset.folder.iterdir()) == [
        "dataset.json",
        "label_map.pbtxt",
        "state.json",
        "test.record-00000-of-00002",
        "test.record-00001-of-00002",
        "test_labels.csv",
        "test_list.txt",
        "train.record-00000-of-00002",
        "train.record-00001-of-00002",
        "train_labels.csv",
        "train_list.txt",
        "validation_labels.csv",
    ]
    assert [file.name for file in dataset.records("test")] == [
        "test.record-00000-of-00002",
        "test.record-00001-of-00002",
    ]
    assert dataset.records("validation") == []
    assert dataset.counts == {
        "train": {"images": 2, "boxes": 2},
        "validation": {"images": 0, "boxes": 0},
        "test": {"images": 2, "boxes": 2},
    }
    assert dataset.class_names == ("circle", "square")


def test_the_csvs_have_the_tutorials_header_and_a_row_for_background(tiny_voc):
    folder = prepare(config(tiny_voc)).folder
    texts = [
        (folder / f"{part}_labels.csv").read_text() for part in ("train", "validation", "test")
    ]
    assert {text.splitlines()[0] for text in texts} == {HEADER}
    assert sorted(line for text in texts for line in text.splitlines()[1:]) == [
        "img1.jpg,64,48,circle,4,6,30,40",
        "img2.png,48,64,circle,1,1,9,9",
        "img2.png,48,64,square,10,12,40,50",
        "img3.jpg,80,60,,,,,",
        "img4.jpg,64,64,square,20,20,60,64",
    ]


def test_dataset_json_is_what_prepare_returned(tiny_voc):
    dataset = prepare(config(tiny_voc))
    assert read_dataset(dataset.folder) == dataset


def test_a_record_has_the_keys_of_the_object_detection_api(tiny_voc):
    label = tiny_voc / "img2.xml"
    label.write_text(label.read_text().replace("<truncated>0", "<truncated>1"))
    dataset = prepare(config(tiny_voc))
    records = [
        decode_example(index.read(i))
        for part in ("train", "validation", "test")
        for index in [index_records(dataset.records(part))]
        for i in range(len(index))
    ]
    (record,) = [record for record in records if record["image/filename"] == [b"img2.png"]]
    (encoded,) = record.pop("image/encoded")
    assert encoded == (tiny_voc / "img2.png").read_bytes()
    (sha256,) = record.pop("image/key/sha256")
    assert len(sha256) == 64
    boxes = {
        key: record.pop(f"image/object/bbox/{key}") for key in ("ymin", "xmin", "ymax", "xmax")
    }
    assert boxes["ymin"] == pytest.approx([12 / 64, 1 / 64])
    assert boxes["xmin"] == pytest.approx([10 / 48, 1 / 48])
    assert boxes["ymax"] == pytest.approx([50 / 64, 9 / 64])
    assert boxes["xmax"] == pytest.approx([40 / 48, 9 / 48])
    assert record == {
        "image/filename": [b"img2.png"],
        "image/format": [b"png"],
        "image/height": [64],
        "image/width": [48],
        "image/source_id": [b"2"],
        "image/object/class/text": [b"square", b"circle"],
        "image/object/class/label": [2, 1],
        "image/object/difficult": [0, 0],
        "image/object/truncated": [1, 1],
    }


def test_tensorflow_parses_a_record_with_and_without_boxes(tiny_voc):
    import tensorflow as tf

    dataset = prepare(config(tiny_voc))
    files = [str(file) for part in dataset.counts for file in dataset.records(part)]
    parsed = [parse_example(record) for record in tf.data.TFRecordDataset(files)]
    by_name = {example["filename"].numpy().decode(): example for example in parsed}
    assert by_name["img3.jpg"]["boxes"].shape == (0, 4)
    one = by_name["img1.jpg"]
    expected = np.float32([[6 / 48, 4 / 64, 40 / 48, 30 / 64]])
    np.testing.assert_array_equal(one["boxes"].numpy(), expected)
    assert one["classes"].numpy().tolist() == [1]
    assert one["source_id"].numpy() == 1
    assert (one["height"].numpy(), one["width"].numpy()) == (48, 64)
    assert one["encoded"].numpy() == (tiny_voc / "img1.jpg").read_bytes()


def test_examples_are_decoded_and_agree_with_the_truths(tiny_voc):
    dataset = prepare(config(tiny_voc, shards=2))
    for part in dataset.counts:
        examples, truths = list(read_examples(dataset, part)), read_truths(dataset, part)
        assert [example.truth.name for example in examples] == [truth.name for truth in truths]
        names = {example.source_id: example.truth.name for example in examples}
        assert read_names(dataset, part) == names
        for example, truth in zip(examples, truths, strict=True):
            assert example.image.shape == (truth.height, truth.width, 3)
            assert truth.boxes.shape == (len(TINY[truth.name][1]), 4)
            np.testing.assert_array_equal(example.truth.boxes, truth.boxes)
    png = next(e for p in dataset.counts for e in read_examples(dataset, p) if e.source_id == 2)
    np.testing.assert_array_equal(png.image, np.asarray(Image.open(tiny_voc / "img2.png")))


@pytest.mark.parametrize("mode", ["CMYK", "RGBA", "L", "P", "1"])
def test_tensorflow_decodes_every_mode_to_what_pillow_shows(tmp_path, mode):
    folder = tmp_path / "pictures"
    suffix = "jpg" if mode == "CMYK" else "png"
    for i in range(4):
        file = folder / f"p{i}.{suffix}"
        label_picture(file, (64, 48), [("square", 10, 10, 40, 40)], seed=i)
        Image.open(file).convert(mode).save(file)
    for example in read_examples(prepare(config(folder)), "test"):
        expected = np.asarray(Image.open(folder / example.truth.name).convert("RGB")).astype(int)
        assert np.abs(example.image - expected).mean() < (3 if mode == "CMYK" else 1e-9)


def test_a_turned_picture_and_its_boxes_lie_alike_in_the_record(tmp_path):
    folder = tmp_path / "pictures"
    for i in range(4):
        upright = Image.new("RGB", (48, 64))
        upright.paste((255, 255, 255), (8, 16, 40, 32))
        exif = Image.Exif()
        exif[0x0112] = 6  # shown a quarter turn clockwise
        file = folder / f"p{i}.jpg"
        folder.mkdir(exist_ok=True)
        upright.transpose(Image.Transpose.ROTATE_90).save(file, exif=exif, quality=95)
        write_xml(folder / f"p{i}.xml", file.name, (48, 64), [("square", 8, 16, 40, 32)])
    for example in read_examples(prepare(config(folder)), "test"):
        assert example.image.shape == (64, 48, 3)
        assert example.image[18:30, 10:38].min() > 200
        assert example.image[:12].max() < 60
        np.testing.assert_allclose(example.truth.boxes, [[0.25, 8 / 48, 0.5, 40 / 48]], rtol=1e-6)


def test_the_same_input_gives_the_same_bytes_whatever_the_order_of_files(tiny_voc, tmp_path):
    other = tmp_path / "copy"
    other.mkdir()
    for file in sorted(tiny_voc.iterdir(), reverse=True):
        (other / file.name).write_bytes(file.read_bytes())
    first = all_files(prepare(config(tiny_voc, prepared=str(tmp_path / "one"))).folder)
    second = all_files(prepare(config(other, prepared=str(tmp_path / "two"))).folder)
    named = [json.loads(files.pop("dataset.json")) for files in (first, second)]
    assert first == second
    for values in named:
        values.pop("findings")  # they name the files
    assert named[0] == named[1]


def test_nothing_is_written_again_when_nothing_changed(tiny_voc):
    first = prepare(config(tiny_voc))
    before = {f.name: f.stat().st_mtime_ns for f in first.folder.iterdir()}
    assert prepare(config(tiny_voc)) == first
    assert {f.name: f.stat().st_mtime_ns for f in first.folder.iterdir()} == before


def test_touching_every_file_leaves_the_records_alone(tiny_voc):
    folder = prepare(config(tiny_voc)).folder
    before = stats(folder)
    for file in tiny_voc.iterdir():
        os.utime(file, (1, 1))
    prepare(config(tiny_voc))
    assert stats(folder) == before


def test_editing_one_label_makes_the_records_anew(tiny_voc):
    folder = prepare(config(tiny_voc)).folder
    before = stats(folder)
    write_xml(tiny_voc / "img1.xml", "img1.jpg", (64, 48), [("circle", 5, 6, 30, 40)])
    dataset = prepare(config(tiny_voc))
    assert not set(stats(folder).values()) & set(before.values())
    boxes = {t.name: t.boxes for part in dataset.counts for t in read_truths(dataset, part)}
    assert boxes["img1.jpg"][0][1] == np.float32(5 / 64)


def test_renaming_a_picture_makes_the_records_anew(tiny_voc):
    before = prepare(config(tiny_voc, validation_fraction=0))
    for suffix in (".jpg", ".xml"):
        (tiny_voc / f"img4{suffix}").rename(tiny_voc / f"img5{suffix}")
    after = prepare(config(tiny_voc, validation_fraction=0))
    names = {truth.name for part in after.counts for truth in read_truths(after, part)}
    assert names == {"img1.jpg", "img2.png", "img3.jpg", "img5.jpg"}
    assert before.folder == after.folder


def test_fewer_shards_leave_none_of_the_old_ones(tiny_voc):
    prepare(config(tiny_voc, shards=2))
    dataset = prepare(config(tiny_voc, shards=1))
    assert sorted(stats(dataset.folder)) == sorted(
        file.name for part in dataset.counts for file in dataset.records(part)
    )


@pytest.mark.parametrize("harm", ["missing", "cut", "marked"])
def test_records_that_are_not_whole_are_made_anew(tiny_voc, harm):
    dataset = prepare(config(tiny_voc))
    before = all_files(dataset.folder)
    (shard,) = dataset.records("train")
    if harm == "missing":
        shard.unlink()
    elif harm == "cut":
        shard.write_bytes(shard.read_bytes()[:-1])
    else:
        listing = dataset.folder / "dataset.json"
        listing.write_text(json.dumps({**json.loads(listing.read_text()), "complete": False}))
        expected = f"{dataset.folder}: was not prepared to the end.\n  Run: odtrain prepare"
        with pytest.raises(DataError, match=f"^{re.escape(expected)}$"):
            read_dataset(dataset.folder)
    prepare(config(tiny_voc))
    assert all_files(dataset.folder) == before


def test_files_that_cannot_all_be_put_in_place_do_not_count_as_prepared(tiny_voc):
    dataset = prepare(config(tiny_voc))
    in_the_way = dataset.folder / "train_labels.csv"
    in_the_way.unlink()
    in_the_way.mkdir()
    write_xml(tiny_voc / "img1.xml", "img1.jpg", (64, 48), [("circle", 5, 6, 30, 40)])
    with pytest.raises(DataError, match="cannot be written: Is a directory"):
        prepare(config(tiny_voc))
    with pytest.raises(DataError, match="was not prepared to the end"):
        read_dataset(dataset.folder)
    assert not (dataset.folder / ".new").exists()


def test_errors_are_told_on_one_screen_before_anything_is_written(tiny_voc):
    (tiny_voc / "img4.xml").write_text("nonsense")
    write_xml(tiny_voc / "img1.xml", "img1.jpg", (64, 48), [("circle", 5, 6, 5, 40)] * 11)
    with pytest.raises(DataError) as caught:
        prepare(config(tiny_voc))
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{tiny_voc}: 12 errors in the data; nothing was written."
    assert lines[1] == (
        f"  error OD003 {tiny_voc / 'img4.xml'}: is not XML: line 1, column 1: no "
        "tag begins there. Save it again in labelImg, or delete it."
    )
    assert lines[2] == (
        f"  error OD009 {tiny_voc / 'img1.xml'} [circle 5,6,5,40]: x 5 to 5, y 6 to 40 has no area."
        " Redraw it in labelImg, or delete its <object>."
    )
    assert lines[11:] == [
        "  and 2 more; to see all of them: odtrain check",
        "  To put right or leave out what can be in a copy (12 errors):",
        f"    odtrain check data.images={tiny_voc} data.name=tiny --fix {tiny_voc.parent}/tiny-repaired",
        "  Without a copy: data.faulty=leave_out",
    ]
    assert not (tiny_voc.parent / "prepared").exists()


def test_files_of_someone_else_are_not_overwritten(tiny_voc):
    theirs = tiny_voc.parent / "prepared/train_labels.csv"
    theirs.parent.mkdir()
    theirs.write_text("mine")
    expected = (
        f"{theirs}: is there already and was not written by odtrain.\n"
        "  Set data.prepared to a folder of its own."
    )
    with pytest.raises(DataError, match=f"^{re.escape(expected)}$"):
        prepare(config(tiny_voc))
    assert theirs.read_text() == "mine"


def test_the_prepared_folder_may_lie_among_the_pictures(tiny_voc):
    inside = config(tiny_voc, prepared=str(tiny_voc / "prepared"))
    first = prepare(inside)
    assert prepare(inside) == first
    assert first.counts == prepare(config(tiny_voc)).counts


def test_a_file_where_the_folder_should_be_is_told(tiny_voc):
    blocked = tiny_voc.parent / "blocked"
    blocked.write_text("a file")
    expected = (
        f"{blocked}: cannot be written: File exists.\n"
        "  Set data.prepared to a folder that can be written."
    )
    with pytest.raises(DataError, match=f"^{re.escape(expected)}$"):
        prepare(config(tiny_voc, prepared=str(blocked / "prepared")))


def test_a_disk_that_takes_no_more_is_told_and_leaves_nothing(tiny_voc):
    folder = tiny_voc.parent / "prepared"
    code = (
        f"{LIMIT_FILES}try:{textwrap.indent(PREPARE, '    ')}except Exception as e:\n    print(e)"
    )
    command = [sys.executable, "-c", code, str(tiny_voc), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    expected = (
        f"{folder}: cannot be written: File too large.\n"
        "  Set data.prepared to a folder that can be written.\n"
    )
    assert (done.stdout, done.stderr) == (expected, "")
    assert list(folder.iterdir()) == []


def test_two_at_once_on_one_folder_both_succeed(tiny_voc):
    folder = tiny_voc.parent / "prepared"
    command = [sys.executable, "-c", PREPARE, str(tiny_voc), str(folder)]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate()[1] for process in both] == [b"", b""]
    assert [process.returncode for process in both] == [0, 0]
    together = all_files(folder)
    alone = all_files(prepare(config(tiny_voc, prepared=str(tiny_voc.parent / "alone"))).folder)
    assert together == alone


def test_a_kill_leaves_nothing_that_is_taken_for_whole(tmp_path):
    folder = tmp_path / "pictures"
    for i in range(40):
        label_picture(folder / f"p{i}.png", (320, 240), [("square", 10, 10, 40, 40)], seed=i)
    whole = all_files(prepare(config(folder, prepared=str(tmp_path / "whole"))).folder)
    for attempt in range(4):
        prepared = tmp_path / f"prepared{attempt}"
        command = [sys.executable, "-c", PREPARE, str(folder), str(prepared)]
        with subprocess.Popen(command) as process:
            while process.poll() is None and not prepared.exists():
                time.sleep(0.001)
            time.sleep(0.01 * attempt)
            process.kill()
        try:
            read_dataset(prepared)
        except DataError:
            assert prepare(config(folder, prepared=str(prepared)))
        assert all_files(prepared) == whole


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Pictures enough that processes are worth it, but small ones."""
    folder = tmp_path_factory.mktemp("many")
    for i in range(WORTH_PROCESSES + 20):
        suffix = "bmp" if i % 9 == 0 else "jpg"
        label_picture(folder / f"p{i}.{suffix}", (48, 40), [("square", 10, 10, 40, 40)], seed=i)
    return folder


@pytest.mark.parametrize("package", ["odtrain", "odtrain_runtime"])
def test_what_a_loaded_model_put_first_is_not_taken_by_processes(
    many, tmp_path, monkeypatch, package
):
    (tmp_path / "code" / package).mkdir(parents=True)
    (tmp_path / "code" / package / "__init__.py").touch()
    monkeypatch.setattr("sys.path", [str(tmp_path / "code"), *sys.path])
    dataset = prepare(config(many, prepared=str(tmp_path / "prepared"), workers=2))
    assert dataset.counts["train"]["images"] > 0


def test_the_bytes_are_the_same_whatever_the_number_of_processes(many, tmp_path):
    written = [
        all_files(
            prepare(config(many, prepared=str(tmp_path / str(workers)), workers=workers)).folder
        )
        for workers in (1, 3)
    ]
    assert written[0] == written[1]
    assert len(written[0]) == 11


def test_shards_have_about_150_mb_each_unless_their_number_is_given(many, tmp_path, monkeypatch):
    monkeypatch.setattr("odtrain.dataset.prepare.SHARD_BYTES", 100_000)
    dataset = prepare(config(many, prepared=str(tmp_path / "auto"), test_fraction=0.1))
    pictures = sum(file.stat().st_size for file in many.iterdir() if file.suffix != ".xml")
    train = dataset.records("train")
    assert len(train) == pytest.approx(pictures * 0.9 * 0.9 / 100_000, abs=1.5)
    assert len(dataset.records("test")) == pytest.approx(pictures * 0.1 / 100_000, abs=1)
    given = prepare(config(many, prepared=str(tmp_path / "auto"), test_fraction=0.1, shards=2))
    assert len(given.records("train")) == len(given.records("test")) == 2


def test_whole_shards_of_a_call_that_was_killed_are_kept(tiny_voc, monkeypatch):
    expected = all_files(
        prepare(config(tiny_voc, shards=2, prepared=str(tiny_voc.parent / "whole"))).folder
    )
    written = []

    def killed(shard):
        if len(written) == 2:
            shard.file.with_name(f"{shard.file.name}.part").write_bytes(b"half")
            raise KeyboardInterrupt
        written.append(shard.file.name)
        write_shard(shard)

    monkeypatch.setattr("odtrain.dataset.shards.write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(config(tiny_voc, shards=2, workers=1))
    staging = tiny_voc.parent / "prepared" / ".new"
    inodes = {name: (staging / name).stat().st_ino for name in written}
    monkeypatch.setattr("odtrain.dataset.shards.write_shard", write_shard)
    folder = prepare(config(tiny_voc, shards=2)).folder
    assert all_files(folder) == expected
    assert {name: (folder / name).stat().st_ino for name in written} == inodes


def test_shards_of_other_labels_are_not_gone_on_with(tiny_voc, monkeypatch):
    def killed(shard):
        write_shard(shard)
        raise KeyboardInterrupt

    monkeypatch.setattr("odtrain.dataset.shards.write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(config(tiny_voc, workers=1))
    monkeypatch.setattr("odtrain.dataset.shards.write_shard", write_shard)
    label = tiny_voc / "img1.xml"
    label.write_text(label.read_text().replace("<xmin>4", "<xmin>5"))
    expected = all_files(prepare(config(tiny_voc, prepared=str(tiny_voc.parent / "whole"))).folder)
    assert all_files(prepare(config(tiny_voc)).folder) == expected


@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.long)])
def test_killed_at_random_moments_it_corrupts_nothing_and_leaves_no_process(many, tmp_path, kills):
    whole = all_files(prepare(config(many, prepared=str(tmp_path / "whole"), shards=3)).folder)
    prepared = tmp_path / "prepared"
    command = [
        sys.executable,
        "-c",
        PREPARE.replace("=0.5", "=0.5, shards=3"),
        str(many),
        str(prepared),
    ]
    random = np.random.default_rng(kills)
    for _ in range(kills):
        with subprocess.Popen(command, start_new_session=True) as process:
            while process.poll() is None and not prepared.exists():
                time.sleep(0.001)
            time.sleep(random.uniform(0, 1.5))
            process.kill()
        deadline = time.monotonic() + 20
        while processes_of(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert processes_of(process.pid) == []
        try:
            read_dataset(prepared)
        except DataError:
            continue
        assert all_files(prepared) == whole
    assert all_files(prepare(config(many, prepared=str(prepared), shards=3)).folder) == whole


def processes_of(session: int) -> list[int]:
    """Those of a session that are alive."""
    found = []
    for process in psutil.process_iter(["pid", "status"]):
        try:
            if os.getsid(process.pid) == session and process.info["status"] != "zombie":
                found.append(process.pid)
        except ProcessLookupError:
            pass
    return found


def test_preparing_does_not_need_tensorflow(tiny_voc):
    code = PREPARE + "assert 'tensorflow' not in sys.modules"
    command = [sys.executable, "-c", code, str(tiny_voc), str(tiny_voc.parent / "prepared")]
    subprocess.run(command, check=True)


def test_the_raccoon_rows_are_those_that_were_shipped(shared, tmp_path):
    data = shared / "data/raccoon"
    dataset = prepare(
        section(
            DataConfig,
            name="raccoon",
            images=str(data / "images"),
            annotations=str(data / "annotations"),
            train_list=str(data / "data/train_labels.csv"),
            test_list=str(data / "data/test_labels.csv"),
            validation_fraction=0.1,
            prepared=str(tmp_path),
        )
    )
    assert dataset.counts == {
        "train": {"images": 144, "boxes": 155},
        "validation": {"images": 16, "boxes": 18},
        "test": {"images": 40, "boxes": 44},
    }

    def rows(*files: Path) -> set[tuple[str, ...]]:
        return {tuple(row) for file in files for row in csv.reader(file.read_text().splitlines())}

    written = [tmp_path / f"{part}_labels.csv" for part in dataset.counts]
    assert rows(*written) == rows(data / "data/raccoon_labels.csv")
    assert rows(written[2]) == rows(data / "data/test_labels.csv")
    index = index_records(dataset.records("test"))
    for i in range(len(index)):
        record = decode_example(index.read(i))
        name = str(record["image/filename"][0], "utf-8")
        assert record["image/encoded"] == [(data / "images" / name).read_bytes()]


def test_the_lists_of_a_drawn_split_give_that_split_again(tiny_voc, tmp_path):
    (tiny_voc / "more").mkdir()
    for suffix in ("jpg", "xml"):
        (tiny_voc / f"img4.{suffix}").rename(tiny_voc / f"more/img1.{suffix}")
    drawn = prepare(config(tiny_voc))
    lists = {file.stem: str(file) for file in drawn.folder.glob("*_list.txt")}
    assert sorted(line for file in lists.values() for line in Path(file).read_text().split()) == [
        "tiny_voc/img1.jpg",
        "tiny_voc/img2.png",
        "tiny_voc/img3.jpg",
        "tiny_voc/more/img1.jpg",
    ]
    assert {"train_list", "test_list"} <= lists.keys()
    given = prepare(config(tiny_voc, prepared=str(tmp_path / "again"), **lists))
    assert given.digest == drawn.digest
    assert (given.folder / "test_list.txt").read_text() == Path(lists["test_list"]).read_text()
