"""A sweep as people look at it."""

from __future__ import annotations

from PIL import Image
from test_sweep_front import DIRECTIONS, POINTS

from odtrain.sweep_front import front
from odtrain.sweep_page import draw_front, draw_importances, importance_table, others_table, page

IMPORTANCES = {
    "mAP": {"train.learning_rate": 0.75, "model.input_size": 0.25},
    "latency_ms_p50": {"model.input_size": 0.9},
}


def test_the_plot_is_a_picture(tmp_path):
    draw_front(POINTS, front(POINTS, DIRECTIONS), tmp_path / "front.png")
    with Image.open(tmp_path / "front.png") as picture:
        assert picture.size == (880, 550)


def test_the_page_needs_no_network_and_takes_nothing_for_markup():
    others = [{"trial": "7", "state": "failed", "reason": "</script><b>", "chosen": ""}]
    text = page("Sweep <a> DATA", POINTS, front(POINTS, DIRECTIONS), others, IMPORTANCES)
    assert "Sweep &lt;a&gt; DATA" in text
    assert text.count("</script>") == 1
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_importances_are_a_table_with_the_most_important_first_and_a_picture(tmp_path):
    assert importance_table(IMPORTANCES).splitlines() == [
        "| choice | mAP | latency_ms_p50 |",
        "|---|---|---|",
        "| model.input_size | 25% | 90% |",
        "| train.learning_rate | 75% |  |",
    ]
    draw_importances(IMPORTANCES, tmp_path / "importances.png")
    with Image.open(tmp_path / "importances.png") as picture:
        assert picture.width == 880


def test_reasons_stay_in_their_cell():
    row = {"trial": "7", "state": "failed", "reason": "a | b\nc", "chosen": ""}
    assert others_table([row]).splitlines()[-1] == "| 7 | failed | a \\| b c |  |"
