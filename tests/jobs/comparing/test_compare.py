"""`odtrain models compare`, on the files of a real training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image
from support.metrics_page import untold

from odtrain.cli.main import main
from odtrain.evaluation.saved_detections import (
    Kept,
    read_kept,
    read_labelled,
    write_kept,
    write_labelled,
)
from odtrain.structures import Detections


@pytest.fixture
def again(trained, tmp_path, monkeypatch):
    """A copy of the training's folder, to go on working in."""
    shutil.copytree(trained.folder, tmp_path / "again")
    monkeypatch.chdir(tmp_path / "again")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return MlflowClient(f"sqlite:///{tmp_path}/again/mlflow.db")


@pytest.fixture
def kept(again, trained):
    """Where the copied run keeps its detections."""
    return f"outputs/Default/{trained.run.name}/eval/detections"


def perfect(kept):
    """Detections that are the ground truth."""
    split = read_labelled(kept)
    found = [
        Detections(truth.boxes, np.ones(len(truth.classes), np.float32), truth.classes)
        for truth in split.truths
    ]
    return Kept(split.digest, found, split.class_names, {})


def test_a_run_and_its_version_are_compared_by_what_was_kept(again, trained, capsys):
    run = trained.run.name
    assert main(["models", "compare", run, "models:/shapes@champion"]) == 0
    said = capsys.readouterr()
    pictures = len(read_labelled(trained.run / "eval/detections").truths)
    assert said.out.splitlines()[0] == (
        f"no difference in mAP [0.0, 0.0]: not shown on {pictures} pictures, which are too few to show "
        "anything; fewer than 10 objects: circle (4), square (2)"
    )
    assert "models:/shapes/1, model.tflite (@challenger, @champion, @fastest)" in said.out
    assert "run model.tflite" not in said.err  # nothing was run again


def test_runs_are_named_by_the_first_letters_of_their_ids_and_by_their_names(
    again, trained, capsys
):
    run = trained.run.name
    name = again.get_run(run).info.run_name
    assert main(["models", "compare", run[:6], name]) == 0
    logged = again.search_runs(["0"], "tags.`odtrain.stage` = 'compare'", max_results=1)[0].data
    assert [logged.tags[f"odtrain.compare.{side}"] for side in "ab"] == [run[:6], name]
    assert [logged.tags[f"odtrain.compare.{side}.run"] for side in "ab"] == [run, run]


def test_the_comparison_is_a_run_of_its_own(again, trained, kept, capsys, tmp_path):
    write_kept(Path(kept) / "pb.npz", perfect(Path(kept)))
    run = trained.run.name
    assert main(["models", "compare", run, f"runs:/{run}", "--format", "pb"]) == 0
    capsys.readouterr()
    write_kept(Path(kept) / "evaluated.npz", perfect(Path(kept)))
    assert main(["models", "compare", run, "models:/shapes/1"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("A better by ")
    runs = again.search_runs(["0"], "tags.`odtrain.stage` = 'compare'", max_results=1)
    (logged,) = runs
    assert logged.data.tags["odtrain.answer"] == said.splitlines()[0]
    assert logged.data.tags["odtrain.compare.a"] == run
    assert logged.data.tags["odtrain.compare.b.run"] == run
    assert logged.data.metrics["compare/mAP"] < 0
    assert {"compare/mAP_lo", "compare/mAP_hi", "compare/AP/circle"} <= logged.data.metrics.keys()
    assert untold(logged.data.metrics) == []
    assert said.splitlines()[0] in logged.data.tags["mlflow.note.content"]
    folder = Path(again.download_artifacts(logged.info.run_id, "compare", str(tmp_path)))
    assert sorted(file.name for file in folder.iterdir()) == [
        "differences.png",
        "files.json",
        "numbers.json",
        "report.html",
        "report.md",
    ]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Where they differ in pictures" in page
    table = json.loads((folder / "numbers.json").read_text())
    assert [row[0] for row in table["data"]] == ["mAP", "mAP_50", "mAP_75", "circle", "square"]
    assert table["data"][0][1] == 1.0
    with Image.open(folder / "differences.png") as figure:
        assert figure.width > 500


def test_a_file_is_run_on_the_pictures_of_the_other_side(again, trained, capsys, monkeypatch):
    monkeypatch.setattr("odtrain.system.progress.is_drawn", lambda: True)
    file = str(trained.run / "export/model.tflite")
    assert main(["models", "compare", file, trained.run.name, "benchmark.runs=2"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("no difference in mAP [0.0, 0.0]")
    assert "run model.tflite" in said.err
    row = next(line for line in said.out.splitlines() if line.startswith("| tflite_fp32"))
    assert "-" in row.split("|")[2] and float(row.split("|")[4]) > 0  # timed now, no mAP on record


def test_test_sets_that_differ_are_warned_of(again, trained, kept, capsys):
    whole, folder = read_labelled(Path(kept)), Path("outputs/Default") / ("f" * 32)
    shutil.copytree(f"outputs/Default/{trained.run.name}", folder)
    record = json.loads((folder / "run.json").read_text())
    other = again.create_run("0", run_name="smaller").info.run_id
    (folder / "run.json").write_text(json.dumps({**record, "run_id": other, "local_id": other}))
    part, found = whole.part([2, 0]), read_kept(Path(kept) / "evaluated.npz")
    write_labelled(folder / "eval/detections", part)
    two = Kept(part.digest, [found.detections[i] for i in (2, 0)], found.class_names)
    write_kept(folder / "eval/detections/evaluated.npz", two)
    assert main(["models", "compare", trained.run.name, other]) == 0
    said = capsys.readouterr().out
    assert said.startswith("no difference in mAP [0.0, 0.0]: not shown on 2 pictures")
    assert (
        f"Warning: the test sets differ: A's has {len(whole.keys)} pictures (digest "
        f"{whole.digest[:12]}), B's 2 ({part.digest[:12]}). What is compared is found in the 2 that "
        "both hold." in said
    )
    keys = tuple(f"other-{key}" for key in part.keys)
    foreign = type(part)(part.class_names, part.truths, keys)
    write_labelled(folder / "eval/detections", foreign)
    write_kept(
        folder / "eval/detections/evaluated.npz",
        Kept(foreign.digest, two.detections, found.class_names),
    )
    assert main(["models", "compare", trained.run.name, other]) == 1
    assert (
        capsys.readouterr()
        .err.strip()
        .endswith(
            f"models compare: the test sets differ and have no picture in common: A's has "
            f"{len(whole.keys)} pictures (digest {whole.digest[:12]}), B's 2 ({foreign.digest[:12]}).\n"
            "  Name pictures that neither was trained on, and both are run on them: data.images=DIR."
        )
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["models:/shapes/1"],
            "models compare: needs A B.\n"
            "  For example: odtrain models compare RUN_ID models:/panels@champion",
        ),
        (
            ["models:/shapes/1", "models:/shapes/1", "--format", "pt"],
            "--format pt: no such format.\n  Choose one of: pb, saved_model, tflite_fp32, "
            "tflite_fp16, tflite_dynamic, tflite_int8, onnx, onnx_raw, openvino_fp32, openvino_int8.",
        ),
    ],
)
def test_what_cannot_be_compared_is_an_error(again, capsys, words, message):
    assert main(["models", "compare", *words]) == 1
    assert capsys.readouterr().err.strip() == message
