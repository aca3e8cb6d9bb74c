"""The page to drop pictures on and its addresses, over real connections; the registered model's server."""

from __future__ import annotations

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import requests
from PIL import Image
from support.accessibility import MOST_BYTES, bytes_without_pictures, serious, wider_than_the_window
from support.browsers import browser, soon
from support.commands import TrainedRun
from support.pictures import SHAPES
from support.tiny_models import model
from support.web_pages import running

from odtrain.config.compose import section
from odtrain.config.schema import ServeConfig
from odtrain.errors import ConfigError
from odtrain.model_files.thresholds import Thresholds
from odtrain.model_source import Source
from odtrain.monitoring.usage import read_usage
from odtrain.registry.download import scoring_app
from odtrain.structures import Detections
from odtrain.web.guard import Guard
from odtrain.web.serve import build_app, usage_log
from odtrain_runtime.callers import LOOPBACK
from odtrain_runtime.model_files import load_detectors

__all__ = ["browser", "model"]

By = SimpleNamespace(ID="id", CSS_SELECTOR="css selector")

NAMES = ("circle", "square")


def source_of(model: Path, workers: int = 2) -> Source:
    opened = load_detectors(model, workers, 1, NAMES)
    return Source(str(model), opened, NAMES, file=model, opened=opened)


