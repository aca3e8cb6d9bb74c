"""Each kit of one tiny registered version, its self-test and program run as their users run them."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import yaml
from lxml import etree
from PIL import Image
from support.stores import store_at

from odtrain.cli.main import main
from odtrain.config.compose import section
from odtrain.config.schema import ModelConfig
from odtrain.deploy.form import Form, check_form, check_square, form_of
from odtrain.deploy.kit import deploy, doubts_of, fitting, slug_of
from odtrain.deploy.targets import TARGETS
from odtrain.errors import TrackingError
from odtrain.io.checksums import SUMS, verify
from odtrain.model_files.operators import for_edge_tpu
from odtrain.registry.register import ModelCandidate, register
from odtrain.registry.versions import SOUND, find_version
from odtrain.tracking.tracker import Tracker
from odtrain_runtime import resizing
from odtrain_runtime.model_files import load_detector
from odtrain_runtime.tflite import pad, resize
from odtrain_runtime.tiles import TILES, Tiles, write_tiles

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_environment")]

NAME = "Elevator 단추"
URI = f"models:/{NAME}/1"
NAMES = ("close", "문 열림", "no: 3")
FORMATS = ("saved_model", "tflite_fp32", "tflite_int8")
MOST_LINES = 60
"""Of a program that ships in a kit."""


@dataclass(frozen=True)
class Shelf:
    """A store with one version of a tiny network, as it was exported."""

    uri: str
    proved: Path


@pytest.fixture(scope="module")
def shelf(database: Path, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    from odtrain.export.writers import export
    from odtrain.models.build import build_detector

    folder = tmp_path_factory.mktemp("shelf")
    config = section(
        ModelConfig,
        name="tiny",
        architecture="ssd_mobilenet_v1",
        input_size=[64, 96],
        depth_multiplier=0.1,
        initializer="he",
    )
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (64, 96, 3), np.uint8) for _ in range(4)]
    detector = build_detector(config, len(NAMES), seed=3)
    passport = {"run": "r", "thresholds": json.dumps({"close": 0.45})}
    files = export(detector, NAMES, FORMATS, folder / "export", pictures, "builtin", passport)
    candidate = ModelCandidate(
        name=NAME,
        architecture="ssd_mobilenet_v1",
        files={name: str(file) for name, file in files.items()},
        metrics={"export/tflite_int8/mAP": 0.25},
        failed={},
        data_digest="d" * 64,
        step=1,
    )
    store = store_at(folder / "store", database)
    with Tracker(store, folder / "outputs").start("train") as tracker:
        tracker.log(candidate.metrics, 1)
        register(tracker, candidate)
        held = {"tflite_fp32": candidate.files["tflite_fp32"]}
        lost = {"tflite_int8": "mAP fell by 0.2"}
        register(tracker, replace(candidate, name="without", files=held, failed=lost))
    return Shelf(str(store.uri), folder / "export")


@pytest.fixture(scope="module")
def kits(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("kits")
    for target in TARGETS:
        deploy(URI, target, folder / target, shelf.uri)
    return {target: folder / target for target in TARGETS}


def run(kit: Path, *arguments: object) -> str:
    """What a program of a kit says in a process of its own, which knows nothing of odtrain."""
    environment = {key: text for key, text in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-B", *map(str, arguments)],
        cwd=kit,
        env={**environment, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def whole(kit: Path) -> list[str]:
    lines = (kit / SUMS).read_text(encoding="utf-8").splitlines()
    return [f"holds: {line.partition('  ')[2]} is whole" for line in lines]


LITE = [
    "holds: the input is uint8, 1 x height x width x 3: (1, 64, 96, 3)",
    "holds: boxes, classes, scores, count: 100 rows",
    "holds: classes are 0 to 2: close, 문 열림, no: 3",
    "holds: the same with 1, 2, 3 and 4 threads",
]
LIKE_FRIGATE = ("coral", "android")
"""Kits whose self-test is that of Frigate's, on the same file."""
SELF_TESTS = {
    "frigate": LITE,
    "coral": LITE,
    "android": LITE,
    "raspberry-pi": [
        "holds: the file's classes are close, 문 열림, no: 3",
        "holds: it finds no other class",
        "holds: the same with 1, 2, 3 and 4 threads",
    ],
    "tf-serving": [
        "holds: serving_default takes `inputs`",
        "holds: `inputs` are uint8 pictures",
        "holds: of any number, height and width",
        "holds: it gives detection_boxes, detection_classes, detection_scores, num_detections",
        "holds: two pictures in one request have two answers",
        "holds: classes are 1 to 3: close, 문 열림, no: 3",
    ],
}


