from __future__ import annotations

import subprocess
import sys

import pytest

from odtrain.config.compose import compose_config
from odtrain.errors import ConfigError
from odtrain.io.archives import cache_folder
from odtrain.io.download import file_in
from odtrain.zoo.catalog import catalog, catalog_table, model_names, settings_of
from odtrain.zoo.purposes import PURPOSES, purposes


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]


def names(text: str) -> list[str]:
    return [row[0] for row in rows(text)]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_every_model_has_its_row():
    assert names(catalog_table()) == model_names()
    assert "ssd_mobilenet_v2_coco 300x300 1 16.84 M 1.88 G 22 % 31 to be fetched".split(
        " "
    ) == " ".join(rows(catalog_table())[model_names().index("ssd_mobilenet_v2_coco")]).split(" ")
    panels = rows(catalog_table())[model_names().index("panels_ssd_mobilenet_v1")]
    assert panels == [
        "panels_ssd_mobilenet_v1",
        "160x160",
        "0.35",
        "1.03 M",
        "0.0517 G",
        "",
        "",
        "none",
    ]


def test_the_columns_stand_below_each_other():
    lines = catalog_table().splitlines()
    assert len({tuple(i for i, sign in enumerate(line) if sign == "|") for line in lines}) == 1


def test_weights_that_are_here_are_shown(tmp_path):
    sources = compose_config(["model=ssd_mobilenet_v2_coco"]).model.zoo.sources
    file = file_in(cache_folder(), sources)
    file.parent.mkdir(parents=True)
    file.touch()
    assert rows(catalog_table("weights"))[0][0] == "ssd_mobilenet_v2_coco"
    assert rows(catalog_table("weights"))[0][-1] == "here"


@pytest.mark.parametrize(
    ("sort", "first", "last"),
    [
        ("map", "efficientdet_lite4_coco", None),
        ("ms", "ssd_mobilenet_edgetpu_coco", None),
        ("input", "panels_ssd_mobilenet_v1", "ssd_resnet_50_fpn_coco"),
        ("depth", "ssd_mobilenet_v1_0.25_depth_192", None),
        ("parameters", "ssd_mobilenet_v1_0.25_depth_192", "retinanet_resnetfpn_coco"),
        ("macs", "ssd_mobilenet_v1_0.25_depth_192", "retinanet_resnetfpn_coco"),
    ],
)
def test_it_is_sorted_by_a_column(sort, first, last):
    found = names(catalog_table(sort))
    assert found[0] == first
    assert last in (None, found[-1])
    assert sorted(found) == model_names()


def test_of_weights_behind_a_closed_door_it_is_said_why_and_what_to_take():
    table, _, said = catalog("name").rpartition("\n\n")
    assert table == catalog_table()
    assert said.splitlines()[0] == (
        "retinanet_mobile_coco: closed, since 2026-02 its bucket answers 403, access denied "
        "(tensorflow/models#13610). Take model=ssd_mobiledet_dsp_coco or "
        "model=ssd_mobilenet_v3_large_coco instead."
    )
    closed = [row[0] for row in rows(table) if row[-1] == "closed"]
    assert closed == ["retinanet_mobile_coco", "retinanet_resnetfpn_coco"]


def test_what_is_to_be_taken_instead_is_there_and_not_closed():
    entries = {name: settings_of(name, None)["zoo"] for name in model_names()}
    instead = [each for entry in entries.values() if entry for each in entry.get("instead") or ()]
    assert instead
    assert not [name for name in instead if entries[name].get("closed")]


def test_without_a_column_there_is_a_table_of_each_purpose_below_its_advice():
    *parts, closed = catalog().split("\n\n")
    assert closed.startswith("retinanet_mobile_coco: closed, ")
    said, tables = parts[::2], parts[1::2]
    assert said == [f"{each.name}: {each.advice}" for each in PURPOSES]
    assert [names(table) for table in tables] == [sorted(each.models) for each in PURPOSES]
    assert sorted(line for table in tables for line in table.splitlines()[2:]) == sorted(
        catalog_table().splitlines()[2:]
    )


def test_every_model_has_one_purpose():
    listed = [name for each in PURPOSES for name in each.models]
    assert sorted(listed) == model_names()


def test_models_of_your_own_are_a_group_of_their_own():
    *_, own = purposes(["mine", "ssd_mobiledet_gpu"])
    assert own == ("Your own", "", ("mine",))


def test_a_column_that_is_not_there_is_refused():
    with pytest.raises(ConfigError) as error:
        catalog_table("beauty")
    assert str(error.value) == (
        "--sort beauty: no such column.\n"
        "  Choose one of: name, input, depth, parameters, macs, map, ms, weights."
    )


def test_models_of_your_own_are_listed_too(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [ssd_mobilenet_v1_coco, _self_]\n"
        "model: {name: mine, input_size: [96, 128], zoo: null}\n"
    )
    (mine,) = [row for row in rows(catalog_table(config_dir=str(tmp_path))) if row[0] == "mine"]
    assert mine == ["mine", "96x128", "1", "", "", "", "", "none"]


def test_listing_does_not_need_tensorflow():
    code = "import sys, odtrain.zoo.catalog; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
