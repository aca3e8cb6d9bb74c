"""What the user's own pictures are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from odtrain.config.compose import as_dict, compose_config, flattened
from odtrain.config.data_name import is_folder_name, name_of
from odtrain.config.shipped import shipped
from odtrain.errors import ConfigError
from odtrain.jobs.resume import _refuse_changes
from odtrain_runtime.plain import plain


def test_data_without_a_name_are_called_after_their_folder_and_that_is_said(tmp_path, said):
    config = compose_config([f"data.images={tmp_path}/raccoon/images"], aloud=True)
    assert (config.data.name, config.data.prepared) == ("raccoon", "datasets/raccoon")
    assert (config.registry.name, config.sweep.name) == ("raccoon", "raccoon")
    assert said == [
        'Your data set is called "raccoon" after its folder, and so are its prepared files and its '
        'model: "panels" are those that come with odtrain. Another name: data.name=NAME.'
    ]


def test_the_pictures_that_come_with_odtrain_are_called_panels(said):
    images = shipped("data/panels/images")
    assert compose_config([f"data.images={images}"], aloud=True).data.name == "panels"
    assert said == []


@pytest.mark.parametrize("folder", ["pets", "panels", "panels/images"])
def test_nothing_of_the_users_is_ever_called_panels(tmp_path, folder):
    given = [f"data.images={tmp_path / folder}", "data.name=panels"]
    name = compose_config(given).data.name
    assert name == ("pets" if folder == "pets" else "my_panels")


def test_a_name_that_is_given_is_kept_and_nothing_said(tmp_path, said):
    given = [f"data.images={tmp_path}", "data.name=고양이 2"]
    assert compose_config(given, aloud=True).data.name == "고양이 2"
    assert said == []


def test_a_choice_of_ones_own_may_leave_the_name_out(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine.yaml").write_text(f"images: {tmp_path}/cats\n")
    assert compose_config(["data=mine"], str(tmp_path)).data.name == "cats"


@pytest.mark.parametrize(
    ("images", "name"),
    [
        pytest.param("/home/me/cats", "cats", id="folder"),
        pytest.param("/home/me/cats/train/JPEGImages", "cats", id="folder of pictures"),
        pytest.param("/home/me/고양이/data", "고양이", id="letters of all the world"),
        pytest.param("/home/me/a:b*c", "a_b_c", id="what Windows refuses"),
        pytest.param("/home/me/NUL", "my_NUL", id="what Windows keeps for itself"),
        pytest.param("/home/me/...", "my_data", id="dots alone"),
        pytest.param(f"/home/me/{'long' * 60}", "long" * 15, id="long"),
        pytest.param("/images", "images", id="nothing that tells more"),
        pytest.param("/", "my_data", id="root"),
    ],
)
def test_a_folder_gives_a_name_that_is_safe_everywhere(images, name):
    assert name_of(images) == name
    assert is_folder_name(name)


def test_the_folder_one_is_in_gives_its_name(tmp_path, monkeypatch):
    (tmp_path / "mugs").mkdir()
    monkeypatch.chdir(tmp_path / "mugs")
    assert name_of(".") == "mugs"


@pytest.mark.parametrize(
    "name",
    [
        "../up",
        ".",
        "..",
        "/tmp/up",
        "a/b",
        "a\\b",
        "a:b",
        "",
        "a.",
        "con",
        "LPT1.txt",
        "a\x07",
    ],
)
def test_a_name_that_is_no_single_folder_is_refused(name):
    with pytest.raises(ConfigError) as error:
        compose_config([f"data.name={name}"])
    assert str(error.value) == (
        f"data.name={plain(name)}: cannot be the name of a folder.\n  Give one word, such as raccoon."
    )


@pytest.mark.parametrize("name", [" ", "a ", " a"])
def test_a_name_with_blanks_around_it_is_none_of_a_folder(name):
    assert not is_folder_name(name)


@pytest.mark.parametrize("name", ["n" * 300, "한" * 80])
def test_a_name_that_is_too_long_is_refused(name):
    with pytest.raises(ConfigError, match="cannot be the name of a folder"):
        compose_config([f"data.name={name}"])


def test_a_run_that_was_begun_as_panels_goes_on_without_a_name(tmp_path):
    given = [f"data.images={tmp_path}/cats"]
    asked = flattened(as_dict(compose_config(given)))
    named = {key: "panels" for key in ("data.name", "registry.name", "sweep.name")}
    kept = {**asked, **named, "data.prepared": "datasets/panels"}
    _refuse_changes(asked, kept, given, "a run")
    with pytest.raises(
        ConfigError, match=r"^data\.name=dogs: run a run was begun with data\.name=panels"
    ):
        _refuse_changes({**asked, "data.name": "dogs"}, kept, [*given, "data.name=dogs"], "a run")


def test_what_is_written_lies_in_the_folder_of_data_sets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepared = Path(compose_config([f"data.images={tmp_path}/.."]).data.prepared)
    assert prepared.parent == Path("datasets")
