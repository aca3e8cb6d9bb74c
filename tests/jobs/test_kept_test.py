"""A training that starts from a version of its model is judged on that version's test pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image
from support.commands import TINY_RUN
from support.pictures import label_picture, write_xml

from odtrain.config.compose import compose_config, section
from odtrain.config.schema import Config, DataConfig
from odtrain.dataset.check import Checked, check
from odtrain.dataset.prepare import prepare
from odtrain.dataset.splits import read_list
from odtrain.errors import DataError
from odtrain.jobs.kept_test import alike_to, split_around, with_kept_test
from odtrain.jobs.train import train
from odtrain.model_source import run_config

SETTINGS = [*TINY_RUN, "train.steps=2", "export.formats=[tflite_fp32]"]


# ---- a split around pictures that are kept


def pets(folder: Path, *names: str) -> None:
    for name in names:
        seed = sum(map(ord, name))
        label_picture(folder / name, (64, 48), [("circle", 4, 6, 30, 40)], seed=seed)


def checked(folder: Path) -> Checked:
    place = str(folder.with_name("prepared"))
    return check(section(DataConfig, name="pets", images=str(folder), prepared=place))


def names(split: dict[str, list]) -> dict[str, list[str]]:
    named = {part: sorted(image.image.name for image in split[part]) for part in split}
    return {part: each for part, each in named.items() if each}


def test_kept_pictures_are_the_test_split_and_the_rest_trains(tmp_path):
    pets(tmp_path / "pets", "a.png", "b.png", "c.png", "d.png")
    split = split_around({tmp_path / "pets/b.png"}, set(), checked(tmp_path / "pets"))
    assert names(split) == {"test": ["b.png"], "train": ["a.png", "c.png", "d.png"]}


def test_what_folders_give_stays_but_for_kept_pictures(tmp_path):
    folder = tmp_path / "pets"
    pets(folder / "train", "a.png", "b.png")
    pets(folder / "validation", "c.png")
    pets(folder / "test", "d.png")
    split = split_around({folder / "train/b.png"}, set(), checked(folder))
    assert names(split) == {"train": ["a.png"], "validation": ["c.png"], "test": ["b.png", "d.png"]}


def test_what_is_left_out_is_nowhere(tmp_path):
    pets(tmp_path / "pets", "a.png", "b.png", "c.png")
    kept, out = {tmp_path / "pets/a.png"}, {tmp_path / "pets/c.png"}
    split = split_around(kept, out, checked(tmp_path / "pets"))
    assert names(split) == {"test": ["a.png"], "train": ["b.png"]}


def test_pictures_of_a_kept_picture_s_scene_are_alike_to_it():
    scenes = [(Path("a"), Path("b"), Path("c")), (Path("d"), Path("e"))]
    assert alike_to({Path("b")}, scenes) == {Path("a"), Path("c")}


# ---- of a version


@pytest.fixture
def grown(again, shapes, tmp_path) -> Path:
    """The pictures that version 1 is of, two new ones, and a copy of a test picture under another name."""
    folder = tmp_path / "grown"
    shutil.copytree(shapes, folder)
    pets(folder, "new1.png", "new2.png")
    first = folder / judged_on(tmp_path / "again")[0]
    Image.open(first).save(folder / "copy.png")
    write_xml(folder / "copy.xml", "copy.png", (96, 80), [("circle", 4, 6, 30, 40)])
    return folder


def judged_on(folder: Path) -> list[str]:
    return read_list(folder / "datasets/shapes/test_list.txt")


def settings(folder: Path, *more: str) -> Config:
    return compose_config([*SETTINGS, f"data.images={folder}", *more])


@pytest.mark.slow
def test_its_test_pictures_stay_and_new_ones_train(again, grown, tmp_path, said):
    before = judged_on(tmp_path / "again")
    config = with_kept_test(settings(grown, "train.checkpoint=models:/shapes/1"))
    dataset = prepare(config.data)
    lists = {part: read_list(dataset.folder / f"{part}_list.txt") for part in dataset.counts}
    learned = lists["train"] + lists["validation"]
    assert lists["test"] == before
    assert len(learned) == 18
    assert {"new1.png", "new2.png"} < set(learned)
    assert "copy.png" not in learned
    assert said[0] == (
        "models:/shapes/1 was judged on 4 test pictures, and so is what is trained now; 2 new pictures join "
        "training and validation.\nWhat shows the same as a test picture stays out of them: copy.png"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        pytest.param(["train.checkpoint=null"], id="random weights"),
        pytest.param(
            ["train.checkpoint=models:/shapes/1", "data.test_list=LIST"], id="a test list"
        ),
        pytest.param(
            ["train.checkpoint=models:/shapes/1", "registry.name=other"], id="another model"
        ),
        pytest.param(["train.checkpoint=models:/shapes/1", "train.resume=x"], id="a resumed run"),
    ],
)
def test_elsewhere_the_split_is_drawn_as_ever(again, grown, more):
    config = settings(grown, *more)
    assert with_kept_test(config) == config


@pytest.mark.slow
def test_an_older_run_says_its_test_pictures_by_their_labels(again, grown, tmp_path):
    (run,) = (tmp_path / "again/outputs/Default").iterdir()
    for file in (run / "data").glob("*_list.txt"):
        file.unlink()
    shutil.rmtree(tmp_path / "again/mlartifacts")
    config = with_kept_test(settings(grown, "train.checkpoint=models:/shapes/1"))
    assert read_list(Path(config.data.test_list)) == judged_on(tmp_path / "again")


@pytest.mark.slow
def test_test_pictures_that_are_gone_are_named(again, grown, tmp_path):
    gone = judged_on(tmp_path / "again")[:2]
    for name in gone:
        (grown / name).unlink()
        (grown / name).with_suffix(".xml").unlink()
    with pytest.raises(DataError) as caught:
        with_kept_test(settings(grown, "train.checkpoint=models:/shapes/1"))
    assert str(caught.value) == (
        f"{grown}: 2 of the 4 test pictures of models:/shapes/1 are not among its labelled pictures: "
        f"{', '.join(gone)}.\n"
        "  Put them back with their labels, beside the new ones: a new version is judged on what the old one "
        "was judged on.\n"
        "  To judge it on other pictures: data.test_list=FILE"
    )


@pytest.mark.slow
def test_both_are_judged_on_the_same_pictures(again, grown, tmp_path):
    overrides = [*SETTINGS, f"data.images={grown}", "train.checkpoint=models:/shapes/1"]
    again.set_registered_model_alias("shapes", "champion", "1")
    result = train(compose_config(overrides), overrides)
    version = again.get_model_version("shapes", "2")
    assert len(result.evaluation.images) == 4
    assert version.tags["odtrain.gate.against"] == "1"
    config = run_config(result.run_id, compose_config([]).runs)
    assert prepare(config.data).digest == version.tags["odtrain.data_digest"]
