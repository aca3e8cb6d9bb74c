"""The benchmarks: that they measure what they say. How fast anything is, no test asserts."""

from __future__ import annotations

import hashlib
import inspect
import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.pictures import label_picture

from benchmarks import before as earlier
from benchmarks import noise, preparing, processes, tutorial, zoo
from benchmarks.__main__ import BEFORE, BENCHMARKS, Section, machine, main, markdown
from benchmarks.pictures import Source, make, read_labels, sources
from benchmarks.processes import ProcessError
from odtrain.errors import ModelFileError
from odtrain.io.tfrecord import decode_example, index_records
from odtrain.structures import UInt8Image

ROOT = Path(__file__).resolve().parents[1]


# ---- pictures


@pytest.fixture
def three(tiny_voc: Path) -> list[Source]:
    """Three labelled pictures: one object, two, none."""
    names = ("img1.jpg", "img2.png", "img3.jpg")
    return [Source(tiny_voc / name, (tiny_voc / name).with_suffix(".xml")) for name in names]


def pixels(file: Path) -> UInt8Image:
    with Image.open(file) as picture:
        return np.asarray(picture)


def test_made_pictures_are_distinct(tmp_path, three):
    make(tmp_path, 30, three)
    contents = {hashlib.sha256(file.read_bytes()).digest() for file in tmp_path.glob("images/*")}
    assert len(contents) == 30


def test_pictures_that_cannot_be_cut_are_distinct_too(tmp_path):
    filled = label_picture(tmp_path / "filled.jpg", (64, 48), [("circle", 1, 1, 64, 48)])
    make(tmp_path / "made", 5, [Source(tmp_path / "filled.jpg", filled)])
    made = list(tmp_path.glob("made/images/*"))
    assert len({file.read_bytes() for file in made}) == 5


def test_made_pictures_hold_every_object_whole(tmp_path, three):
    make(tmp_path, 12, three)
    for file in sorted(tmp_path.glob("annotations/*.xml")):
        original = read_labels(three[int(file.stem[-5:]) % 3].labels)
        height, width, _ = pixels(tmp_path / "images" / f"{file.stem}.jpg").shape
        for item, before in zip(read_labels(file), original, strict=True):
            xmin, ymin, xmax, ymax = item.corners
            sides = np.subtract(before.corners[2:], before.corners[:2])
            assert np.abs(np.subtract((xmax - xmin, ymax - ymin), sides)).max() <= 1
            assert (1 <= xmin, 1 <= ymin, xmax <= width, ymax <= height) == (True,) * 4


def test_made_pictures_show_what_the_labels_say(tmp_path, three):
    make(tmp_path, 1, three)
    (circle,) = read_labels(tmp_path / "annotations" / "picture-00000.xml")
    picture = pixels(tmp_path / "images" / "picture-00000.jpg")
    xmin, ymin, xmax, ymax = circle.corners
    inside = picture[ymin + 4 : ymax - 4, xmin + 4 : xmax - 4]
    red, green, blue = inside.mean(axis=(0, 1))
    assert red > 2 * max(green, blue)  # inside the circle's box
    assert picture[: max(ymin - 3, 1)].mean() < 80