@pytest.mark.parametrize(
    "target",
    [pytest.param(one, marks=[pytest.mark.long] * (one in LIKE_FRIGATE)) for one in SELF_TESTS],
)
def test_the_self_test_of_a_kit_holds(kits, target):
    said = run(kits[target], "selftest.py").splitlines()
    timed = [line for line in said if " ms here " in line]
    assert [line for line in said if line not in timed] == whole(kits[target]) + SELF_TESTS[target]
    assert len(timed) == (target != "tf-serving")


@pytest.mark.parametrize("target", ["frigate", "raspberry-pi"])
def test_the_self_test_of_a_kit_finds_a_changed_file(kits, target, tmp_path):
    kit = tmp_path / "kit"
    shutil.copytree(kits[target], kit)
    with (kit / "labels.txt").open("a") as labels:
        labels.write("more\n")
    done = subprocess.run(
        [sys.executable, "selftest.py"], cwd=kit, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("FAILS: ")
    assert "labels.txt" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("target", TARGETS)
def test_a_kit_holds_the_registered_file_byte_for_byte(kits, shelf, target):
    kit = kits[target]
    known = json.loads((kit / "kit.json").read_text(encoding="utf-8"))
    file = kit / known["file"]
    name = "saved_model" if file.is_dir() else file.name
    parts = sorted(path for path in file.rglob("*") if path.is_file()) or [file]
    for part in parts:
        wanted = (
            shelf.proved / name / part.relative_to(file) if file.is_dir() else shelf.proved / name
        )
        assert part.read_bytes() == wanted.read_bytes()
    verify(kit)
    listed = [line.split("  ")[1] for line in (kit / SUMS).read_text(encoding="utf-8").splitlines()]
    assert {part.relative_to(kit).as_posix() for part in parts} < set(listed)


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_left_to_be_filled_in(kits, target):
    for file in kits[target].rglob("*"):
        if file.suffix in (".md", ".yml", ".txt", ".kts", ".xml", ".service", ".config"):
            text = file.read_text(encoding="utf-8")
            assert not re.search(r"{{|{%|%}", text), file
    assert not list(kits[target].rglob("*.j2"))


def test_a_program_has_at_most_sixty_lines():
    folder = Path(__file__).resolve().parents[2] / "kits"
    programs = [
        *folder.rglob("detect.py"),
        *folder.rglob("client.py"),
        *folder.rglob("*Activity.kt"),
    ]
    assert len(programs) == 4
    lines = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in programs}
    assert {file: count for file, count in lines.items() if count > MOST_LINES} == {}


# ---- what programs find


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """As large as the input, so that no resizing is between it and the file."""
    file = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(4).integers(0, 256, (64, 96, 3), np.uint8)).save(file)
    return file


def found_by(file: Path, picture: Path, threshold: float) -> list[str]:
    """What `predict` finds, a line each as kits print it."""
    found = load_detector(file)(np.asarray(Image.open(picture))).above(threshold)
    sides = np.array([64, 96, 64, 96])
    rows = zip(found.boxes * sides, found.classes, found.scores, strict=True)
    return [
        f"{NAMES[label - 1]} {score:.2f} {left:.0f} {top:.0f} {right:.0f} {bottom:.0f}"
        for (top, left, bottom, right), label, score in rows
    ]


def middle(shelf: Shelf, name: str, picture: Path) -> float:
    scores = load_detector(shelf.proved / name)(np.asarray(Image.open(picture))).scores
    return float(np.median(scores))


