"""What odtrain 0.1.0 left behind before its modules had rooms: a store to read, resume and serve."""

from __future__ import annotations

import sqlite3
import tarfile
from pathlib import Path

ARCHIVE = Path(__file__).parents[1] / "compatibility/store_0.1.0.tar.xz"
MADE_AT = "/tmp/old"
"""The folder in which it was made; artifact addresses are absolute."""

TRAINED = "548b1c7a3d6543469c17eea613e5250e"
"""The run that was finished and registered as models:/shapes/1: pb, tflite_fp16 and tflite_int8."""
KILLED = "cb42ad00068f4ba78f7a6e85b2cdc2a1"
"""The run that was killed behind its checkpoint at step 20 of 60."""

SETTINGS = (
    "data.images=pictures",
    "data.name=shapes",
    "model.input_size=64",
    "model.depth_multiplier=0.05",
    "model.min_depth=4",
    "train.batch_size=2",
    "train.log_every=1",
    "evaluate.bootstrap=20",
    "evaluate.drawn=2",
    "benchmark.runs=2",
    "tracking.system_metrics=false",
)
KILLED_SETTINGS = (
    *SETTINGS,
    "model=panels_ssd_mobilenet_v1",  # what was taken then where none was named
    "train.seed=1",
    "train.steps=60",
    "export.formats=[tflite_fp32]",
    "train.checkpoint_every=20",
    "evaluate.every=60",
    "train.trace_batches=true",
)
SWEEP_SETTINGS = (
    *SETTINGS,
    "train.steps=14",
    "train.checkpoint_every=14",
    "evaluate.every=14",
    "sweep/space=one",
    "sweep.baselines=[]",
    "sweep.keep=front",
    "sweep.formats=[tflite_fp32,tflite_int8]",
)
SPACE = "train.learning_rate: {low: 0.001, high: 0.01, log: true}\n"


def unpack(folder: Path) -> Path:
    """The store in `folder`, its addresses those of its new place."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    space = folder / "conf/sweep/space/one.yaml"
    space.parent.mkdir(parents=True)
    space.write_text(SPACE)
    _readdress_database(folder / "mlflow.db", str(folder))
    for file in folder.rglob("*"):
        if file.is_file() and file.suffix != ".db":
            content = file.read_bytes()
            if MADE_AT.encode() in content:
                file.write_bytes(content.replace(MADE_AT.encode(), str(folder).encode()))
    return folder


def _readdress_database(file: Path, folder: str) -> None:
    with sqlite3.connect(file) as database:
        tables = database.execute("select name from sqlite_master where type = 'table'").fetchall()
        for (table,) in tables:
            for _, column, kind, *_ in database.execute(f"pragma table_info({table})").fetchall():
                if "CHAR" in kind or "TEXT" in kind:
                    database.execute(
                        f"update {table} set {column} = replace({column}, ?, ?)", (MADE_AT, folder)
                    )
    database.close()
