"""The HTML report of a run, made by the command and read as the file people get."""

from __future__ import annotations

import re
from datetime import datetime

import numpy as np
import pytest
from lxml import html
from support.accessibility import MOST_BYTES, bytes_without_pictures, serious, wider_than_the_window
from support.browsers import browser
from support.commands import TrainedRun, odtrain

from odtrain.config.compose import compose_config, section
from odtrain.config.schema import Runs, TrackingConfig
from odtrain.evaluation.error_analysis import MISTAKE_KINDS
from odtrain.jobs import run_report
from odtrain.jobs.run_report import judge_run, write_report
from odtrain.structures import Detections, GroundTruth, LabelledSplit
from odtrain.tracking.runs import RunSummary

NOTE = "mlflow.note.content"

__all__ = ["browser"]


@pytest.fixture(scope="module")
def page(trained: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("report") / "made" / "report.html"
    done = odtrain(["report", trained.run.name, "--to", str(file)], trained.folder)
    assert (done.returncode, done.stdout) == (0, f"Written: {file}\n"), done.stderr
    return file.read_text(encoding="utf-8")


def headings(page: str) -> list[str]:
    return [str(each.text_content()) for each in html.document_fromstring(page).iter("h2")]


@pytest.mark.slow
def test_pictures_come_first(page):
    assert headings(page)[0] == "Detections in pictures"


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
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    (policy,) = html.document_fromstring(page).xpath("//meta[@http-equiv]/@content")
    assert policy.startswith("default-src 'none'; img-src data: blob:; style-src 'sha256-")
    assert "connect-src" not in policy


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


def test_a_report_shows_no_secret_that_an_older_version_has_kept(tmp_path, monkeypatch):
    box = np.array([[0.1, 0.1, 0.5, 0.5]], np.float32)
    truths = [GroundTruth("1.jpg", 100, 100, box, np.array([1]))]
    kept = (
        LabelledSplit(("a",), truths, ("1",)),
        [Detections(box, np.float32([0.9]), np.int32([1]))],
    )
    config = tmp_path / "config.yaml"
    config.write_text("zoo:\n  mirrors:\n  - https://bob:PASSWORD@h/zoo?token=TOKEN\n")
    files = {"config/config.yaml": config}
    note = "`odtrain train tracking.uri=postgresql://me:PASSWORD@h/db`"
    summary = RunSummary("r", "r", "FINISHED", datetime(2026, 1, 1), {NOTE: note}, {})
    monkeypatch.setattr(run_report, "run_meant", lambda *_: "r")
    monkeypatch.setattr(run_report, "read_summary", lambda *_: summary)
    monkeypatch.setattr(run_report, "_kept", lambda *_: kept)
    monkeypatch.setattr(run_report, "_optional", lambda run, artifact, runs: files.get(artifact))
    page = write_report("r", compose_config([]).runs, tmp_path / "r.html", 0.9).read_text()
    assert "odtrain train tracking.uri=postgresql://me:***@h/db" in page
    assert "https://bob:***@h/zoo?token=***" in page
    assert not re.findall("PASSWORD|TOKEN", page)


def runs_of(trained: TrainedRun) -> Runs:
    config = compose_config([f"tracking.uri={trained.uri}", f"outputs={trained.folder}/outputs"])
    return config.runs


# ---- in a browser


@pytest.mark.slow
def test_everyone_can_use_the_report_and_filters_answer(page, browser, tmp_path):
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    opened = browser()
    opened.get((tmp_path / "report.html").as_uri())
    assert serious(opened) == []
    assert wider_than_the_window(opened) == []

    def counts():
        texts = [each.text for each in opened.find_elements("css selector", "[data-count]")]
        return [sum(int(text.split()[place]) for text in texts) for place in (0, 2, 4)]

    found, missed, wrong = counts()
    opened.find_element("id", "threshold").send_keys("\ue010")  # End: nothing scores 1
    assert counts() == [0, found + missed, 0]
    opened.find_element("id", "threshold").send_keys("\ue011")  # Home
    assert sum(counts()) > 0 and counts()[2] >= wrong
    opened.find_element("id", "none").send_keys(" ")
    assert counts() == [0, 0, 0]
    opened.find_element("css selector", "button.stack").send_keys("\ue007")
    assert opened.find_element("css selector", "dialog").get_attribute("open") is not None
    assert opened.get_log("browser") == []


def many_classes(count: int) -> tuple[LabelledSplit, list[Detections]]:
    """A picture for each class, whose one object is taken for the next class in every other."""
    box = np.array([[0.1, 0.1, 0.5, 0.5]], np.float32)
    names = tuple(f"{'a_class_with_a_very_long_name_' * (k % 9 == 0)}{k}" for k in range(count))
    truths = [GroundTruth(f"{k}.jpg", 480, 640, box, np.array([k + 1])) for k in range(count)]
    ids = [(k + k % 2) % count + 1 for k in range(count)]
    found = [Detections(box, np.array([0.9], np.float32), np.array([each])) for each in ids]
    return LabelledSplit(names, truths, tuple(map(str, range(count)))), found


@pytest.mark.slow
def test_a_report_of_ninety_classes_is_small_and_can_be_used(browser, tmp_path, monkeypatch):
    monkeypatch.setattr(run_report, "_kept", lambda *_: many_classes(90))
    monkeypatch.setattr(run_report, "_optional", lambda *_: None)
    losses = {name: [(i, 1 / (i + 1)) for i in range(20_000)] for name in ("train/loss", "val/mAP")}
    summary = RunSummary("0" * 32, "x", "FINISHED", datetime(2026, 1, 1), {}, losses)
    page = run_report._page(summary, compose_config([]).runs, 0.9)
    assert bytes_without_pictures(page) < MOST_BYTES
    tree = html.document_fromstring(page)
    assert "This run drew no pictures (evaluate.drawn=0)." in tree.text_content()
    pairs = tree.xpath("//h2[text()='Confusions']/following::table[1]/tbody/tr")
    assert [cell.text_content() for cell in pairs[0]] == ["1", "2", "1", "100%"]
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    opened = browser()
    opened.get((tmp_path / "report.html").as_uri())
    assert serious(opened) == []
    assert wider_than_the_window(opened) == []


@pytest.mark.slow
def test_a_report_is_small_without_its_pictures(page):
    assert bytes_without_pictures(page) < MOST_BYTES
    assert page.count('src="data:image/jpeg') == page.count("data-shot=") > 0


@pytest.mark.slow
def test_the_sheets_of_older_runs_are_shown(trained: TrainedRun, monkeypatch, tmp_path):
    optional = run_report._optional
    monkeypatch.chdir(trained.folder)
    monkeypatch.setattr(
        run_report, "_optional", lambda *of: None if of[1] == "eval/pictures" else optional(*of)
    )
    summary = run_report.read_summary(trained.run.name, runs_of(trained).tracking)
    page = run_report._page(summary, runs_of(trained), 0.9)
    assert "This run kept its pictures with boxes drawn into them" in page
    assert 'src="data:image/jpeg' in page