def boxes_clipped(lines: list[str]) -> list[str]:
    """Lines of detections with corners drawn into the picture, as predict has them."""
    split = [line.rsplit(" ", 4) for line in lines]
    limits = (96, 64, 96, 64)
    return [
        " ".join(
            [
                head,
                *(str(min(max(int(n), 0), most)) for n, most in zip(numbers, limits, strict=True)),
            ]
        )
        for head, *numbers in split
    ]


@pytest.mark.parametrize("target", ["frigate", "coral"])
def test_the_program_finds_what_predict_finds(kits, shelf, picture, target):
    threshold = middle(shelf, "model_int8.tflite", picture)
    said = run(kits[target], "detect.py", picture, threshold).splitlines()
    wanted = found_by(shelf.proved / "model_int8.tflite", picture, threshold)
    assert len(wanted) > 10
    assert set(boxes_clipped(said)) >= set(wanted)


def test_the_program_of_the_pi_finds_what_predict_finds(kits, shelf, picture, monkeypatch):
    threshold = middle(shelf, "model_int8.tflite", picture)
    monkeypatch.setenv("THRESHOLD", str(threshold))
    (line,) = run(kits["raspberry-pi"], "detect.py", picture).splitlines()
    said = json.loads(line)
    found = load_detector(shelf.proved / "model_int8.tflite")(np.asarray(Image.open(picture)))
    sure = found.above(threshold)
    assert said["picture"] == str(picture)
    assert [each["class"] for each in said["objects"]] == [NAMES[n - 1] for n in sure.classes]
    np.testing.assert_allclose([each["box"] for each in said["objects"]], sure.boxes, atol=1e-4)


@pytest.mark.parametrize("how", ["stretch", "pad", "pad_grey"])
@pytest.mark.parametrize("shape", [(90, 41, 3), (50, 131, 3)])
def test_a_picture_is_framed_as_in_training(kits, tmp_path, how, shape):
    """To a grey level: Pillow gives whole ones, and rounds what it fills with."""
    pixels = np.random.default_rng(5).integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    framed = runpy.run_path(str(kits["frigate"] / "detect.py"))["framed"]
    fill = resizing.FILLS.get(how)
    framed.__globals__["KIT"] |= {"resize": how, "fill": fill and [round(one) for one in fill]}
    seen, sides = framed(tmp_path / "picture.png")
    wanted = resize(pixels, (64, 96)) if how == "stretch" else pad(pixels, (64, 96), how)
    np.testing.assert_allclose(seen[0], wanted, atol=1.01)
    share = 1.0 if how == "stretch" else resizing.extent(shape, (64, 96), how)
    np.testing.assert_allclose(sides * np.broadcast_to(share, 4)[1::-1], shape[1::-1], rtol=1e-5)


def test_the_client_finds_what_the_server_s_model_finds(kits, shelf, tmp_path):
    """TensorFlow Serving's REST interface, column form, answered by the SavedModel itself."""
    import tensorflow as tf

    kit = kits["tf-serving"]
    detect = tf.saved_model.load(str(kit / "models/elevator/1")).signatures["serving_default"]
    asked = []

    class Serving(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert body.keys() == {"signature_name", "inputs"}
            found = detect(inputs=tf.constant(body["inputs"], tf.uint8))
            answer = {"outputs": {name: value.numpy().tolist() for name, value in found.items()}}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            pass

    Image.fromarray(np.random.default_rng(6).integers(0, 256, (70, 90, 3), np.uint8)).save(
        tmp_path / "picture.png"
    )
    found = load_detector(shelf.proved / "saved_model")(
        np.asarray(Image.open(tmp_path / "picture.png"))
    )
    threshold = float(np.median(found.scores))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Serving)
    with server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        said = run(kit, "client.py", address, tmp_path / "picture.png", threshold).splitlines()
        server.shutdown()
    assert asked == ["/v1/models/elevator:predict"]
    sure = found.above(threshold)
    assert len(sure.scores) > 10
    assert [line.rsplit(" ", 5)[:2] for line in said] == [
        [NAMES[label - 1], f"{score:.2f}"]
        for label, score in zip(sure.classes, sure.scores, strict=True)
    ]


