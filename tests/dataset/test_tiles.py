"""Training pictures cut into tiles, from the pictures to the records."""

from __future__ import annotations

import hashlib
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.pictures import label_picture

from odtrain.config.compose import section
from odtrain.config.schema import CutConfig, DataConfig
from odtrain.config.shipped import shipped
from odtrain.dataset.check import check
from odtrain.dataset.prepare import prepare
from odtrain.dataset.read import labelled_images, read_truths
from odtrain.dataset.tiles import TILE, TILE_OF, as_seen, cut
from odtrain.errors import ConfigError
from odtrain.io.tfrecord import decode_example, index_records
from odtrain.labels.annotations import LabelledImage, LabelledObject
from odtrain.reports.data_preview import tile_sheet
from odtrain_runtime.tiles import Tiles

QUARTERS = {"size": 100, "overlap": 0.0, "whole": False, "min_visible": 0.5, "empty": 0.0}
UNTILED = "96adc98112b777e362a0e73a6980ae97bf13090b4934ec338e8ba6fd58ecc9f7"
"""Digest of all that was prepared of eight panels before there were tiles."""
PANELS = shipped("data/panels/images") / "test"


def data(folder: str | Path = "nowhere", **values: object) -> DataConfig:
    tiles = section(CutConfig, **{**QUARTERS, **values})
    return section(
        DataConfig,
        name="large",
        images=str(folder),
        tiles=tiles,
        test_fraction=0.5,
        validation_fraction=0,
        prepared=str(Path(folder).parent / "prepared"),
    )