def test_the_same_pictures_again(tmp_path, three):
    for name in ("a", "b"):
        make(tmp_path / name, 4, three)
    files = sorted(file.relative_to(tmp_path / "a") for file in tmp_path.glob("a/*/*"))
    assert len(files) == 8
    assert all(
        (tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files
    )


def test_sources_are_the_raccoons_where_they_are(shared):
    assert len(sources()) == len(list((shared / "data" / "raccoon" / "images").glob("*.jpg")))


def test_sources_are_the_panels_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setattr("benchmarks.pictures.RACCOON", tmp_path / "nothing")
    found = sources()
    assert found[0].image == ROOT / "data" / "panels" / "images" / "train" / found[0].image.name
    assert all(source.labels.is_file() for source in found)


# ---- processes


def test_a_process_of_its_own_tells_time_memory_and_value(tmp_path):
    Image.new("RGB", (4000, 4000)).save(tmp_path / "a.png")
    done = processes.run(preparing.decode_pictures, folder=str(tmp_path))
    assert done.value == 1
    assert done.peak_memory_mb > 48
    assert 0 < done.cpu_seconds
    assert not done.tensorflow


def test_a_failed_process_shows_its_last_words(tmp_path):
    with pytest.raises(ProcessError) as raised:
        processes.run(preparing.decode_pictures, folder=str(tmp_path / "none"))
    message = str(raised.value)
    assert message.startswith("decode_pictures ended with 1:\n")
    assert message.endswith(f"No such file or directory: '{tmp_path / 'none'}'")


# ---- preparing


@pytest.mark.slow
def test_every_way_of_preparing_sees_every_picture_and_box(monkeypatch, tmp_path, three):
    monkeypatch.setattr("benchmarks.pictures.sources", lambda: three)
    rows = {row.name: row for row in preparing.measure(count=24, rounds=1)}
    (first,), (unchanged,), (changed,) = (
        rows[f"odtrain prepare, {which}"].values
        for which in ("the first time", "nothing changed", "one label changed")
    )
    assert rows["like xml_to_csv.py"].values == (8 * 1 + 8 * 2,)
    assert rows["like generate_tfrecord.py"].values == (16,)  # pictures without objects are lost
    assert rows["bound: decoding every picture on all cores"].values == (24,)
    assert sum(split["images"] for split in first["counts"].values()) == 24
    assert sum(split["boxes"] for split in first["counts"].values()) == 24
    assert unchanged == first
    assert changed["counts"] == first["counts"]
    assert changed["digest"] != first["digest"]
    assert {name for name, row in rows.items() if row.tensorflow} == {
        "like generate_tfrecord.py",
        preparing.TUTORIAL,
    }
    assert rows[preparing.TUTORIAL].ratio == 1


@pytest.mark.slow
def test_what_stands_for_the_tutorial_writes_its_records(tmp_path, tiny_voc):
    csv, record = tmp_path / "labels.csv", tmp_path / "tutorial.record"
    assert tutorial.xml_to_csv(str(tiny_voc), str(csv)) == 4
    assert csv.read_text().splitlines()[0] == "filename,width,height,class,xmin,ymin,xmax,ymax"
    assert tutorial.generate_tfrecord(str(csv), str(tiny_voc), str(record), "square") == 3
    example = decode_example(index_records([record]).read(1))
    assert example["image/filename"] == [b"img2.png"]
    assert example["image/encoded"] == [(tiny_voc / "img2.png").read_bytes()]
    assert example["image/object/class/text"] == [b"square", b"circle"]
    assert example["image/object/class/label"] == [1, 0]
    assert example["image/object/bbox/xmax"] == pytest.approx([40 / 48, 9 / 48])
    assert example["image/object/bbox/ymin"] == pytest.approx([12 / 64, 1 / 64])


# ---- the command


def test_a_section_as_markdown():
    columns = {"name": lambda row: row[0], "ratio": lambda row: f"{row[1]:.1f}"}
    section = Section("Title", "What it is.", columns, [("a", 1.0), ("b", 2.25)])
    assert markdown(section) == (
        "## Title\n\nWhat it is.\n\n| name | ratio |\n| --- | ---: |\n| a | 1.0 |\n| b | 2.2 |\n"
    )


def test_the_head_names_cores_load_and_versions():
    assert "cores, load " in machine()
    assert "tensorflow 2.20" in machine()


@pytest.mark.slow
def test_the_command_prints_its_tables_and_writes_them(tmp_path):
    out = tmp_path / "tables.md"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "evaluation", "--to", out]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.read_text() + "\n" == done.stdout
    assert "## Evaluation (quick: not the real size)" in done.stdout
    assert "| evaluator | seconds | CPU s | ratio | largest difference | load |" in done.stdout
    faster = next(line for line in done.stdout.splitlines() if line.startswith("| faster-coco"))
    assert faster.split(" | ")[4] == "0.0e+00"


