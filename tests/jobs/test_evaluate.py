import json
from pathlib import Path

import pytest
from support.stores import only_run
from support.tiny_models import model

from odtrain.cli.main import main
from odtrain.config.compose import compose_config
from odtrain.model_source import open_source

__all__ = ["model"]

pytestmark = pytest.mark.slow


def test_evaluating_a_run_finds_its_numbers_again_and_leaves_it_as_it_is(again, trained, capsys):
    again.set_terminated(trained.run.name, "KILLED")
    before = again.get_run(trained.run.name).data.metrics["eval/AR_100"]
    for file in Path("outputs/Default", trained.run.name, "eval").glob("*.json"):
        file.unlink()
    assert main(["evaluate", f"source={trained.run.name}"]) == 0
    run = only_run(again)
    assert run.info.status == "KILLED"
    assert run.data.tags["odtrain.stage"] == "train"
    assert len(again.get_metric_history(trained.run.name, "eval/mAP")) == 1
    assert run.data.metrics["eval/AR_100"] == pytest.approx(before)
    report = Path("outputs/Default", trained.run.name, "eval")
    assert capsys.readouterr().out.endswith(f"\nReport: {report}\n")
    assert (report / "metrics.json").is_file()


def files_below(folder):
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param(["evaluate.split=train"], ("train", 15), id="another split"),
        pytest.param(["evaluate.bootstrap=5"], ("test", 4), id="other settings"),
        pytest.param(
            ["data.images={shapes}", "data.name=others", "data.test_fraction=0.1"],
            ("test", 2),
            id="other data",
        ),
    ],
)
def test_what_a_run_was_judged_by_stays_beside_any_other_evaluation(
    again, trained, shapes, capsys, said, asked, expected
):
    before = again.get_run(trained.run.name)
    folder = Path("outputs/Default", trained.run.name)
    report = files_below(folder / "eval")
    asked = [one.format(shapes=shapes) for one in asked]
    assert main(["evaluate", f"source={trained.run.name}", *asked]) == 0
    now = again.get_run(trained.run.name)
    assert (now.data.metrics, now.data.tags) == (before.data.metrics, before.data.tags)
    assert files_below(folder / "eval") == report
    (made,) = again.search_runs(["0"], "tags.`odtrain.stage` = 'evaluate'")
    assert made.data.tags["mlflow.parentRunId"] == trained.run.name
    content = json.loads(Path("outputs/Default", made.info.run_id, "eval/metrics.json").read_text())
    assert (made.data.tags["odtrain.eval_split"], content["images"]) == expected
    assert said[-1] == (
        f"Kept as run {made.info.run_id}: {trained.run.name} was judged on its test split, and keeps "
        "its numbers."
    )
    assert main(["report", made.info.run_id]) == 0
    assert f"on {expected[1]} {expected[0]} pictures" in Path(
        f"report-{made.info.run_id[:8]}.html"
    ).read_text(encoding="utf-8")


def test_evaluating_a_file_makes_a_run_of_its_own(again, trained):
    model = trained.run / "export/model.tflite"
    assert main(["evaluate", f"source={model}", *trained.overrides]) == 0
    runs = again.search_runs(["0"], "tags.`odtrain.stage` = 'evaluate'")
    expected = again.get_run(trained.run.name).data.metrics["export/tflite_fp32/mAP_50"]
    assert [run.info.status for run in runs] == ["FINISHED"]
    assert runs[0].data.metrics["eval/mAP_50"] == pytest.approx(expected, abs=1e-9)


def test_a_source_with_other_classes_is_refused(again, trained, capsys):
    model = trained.run / "export/model.tflite"
    names = enumerate(("circle", "square", "triangle"), start=1)
    items = "".join(f"item {{ id: {number} name: '{name}' }}\n" for number, name in names)
    Path("three.pbtxt").write_text(items)
    given = [*trained.overrides, "data.label_map=three.pbtxt", "data.prepared=three"]
    assert main(["evaluate", f"source={model}", *given]) == 1
    assert capsys.readouterr().err.endswith(
        f"{model}: knows the classes circle, square; shapes has circle, square, triangle.\n"
        "  Evaluate it on data with its own classes: data.images=..., data.label_map=...\n"
    )


def test_a_file_without_names_is_not_scored_on_classes_that_it_may_not_mean(
    new, model, shapes, capsys
):
    data = (f"data.images={shapes}", "data.name=shapes")
    assert main(["evaluate", f"source={model}", *data]) == 1
    assert capsys.readouterr().err.endswith(
        f"{model}: carries no class names, so that which of its numbers are the classes of shapes is not "
        "known.\n  Give them: predict.label_map=FILE, a label_map.pbtxt or a name a line.\n"
    )
    assert new.search_runs(["0", "1"]) == []


def test_names_for_a_file_that_has_its_own_are_said_to_be_passed_over(again, trained, said):
    Path("names.txt").write_text("square\ncircle\n")
    model = trained.run / "export/model.tflite"
    config = compose_config([f"source={model}", "predict.label_map=names.txt"])
    assert open_source(config.source, config).class_names == ("circle", "square")
    assert said == [f"{model} knows its own classes: predict.label_map=names.txt is passed over."]


def test_the_registered_model_can_be_a_source(again, trained, capsys):
    config = compose_config(["source=models:/shapes@champion"])
    source = open_source(config.source, config)
    assert source.class_names == ("circle", "square")
    assert source.file is not None
    assert source.file.name == "model.tflite"


def test_a_file_of_a_run_can_be_a_source(again, trained):
    config = compose_config([f"source=runs:/{trained.run.name}/export/model_int8.tflite"])
    assert open_source(config.source, config).class_names == ("circle", "square")