def test_the_pi_needs_no_odtrain(kits):
    code = "import detect, odtrain_runtime, sys; print(odtrain_runtime.__file__)"
    assert run(kits["raspberry-pi"], "-c", code).strip().startswith(str(kits["raspberry-pi"]))


# ---- what targets read


def test_frigate_is_told_of_file_labels_and_size(kits):
    config = yaml.safe_load((kits["frigate"] / "config.yml").read_text(encoding="utf-8"))
    assert config == {
        "detectors": {"cpu1": {"type": "cpu", "num_threads": 3}},
        "model": {
            "path": "/config/model/model_int8.tflite",
            "labelmap_path": "/config/model/labelmap.txt",
            "width": 96,
            "height": 64,
            "input_tensor": "nhwc",
            "input_pixel_format": "rgb",
            "input_dtype": "int",
            "model_type": "ssd",
        },
        "objects": {
            "track": list(NAMES),
            "filters": {"close": {"min_score": 0.45, "threshold": 0.45}},
        },
    }
    other = yaml.safe_load((kits["frigate"] / "config-edgetpu.yml").read_text(encoding="utf-8"))
    assert other["detectors"] == {"coral": {"type": "edgetpu", "device": "usb"}}
    assert other["model"] == {**config["model"], "path": "/config/model/model_int8_edgetpu.tflite"}


@pytest.mark.parametrize(
    "target, file", [("frigate", "labelmap.txt"), ("coral", "labels_edgetpu.txt")]
)
def test_labels_are_numbered_from_zero(kits, target, file):
    text = (kits[target] / file).read_text(encoding="utf-8")
    assert text == "0 close\n1 문 열림\n2 no: 3\n"


def test_tensorflow_serving_finds_the_version_in_a_folder_of_its_number(kits):
    kit = kits["tf-serving"]
    assert (kit / "models/elevator/1/saved_model.pb").is_file()
    text = (kit / "models.config").read_text(encoding="utf-8")
    assert 'name: "elevator"' in text
    assert 'base_path: "/models/elevator"' in text
    assert "versions: 1 " in text


def test_the_service_starts_the_program_of_the_kit(kits):
    text = (kits["raspberry-pi"] / "detect.service").read_text(encoding="utf-8")
    assert "ExecStart=/opt/elevator/.venv/bin/python detect.py camera\n" in text
    assert "WorkingDirectory=/opt/elevator\n" in text


def test_the_android_project_is_well_formed(kits):
    kit = kits["android"]
    for file in kit.rglob("*.xml"):
        etree.parse(file)
    strings = etree.parse(kit / "app/src/main/res/values/strings.xml")
    asset = strings.findtext("string[@name='model']").strip('"')
    assert (kit / "app/src/main/assets" / asset).is_file()
    for file in (*kit.rglob("*.kt"), *kit.rglob("*.kts")):
        text = file.read_text(encoding="utf-8")
        for opened, closed in ("()", "{}", "[]"):
            assert text.count(opened) == text.count(closed), file
    packages = {file.parent.relative_to(file.parents[3]).as_posix() for file in kit.rglob("*.kt")}
    assert packages == {"org/example/detector"}
    assert 'applicationId = "org.example.detector_elevator"' in (
        kit / "app/build.gradle.kts"
    ).read_text(encoding="utf-8")
    manifest = etree.parse(kit / "app/src/main/AndroidManifest.xml")
    named = "{http://schemas.android.com/apk/res/android}name"
    (activity,) = manifest.iter("activity")
    assert activity.get(named) == "org.example.detector.MainActivity"
    assert (kit / "app/src/main/kotlin" / "org/example/detector/MainActivity.kt").is_file()


def test_the_audit_says_what_an_edge_tpu_leaves(kits, shelf):
    operators = for_edge_tpu((shelf.proved / "model_int8.tflite").read_bytes())
    stays = [each for each in operators if each.why]
    taken = [each.name for each in operators if not each.why]
    assert {"CONV_2D", "DEPTHWISE_CONV_2D", "QUANTIZE"} <= set(taken)
    assert ("TOPK_V2", "not an operator of the Edge TPU") in {
        (each.name, each.why) for each in stays
    }
    assert not {"CONV_2D", "DEPTHWISE_CONV_2D"} & {each.name for each in stays}
    readme = (kits["coral"] / "README.md").read_text(encoding="utf-8")
    assert f"of {len(operators)} operators {len(stays)} stay on the CPU" in " ".join(readme.split())


