from __future__ import annotations

import numpy as np
import pytest

from odtrain.dataset.prepare import prepare
from odtrain.dataset.read import read_labelled as labels_of
from odtrain.errors import DataError
from odtrain.evaluation.saved_detections import (
    Kept,
    read_kept,
    read_labelled,
    under_names,
    write_kept,
    write_labelled,
)
from odtrain.structures import Detections, GroundTruth, LabelledSplit

NONE = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


def found(seed: int, count: int) -> Detections:
    rng = np.random.default_rng(seed)
    return Detections(
        rng.random((count, 4), np.float32), rng.random(count, np.float32), rng.integers(1, 9, count)
    )


def same(a, b):
    return all(np.array_equal(getattr(a, key), getattr(b, key)) for key in ("boxes", "classes"))


@pytest.mark.parametrize("counts", [(3, 0, 5), (0, 0), ()])
def test_what_was_found_is_read_back_as_it_was(tmp_path, counts):
    detections = [found(i, count) for i, count in enumerate(counts)]
    facts = {"sha256": "ab", "latency_ms_p50": 1.25, "passport": {"run": "r"}}
    write_kept(tmp_path / "x" / "pb.npz", Kept("digest", detections, ("원", "a b"), facts))
    kept = read_kept(tmp_path / "x" / "pb.npz")
    assert (kept.split, kept.class_names, kept.facts) == ("digest", ("원", "a b"), facts)
    assert len(kept.detections) == len(detections)
    for a, b in zip(kept.detections, detections, strict=True):
        assert same(a, b) and np.array_equal(a.scores, b.scores)
        assert a.classes.dtype == np.int64


def test_labels_are_read_back_with_their_digest(tmp_path):
    truths = [
        GroundTruth("판 1.png", 4, 5, np.ones((2, 4), np.float32) / 3, np.array([1, 2])),
        GroundTruth("b.jpg", 6, 7, np.zeros((0, 4), np.float32), np.zeros(0, np.int64)),
    ]
    split = LabelledSplit(("a", "b"), truths, ("k1", "k2"))
    write_labelled(tmp_path, split)
    again = read_labelled(tmp_path)
    assert (again.class_names, again.keys, again.digest) == (("a", "b"), ("k1", "k2"), split.digest)
    assert [(t.name, t.height, t.width) for t in again.truths] == [
        ("판 1.png", 4, 5),
        ("b.jpg", 6, 7),
    ]
    assert all(same(a, b) for a, b in zip(again.truths, truths, strict=True))


def test_a_damaged_file_says_how_to_make_it_again(tmp_path):
    (tmp_path / "pb.npz").write_bytes(b"PK no archive")
    with pytest.raises(DataError) as caught:
        read_kept(tmp_path / "pb.npz")
    assert str(caught.value).startswith(
        f"{tmp_path}/pb.npz: holds no detections that can be read: "
    )
    assert str(caught.value).endswith("\n  Evaluate the run again: odtrain evaluate source=RUN_ID.")


def test_classes_are_known_by_name():
    given = Detections(found(0, 4).boxes, found(0, 4).scores, np.array([1, 2, 3, 9]))
    (renamed,) = under_names([given], ("cat", "dog", "cow"), ("dog", "cat"))
    assert renamed.classes.tolist() == [2, 1]
    assert np.array_equal(renamed.boxes, given.boxes[:2])
    assert under_names([NONE], ("cat",), ("dog",))[0].classes.tolist() == []


def test_a_split_is_known_by_its_pictures_and_labels_and_not_by_their_names(
    tiny_voc, tmp_path, data_config
):
    for split, names in {"train": ("img2", "img3"), "test": ("img1", "img4")}.items():
        (tiny_voc / split).mkdir()
        for file in [file for name in names for file in tiny_voc.glob(f"{name}.*")]:
            file.rename(tiny_voc / split / file.name)
    first = labels_of(prepare(data_config(tiny_voc, "one")), "test")
    for suffix in (".jpg", ".xml"):
        (tiny_voc / f"test/img1{suffix}").rename(tiny_voc / f"test/zebra{suffix}")
    renamed = labels_of(prepare(data_config(tiny_voc, "two")), "test")
    assert sorted(first.keys) == sorted(renamed.keys)
    assert first.digest == renamed.digest
    xml = tiny_voc / "test/img4.xml"
    xml.write_text(xml.read_text().replace("<xmax>60<", "<xmax>59<"))
    changed = labels_of(prepare(data_config(tiny_voc, "three")), "test")
    assert len({*first.keys} - {*changed.keys}) == 1
    assert first.digest != changed.digest


@pytest.fixture
def data_config(tmp_path):
    from odtrain.config.compose import section
    from odtrain.config.schema import DataConfig

    def config(images, name):
        return section(
            DataConfig,
            name="tiny",
            images=str(images),
            prepared=str(tmp_path / name),
            validation_fraction=0,
        )

    return config
