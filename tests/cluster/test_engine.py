"""What is seen to before Ray does anything, and what tasks and machines of a real one come to."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
from support.ray_nodes import Nodes

from odtrain.cluster import engine as cluster_engine
from odtrain.cluster.engine import Engine, Node, Shares, joined, look_at, without_cluster
from odtrain.cluster.tasks import done_there
from odtrain.cluster.timed import environment_of_timing
from odtrain.config.compose import compose_config, section
from odtrain.config.schema import ClusterConfig, DataConfig
from odtrain.dataset.on_cluster import ray_workers
from odtrain.dataset.prepare import prepare
from odtrain.errors import ConfigError, DataError, TrainingError
from odtrain.system import workers as system_workers


def node(cores, gpus=0, here=False):
    return Node("id", "host (10.0.0.1)", "host", "10.0.0.1", {"CPU": cores, "GPU": gpus}, here)


def settings(**values):
    return section(ClusterConfig, **values)


@pytest.mark.parametrize(
    ("asked", "machines", "expected"),
    [
        pytest.param({"workers": 2}, [node(2)], Shares(2, 1, 0), id="two on one machine"),
        pytest.param({}, [node(4), node(8)], Shares(3, 4, 0), id="as large as the least machine"),
        pytest.param({"workers": 2}, [node(4), node(8)], Shares(2, 4, 0), id="divided evenly"),
        pytest.param({}, [node(0), node(4)], Shares(1, 4, 0), id="a head without cores"),
        pytest.param(
            {"gpus_per_worker": 1}, [node(16, 4), node(8)], Shares(4, 4, 1), id="one a GPU"
        ),
        pytest.param({"cpus_per_worker": 3}, [node(8)], Shares(2, 3, 0), id="as many as fit"),
    ],
)
def test_the_work_is_divided(asked, machines, expected):
    assert Engine(settings(**asked), "this machine").shares(machines) == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"workers": 3},
            "cluster.workers=3: each takes 1 core, and this machine has room for 2.",
        ),
        (
            {"workers": 2, "cpus_per_worker": 2},
            "cluster.workers=2: each takes 2 cores, and this machine has room for 1.",
        ),
        (
            {"workers": 1, "gpus_per_worker": 1},
            "cluster.workers=1: each takes 1 core and 1 GPU, and this machine has room for 0.",
        ),
    ],
)
def test_more_workers_than_there_is_room_for_are_refused(asked, message):
    with pytest.raises(ConfigError) as caught:
        Engine(settings(**asked), "this machine").shares([node(2)])
    assert str(caught.value) == f"{message}\n  Ask for less, or have more machines join it."


def test_settings_of_the_cluster_are_not_for_those_who_do_the_work():
    given = ["cluster=ray", "+cluster.workers=2", "train.steps=5", "data.images=cluster.d"]
    assert without_cluster(given) == ["train.steps=5", "data.images=cluster.d"]


def test_a_command_without_ray_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(cluster_engine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught, joined(settings(engine="ray")):
        pass
    assert str(caught.value) == (
        "cluster=ray: Ray is not installed.\n  Install it: pip install '.[ray]'"
    )


@pytest.mark.parametrize("address", ["head", "ray://head:10001", "head:ray"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(ConfigError) as caught, joined(settings(address=address)):
        pass
    assert str(caught.value) == (
        f"cluster.address={address}: is no host:port.\n"
        "  Give that of the head, such as head:6379, or auto."
    )


def test_an_address_where_nothing_answers_is_told_in_time():
    with pytest.raises(ConfigError) as caught, joined(settings(address="127.0.0.1:1", patience=3)):
        pass
    assert str(caught.value) == (
        "cluster.address=127.0.0.1:1: no Ray that can be joined answers there within 3 seconds.\n"
        "  Give host:port of the head as ray start printed it; with RAY_AUTH_MODE=token, its token too."
    )


@pytest.fixture(scope="module")
def nodes():
    """A head, and a node of one core."""
    begun = Nodes(1)
    yield begun
    begun.end()


@pytest.fixture
def engine(nodes):
    """Joined by this process."""
    with joined(settings(engine="ray", address=nodes.address)) as joined_engine:
        yield joined_engine


@pytest.mark.slow
def test_a_machine_is_looked_at_before_it_is_given_anything(engine, tmp_path, monkeypatch):
    (node, *_) = [each for each in engine.nodes() if each.holds("CPU")]
    look_at(engine, [node], {"data.images": str(tmp_path), "data.annotations": None})
    monkeypatch.setattr(cluster_engine, "__version__", "9.9")
    with pytest.raises(ConfigError) as caught:
        look_at(engine, [node], {})
    assert str(caught.value) == (
        f"{engine.where}: {node.name}: has odtrain 0.1.0, this machine 9.9.\n"
        "  Install the same version on all machines."
    )


@pytest.mark.slow
def test_what_a_task_returns_or_raises_comes_back(engine):
    given = (["cluster=ray", "train.steps=5"],)
    assert done_there(engine, without_cluster, given, num_cpus=1) == ["train.steps=5"]
    nowhere = compose_config(["data.images=/nowhere", "data.name=none"]).data
    with pytest.raises(DataError, match=r"^/nowhere: is not a folder\."):
        done_there(engine, prepare, (nowhere,), num_cpus=1)


def test_a_head_that_is_gone_is_told():
    engine = Engine(settings(), "cluster.address=head:6379")
    engine.check()
    engine.lost.set()
    with pytest.raises(TrainingError) as caught:
        engine.check()
    assert str(caught.value) == (
        "cluster.address=head:6379: its head does not answer any more.\n"
        "  What is finished is kept. Start Ray again and give the same command to go on."
    )


@pytest.mark.long
def test_a_file_is_run_on_the_machine_that_is_kept_for_timing(nodes, engine, tmp_path):
    nodes.add(0, timing=1)
    file, out = tmp_path / "given.json", tmp_path / "found.json"
    file.write_text('{"b": 1}')
    command = ["-m", "odtrain.cluster.timed", "json.tool", file, out, "--indent", "3"]
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, **environment_of_timing("timing")},
        input=b"pictures",
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert out.read_text() == '{\n   "b": 1\n}\n'


@pytest.mark.long
def test_a_data_set_prepared_by_ray_has_the_bytes_of_one_prepared_here(
    nodes, shapes, tmp_path, monkeypatch
):
    nodes.add(1)
    monkeypatch.setattr(system_workers, "WORTH_PROCESSES", 1)
    digests = []
    for name, address in (("here", None), ("there", nodes.address)):
        data = replace(
            compose_config([f"data.images={shapes}", "data.name=shapes"]).data,
            prepared=str(tmp_path / name),
            shards=3,
        )
        assert isinstance(data, DataConfig)
        begin = partial(ray_workers, settings(address=address), data) if address else None
        prepare(data, begin)
        files = sorted(file for file in (tmp_path / name).iterdir() if file.name != "state.json")
        digests.append([(f.name, hashlib.sha256(f.read_bytes()).hexdigest()) for f in files])
    assert digests[0] == digests[1]
    assert len([name for name, _ in digests[0] if name.startswith("train.record")]) == 3
