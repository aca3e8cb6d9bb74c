"""A data set in an S3 store gives what the same one gives in a folder."""

from __future__ import annotations

from pathlib import Path

from odtrain.config.compose import section
from odtrain.config.schema import DataConfig
from odtrain.dataset.check import check
from odtrain.dataset.prepare import prepare
from odtrain.dataset.read import read_dataset, read_labelled


def config(images: str, prepared: str, **more) -> DataConfig:
    return section(
        DataConfig, name="shapes", validation_fraction=0.1, images=images, prepared=prepared, **more
    )


def test_a_data_set_is_the_same_from_a_store(s3, shapes, tmp_path: Path):
    address = s3.put(shapes, "same/shapes")
    here = prepare(config(str(shapes), str(tmp_path / "here")))
    there = prepare(config(address, str(tmp_path / "there")))
    assert (there.digest, there.counts, there.files) == (here.digest, here.counts, here.files)
    for name in (*here.files,):
        assert (there.folder / name).read_bytes() == (here.folder / name).read_bytes()


def test_prepared_data_are_the_same_in_a_store(s3, shapes, tmp_path: Path):
    address = s3.put(shapes, "both/shapes")
    here = prepare(config(str(shapes), str(tmp_path / "here")))
    there = prepare(config(address, "s3://pictures/both/prepared"))
    assert (there.digest, there.files) == (here.digest, here.files)
    for name in here.files:
        assert s3.fs.cat_file(f"pictures/both/prepared/{name}") == (here.folder / name).read_bytes()
    again = read_dataset(Path("s3://pictures/both/prepared"))
    ours, theirs = read_labelled(here, "train"), read_labelled(again, "train")
    assert ours.keys == theirs.keys
    assert again.digest == prepare(config(address, "s3://pictures/both/prepared")).digest


def test_findings_name_addresses(s3, shapes):
    address = s3.put(shapes, "odd/shapes")
    s3.fs.pipe_file("pictures/odd/shapes/shape00.xml", b"<annotation><object>")
    found = check(config(address, "prepared"))
    print([str(f) for f in found.findings])
