"""Whole commands on an S3 server: the same results as in folders, and the credentials nowhere."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from support.commands import odtrain
from support.s3_server import KEY, SECRET
from support.stores import free_port, wait_until_healthy

from odtrain.config.compose import compose_config, section
from odtrain.config.schema import ClusterConfig
from odtrain.dataset.on_cluster import ray_workers
from odtrain.dataset.prepare import prepare
from odtrain.system import workers as system_workers

pytestmark = pytest.mark.long


def files_with_credentials(folder: Path) -> list[Path]:
    """The files below a folder that hold a key or a secret."""
    return [
        file
        for file in folder.rglob("*")
        if file.is_file() and any(word.encode() in file.read_bytes() for word in (KEY, SECRET))
    ]


def test_a_training_from_a_store_is_that_of_a_folder(s3, trained, shapes, tmp_path, database):
    shutil.copy(database, tmp_path / "mlflow.db")
    images = s3.put(shapes, "trained/shapes")
    settings = [f"data.images={images}", *trained.overrides[1:]]
    done = odtrain(["train", *settings, "data.prepared=s3://pictures/trained/prepared"], tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = (each for each in (tmp_path / "outputs/Default").iterdir() if each.is_dir())
    assert (run / "batches.csv").read_text() == (trained.run / "batches.csv").read_text()
    assert files_with_credentials(tmp_path) == []
    assert not any(word in done.stdout + done.stderr for word in (KEY, SECRET))


def test_a_model_looks_from_a_store_into_one(s3, trained, shapes, tmp_path):
    images = s3.put(shapes, "seen/shapes")
    s3.put(trained.run / "export", "seen/model")
    s3.put(trained.run / "checkpoints" / "best", "seen/best")
    given = ["source=s3://pictures/seen/model/model.tflite", "predict.threshold=0.05"]
    done = odtrain(
        ["predict", *given, f"input={images}", "output=s3://pictures/seen/found"], tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(
        "in 20 of 20 pictures: s3://pictures/seen/found\n22 files are in s3://pictures/seen/found.\n"
    )
    here = odtrain(
        ["predict", f"source={trained.run}/export/model.tflite", given[1], f"input={shapes}"],
        tmp_path,
    )
    assert here.returncode == 0, here.stderr
    table = s3.fs.cat_file("pictures/seen/found/predictions.csv").decode()
    text = (tmp_path / "predictions/predictions.csv").read_text()
    assert table == text.replace(str(shapes), images)
    assert files_with_credentials(tmp_path) == []


def test_a_server_keeps_files_of_runs_in_a_store(s3, tmp_path, database):
    shutil.copy(database, tmp_path / "mlflow.db")
    port = free_port()
    command = [sys.executable, "-m", "odtrain", "server", "--workers", "1", "--port", str(port)]
    command += ["--folder", str(tmp_path / "server"), "--artifacts", "s3://pictures/runs"]
    command += ["--database", f"sqlite:///{tmp_path}/mlflow.db"]
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}/health", process, 120)
        client = {key: text for key, text in os.environ.items() if not key.startswith("AWS_")}
        code = (
            "import sys; from mlflow import MlflowClient; c = MlflowClient(sys.argv[1]); "
            "r = c.create_run('0'); c.log_text(r.info.run_id, 'words', 'a/b.txt'); "
            "print(open(c.download_artifacts(r.info.run_id, 'a/b.txt', sys.argv[2])).read())"
        )
        given = [f"http://127.0.0.1:{port}", str(tmp_path)]
        done = subprocess.run(
            [sys.executable, "-c", code, *given],
            env=client,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.endswith("words\n"), done.stderr
        assert [name for name in s3.fs.find("pictures/runs") if name.endswith("/a/b.txt")]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    words = (tmp_path / "said").read_text()
    assert "  artifacts        s3://pictures/runs\n" in words
    assert files_with_credentials(tmp_path) == []


def test_a_server_does_not_begin_with_a_store_that_refuses(s3, tmp_path):
    given = ["--folder", "server", "--port", str(free_port()), "--artifacts", "s3://pictures/runs"]
    done = odtrain(["server", *given], tmp_path, AWS_SECRET_ACCESS_KEY="another")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2].startswith("s3://pictures/runs/.odtrain: refused: ")
    assert not (tmp_path / "server").exists()


def test_data_prepared_by_ray_in_a_store_have_the_same_bytes(s3, shapes, tmp_path, monkeypatch):
    from support.ray_nodes import Nodes  # needs Ray

    images = s3.put(shapes, "ray/shapes")
    monkeypatch.chdir(tmp_path)
    data = compose_config([f"data.images={images}", "data.name=shapes", "data.shards=3"]).data
    here = replace(data, images=str(shapes), prepared=str(tmp_path / "here"))
    there = replace(data, prepared="s3://pictures/ray/prepared")
    expected = prepare(here)
    monkeypatch.setattr(system_workers, "WORTH_PROCESSES", 1)
    nodes = Nodes(1, 1)
    try:
        cluster = section(ClusterConfig, engine="ray", address=nodes.address)
        found = prepare(there, partial(ray_workers, cluster, there))
    finally:
        nodes.end()
    assert (found.digest, found.files) == (expected.digest, expected.files)
    for name in expected.files:
        content = s3.fs.cat_file(f"pictures/ray/prepared/{name}")
        assert content == (tmp_path / "here" / name).read_bytes()
