from contextlib import contextmanager
from pathlib import Path

import pytest
from support.stores import only_run

from odtrain.cli.main import main
from odtrain.config.compose import compose_config
from odtrain.config.schema import replaced
from odtrain.dataset.prepare import prepare
from odtrain.evaluation.saved_detections import read_kept
from odtrain.jobs.context import RunContext, Split
from odtrain.jobs.steps import KEPT, Found, proven_before
from odtrain.model_source import rebuild, run_config
from odtrain.tracking.tracker import Tracker

pytestmark = pytest.mark.slow


def test_exporting_again_replaces_files_and_numbers_together(again, trained, capsys):
    again.set_terminated(trained.run.name, "KILLED")
    arguments = ["export.formats=[tflite_fp32]", "export.nms=fast", "benchmark.runs=2"]
    assert main(["export", f"source={trained.run.name}", *arguments]) == 0
    run, file = only_run(again), trained.run.relative_to(trained.folder) / "export/model.tflite"
    assert run.info.status == "KILLED"
    assert file.read_bytes() != (trained.folder / file).read_bytes()
    latencies = again.get_metric_history(trained.run.name, "export/tflite_fp32/latency_ms_p50")
    assert [point.step for point in latencies] == [14, 14]
    assert run.data.metrics["export/tflite_fp32/latency_ms_p50"] == latencies[1].value
    assert "| model.tflite | " in capsys.readouterr().out


def test_exporting_to_a_folder_leaves_the_run_alone(again, trained):
    before = again.get_run(trained.run.name)
    arguments = ["export.formats=[tflite_fp16]", "benchmark.runs=2", "output=files"]
    assert main(["export", f"source={trained.run.name}", *arguments]) == 0
    assert Path("files/model_fp16.tflite").is_file()
    assert again.get_run(trained.run.name).to_dictionary() == before.to_dictionary()


def test_a_run_that_was_judged_on_another_split_is_exported_on_that_one(again, trained):
    again.set_tag(trained.run.name, "odtrain.eval_split", "validation")
    given = ["export.formats=[tflite_fp32]", "export.max_map_drop=1"]
    assert main(["export", f"source={trained.run.name}", *given]) == 0
    kept = read_kept(Path("outputs/Default", trained.run.name, "eval/detections/tflite_fp32.npz"))
    assert len(kept.detections) == 1


def test_an_int8_file_that_fails_is_explained_beside_the_files(trained):
    folder = trained.run / "export/int8"
    assert sorted(path.name for path in folder.iterdir()) == [
        "changed",
        "layers.csv",
        "layers.md",
        "layers.png",
    ]
    rows = (folder / "layers.csv").read_text().splitlines()
    assert rows[0] == "name,snr_db,cosine,lost_channels,low,high,used_low,used_high,saturated"
    noise = [float(row.split(",")[1]) for row in rows[1:]]
    assert noise == sorted(noise) and len(noise) > 40
    assert "Where the int8 file differs most (" in trained.done.stderr


def test_an_int8_file_is_explained_when_it_is_asked_for(again, trained, said):
    arguments = ["export.formats=[tflite_int8]", "benchmark.runs=2", "output=files"]
    words = ["export", "--explain-int8", f"source={trained.run.name}", *arguments]
    assert main([*words, "export.max_map_drop=1"]) == 0
    assert Path("files/int8/layers.csv").is_file()
    assert not Path("files/int8/ladder.json").exists()
    assert any(
        text.startswith("Where the int8 file differs most (files/int8 has all):") for text in said
    )


def test_an_int8_file_that_is_not_made_cannot_be_explained(again, trained, capsys):
    arguments = ["--explain-int8", f"source={trained.run.name}", "export.formats=[pb]"]
    assert main(["export", *arguments]) == 1
    assert capsys.readouterr().err == (
        "--explain-int8: there is no int8 file among export.formats.\n"
        "  Give export.formats=[tflite_int8], or a list with it.\n"
    )


@pytest.mark.long
def test_the_ladder_is_in_the_run_and_its_file_goes_on(again, trained, capsys):
    arguments = [
        "export.formats=[tflite_fp32,tflite_int8]",
        "export.max_map_drop=-1",
        "benchmark.runs=2",
    ]
    assert main(["export", f"source={trained.run.name}", *arguments]) == 0
    assert "| plain | " in capsys.readouterr().out
    assert Path("outputs/Default", trained.run.name, "export/int8/ladder.json").is_file()
    kept = read_kept(Path("outputs/Default", trained.run.name, "eval/detections/tflite_int8.npz"))
    assert kept.facts["rungs"][0]["rung"] == "plain"


@contextmanager
def gone_on_with(trained):
    """The training taken up again, as after a kill behind its exports, and what it found."""
    runs = compose_config([]).runs
    config = replaced(run_config(trained.run.name, runs), {"tracking": runs.tracking})
    dataset = prepare(config.data)
    with Tracker(config.tracking, Path("outputs")).start(
        "train", resume=trained.run.name
    ) as tracker:
        kept = read_kept(tracker.folder / KEPT / "evaluated.npz")
        found = Found(Split.read(dataset, "test"), kept.detections)
        detector, _ = rebuild(trained.run.name, config.runs)
        yield RunContext(tracker, config, dataset).at(14), detector, found


def test_files_that_were_proven_before_a_kill_stay_with_their_numbers(again, trained, said):
    before = again.get_run(trained.run.name).data.metrics
    with gone_on_with(trained) as job:
        proofs = proven_before(*job)
    assert [one.format for one in proofs] == ["pb", "tflite_fp32", "tflite_int8"]
    for proof in proofs:
        for key, value in proof.metrics().items():
            (point,) = again.get_metric_history(trained.run.name, key)
            assert (point.value, point.step) == (pytest.approx(value), 14)
    assert again.get_run(trained.run.name).data.metrics == before
    assert "The files were exported and measured before: they stay." in said


def test_a_file_that_was_changed_since_is_proven_anew(again, trained):
    file = trained.run.relative_to(trained.folder) / "export/model.tflite"
    file.write_bytes(file.read_bytes() + b"\0")
    with gone_on_with(trained) as job:
        assert proven_before(*job) is None


def test_files_of_other_weights_are_not_taken_for_these(again, trained):
    with gone_on_with(trained) as (context, detector, found):
        _, variable = min(detector.variables_by_name().items())
        variable.assign(variable + 1)
        assert proven_before(context, detector, found) is None
