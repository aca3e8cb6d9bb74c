"""Every architecture, from its own TF1 checkpoint through a short training to files that agree."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from support.commands import odtrain
from support.golden_efficientdet import golden_checkpoint, golden_model
from support.golden_training import OPTIONS, golden_config

from odtrain.config.compose import flattened
from odtrain.export_formats import FORMATS

FOCAL = [name for name, options in OPTIONS.items() if "encode_background_as_zeros" in options]
EFFICIENTDET = "efficientdet_lite0"
LONGER = dict.fromkeys(["ssd_mobilenet_v1_fpn", "ssd_mobilenet_v2_fpnlite", EFFICIENTDET], 150)
"""Steps, where 50 leave moving statistics (decay 0.997) that are 86 % of what they began with: what the int8
file loses then is chance, 0.04 to 0.10 of mAP 0.12 by seed and precision. After 150 it lost nothing."""
QUICKER = {"batch_norm_decay": 0.9}
"""Of EfficientDet, whose heads have batch norms too: after 150 steps with its own 0.99 their moving statistics
left scores at 0.001, mAP 0.127 all the same, and int8 rounds such scores to 0. With 0.9 int8 had 0.044 of
0.097 after 50 steps."""
FASTER = dict.fromkeys(["ssd_mobilenet_v2_fpnlite", "ssd_mobilenet_v2_mnasfpn"], 0.01)
"""Learning rates, where 0.001 moves too little in 50 steps: predictors of two small kernels one behind the
other begin flat, and the loss fell by 5 to 8 %."""


def settings(name: str) -> list[str]:
    """The golden's network as overrides."""
    config = golden_model(**QUICKER) if name == EFFICIENTDET else golden_config(name)
    model = flattened(asdict(replace(config, zoo=None)))
    del model["name"], model["zoo"]
    return [f"model.{key}={json.dumps(value)}" for key, value in model.items()]


@pytest.mark.long
@pytest.mark.parametrize("name", [*OPTIONS, EFFICIENTDET])
def test_fine_tuning_lowers_the_loss_and_every_file_agrees(shared, tmp_path, name):
    raccoon, golden = shared / "data" / "raccoon", shared / "golden" / name
    steps, loss = LONGER.get(name, 50), "focal" if name in FOCAL else "hard_mining"
    if name == EFFICIENTDET:
        golden, loss = golden_checkpoint(golden, tmp_path / "golden/model.ckpt-0"), "efficientdet"
    done = odtrain(
        [
            "train",
            *settings(name),
            "model.input_size=160",
            f"data.images={raccoon / 'images'}",
            f"data.annotations={raccoon / 'annotations'}",
            f"data.train_list={raccoon / 'data' / 'train_labels.csv'}",
            f"data.test_list={raccoon / 'data' / 'test_labels.csv'}",
            "data.name=raccoon",
            f"train.checkpoint={golden}",
            "train.restore=backbone",
            f"train.loss={loss}",
            f"train.steps={steps}",
            "train.batch_size=8",
            "train.optimizer=adam",
            f"train.learning_rate={FASTER.get(name, 0.001)}",
            "train.log_every=1",
            "evaluate.bootstrap=20",
            "evaluate.drawn=1",
            "benchmark.runs=2",
            "tracking.system_metrics=false",
        ],
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "weights from" in done.stderr
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = Path(tmp_path / "outputs/Default").iterdir()
    history = client.get_metric_history(run.name, "train/loss")
    losses = [each.value for each in sorted(history, key=lambda each: each.step)]
    assert len(losses) == steps
    assert np.mean(losses[40:50]) < 0.9 * np.mean(losses[:5])
    data = client.get_run(run.name).data
    said = {f: data.tags[f"odtrain.export.{f}"] for f in FORMATS if "onnx" not in f}
    int8 = said.pop("tflite_int8")  # so young a network may lose more than the allowed 0.02
    assert said == dict.fromkeys(said, "passed")
    assert int8 == "passed" or int8.startswith("loses 0.0")
    assert data.metrics["export/tflite_int8/mAP"] > data.metrics["eval/mAP"] - 0.05