def test_an_unknown_benchmark_lists_those_there_are(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--only", "speed"])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert "argument --only: invalid choice: 'speed'" in said
    assert all(name in said.splitlines()[-1] for name in BENCHMARKS)


# ---- the zoo's models


def finished(value):
    return processes.Finished(value, 1.0, 1.0, 1.0, tensorflow=True, load=0.5)


def test_what_cannot_be_made_or_run_is_told_and_the_rest_is_timed(monkeypatch, tmp_path):
    made = {"written": [("pb", "a.pb"), ("tflite_fp32", "a.tflite")], "failed": [("pb", "too new")]}
    monkeypatch.setattr(processes, "run", lambda function, **arguments: finished(made))

    def measure(file, picture, runs, threads):
        if file.suffix == ".pb":
            raise ModelFileError(file, "is not a graph.", "Export it again.")
        return types.SimpleNamespace(latency_ms_p50=12.5)

    monkeypatch.setattr(zoo.benchmark, "measure", measure)
    names = ("ssd_mobilenet_v1_coco", "ssd_mobilenet_v1_quantized_coco")
    first, second = zoo.measure(zoo.Extent(names, ("pb", "tflite_fp32")))
    assert first.milliseconds == {"tflite_fp32": 12.5}
    assert first.failed == [
        "ssd_mobilenet_v1_coco pb: too new",
        "ssd_mobilenet_v1_coco pb: a.pb: is not a graph.",
    ]
    assert (second.model, second.milliseconds) == (names[1], first.milliseconds)
    assert second.failed == []


def test_an_export_that_ends_early_is_told(monkeypatch):
    def run(function, **arguments):
        raise ProcessError("write_files ended with -9:\nKilled")

    monkeypatch.setattr(processes, "run", run)
    (row,) = zoo.measure(zoo.Extent(("ssd_mobilenet_v1_coco",)))
    assert row.failed == ["ssd_mobilenet_v1_coco: Killed"]


def test_noise_is_how_far_timings_lie_from_their_median():
    row = noise.Row("pb", "none", (*[10.0] * 8, 11.0, 15.0), load=0.0)
    assert (row.median, row.within(0.8), row.within(0.9), row.within(1)) == (10, 0, 0.1, 0.5)


# ---- this version beside one before


def checkout_that_says(folder: Path, said: str) -> Path:
    """A checkout whose `odtrain` prints these words, and where it keeps its files, whatever it is asked."""
    room = folder / "odtrain" / "cli"
    room.mkdir(parents=True)
    (folder / "odtrain" / "__init__.py").touch()
    (room / "__init__.py").touch()
    main = f"import sys\n\ndef main():\n    print({said!r}, *sys.argv[1:])\n    return 0\n"
    (room / "main.py").write_text(main)
    started = "from odtrain.cli.main import main\n\nraise SystemExit(main())\n"
    (folder / "odtrain" / "__main__.py").write_text(started)
    return folder


@pytest.mark.parametrize(("now", "same"), [("one", True), ("two", False)])
def test_each_version_is_run_with_its_own_odtrain(tmp_path, now, same):
    versions = {
        "before": checkout_that_says(tmp_path / "v1", "one"),
        "now": checkout_that_says(tmp_path / "v2", now),
    }
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    case = earlier.Case("a command", earlier.run_command, {"words": ["out={own}/x"]})
    row = earlier._compared(case, versions, inputs, rounds=1)
    assert (row.same, len(row.ratios)) == (same, 1)


@pytest.mark.parametrize("topic", earlier.TOPICS)
@pytest.mark.parametrize("quick", [True, False])
def test_every_case_has_the_arguments_that_its_function_takes(topic, quick):
    for case in earlier.TOPICS[topic].cases(quick):
        folders = {"inputs": "a", "own": "b"}
        inspect.signature(case.run).bind(**folders, **json.loads(json.dumps(case.arguments)))


def test_of_numbers_the_median_is_shown_and_of_others_whether_they_differ():
    def shown(before, now, same):
        runs = [[{earlier.VALUE: value} for value in values] for values in (before, now)]
        values = tuple(map(earlier._middle, runs))
        row = earlier.Row("a", (1, 1), (1, 1), (1,), (1,), (1, 1), values, same, 0.0)
        return BEFORE["result"](row)

    assert shown([0.5, 0.6, 0.1], [0.7, 0.6, 0.8], same=False) == "0.500 -> 0.700"
    assert shown(["a"], ["b"], same=False) == "DIFFERS"
    assert shown(["a"], ["a"], same=True) == "the same"


def test_the_version_before_is_a_worktree_for_the_time_of_the_comparison(tmp_path):
    def worktrees() -> str:
        listed = subprocess.run(
            ["git", "-C", ROOT, "worktree", "list"], capture_output=True, text=True, check=True
        )
        return listed.stdout

    known = worktrees()
    with earlier._worktree("HEAD", tmp_path / "before") as folder:
        assert (folder / "odtrain" / "__init__.py").is_file()
    assert worktrees() == known


def test_an_unknown_commit_is_told(tmp_path):
    with pytest.raises(
        ProcessError, match=r"git worktree add .*: fatal: invalid reference: nowhere"
    ):
        with earlier._worktree("nowhere", tmp_path / "before"):
            pass
