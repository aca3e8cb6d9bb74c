"""A sweep as people look at it."""

from __future__ import annotations

import re

import pytest
from PIL import Image
from support.accessibility import MOST_BYTES, bytes_without_pictures, serious, wider_than_the_window
from support.browsers import browser
from support.front_points import DIRECTIONS, POINTS, point

from odtrain.sweep.page import (
    draw_front,
    draw_importances,
    importance_table,
    others_table,
    sweep_page,
)
from odtrain.sweep.pareto import front

__all__ = ["browser"]

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
    text = sweep_page("Sweep <a> DATA", POINTS, front(POINTS, DIRECTIONS), others, IMPORTANCES)
    assert "Sweep &lt;a&gt; DATA" in text
    assert text.count("</script>") == 2  # its data and its own
    assert not re.search("https?:", text.replace("http://www.w3.org/2000/svg", ""))


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


@pytest.mark.slow
def test_the_page_sorts_filters_and_joins_points_and_rows_in_a_browser(browser, tmp_path):
    file = tmp_path / "front.html"
    file.write_text(sweep_page("A sweep", POINTS, front(POINTS, DIRECTIONS), [], IMPORTANCES))
    opened = browser()
    opened.get(file.as_uri())

    def trials():
        return opened.execute_script(
            "return [...document.querySelectorAll('#files tbody tr')].map(row => row.cells[0].textContent)"
        )

    def filtered_by(words):
        opened.execute_script(
            "const field = document.getElementById('words'); field.value = arguments[0];"
            "field.dispatchEvent(new Event('input'))",
            words,
        )
        return trials()

    def click(selector):
        opened.execute_script(
            "document.querySelector(arguments[0]).dispatchEvent(new Event('click'))", selector
        )

    assert trials() == ["3", "0", "4", "1", "2", "5"]  # by mAP, the best first
    latency = "#files th:nth-child(5) button"
    click(latency)
    assert trials() == ["5", "1", "2", "0", "3", "4"]
    click(latency)
    assert trials() == ["0", "3", "4", "2", "1", "5"]
    assert filtered_by("int8") == ["4"]
    assert filtered_by("mAP>0.3 latency_ms_p50<1.5") == ["1"]
    filtered_by("")
    opened.find_element("id", "alone").click()
    assert trials() == ["0", "4", "1", "5"]
    assert opened.find_element("id", "count").text == "4 of 6 files"
    click("circle.file")
    chosen = opened.find_element("css selector", "tr.chosen td").text
    assert (
        opened.find_element("css selector", "circle.chosen title")
        .get_attribute("textContent")
        .startswith(f"trial {chosen}, ")
    )
    assert serious(opened) == []
    assert wider_than_the_window(opened) == []
    assert opened.get_log("browser") == []


def test_a_sweep_of_very_many_files_is_a_small_page_that_says_what_it_leaves_out():
    many = [point(i, 0.1 + i / 10000, 1.0 + i % 7, name="tflite_fp32") for i in range(3000)]
    others = [{"trial": "7", "state": "failed", "reason": "x" * 200, "chosen": ""}] * 500
    text = sweep_page("A sweep", many, front(many, DIRECTIONS), others, {})
    assert bytes_without_pictures(text) < MOST_BYTES
    left_out = re.search(r"(\d+) files of lower mAP are left out", text)
    assert left_out is not None
    assert text.count("tflite_fp32") == len(many) - int(left_out[1])
    assert "and 300 more" in text


def test_a_sweep_without_a_file_is_told():
    text = sweep_page("A sweep", [], [], [], {})
    assert "No training has ended with a file yet." in text


@pytest.mark.slow
def test_points_have_their_intervals(browser, tmp_path):
    given = point(0, 0.5, 2.0)
    given.metrics.update({"mAP_lo": 0.4, "mAP_hi": 0.6})
    (tmp_path / "front.html").write_text(sweep_page("A sweep", [given], [given], [], {}))
    opened = browser()
    opened.get((tmp_path / "front.html").as_uri())
    assert len(opened.find_elements("css selector", ".whisker")) == 1
    cells = [each.text for each in opened.find_elements("css selector", "#files tbody td")]
    assert cells[:4] == ["0", "tflite_fp32", "0.500", "0.400 to 0.600"]
    circle = opened.find_element("css selector", "circle.file")
    assert circle.is_displayed() and circle.value_of_css_property("opacity") == "1"
