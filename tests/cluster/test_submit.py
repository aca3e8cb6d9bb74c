"""Commands are sent to a Ray of this machine that takes jobs."""

from __future__ import annotations

import re
import time

import pytest
from mlflow import MlflowClient
from support.commands import TINY_RUN, odtrain
from support.ray_nodes import Nodes

from odtrain.cluster.submit import _entrypoint
from odtrain.config.compose import compose_config


@pytest.fixture(scope="module")
def nodes():
    """A head that takes jobs, and a node of two cores."""
    begun = Nodes(2, jobs=True)
    yield begun
    begun.end()


def test_a_command_is_sent_as_it_was_given_and_uses_the_cluster_it_is_sent_to():
    given = ["cluster=ray", "cluster.jobs=http://head:8265", "cluster.folder=/d e", "data.name=a"]
    config = compose_config(given)
    assert _entrypoint(config, "train", given, own=True) == (
        "ODTRAIN_CONF=\"$PWD/conf\"; cd '/d e' && python -m odtrain train cluster=ray data.name=a "
        'cluster.address=auto --config-dir "$ODTRAIN_CONF"'
    )


def test_a_run_that_would_be_lost_with_its_job_is_refused(tmp_path):
    done = odtrain(["submit", "train", "cluster.jobs=http://127.0.0.1:1"], tmp_path)
    assert (done.returncode, done.stderr) == (
        1,
        "odtrain submit: the run would be kept in a folder of the job, which goes when the cluster does.\n"
        "  Give cluster.folder=DIR, a folder of the cluster, or tracking.uri=http://HOST:5000.\n",
    )


@pytest.mark.long
def test_a_command_that_was_sent_is_followed_to_its_end(nodes, shapes, tmp_path):
    jobs = f"cluster.jobs={nodes.jobs}"
    data = (f"data.images={shapes}", "data.name=shapes", f"cluster.folder={tmp_path}", jobs)
    done = odtrain(["submit", "prepare", "--follow", *data], tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "datasets/shapes/dataset.json").is_file()
    (name,) = re.findall(rf"^Job (\S+): {nodes.jobs}/#/jobs/\1$", done.stderr, re.MULTILINE)
    assert done.stderr.splitlines()[-1] == f"Job {name}: succeeded."
    again = odtrain(["submit", "stop", "other", jobs], tmp_path)
    assert again.stderr == (f"job other: is not known to the cluster.\n  There are: {name}.\n")


@pytest.mark.long
def test_a_training_that_was_sent_says_its_run_and_can_be_called_off(nodes, shapes, tmp_path):
    jobs = f"cluster.jobs={nodes.jobs}"
    words = [*TINY_RUN, f"data.images={shapes}", f"cluster.folder={tmp_path}", jobs]
    sent = odtrain(["submit", "train", "train.steps=100000", *words], tmp_path)
    assert sent.returncode == 0, sent.stderr
    (name,) = re.findall(r"^Job (\S+):", sent.stderr, re.MULTILINE)
    assert re.search(r"^Run \w+: ", sent.stderr, re.MULTILINE)
    time.sleep(20)
    stopped = odtrain(["submit", "stop", name, jobs], tmp_path)
    assert stopped.stdout == f"Job {name}: stopped.\n", stopped.stderr
    (run,) = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_runs(["0"])
    assert run.info.status == "KILLED"
