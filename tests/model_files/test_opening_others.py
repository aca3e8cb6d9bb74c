"""`source=` of a model that does not say how it is read: it is tried on the labelled pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from support.onnx_files import SIDE, write_two_boxes

from odtrain.config.compose import compose_config
from odtrain.errors import ModelFileError
from odtrain.model_source import open_source


@pytest.fixture
def red(tmp_path):
    """Six red pictures with a raccoon at the top left of each."""
    lines = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for i in range(6):
        pixels = np.full((SIDE, SIDE, 3), (200, 20 + i, 20), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{SIDE},{SIDE},raccoon,4,4,28,28")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    (tmp_path / "source.yaml").write_text("classes: [raccoon]")
    return [
        *(f"data.images={tmp_path}", f"data.annotations={tmp_path / 'labels.csv'}"),
        *("data.name=red", f"data.prepared={tmp_path / 'prepared'}"),
    ]


def test_the_way_that_finds_most_is_told_with_its_score_and_taken(tmp_path, red, said):
    file = write_two_boxes(tmp_path / "model.onnx", (48, 48, 16, 16), (16, 16, 24, 24))
    source = open_source(str(file), compose_config(red))
    assert source.opened.reading.colours == "bgr"
    (told,) = [line for line in said if "does not say how it is read" in line]
    assert told.startswith(f"{file} does not say how it is read. Of ")
    assert "one finds mAP_50 1.000 in " in told
    assert told.endswith(
        "\nhead: yolo\nresize: letterbox\ncolours: bgr\nscale: 0.00392156863\n"
        "mean: [0, 0, 0]\nstd: [1, 1, 1]\nfill: [114, 114, 114]\nboxes: cxcywh"
    )


def test_where_no_way_finds_anything_it_is_refused_with_lines_to_write(tmp_path, red):
    file = write_two_boxes(tmp_path / "model.onnx", (48, 48, 16, 16), (50, 50, 8, 8))
    with pytest.raises(ModelFileError, match="does not say how its pictures are made ready"):
        open_source(str(file), compose_config(red))