def test_an_edge_tpu_takes_nothing_of_a_float_file(shelf):
    operators = for_edge_tpu((shelf.proved / "model.tflite").read_bytes())
    assert [each for each in operators if not each.why] == []


# ---- refusals


@pytest.mark.parametrize(
    "target, message",
    [
        (
            "frigate",
            "models:/without/1: holds no file for frigate, which takes tflite_int8: Frigate gives pictures "
            "as uint8, and reads boxes, classes, scores and count by position. Its tflite_int8 "
            "was not registered: mAP fell by 0.2.\n  It holds: "
            "tflite_fp32. Train with tflite_int8 among export.formats.",
        ),
        (
            "tf-serving",
            "models:/without/1: holds no file for tf-serving, which takes saved_model: TensorFlow Serving "
            "serves SavedModels.\n  It holds: tflite_fp32. Train with saved_model among export.formats.",
        ),
    ],
)
def test_a_version_without_the_file_is_refused(shelf, tmp_path, target, message):
    with pytest.raises(TrackingError) as refused:
        deploy("models:/without/1", target, tmp_path / "kit", shelf.uri)
    assert str(refused.value) == message
    assert not (tmp_path / "kit").exists()


def test_the_pi_takes_another_tflite_where_there_is_no_int8(shelf):
    version = find_version("models:/without/1", shelf.uri)
    assert fitting(version, TARGETS["raspberry-pi"], "raspberry-pi") == "tflite_fp32"


FORM = Form((64, 96), "uint8", ((1, 9, 4), (1, 9), (1, 9), (1,)), (), False, "stretch")


@pytest.mark.parametrize(
    "form, problem",
    [
        (replace(FORM, dtype="float32"), "takes float32 pictures, where uint8 is given."),
        (
            replace(FORM, outputs=((1, 9), (1, 9, 4), (1, 9), (1,))),
            "does not give boxes, classes, scores and count in this order: ((1, 9), (1, 9, 4), (1, 9), (1,)).",
        ),
        (
            replace(FORM, loses=True),
            "loses a class where it runs with several threads (tensorflow#56058).",
        ),
    ],
)
def test_a_file_that_would_be_misread_is_refused(form, problem):
    with pytest.raises(TrackingError) as refused:
        check_form("models:/a/1", form)
    assert str(refused.value) == (
        f"models:/a/1: {problem}\n  odtrain export source=RUN writes files that fit."
    )


def test_the_form_of_an_exported_file_is_seen(shelf):
    form = form_of(shelf.proved / "model_int8.tflite")
    check_form("it", form)
    assert (form.size, form.dtype, form.loses, form.resize) == ((64, 96), "uint8", False, "stretch")


def test_a_kit_says_where_its_program_looks_otherwise_than_the_model_was_measured():
    tiles = {TILES: write_tiles(Tiles(320, 480, 0.2, True))}
    assert doubts_of({}, tiles, TARGETS["frigate"]) == [
        "It was measured by tiles of 480 x 320 that overlap by 0.2 and the whole picture; "
        "here each picture is looked at once."
    ]
    assert doubts_of({}, tiles, TARGETS["raspberry-pi"]) == []
    half = {"int8": "heads in float", "int8_coral": "36/70"}
    assert doubts_of({}, half, TARGETS["coral"]) == [
        'It was made by "heads in float" (see docs/int8.md): an Edge TPU takes 36/70 of its '
        "network's operators."
    ]
    assert doubts_of({}, half, TARGETS["raspberry-pi"]) == []
    assert doubts_of({}, {"int8": "least error", "int8_coral": "75/77"}, TARGETS["coral"]) == []
    failed = {SOUND: "failed", "odtrain.gate": "mAP fell."}
    assert doubts_of(failed, {}, TARGETS["frigate"]) == [
        "The gate found fault with its files: mAP fell."
    ]


