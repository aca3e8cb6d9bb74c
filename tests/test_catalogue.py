from __future__ import annotations

import subprocess
import sys

import pytest

from odtrain.catalogue import model_names, table
from odtrain.errors import ConfigError


def names(text: str) -> list[str]:
    return [line.split("|")[1].strip() for line in text.splitlines()[2:]]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_every_model_has_its_row():
    assert names(table()) == model_names()
    assert (
        "| ssd_mobilenet_v2_coco | 300x300 | 1 | 22 % | 31 | to be fetched |"
        in table().splitlines()
    )
    assert "| panels_ssd_mobilenet_v1 | 160x160 | 0.35 |  |  | none |" in table().splitlines()


@pytest.mark.parametrize(
    ("sort", "first", "last"),
    [
        ("map", "ssd_resnet_50_fpn_coco", None),
        ("ms", "ssd_mobilenet_v1_0.75_depth_coco", None),
        ("input", "panels_ssd_mobilenet_v1", "ssd_resnet_50_fpn_coco"),
    ],
)
def test_it_is_sorted_by_a_column(sort, first, last):
    found = names(table(sort))
    assert found[0] == first
    assert last in (None, found[-1])
    assert sorted(found) == model_names()


def test_a_column_that_is_not_there_is_refused():
    with pytest.raises(ConfigError) as error:
        table("beauty")
    assert str(error.value) == (
        "--sort beauty: no such column.\n  Choose one of: name, map, ms, input."
    )


def test_listing_does_not_need_tensorflow():
    code = "import sys, odtrain.catalogue; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
