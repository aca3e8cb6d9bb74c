"""Charts of a data set, and the sheet of what the network sees."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from support.made_up_model import made_up_model
from support.pictures import SHAPES

from odtrain.cli.main import main
from odtrain.config.compose import section
from odtrain.config.schema import AugmentConfig
from odtrain.reports import data_charts
from odtrain.reports.data_preview import FILES, contact_sheet, write_pictures
from odtrain.structures import GroundTruth

PLAIN = section(AugmentConfig, flip=False, crop=False)
SQUARE = made_up_model(input_size=64)
WIDE = made_up_model(input_size=[80, 96])


def truth(*boxes, classes=None):
    return GroundTruth(
        "p.jpg",
        100,
        200,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(classes or [1] * len(boxes), np.int64),
    )


@pytest.fixture
def drawn(monkeypatch):
    """Figures instead of files."""
    figures = []
    monkeypatch.setattr(data_charts, "save", lambda figure, path: figures.append(figure))
    return figures


def bars(axes):
    return [[round(bar.get_width()) for bar in group] for group in axes.containers]


def test_classes_are_ordered_by_their_boxes_and_counted_by_split(drawn, tmp_path):
    truths = {
        "train": [truth([0, 0, 1, 1], [0, 0, 1, 1], classes=[2, 2]), truth([0, 0, 1, 1])],
        "test": [truth([0, 0, 1, 1], classes=[2]), truth()],
    }
    data_charts.class_chart(tmp_path / "a.png", truths, ["cat", "개"])
    (figure,) = drawn
    assert isinstance(figure, Figure)
    (axes,) = figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["개", "cat"]
    assert bars(axes) == [[2, 1], [1, 0]]
    assert [text.get_text() for text in axes.texts] == [" 3", " 1"]
    assert axes.get_title() == "4 boxes in 2 classes"


def test_many_classes_are_cut_in_the_middle_and_that_is_said(drawn, tmp_path):
    truths = {"train": [truth(*[[0, 0, 1, 1]] * 100, classes=list(range(1, 101)))]}
    data_charts.class_chart(tmp_path / "a.png", truths, [f"c{i}" for i in range(100)])
    axes = drawn[0].axes[0]
    assert len(axes.get_yticklabels()) == 60
    assert axes.get_title() == "100 boxes in 100 classes; 40 classes between them are left out"


def test_sizes_are_in_pixels_of_the_networks_input(drawn, tmp_path):
    truths = {"train": [truth([0, 0, 0.5, 0.25], [0, 0, 0.01, 0.01])]}
    data_charts.size_chart(tmp_path / "a.png", truths, made_up_model(input_size=[100, 400]))
    left, right, *_ = drawn[0].axes
    assert left.get_title() == "1 of 2 boxes are below 8 pixels"
    counts = {
        round(bar.get_x() + bar.get_width() / 2): bar.get_height()
        for bar in left.patches
        if bar.get_height() and bar.get_x() > 8
    }
    assert list(counts.values())[-1] == 1
    assert abs(list(counts)[-1] - (50 * 100) ** 0.5) < 8
    assert "pixels at 400 x 100" in left.get_xlabel()
    assert right.get_xlabel() == "width, pixels"


def test_sizes_are_those_of_the_picture_within_a_padded_input(drawn, tmp_path):
    truths = {"train": [truth([0, 0, 1, 1])]}  # 100 high, 200 wide
    model = made_up_model(input_size=400, resize="pad")
    data_charts.size_chart(tmp_path / "a.png", truths, model)
    (shade,) = drawn[0].axes[1].collections[:1]
    row, column = np.argwhere(np.asarray(shade.get_array()).reshape(48, 48) == 1)[0]
    cell = 400 * 1.02 / 48
    assert (row, column) == (int(200 / cell), int(400 / cell))


def test_centres_lie_as_in_the_picture(drawn, tmp_path):
    truths = {"train": [truth([0.0, 0.8, 0.1, 1.0])]}
    data_charts.centre_chart(tmp_path / "a.png", truths)
    (image,) = drawn[0].axes[0].images
    cells = np.asarray(image.get_array())
    assert cells.sum() == 1
    assert cells[int(0.05 * 32), int(0.9 * 32)] == 1  # near the top, at the right


def test_data_without_any_box_has_charts_too(tmp_path):
    truths = {"train": [truth()]}
    data_charts.class_chart(tmp_path / "a.png", truths, ["cat"])
    data_charts.size_chart(tmp_path / "b.png", truths, SQUARE)
    data_charts.centre_chart(tmp_path / "c.png", truths)
    assert {file.name for file in tmp_path.iterdir()} == {"a.png", "b.png", "c.png"}


def test_the_sheet_shows_each_picture_as_labelled_and_as_the_network_gets_it(prepared_shapes):
    still = contact_sheet(prepared_shapes, PLAIN, WIDE, 0)
    assert still.shape[2] == 3
    changed = contact_sheet(prepared_shapes, section(AugmentConfig), WIDE, 0)
    assert not np.array_equal(still, changed)
    other = contact_sheet(prepared_shapes, PLAIN, WIDE, 1)
    assert not np.array_equal(still, other)


def test_without_augmentation_both_sides_show_the_same(prepared_shapes, monkeypatch):
    pairs = []

    def noted(before, after, titles):
        pairs.append((before, after, titles))
        return before

    monkeypatch.setattr("odtrain.reports.data_preview.side_by_side", noted)
    contact_sheet(prepared_shapes, PLAIN, WIDE, 0)
    assert len(pairs) == 12
    for before, after, (name, size) in pairs:
        assert name in SHAPES
        assert size == "at 96 x 80"
        assert np.abs(before.astype(int) - after).mean() < 4  # two decoders, two resizers


def test_the_command_writes_all_of_them(shapes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["prepare", f"data.images={shapes}", "data.name=shapes", "--pictures", "drawn"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[-4:] == [f"  drawn/{name}" for name in FILES]
    for name in FILES:
        with Image.open(tmp_path / "drawn" / name) as picture:
            picture.load()


def test_names_in_other_scripts_are_written(prepared_shapes, tmp_path):
    files = write_pictures(prepared_shapes, tmp_path, PLAIN, SQUARE, 0)
    assert [file.name for file in files] == list(FILES)