def test_a_padded_input_that_squares_would_be_stretched_to_is_refused():
    with pytest.raises(TrackingError) as refused:
        check_square("models:/a/1", replace(FORM, resize="pad"))
    assert str(refused.value) == (
        "models:/a/1: keeps the sides of a picture in proportion (model.resize=pad) and takes 96 x 64 "
        "pixels, to which squares would be stretched.\n"
        "  Train with a square model.input_size, or with model.resize=stretch."
    )
    check_square("models:/a/1", replace(FORM, size=(64, 64), resize="pad"))
    check_square("models:/a/1", FORM)


@pytest.mark.parametrize(
    "script, problem",
    [
        ("sleep 5", "edgetpu_compiler was not done with it after 0.2 s."),
        (
            "echo 'Model not quantized' >&2; exit 1",
            "edgetpu_compiler cannot compile it; it says: Model not quantized",
        ),
        ("exit 0", "edgetpu_compiler cannot compile it; it says: nothing"),
        (None, "edgetpu_compiler does not start: Exec format error."),
    ],
)
def test_a_compiler_that_makes_nothing_is_told_of(
    shelf, tmp_path, monkeypatch, capsys, script, problem
):
    compiler_at(tmp_path / "bin", script, monkeypatch)
    monkeypatch.setattr("odtrain.deploy.kit.COMPILING_SECONDS", 0.2)
    words = ["deploy", URI, "--to", "coral", "--out", str(tmp_path / "kit")]
    assert main([*words, f"tracking.uri={shelf.uri}"]) == 1
    assert capsys.readouterr().err == (
        f"model_int8.tflite: {problem}\n"
        "  Take edgetpu_compiler off PATH, and compile the kit's file elsewhere.\n"
    )
    assert not (tmp_path / "kit").exists()


def test_what_the_compiler_makes_comes_along_and_the_registered_file_stays(
    shelf, tmp_path, monkeypatch
):
    compiler_at(tmp_path / "bin", "cp model_int8.tflite model_int8_edgetpu.tflite", monkeypatch)
    deploy(URI, "coral", tmp_path / "kit", shelf.uri)
    verify(tmp_path / "kit")
    assert (tmp_path / "kit/model_int8_edgetpu.tflite").is_file()
    readme = (tmp_path / "kit/README.md").read_text(encoding="utf-8")
    assert "`model_int8_edgetpu.tflite` in this folder was made so" in readme


def compiler_at(folder: Path, script: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in the place of Coral's; without a script one that no machine can run."""
    folder.mkdir()
    program = folder / "edgetpu_compiler"
    program.write_text("\0" if script is None else f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_a_folder_with_something_in_it_is_left_alone(shelf, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    words = ["deploy", URI, "--to", "frigate", "--out", str(tmp_path)]
    assert main([*words, f"tracking.uri={shelf.uri}"]) == 1
    assert capsys.readouterr().err == (
        f"--out {tmp_path}: is there already and not empty.\n  Give a new folder.\n"
    )


def test_the_command_says_what_it_wrote(shelf, tmp_path, capsys):
    kit = tmp_path / "kit"
    words = ["deploy", URI, "--to", "frigate", "--out", str(kit)]
    assert main([*words, f"tracking.uri={shelf.uri}"]) == 0
    assert capsys.readouterr().out == (
        f"{URI} for frigate: {kit}\n"
        "  model_int8.tflite is the registered tflite_int8, byte for byte.\n"
        f"  Next: {kit}/README.md has the steps.\n"
    )


def test_a_target_must_be_named(shelf, capsys):
    assert main(["deploy", URI]) == 1
    assert capsys.readouterr().err == (
        "odtrain deploy: needs --to TARGET.\n"
        "  Choose one of: android, coral, frigate, raspberry-pi, tf-serving.\n"
    )


@pytest.mark.parametrize(
    "name, slug", [("a b", "a-b"), ("단추", "detector"), ("X_1", "x-1"), ("--", "detector")]
)
def test_a_name_becomes_one_that_services_and_folders_may_have(name, slug):
    assert slug_of(name) == slug
