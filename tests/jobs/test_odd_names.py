"""A training whose classes and pictures are called as MLflow takes no key and no artifact."""

import json
from pathlib import Path

import pytest
from support.commands import TINY_RUN
from support.pictures import label_picture
from support.stores import artifacts, only_run

from odtrain.cli.main import main
from odtrain.registry.versions import find_version
from odtrain.tracking.names import key_name

pytestmark = pytest.mark.slow

NAMES = ("▲", "*", "C++", "cup (blue)", "don't", "a/b", "a//b", "..", "l" * 243, "l" * 300)


def test_odd_names_train_evaluate_export_and_register(new, tmp_path):
    for split, count in (("train", 6), ("test", 2)):
        for place in range(count):
            objects = [
                (name, 19 * (i % 5), 40 * (i // 5), 19 * (i % 5) + 18, 40 * (i // 5) + 38)
                for i, name in enumerate(NAMES)
            ]
            label_picture(Path(f"odd/{split}/{split}#{place}.jpg"), (96, 80), objects, seed=place)
    given = ["train.steps=1", "evaluate.every=0", "export.formats=[tflite_fp32]", "data.name=odd"]
    assert main(["train", "data.images=odd", *TINY_RUN, *given]) == 0
    run = only_run(new)
    keys = {name: key_name(f"eval/AP/{name}") for name in NAMES}
    assert run.info.status == "FINISHED"
    assert set(keys.values()) <= set(run.data.metrics)
    renamed = json.loads(run.data.tags["odtrain.renamed"])
    assert {renamed.get(key, key) for key in keys.values()} == {f"eval/AP/{name}" for name in NAMES}
    version = find_version("models:/odd/1", f"sqlite:///{tmp_path}/mlflow.db")
    assert set(keys.values()) <= set(version.tags)
    labels = Path("outputs/Default", run.info.run_id, "export/labels.txt")
    assert set(labels.read_text(encoding="utf-8").splitlines()) == set(NAMES)
    drawn = [file for file in artifacts(new, run.info.run_id, "eval/drawn") if "test_" in file]
    assert len(drawn) == 2
