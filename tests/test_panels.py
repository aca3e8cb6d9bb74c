"""The demo data set: the pictures that are shipped are those that its script draws."""

from __future__ import annotations

import importlib.util
import io
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

PANELS = Path(__file__).resolve().parents[1] / "data" / "panels"


@pytest.fixture(scope="module")
def draw() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_panels", PANELS / "draw.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def labels(split: str) -> list[ElementTree.Element]:
    return [
        ElementTree.parse(file).getroot() for file in sorted(PANELS.glob(f"images/{split}/*.xml"))
    ]


@pytest.mark.parametrize(("split", "number"), [("train", 1), ("train", 720), ("test", 3)])
def test_the_script_draws_the_shipped_picture_again(draw, split, number):
    file = PANELS / "images" / split / f"panel-{split}-{number:04d}.jpg"
    jpeg, xml = draw.draw_picture(0, split, number)
    shipped = np.asarray(Image.open(file), np.float64)
    drawn = np.asarray(Image.open(io.BytesIO(jpeg)), np.float64)
    assert xml == file.with_suffix(".xml").read_text(encoding="utf-8")
    assert drawn.shape == shipped.shape
    assert np.abs(drawn - shipped).mean() < 2  # grey levels; decoders and font renderers differ


def test_another_seed_draws_another_picture(draw):
    assert draw.draw_picture(0, "train", 1) != draw.draw_picture(1, "train", 1)


def test_the_xml_is_that_of_labelimg(draw):
    """The expected text is what labelImg 1.8.6's own writer gave for these boxes."""
    boxes = [("floor", np.array([0.0, 17.9, 60.2, 80.0])), ("alarm", np.array([100, 50, 140, 240]))]
    assert draw.voc_xml("train", "panel-0001.jpg", (320, 240), boxes) == LABELIMG


def test_labelimg_says_of_a_box_inside_that_it_is_not_truncated(draw):
    xml = draw.voc_xml("test", "a.jpg", (320, 240), [("key", np.array([2.0, 2.0, 319.9, 239.9]))])
    assert ElementTree.fromstring(xml).findtext("object/truncated") == "0"


def test_the_data_set_is_as_its_readme_says():
    readme = (PANELS / "README.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in readme.splitlines() if line.startswith("| `")]
    said = {row[0].strip(" `"): (int(row[2]), int(row[3])) for row in rows}
    train, test = (
        Counter(name.text for root in labels(split) for name in root.iter("name"))
        for split in ("train", "test")
    )
    assert said == {name: (train[name], test[name]) for name in train | test}
    assert (len(labels("train")), len(labels("test"))) == (720, 80)
    assert sum(root.find("object") is None for s in ("train", "test") for root in labels(s)) == 36


def test_boxes_lie_in_their_pictures_and_are_large_enough_to_learn():
    for root in labels("train") + labels("test"):
        width, height = (int(root.findtext(f"size/{side}")) for side in ("width", "height"))
        for box in root.iter("bndbox"):
            xmin, ymin, xmax, ymax = (int(edge.text) for edge in box)
            assert 1 <= xmin < xmax <= width
            assert 1 <= ymin < ymax <= height
            assert min((xmax - xmin) / width, (ymax - ymin) / height) * 160 >= 12


def test_the_shipped_data_stays_small():
    sizes = [file.stat().st_size for file in (PANELS / "images").rglob("*") if file.is_file()]
    assert sum(sizes) < 5e6


LABELIMG = """\
<annotation>
\t<folder>train</folder>
\t<filename>panel-0001.jpg</filename>
\t<path>train/panel-0001.jpg</path>
\t<source>
\t\t<database>Unknown</database>
\t</source>
\t<size>
\t\t<width>320</width>
\t\t<height>240</height>
\t\t<depth>3</depth>
\t</size>
\t<segmented>0</segmented>
\t<object>
\t\t<name>floor</name>
\t\t<pose>Unspecified</pose>
\t\t<truncated>1</truncated>
\t\t<difficult>0</difficult>
\t\t<bndbox>
\t\t\t<xmin>1</xmin>
\t\t\t<ymin>17</ymin>
\t\t\t<xmax>60</xmax>
\t\t\t<ymax>80</ymax>
\t\t</bndbox>
\t</object>
\t<object>
\t\t<name>alarm</name>
\t\t<pose>Unspecified</pose>
\t\t<truncated>1</truncated>
\t\t<difficult>0</difficult>
\t\t<bndbox>
\t\t\t<xmin>100</xmin>
\t\t\t<ymin>50</ymin>
\t\t\t<xmax>140</xmax>
\t\t\t<ymax>240</ymax>
\t\t</bndbox>
\t</object>
</annotation>
"""