def picture(size: tuple[int, int] = (60, 40)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, (90, 120, 200)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def address(model):
    settings = section(ServeConfig, max_megabytes=0.1, max_megapixels=1)
    app = build_app(source_of(model), Thresholds(0.5), settings)
    with running(Guard(app, LOOPBACK)) as port:
        yield f"http://127.0.0.1:{port}"


def said(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["message"]


def test_a_picture_is_answered_with_what_is_in_it(address):
    answer = requests.post(f"{address}/detect", data=picture(), timeout=10)
    content = answer.json()
    assert content.pop("model_ms") >= 0
    boxes = content.pop("boxes")
    assert (answer.status_code, content) == (
        200,
        {
            "height": 40,
            "width": 60,
            "scores": [0.9, 0.6],
            "classes": [1, 2],
            "class_names": ["circle", "square"],
        },
    )
    assert np.shape(boxes) == (2, 4)


def test_a_request_may_name_its_threshold(address):
    answer = requests.post(f"{address}/detect?threshold=0.8", data=picture(), timeout=10)
    assert answer.json()["class_names"] == ["circle"]


@pytest.mark.parametrize("text", ["x", "2", "nan"])
def test_a_threshold_that_is_no_score_is_refused(address, text):
    answer = requests.post(f"{address}/detect?threshold={text}", data=picture(), timeout=10)
    assert said(answer) == (400, f"threshold={text}: is no score from 0 to 1.")


def test_what_is_no_picture_gets_the_reason_and_the_server_lives_on(address):
    answer = requests.post(f"{address}/detect", data=b"GIF89a broken", timeout=10)
    assert answer.status_code == 400
    assert said(answer)[1].startswith("The picture ")
    answer = requests.post(f"{address}/detect", data=b"", timeout=10)
    assert answer.status_code == 400
    assert requests.post(f"{address}/detect", data=picture(), timeout=10).status_code == 200


def test_a_request_that_is_too_large_is_refused(address):
    answer = requests.post(f"{address}/detect", data=bytes(100_001), timeout=10)
    assert said(answer) == (413, "The request is larger than 0.1 MB (serve.max_megabytes).")


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(address):
    answer = requests.post(f"{address}/detect", data=picture((4000, 4000)), timeout=10)
    assert said(answer) == (413, "The picture has more than 1 million pixels.")


def test_a_file_that_is_not_registered_has_no_invocations(address):
    answer = requests.post(f"{address}/invocations", json={}, timeout=10)
    assert said(answer) == (
        404,
        "Only a registered model (source=models:/NAME@ALIAS) answers here; send pictures to /detect.",
    )


def test_other_sites_may_not_use_it(address):
    headers = {"Origin": "http://evil.example"}
    answer = requests.post(f"{address}/detect", data=picture(), headers=headers, timeout=10)
    assert (answer.status_code, answer.text) == (403, "Other sites may not use this server.\n")


def test_a_hundred_requests_at_once_are_answered_alike(address):
    def post(_: int) -> list[float]:
        answer = requests.post(f"{address}/detect", data=picture(), timeout=30)
        return list(answer.json()["scores"])

    with ThreadPoolExecutor(16) as pool:
        assert set(map(tuple, pool.map(post, range(100)))) == {(0.9, 0.6)}


def test_the_page_draws_and_lists_what_is_found(address, browser, tmp_path):
    (tmp_path / "a picture.png").write_bytes(picture())
    page = browser()
    page.get(address)
    page.find_element(By.ID, "file").send_keys(str(tmp_path / "a picture.png"))
    soon(lambda: page.find_elements(By.CSS_SELECTOR, "#found tbody tr"))
    rows = [row.text.split()[:2] for row in page.find_elements(By.CSS_SELECTOR, "#found tbody tr")]
    assert rows == [["circle", "0.90"], ["square", "0.60"]]
    page.execute_script(
        "const s = document.getElementById('threshold'); s.value = 0.8;"
        "s.dispatchEvent(new Event('input'));"
    )
    assert len(page.find_elements(By.CSS_SELECTOR, "#found tbody tr")) == 1
    (tmp_path / "text.png").write_bytes(b"no picture")
    page.find_element(By.ID, "file").send_keys(str(tmp_path / "text.png"))
    soon(lambda: page.find_element(By.ID, "message").text.startswith("The picture "))
    severe = [line for line in page.get_log("browser") if "status of 400" not in line["message"]]
    assert severe == []


def test_a_dropped_folder_is_told_from_a_server_that_does_not_answer(address, browser, tmp_path):
    (tmp_path / "pictures").mkdir()
    page = browser()
    page.get(address)
    page.find_element(By.ID, "file").send_keys(str(tmp_path / "pictures"))
    message = "pictures cannot be read: drop a picture, not a folder."
    soon(lambda: page.find_element(By.ID, "message").text == message)


@pytest.mark.slow
def test_everyone_can_use_the_page_before_and_after_a_sample(address, browser):
    page = browser()
    page.get(address)
    soon(lambda: page.find_element(By.ID, "sample").is_displayed())
    assert serious(page) == []
    assert wider_than_the_window(page) == []
    page.find_element(By.ID, "sample").send_keys(" ")
    rows = soon(lambda: page.find_elements(By.CSS_SELECTOR, "#found tbody tr"))
    assert len(rows) == 2
    assert page.find_element(By.ID, "facts").text.startswith("2 found in panel-test-0003.jpg, ")
    assert serious(page) == []
    assert wider_than_the_window(page) == []
    page.find_element(By.CSS_SELECTOR, "#classes input[type=checkbox]").send_keys(" ")
    assert len(page.find_elements(By.CSS_SELECTOR, "#found tbody tr")) == 1
    assert page.get_log("browser") == []


def test_what_is_found_is_taken_along(address, browser, tmp_path):
    page = browser()
    page.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    page.get(address)
    soon(lambda: page.find_element(By.ID, "sample").is_displayed())
    page.find_element(By.ID, "sample").click()
    soon(
        lambda: (
            page.find_element(By.ID, "table").is_enabled()
            and page.find_elements(By.CSS_SELECTOR, "td")
        )
    )
    for name in ("table", "picture"):
        page.find_element(By.ID, name).click()
    table, drawn = tmp_path / "panel-test-0003-boxes.csv", tmp_path / "panel-test-0003-boxes.png"
    soon(lambda: table.is_file() and drawn.is_file())
    assert [line.split(",")[:2] for line in table.read_text().splitlines()] == [
        ["class", "score"],
        ["circle", "0.90"],
        ["square", "0.60"],
    ]
    with Image.open(drawn) as image:
        assert image.width == 960


def test_where_nothing_is_found_the_best_score_is_said(address, browser, tmp_path):
    (tmp_path / "a.png").write_bytes(picture())
    page = browser()
    page.get(address)
    page.find_element(By.ID, "threshold").send_keys("\ue010")
    page.find_element(By.ID, "file").send_keys(str(tmp_path / "a.png"))
    said = soon(lambda: (text := page.find_element(By.ID, "facts").text).startswith("0 ") and text)
    assert said.endswith(" ms. The best score is 0.90: move the slider, or show more classes.")


def test_the_page_lets_nothing_run_but_its_own(address):
    answer = requests.get(address, timeout=10)
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert policy.endswith("; connect-src 'self'; media-src blob:; frame-ancestors 'none'")
    assert "unsafe" not in policy
    assert bytes_without_pictures(answer.text) < MOST_BYTES


# ---- the registered model


@pytest.fixture(scope="module")
def registered(trained: TrainedRun):
    app = build_app(
        Source("models:/shapes/1", lambda image: Detections(*[np.zeros(0)] * 3), NAMES),
        Thresholds(0.5),
        section(ServeConfig, max_megabytes=1),
        scoring_app("models:/shapes/1", trained.uri),
    )
    with running(Guard(app, LOOPBACK)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.slow
def test_a_registered_model_answers_mlflows_forms(registered, trained: TrainedRun, shapes):
    text = base64.b64encode((shapes / SHAPES[1]).read_bytes()).decode()
    forms = [
        {"dataframe_records": [{"image": text}]},
        {"dataframe_split": {"columns": ["image"], "data": [[text]]}},
        {"inputs": {"image": [text]}},
    ]
    answers = [
        requests.post(f"{registered}/invocations", json=form, timeout=60).json()["predictions"]
        for form in forms
    ]
    assert answers[0] == answers[1] == answers[2]
    assert set(answers[0][0]) == {"boxes", "scores", "classes", "class_names"}


@pytest.mark.slow
def test_a_bad_picture_gets_a_4xx_and_the_reason(registered):
    form = {"dataframe_records": [{"image": base64.b64encode(b"no picture").decode()}]}
    answer = requests.post(f"{registered}/invocations", json=form, timeout=60)
    assert answer.status_code == 400
    assert "picture 0 cannot be read: its bytes are no picture" in answer.json()["message"]
    answer = requests.post(f"{registered}/invocations", data=bytes(1_000_001), timeout=60)
    assert said(answer) == (413, "The request is larger than 1 MB (serve.max_megabytes).")


@pytest.mark.slow
def test_a_path_that_is_sent_is_not_opened(registered, shapes):
    """It names a picture that is really there."""
    form = {"dataframe_records": [{"image": str(shapes / SHAPES[1])}]}
    answer = requests.post(f"{registered}/invocations", json=form, timeout=60)
    assert answer.status_code == 400
    assert "its text is not base64, and a server opens no paths." in answer.json()["message"]


@pytest.mark.slow
def test_many_at_once_get_what_one_gets(registered, shapes):
    """MLflow answers in threads; an interpreter that two of them used at once would mix them up."""
    forms = [
        {
            "dataframe_records": [
                {"image": base64.b64encode((shapes / name).read_bytes()).decode()}
            ],
            "params": {"score_threshold": 0.05},
        }
        for name in SHAPES[:6]
    ]

    def post(number: int) -> object:
        form = forms[number % len(forms)]
        answer = requests.post(f"{registered}/invocations", json=form, timeout=120)
        return answer.json()["predictions"]

    alone = [post(number) for number in range(len(forms))]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(post, range(48)))
    assert together == [alone[number % len(forms)] for number in range(48)]


def test_what_is_sent_is_logged_where_asked_for(model, tmp_path):
    settings = section(ServeConfig, log=str(tmp_path / "log"), max_megapixels=1)
    source = source_of(model)
    with usage_log(settings, source) as log:
        app = build_app(source, Thresholds(0.5), settings, None, log)
        with running(Guard(app, LOOPBACK)) as port:
            answer = requests.post(f"http://127.0.0.1:{port}/detect", data=picture(), timeout=30)
    assert answer.status_code == 200
    usage = read_usage(tmp_path / "log")
    assert [(row["width"], row["height"]) for row in usage.rows] == [(60, 40)]
    assert (usage.model, usage.class_names) == (str(model), NAMES)


def test_a_log_that_cannot_be_written_is_told_before_anything_is_served(model, tmp_path):
    (tmp_path / "log").write_text("a file")
    settings = section(ServeConfig, log=str(tmp_path / "log"))
    with pytest.raises(ConfigError) as told, usage_log(settings, source_of(model)):
        pass
    assert str(told.value) == (
        f"serve.log={tmp_path}/log: cannot be written: File exists.\n  Name a folder that can be."
    )
