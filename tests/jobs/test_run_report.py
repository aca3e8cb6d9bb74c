"""The HTML report of a run, made by the command and read as the file people get."""

from __future__ import annotations

import re

import numpy as np
import pytest
from lxml import html
from support.commands import TrainedRun, odtrain

from odtrain.config.compose import section
from odtrain.config.schema import Runs, TrackingConfig
from odtrain.evaluation.error_analysis import MISTAKE_KINDS
from odtrain.jobs.run_report import judge_run, write_report
from odtrain.structures import Detections, GroundTruth, LabelledSplit


@pytest.fixture(scope="module")
def page(trained: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("report") / "made" / "report.html"
    done = odtrain(["report", trained.run.name, "--to", str(file)], trained.folder)
    assert (done.returncode, done.stdout) == (0, f"Written: {file}\n"), done.stderr
    return file.read_text(encoding="utf-8")


def headings(page: str) -> list[str]:
    return [str(each.text_content()) for each in html.document_fromstring(page).iter("h2")]


@pytest.mark.slow
def test_the_report_has_all_its_parts(page):
    assert [name for name in headings(page) if "pictures" not in name] == [
        "Exported files",
        "What goes wrong",
        "Classes",
        "Training",
        "Precision and recall",
        "Confusions",
        "Data",
        "Configuration",
    ]


@pytest.mark.slow
def test_it_names_the_model_which_the_runs_configuration_has(page):
    assert re.search(r"finished\. panels_ssd_mobilenet_v1, measured on \d+ test pictures", page)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["latest", "models:/shapes@champion"])
def test_a_run_may_be_named_otherwise(trained: TrainedRun, name, tmp_path):
    runs = Runs(section(TrackingConfig, uri=trained.uri), str(trained.folder / "outputs"))
    file = write_report(name, runs, tmp_path / "report.html", 0.9)
    assert trained.run.name in file.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_report_needs_no_network(page):
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    assert "<script" not in page


@pytest.mark.slow
def test_a_file_that_failed_its_proof_is_shown_with_the_reason(page):
    tree = html.document_fromstring(page)
    verdicts = {
        row[0].text_content(): row[-1].text_content()
        for row in tree.xpath("//h2[text()='Exported files']/following::table[1]//tr[td]")
    }
    assert list(verdicts) == ["pb", "tflite_fp32", "tflite_int8"]
    assert (verdicts["pb"], verdicts["tflite_fp32"]) == ("passed", "passed")
    assert verdicts["tflite_int8"] != "passed"


@pytest.mark.slow
def test_a_run_that_is_not_there_is_told(trained: TrainedRun):
    done = odtrain(["report", "0" * 32], trained.folder)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith(f"run {'0' * 32}: there is none in sqlite:")


def test_a_precision_that_is_no_share_is_refused(tmp_path):
    done = odtrain(["report", "0" * 32, "--precision", "90"], tmp_path)
    assert (done.returncode, done.stderr) == (
        1,
        "--precision: 90 is not a share of what is shown.\n"
        "  Give more than 0 and at most 1, such as 0.9.\n",
    )


def test_everything_that_is_judged_is_of_the_same_detections():
    box = np.array([[0.1, 0.1, 0.5, 0.5]], np.float32)
    truths = [GroundTruth(f"{i}.jpg", 100, 100, box, np.array([1])) for i in range(4)]
    found = [Detections(box, np.array([0.9], np.float32), np.array([1])) for _ in range(3)]
    found.append(Detections(box[:0], np.zeros(0, np.float32), np.zeros(0, np.int64)))
    judged = judge_run(LabelledSplit(("a", "b"), truths, tuple("1234")), found, 0.9)
    assert judged.evaluation.metrics["mAP_50"] == pytest.approx(76 / 101)
    low, high = judged.intervals[0] or (0, 0)
    assert low < judged.evaluation.metrics["AP/a"] <= high
    assert judged.intervals[1] is None
    assert judged.points == [(pytest.approx(0.9), 1.0, 0.75), None]
    assert {each.kind for each in judged.mistakes} == set(MISTAKE_KINDS)
    assert judged.mistakes[0].kind == "missed"
