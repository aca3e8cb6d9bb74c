"""The COCO network that is at hand."""

from __future__ import annotations

import tarfile

import pytest

COCO = "ssd_mobilenet_v1_0.75_depth_coco_dequantized"


@pytest.fixture
def coco(shared, tmp_path):
    """The COCO tarball, unpacked to a folder that may be changed."""
    with tarfile.open(shared / "zoo" / f"{COCO}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / COCO
