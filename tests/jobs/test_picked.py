from pathlib import Path

import pytest

from odtrain.config.compose import compose_config
from odtrain.jobs.picked import drop_exports
from odtrain.tracking.tracker import Tracker

pytestmark = pytest.mark.slow


def test_files_that_are_dropped_are_gone_here_and_in_the_store_and_the_run_says_so(new):
    config = compose_config(["tracking.system_metrics=false"])
    with Tracker(config.tracking, Path(config.outputs)).start("train") as tracker:
        export = tracker.folder / "export"
        for name in ("saved_model/saved_model.pb", "model.tflite", "model_int8.tflite"):
            (export / name).parent.mkdir(parents=True, exist_ok=True)
            (export / name).write_text(name)
        tracker.log_folder(export, "export")
    run_id = str(tracker.run_id)
    files = {"saved_model": "export/saved_model", "tflite_fp32": "export/model.tflite"}
    drop_exports(config.runs, run_id, files)
    assert [file.name for file in export.iterdir()] == ["model_int8.tflite"]
    assert [file.path for file in new.list_artifacts(run_id, "export")] == [
        "export/model_int8.tflite"
    ]
    run = new.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert {run.data.tags[f"odtrain.export.{name}"] for name in files} == {
        "dropped: not on the front of its sweep"
    }
