from pathlib import Path

import pytest
from support.stores import only_run

from odtrain.cli.main import main
from odtrain.evaluation.saved_detections import read_kept

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
    kept = read_kept(Path("outputs/odtrain", trained.run.name, "eval/detections/tflite_fp32.npz"))
    assert len(kept.detections) == 1
