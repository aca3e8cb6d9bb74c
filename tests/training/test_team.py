import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from odtrain.errors import ConfigError
from odtrain.training.team import Team, _port_of, join

SUPPORT = Path(__file__).resolve().parents[1] / "support"
EXAMPLE = (
    '  Set it to JSON such as {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", '
    '"index": 0}}.'
)


def tf_config(workers, job="worker", index=0):
    return {"TF_CONFIG": json.dumps({"cluster": workers, "task": {"type": job, "index": index}})}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"TF_CONFIG": "{worker"},
            "TF_CONFIG: cannot be read: JSONDecodeError: Expecting property name enclosed in double quotes: "
            "line 1 column 2 (char 1).\n",
        ),
        (
            {"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}}'},
            "TF_CONFIG: cannot be read: KeyError: 'task'.\n",
        ),
        (
            tf_config({"worker": ["a:1", "b:1"]}, index=2),
            "TF_CONFIG: has worker 2 of worker, which is none that trains.\n",
        ),
        (
            tf_config({"worker": ["a:1"], "ps": ["b:1"]}),
            "TF_CONFIG: has worker 0 of ps, worker, which is none that trains.\n",
        ),
    ],
)
def test_a_tf_config_that_says_nothing_of_use_is_refused(environment, message):
    with pytest.raises(ConfigError) as caught:
        join("auto", environment)
    assert str(caught.value) == message + EXAMPLE


def test_workers_of_jobs_that_share_a_node_listen_apart_and_below_the_ports_that_others_get():
    firsts = [_port_of(job) for job in range(5000, 5000 + 600)]
    assert len(set(firsts)) == len(firsts)
    assert all(port % 32 == firsts[0] % 32 for port in firsts)
    assert (min(firsts) >= 10_000, max(firsts) + 32 <= 32_768) == (True, True)


def test_a_port_in_use_is_said_before_anything_is_begun():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError) as caught:
            join("auto", tf_config({"worker": [address, "127.0.0.1:1"]}))
    assert str(caught.value) == (
        f"TF_CONFIG: {address}: this worker cannot listen there: [Errno 98] Address already in use.\n"
        "  End what uses the port, or give another one."
    )


def test_one_worker_of_one_trains_alone():
    team = join("auto", tf_config({"worker": ["127.0.0.1:1"]}))
    assert (team.strategy, team.workers, team.total, team.chief) == (None, 1, 1, True)


@pytest.mark.parametrize(
    ("batch_size", "remedy"), [(10, "Give 12 or 8."), (3, "Give 4.")], ids=["between", "below"]
)
def test_a_batch_that_cannot_be_shared_out_evenly_is_refused(batch_size, remedy):
    with pytest.raises(ConfigError) as caught:
        Team(here=2, workers=2).pictures(batch_size)
    assert str(caught.value) == (
        f"train.batch_size={batch_size}: cannot be shared out evenly among 4 devices.\n  {remedy}"
    )


def shared_step(*arguments):
    """How far two devices are from one, by name."""
    done = subprocess.run(
        [sys.executable, SUPPORT / "shared_step.py", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "loss", "more"),
    [
        ("ssd_mobilenet_v1", "hard_mining", ()),
        pytest.param("ssd_mobilenet_v1", "focal", (), marks=pytest.mark.long),
        pytest.param("ssd_mobilenet_v1", "focal", ("multi_scale=0.5",), marks=pytest.mark.long),
        pytest.param("retinanet_spinenet_mobile", "retinanet", (), marks=pytest.mark.long),
        pytest.param(
            "ssd_mobilenet_v1",
            "quality_focal",
            ("box_loss=giou", "assigner=atss", "accumulate=2"),
            marks=pytest.mark.long,
        ),
        pytest.param(
            "ssd_mobilenet_v1",
            "focal",
            ("box_loss=diou", "assigner=simota", "label_smoothing=0.1"),
            marks=pytest.mark.long,
        ),
        pytest.param(
            "efficientdet_lite",
            "varifocal",
            ("box_loss=ciou", "assigner=tal", "accumulate=2"),
            marks=pytest.mark.long,
        ),
    ],
)
def test_two_devices_compute_the_loss_and_gradients_of_one(
    prepared_shapes, architecture, loss, more
):
    far = shared_step("network", prepared_shapes.folder, architecture, loss, "frozen", *more)
    assert far["loss"] < 1e-5
    assert far["gradients"] < 1e-5
    assert far["moving"] == 0


@pytest.mark.long
def test_two_devices_follow_the_ranges_of_quantisation_by_their_shares(prepared_shapes):
    """The range is the mean of what the shares reach, so that some values are rounded otherwise."""
    quantised = ("ssd_mobilenet_v1", "focal", "frozen", "checkpoint=zoo", "quantize_from=0")
    far = shared_step("network", prepared_shapes.folder, *quantised)
    assert far["loss"] < 0.01
    assert 0 < far["moving"] < 0.1


@pytest.mark.slow
def test_synchronized_batch_norm_of_two_devices_is_that_of_one():
    far = shared_step("batch_norm")
    assert far["output"] < 1e-5
    assert far["gradients"] < 1e-5
    assert far["moving"] < 1e-6


@pytest.mark.long
def test_synchronized_networks_agree_in_loss_and_statistics(prepared_shapes):
    """Not in the gradients: an untrained network makes a change of 2e-7 in its pictures 5e-3 in those."""
    synchronized = ("ssd_mobilenet_v1", "focal", "synchronized")
    far = shared_step("network", prepared_shapes.folder, *synchronized)
    assert far["loss"] < 1e-4
    assert far["moving"] < 1e-6
    apart = shared_step("network", prepared_shapes.folder, *synchronized[:2], "trained")
    assert apart["moving"] > 10 * far["moving"]
