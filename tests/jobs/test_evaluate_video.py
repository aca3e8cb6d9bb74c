"""Videos with known tracks, through a model that always sees the same two boxes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.pictures import draw_picture
from support.stores import store_at
from support.videos import make_video

from odtrain.cli.main import main

pytest.importorskip("trackers", reason="the extra `tracks` is not installed")
pytestmark = pytest.mark.usefixtures("own_environment")
FRAMES = 8


@pytest.fixture
def run(capsys, model, tmp_path, database):
    """Runs `odtrain evaluate` on videos; exit status, what it said, and its complaints."""
    store = store_at(tmp_path / "store", database)

    def run(place, labels, *settings):
        words = [f"source={model}", f"predict.label_map={model.parent}/labels.txt"]
        given = [f"{key}={value}" for key, value in (("input", place), ("labels", labels)) if value]
        where = [f"tracking.uri={store.uri}", f"outputs={tmp_path / 'outputs'}"]
        capsys.readouterr()
        status = main(["evaluate", *words, *given, *where, *settings])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def seen(model: Path, film: Path, folder: Path) -> list[str]:
    """The two boxes of every frame as MOT text: what `predict` follows."""
    words = [f"source={model}", f"input={film}", f"output={folder}", "predict.track=true"]
    assert main(["predict", *words, f"predict.label_map={model.parent}/labels.txt"]) == 0
    lines = (folder / "tracks" / f"{film.stem}.txt").read_text().splitlines()
    first = [line.replace("2,", "1,", 1) for line in lines if line.startswith("2,")]
    return [*first, *lines]  # a track has its number from the second frame on


def scores(tmp_path: Path) -> dict[str, object]:
    (file,) = tmp_path.glob("outputs/**/eval/video.json")
    table: dict[str, object] = json.loads(file.read_text())
    return table


def test_a_video_is_scored_against_its_labels_and_kept_in_a_run(run, model, tmp_path):
    film = make_video(tmp_path / "film.mp4", frames=FRAMES)
    lines = seen(model, film, tmp_path / "found")
    (tmp_path / "gt.txt").write_text("\n".join(lines))
    status, said, complaints = run(film, tmp_path / "gt.txt")
    assert status == 0, complaints
    # Two boxes of eight frames; the tracker has no number for them in the first one.
    assert said.startswith("HOTA 0.875, MOTA 0.875, IDF1 0.933; 0 id switches, 0 false boxes, ")
    assert "2 missed boxes, in 8 frames of 1 video (" in said
    assert "One video has no interval: give a folder of clips.\n" in said
    table = scores(tmp_path)
    assert table["values"]["MOTA"] == pytest.approx(1 - 2 / 16)
    assert table["intervals"] == {}
    (kept,) = tmp_path.glob("outputs/**/eval/tracks/1-film.txt")
    assert kept.read_text().splitlines() == lines[2:]


def test_clips_in_a_folder_find_their_labels_and_give_an_interval(run, model, tmp_path):
    (tmp_path / "films").mkdir()
    for name in ("a", "b"):
        make_video(tmp_path / "films" / f"{name}.mp4", frames=FRAMES)
    lines = seen(model, tmp_path / "films/a.mp4", tmp_path / "found")
    (tmp_path / "labels/b/gt").mkdir(parents=True)
    (tmp_path / "labels/a.txt").write_text("\n".join(lines))
    (tmp_path / "labels/b/gt/gt.txt").write_text("\n".join(lines[:8]))
    status, said, complaints = run(tmp_path / "films", tmp_path / "labels")
    assert status == 0, complaints
    table = scores(tmp_path)
    low, high = table["intervals"]["MOTA"]
    each = [clip["MOTA"] for clip in table["clips"].values()]
    assert (low, high) == (pytest.approx(min(each)), pytest.approx(max(each)))
    assert f"MOTA {table['values']['MOTA']:.3f} [{low:.3f}, {high:.3f}], " in said


def test_labels_that_go_on_after_the_video_are_refused(run, tmp_path):
    film = make_video(tmp_path / "film.mp4", frames=FRAMES)
    (tmp_path / "gt.txt").write_text("30,1,1,1,5,5\n")
    status, _, complaints = run(film, tmp_path / "gt.txt")
    assert status == 1
    assert complaints.endswith(
        f"{tmp_path}/gt.txt: labels frame 30 (from 1); {film} has 8.\n"
        "  Give the labels of this video.\n"
    )


@pytest.mark.parametrize(
    ("place", "labels", "said"),
    [
        ("film.mp4", None, "labels: is not given."),
        (None, "gt.txt", "input: is not given."),
        ("film.mp4", "none.txt", "labels={folder}/none.txt: is not there."),
        ("film.mp4", "films", "{folder}/film.mp4: has no labels in {folder}/films."),
        ("still.png", "gt.txt", "{folder}/still.png: is no video."),
    ],
)
def test_what_does_not_go_together_is_told_of(run, tmp_path, place, labels, said):
    make_video(tmp_path / "film.mp4", frames=2)
    (tmp_path / "films").mkdir()
    (tmp_path / "gt.txt").write_text("1,1,1,1,5,5\n")
    draw_picture(tmp_path / "still.png", (64, 48), [])
    status, _, complaints = run(place and tmp_path / place, labels and tmp_path / labels)
    assert status == 1
    assert said.format(folder=tmp_path) in complaints.splitlines()
