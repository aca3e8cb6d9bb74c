"""Real trainings, killed at the worst moments and gone on with, beside one that was left alone."""

import csv
import shlex
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from mlflow import MlflowClient
from support.commands import TINY_RUN, odtrain
from support.faults import WHOLE, Training

pytestmark = pytest.mark.slow

KILLED_RUN = Path(__file__).parents[1] / "support/killed_run.py"


EARLY, LATE = ("batch:3", "checkpoint:12"), ("evaluation:1", "batch:4")
"""Two trainings, each killed twice and then gone on with to its end; moments as in killed_run.py."""
NEVER = "batch:99"
LONG = [pytest.mark.long]
ROUNDS = [pytest.param(EARLY, id="early"), pytest.param(LATE, id="late", marks=LONG)]


@dataclass
class Session:
    """One process that worked on a run, and what it left.

    Attributes:
        done: exit status and what it said.
        status: of the run in MLflow.
        checkpoints: the files of `checkpoints/last`.
        restored: folder with `last/`, from which it resumed, and `restored`, what came of it.
    """

    done: subprocess.CompletedProcess[str]
    status: str
    checkpoints: set[str]
    restored: Path


@dataclass
class KilledRun:
    """A training that was killed, gone on with in the process after, and at last came to its end."""

    folder: Path
    run_id: str = ""
    sessions: dict[str, Session] = field(default_factory=dict)

    @property
    def client(self):
        return MlflowClient(f"sqlite:///{self.folder}/mlflow.db")

    @property
    def run(self):
        (run,) = (self.folder / "outputs/Default").iterdir()
        return run

    def history(self, metric):
        return [point.step for point in self.client.get_metric_history(self.run_id, metric)]

    def work_on(self, shapes, moment, *overrides):
        restored = self.folder / f"restored {moment}"
        program = [str(KILLED_RUN), moment or NEVER]
        arguments = ["train", f"data.images={shapes}", *TINY_RUN, "export.formats=[tflite_fp32]"]
        done = odtrain(
            [*arguments, *overrides], self.folder, program, ODTRAIN_RESTORED=str(restored)
        )
        experiments = [one.experiment_id for one in self.client.search_experiments()]
        (run,) = self.client.search_runs(experiments)
        self.run_id = run.info.run_id
        checkpoints = {path.name for path in self.run.glob("checkpoints/last/*")}
        self.sessions[moment] = Session(done, run.info.status, checkpoints, restored)


@pytest.fixture(scope="module")
def rounds(shapes, database, tmp_path_factory):
    """The run of each of `ROUNDS`, made when it is asked for."""

    @cache
    def go(moments):
        killed = KilledRun(tmp_path_factory.mktemp("killed"))
        shutil.copy(database, killed.folder / "mlflow.db")
        first, second = moments
        killed.work_on(shapes, first)
        killed.work_on(shapes, second, "train.resume=auto")
        killed.work_on(shapes, "", f"train.resume={killed.run_id}")
        return killed

    return go


@pytest.fixture(params=ROUNDS)
def killed(request, rounds):
    return rounds(request.param)


@pytest.fixture
def session(request, rounds):
    """The process that was killed at the moment by which the test is parametrized."""
    moments = EARLY if request.param in EARLY else LATE
    return rounds(moments).sessions[request.param]


def at(*moments):
    marked = [pytest.param(one, marks=LONG if one in LATE else []) for one in moments]
    return pytest.mark.parametrize("session", marked, indirect=True)


def batches(file):
    """(step, hash, pictures) of every batch that was read, once each."""
    with file.open() as stream:
        return {tuple(row) for row in csv.reader(stream)}


def tensors(prefix):
    reader = tf.train.load_checkpoint(str(prefix))
    keys = reader.get_variable_to_shape_map().keys() - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    return {key: reader.get_tensor(key) for key in keys if not key.startswith("save_counter")}


@at(*EARLY, *LATE)
def test_the_process_was_killed(session):
    assert session.done.returncode == -signal.SIGKILL, session.done.stderr
    assert session.status == "RUNNING"


@at("batch:3")
def test_one_kill_came_before_there_was_any_checkpoint(session):
    assert session.checkpoints == set()
    assert "1/14 [" in session.done.stderr


@at("batch:4")
def test_one_kill_came_in_the_middle_of_a_step(session):
    assert "ckpt-6.index" in session.checkpoints
    assert "8/14 [" not in session.done.stderr


@at("evaluation:1")
def test_one_kill_came_in_the_middle_of_an_evaluation(session):
    assert "ckpt-5.index" in session.checkpoints
    assert "ckpt-6.index" not in session.checkpoints


@at("checkpoint:12")
def test_one_kill_came_while_a_checkpoint_was_written(session):
    assert {"ckpt-12_temp", "ckpt-10.index"} <= session.checkpoints
    assert "ckpt-12.index" not in session.checkpoints


@pytest.mark.parametrize(
    ("moments", "moment", "said"),
    [
        (EARLY, "", "Going on after step 10 of 14."),
        pytest.param(LATE, "batch:4", "Going on after step 5 of 14.", marks=LONG),
        pytest.param(LATE, "", "Going on after step 6 of 14.", marks=LONG),
    ],
)
def test_the_next_process_goes_on_behind_the_last_checkpoint(rounds, moments, moment, said):
    assert said in rounds(moments).sessions[moment].done.stderr