def picture(*boxes: tuple[int, int, int, int], name: str = "a.jpg") -> LabelledImage:
    """200 x 200 pixels with boxes ymin, xmin, ymax, xmax."""
    objects = tuple(
        LabelledObject("cat", tuple(v / 200 for v in box), False, False) for box in boxes
    )
    return LabelledImage(Path(name), Path("a.xml"), 200, 200, objects)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Two pictures of 200 x 160, with a small box, one that the middle cuts, and one larger than a tile."""
    objects = [
        ("circle", 10, 10, 30, 34),
        ("square", 80, 100, 110, 140),
        ("square", 5, 40, 190, 150),
    ]
    for seed, name in enumerate(("img1.png", "img2.png")):
        label_picture(tmp_path / "pictures" / name, (200, 160), objects, seed=seed)
    return tmp_path / "pictures"


def test_a_box_counts_where_enough_of_it_is_seen_and_is_cut_there():
    made = cut(data(), [picture((10, 80, 50, 110))])
    ((tile, window),) = made.pieces
    assert window == (0, 0, 100, 100)
    assert (tile.height, tile.width) == (100, 100)
    (item,) = tile.objects
    assert item.yxyx == pytest.approx((0.1, 0.8, 0.5, 1.0))
    assert item.truncated
    assert made.left_out == 1
    assert made.lost == []


def test_an_object_that_no_tile_shows_enough_of_is_lost_unless_the_whole_is_trained_on():
    large = picture((0, 0, 200, 200))
    assert [item for _, item in cut(data(), [large]).lost] == list(large.objects)
    with_whole = cut(data(whole=True), [large])
    assert with_whole.lost == []
    assert with_whole.pieces[0] == (large, None)


def test_empty_tiles_are_kept_in_proportion_and_from_every_picture():
    pictures = [picture((10, 10, 50, 50), name=f"{n}.jpg") for n in range(4)]
    made = cut(data(empty=1), pictures)
    assert made.empty == (12, 4)
    empties = [piece.image.image.name for piece in made.pieces if not piece.image.objects]
    assert empties == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert cut(data(empty=1), pictures).pieces == made.pieces
    assert cut(data(empty=0.5), pictures).empty == (12, 2)
    assert cut(data(empty=9), pictures).empty == (12, 12)


def test_a_picture_no_larger_than_a_tile_stays_as_it_is():
    one = picture((10, 10, 50, 50))
    assert cut(data(size=200), [one]).pieces == [(one, None)]


def test_records_hold_the_tiles_of_the_training_pictures_alone(large):
    dataset = prepare(data(large, whole=True, size=[80, 100]))
    assert dataset.counts == {
        "train": {"images": 1, "boxes": 3, "pieces": 3},
        "validation": {"images": 0, "boxes": 0},
        "test": {"images": 1, "boxes": 3},
    }
    index = index_records(dataset.records("train"))
    examples = [decode_example(index.read(i)) for i in range(len(index))]
    of, places = (large / "img1.png", large / "img2.png"), []
    for example in examples[1:]:
        top, left, height, width, *size = example[TILE]
        places.append((top, left, height, width))
        assert size == [160, 200]
        name = example[TILE_OF][0].decode()
        assert example["image/filename"] == [f"{name[:-4]}-y{top}-x{left}.png".encode()]
        source = np.asarray(Image.open(next(file for file in of if file.name == name)))
        stored = np.asarray(Image.open(io.BytesIO(example["image/encoded"][0])))
        assert np.array_equal(stored, source[top : top + height, left : left + width])
    assert places == [(0, 0, 80, 100), (80, 0, 80, 100)]
    assert len({example["image/source_id"][0] for example in examples}) == 3
    assert [truth.name[:3] for truth in read_truths(dataset, "test")] == ["img"]
    assert {(i.height, i.width) for i in labelled_images(dataset)} == {(160, 200)}


def test_of_a_picture_that_is_in_tiles_alone_the_objects_of_the_tiles_are_known(large):
    dataset = prepare(data(large))
    train = [image for image in labelled_images(dataset) if len(image.objects) < 3]
    (image,) = train
    assert [item.name for item in image.objects] == ["circle"]
    assert image.objects[0].yxyx == pytest.approx(
        (10 / 160, 10 / 200, 34 / 160, 30 / 200), abs=1e-4
    )


def test_what_was_cut_is_found_and_what_is_lost(large):
    findings = [f for f in check(data(large)).findings if f.code in ("OD125", "OD235")]
    assert [f.code for f in findings] == ["OD125", "OD235"]
    assert findings[0].box == "square 5,40,190,150"
    assert findings[0].cause == "no tile shows 0.5 of it or more: it is not trained on."
    assert findings[1].file == "data.tiles.size=100"
    assert findings[1].cause == (
        "1 training pictures were cut into 2 tiles; 0 of 2 tiles without an object were kept, and 5 pieces "
        "of boxes of which a tile shows less than 0.5 were left out."
    )


def test_tiles_larger_than_every_picture_are_told(large):
    (finding,) = [f for f in check(data(large, size=1000)).findings if f.code == "OD124"]
    assert str(finding) == (
        "warning OD124 data.tiles.size=1000: no training picture is larger than such a tile: none was cut. "
        "Give a smaller data.tiles.size, or null."
    )


def test_other_tiles_are_another_data_set_and_the_same_ones_are_made_once(large):
    first = prepare(data(large))
    stamp = first.records("train")[0].stat().st_mtime_ns
    assert prepare(data(large)).records("train")[0].stat().st_mtime_ns == stamp
    other = prepare(data(large, min_visible=0.3))
    assert other.digest != first.digest
    assert other.records("train")[0].stat().st_mtime_ns != stamp


def test_without_tiles_all_is_as_it_was_before_there_were_any(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pictures").mkdir()
    for file in sorted(PANELS.glob("panel-test-000[1-8].*")):
        shutil.copy(file, "pictures")
    config = section(DataConfig, name="panels", images="pictures", prepared="prepared", shards=1)
    digest = hashlib.sha256()
    for file in sorted(prepare(config).folder.iterdir()):
        if file.name != "state.json":
            digest.update(file.name.encode() + file.read_bytes())
    assert digest.hexdigest() == UNTILED


def test_tiles_are_drawn_as_they_lie(large):
    sheet = tile_sheet(prepare(data(large, empty=9)))
    assert sheet.shape == (2 * 168 + 8, 2 * 168 + 8, 3)
    assert tile_sheet(prepare(data(large, size=None))) is None


def test_a_box_is_seen_in_the_tile_that_shows_most_of_it():
    tiles = Tiles(100, 100, 0.0, whole=False)
    seen = as_seen(picture((10, 80, 50, 110), (120, 120, 160, 160)), tiles)
    assert seen == pytest.approx(np.array([[0.1, 0.8, 0.5, 1.0], [0.2, 0.2, 0.6, 0.6]]))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"size": 10},
            "data.tiles.size=10: not a size in pixels.\n  Give one number from 32 to 8192, [height,width] "
            "or null.",
        ),
        (
            {"overlap": 1},
            "data.tiles.overlap=1.0: too large.\n  Give at most 0.9.",
        ),
        ({"min_visible": 2}, "data.tiles.min_visible=2.0: not a fraction.\n  Give 0 to 1."),
    ],
)
def test_what_cannot_be_is_refused(values, said):
    with pytest.raises(ConfigError) as refused:
        section(CutConfig, **values)
    assert str(refused.value) == said