def test_the_last_process_finishes_the_same_run(killed):
    session = killed.sessions[""]
    assert session.done.returncode == 0, session.done.stderr
    assert session.status == "FINISHED"
    assert killed.run.name == killed.run_id
    version = killed.client.get_model_version_by_alias("shapes", "champion")
    assert version.run_id == killed.run_id


def test_the_store_is_as_if_nothing_had_happened(killed):
    assert Training(killed.folder, f"sqlite:///{killed.folder}/mlflow.db", ()).state() == WHOLE


@pytest.mark.parametrize(
    ("metric", "steps"),
    [
        pytest.param("train/loss", range(1, 15), id="loss"),
        pytest.param("train/learning_rate", range(1, 15), id="learning rate"),
        pytest.param("val/mAP", (5, 10, 14), id="validation"),
        pytest.param("eval/mAP", (14,), id="test"),
    ],
)
def test_no_step_is_logged_twice_or_missing(killed, metric, steps):
    assert sorted(killed.history(metric)) == list(steps)


def test_every_batch_holds_the_pictures_of_an_uninterrupted_run(killed, trained):
    found, expected = (batches(run / "batches.csv") for run in (killed.run, trained.run))
    upto = {str(step) for step in range(1, 15)}
    assert {row for row in found if row[0] in upto} == {row for row in expected if row[0] in upto}
    assert {row[0] for row in found} >= upto


def test_every_variable_slot_and_counter_is_restored_bit_for_bit(rounds):
    folder = rounds(EARLY).sessions[""].restored
    found, saved = tensors(folder / "restored"), tensors(folder / "last/ckpt-10")
    assert found.keys() == saved.keys()
    assert sum("/_variables/" in key for key in saved) > 100
    for key, value in saved.items():
        assert np.asarray(found[key]).tobytes() == np.asarray(value).tobytes(), key


def test_the_data_set_is_named_once(killed):
    inputs = killed.client.get_run(killed.run_id).inputs.dataset_inputs
    assert sorted(one.dataset.name for one in inputs) == [
        "shapes-test",
        "shapes-train",
        "shapes-validation",
    ]


def test_nothing_of_the_torn_checkpoint_is_logged(rounds):
    killed = rounds(EARLY)
    artifacts = killed.client.list_artifacts(killed.run_id, "checkpoints/last")
    names = {Path(artifact.path).name for artifact in artifacts}
    assert names == {
        "checkpoint",
        *(f"ckpt-{n}.{part}" for n in (12, 14) for part in ("index", "data-00000-of-00001")),
    }


def test_the_description_says_how_the_run_was_begun(killed, shapes):
    begun = ["odtrain", "train", f"data.images={shapes}", *TINY_RUN, "export.formats=[tflite_fp32]"]
    note = killed.client.get_run(killed.run_id).data.tags["mlflow.note.content"]
    assert note.splitlines()[0] == f"`{shlex.join(begun)}`"


MIXED = (
    "augment.mosaic=0.5",
    "augment.mixup=0.3",
    "augment.scale=0.3",
    "augment.off_last=0.2",
    "train.multi_scale=0.5",
)


@pytest.mark.long
def test_a_killed_training_of_mixed_pictures_goes_on_with_the_same_batches(
    shapes, database, tmp_path
):
    runs = {}
    for name, moments in (("whole", [""]), ("killed", ["batch:3", ""])):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(database, folder / "mlflow.db")
        runs[name] = KilledRun(folder)
        for moment in moments:
            runs[name].work_on(shapes, moment, *MIXED, "train.resume=auto")
    upto = {str(step) for step in range(1, 15)}
    found, expected = (
        {row for row in batches(runs[name].run / "batches.csv") if row[0] in upto}
        for name in ("killed", "whole")
    )
    assert found == expected
    assert len(expected) == 14


def int8_ranges(folder):
    """(tensors, 2): scale and zero point of all that the run's int8 file computes with."""
    (run,) = (folder / "outputs/Default").iterdir()
    interpreter = Interpreter(str(run / "export/model_int8.tflite"))
    found = [each["quantization"] for each in interpreter.get_tensor_details()]
    return np.array([one for one in found if one[0]], np.float64)


def apart(one, other):
    """How far scales are from each other at most, in proportion."""
    return np.abs(one[:, 0] / other[:, 0] - 1).max()


@pytest.mark.long
def test_a_killed_quantised_training_gives_the_int8_file_of_one_that_was_not(
    shapes, database, tmp_path
):
    """Within twice what two that were left alone differ by, as rounding is not repeatable."""
    found = {}
    for name, moments in (("whole", [""]), ("again", [""]), ("killed", ["batch:5", "batch:6", ""])):
        run = KilledRun(tmp_path / name)
        run.folder.mkdir()
        shutil.copy(database, run.folder / "mlflow.db")
        for moment in moments:
            resumed = ("train.resume=auto",) if moment != moments[0] else ()
            more = ("train.quantize_from=7", "export.formats=[tflite_int8]")
            run.work_on(shapes, moment, *more, *resumed)
        assert run.sessions[""].done.returncode == 0, run.sessions[""].done.stderr
        found[name] = int8_ranges(run.folder)
    noise = apart(found["again"], found["whole"])
    assert len(found["whole"]) > 100
    assert apart(found["killed"], found["whole"]) <= max(2 * noise, 0.01)
