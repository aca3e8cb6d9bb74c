from __future__ import annotations

import shutil

import pytest
import tensorflow as tf
from PIL import Image
from support.commands import odtrain

from odtrain.cli.main import main
from odtrain.config.compose import compose_config
from odtrain.errors import CheckpointError
from odtrain.zoo.verify import verify_weights

FACES = "ssd_mobilenet_v1_widerface_2018"
COCO = "ssd_mobilenet_v1_0.75_depth_coco_dequantized"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def settings(shared, model):
    return compose_config([f"model={model}", f"input={shared / 'data/raccoon/images'}"])


@pytest.mark.parametrize(
    ("name", "model"),
    [
        pytest.param(FACES, "ssd_mobilenet_v1_coco", marks=pytest.mark.long),
        (COCO, "ssd_mobilenet_v1_0.75_depth_coco"),
    ],
)
def test_a_tarball_of_any_classes_and_size_is_proven(shared, name, model):
    archive = shared / "zoo" / f"{name}.tar.gz"
    lines = verify_weights(settings(shared, model), archive).splitlines()
    assert lines[0] == f"{archive}: equal to its frozen graph on 5 pictures."
    assert lines[1].startswith("  all anchors: boxes within ")
    assert lines[2].endswith("detections of at least 0.35: the same")


def test_one_changed_weight_is_noticed(shared, coco):
    prefix = str(coco / "model.ckpt")
    reader = tf.train.load_checkpoint(prefix)
    names = reader.get_variable_to_shape_map()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tensors = {name: reader.get_tensor(name) for name in names}
        tensors["BoxPredictor_1/BoxEncodingPredictor/biases"][0] += 0.01
        variables = {
            name: tf.compat.v1.get_variable(name, initializer=value)
            for name, value in tensors.items()
        }
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(variables).save(session, prefix, write_meta_graph=False)
    with pytest.raises(CheckpointError) as error:
        verify_weights(settings(shared, "ssd_mobilenet_v1_0.75_depth_coco"), coco)
    first, second = str(error.value).splitlines()
    assert first.startswith(
        f"{coco}: its weights are not those of its frozen graph: boxes differ by"
    )
    assert second == "  Do not use it: fetch it again, from its publisher."


DETECTIONS = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")


def as_exported_in_2018(file):
    """Take the outputs away that exporters gave from June 2019 on."""
    graph = tf.compat.v1.GraphDef.FromString(file.read_bytes())
    graph = tf.compat.v1.graph_util.extract_sub_graph(graph, list(DETECTIONS))
    assert "raw_detection_boxes" not in {node.name for node in graph.node}
    return graph


def renamed(graph, name):
    """Hide a node of the graph behind another name."""
    text = graph.SerializeToString().replace(name.encode(), name.upper().encode())
    return tf.compat.v1.GraphDef.FromString(text)


def test_all_anchors_of_an_older_graph_are_compared_too(shared, coco):
    file = coco / "frozen_inference_graph.pb"
    file.write_bytes(as_exported_in_2018(file).SerializeToString())
    said = verify_weights(settings(shared, "ssd_mobilenet_v1_0.75_depth_coco"), coco)
    assert said.splitlines()[1].startswith("  all anchors: boxes within ")


@pytest.fixture
def closed(coco):
    """A graph that shows nothing but its detections."""
    file = coco / "frozen_inference_graph.pb"
    graph = renamed(as_exported_in_2018(file), "Postprocessor/convert_scores")
    file.write_bytes(graph.SerializeToString())
    return coco


def test_a_graph_that_shows_no_anchors_is_compared_by_its_detections(shared, closed):
    said = verify_weights(settings(shared, "ssd_mobilenet_v1_0.75_depth_coco"), closed)
    first, second = said.splitlines()
    assert first == f"{closed}: equal to its frozen graph on 5 pictures."
    assert second.endswith(" detections of at least 0.35: the same")
    assert not second.startswith("  0 ")


def test_nothing_detected_is_no_proof(closed, tmp_path):
    Image.new("RGB", (320, 240), (128, 128, 128)).save(tmp_path / "grey.png")
    config = compose_config(
        ["model=ssd_mobilenet_v1_0.75_depth_coco", f"input={tmp_path / 'grey.png'}"]
    )
    with pytest.raises(CheckpointError) as error:
        verify_weights(config, closed)
    assert str(error.value) == (
        f"{closed}: its frozen graph detects nothing with a score of 0.35 in these pictures, so "
        "nothing was compared.\n  Give pictures of what it knows: input=FOLDER."
    )


def test_a_checkpoint_without_a_graph_cannot_be_proven(shared, coco):
    (coco / "frozen_inference_graph.pb").unlink()
    with pytest.raises(CheckpointError) as error:
        verify_weights(settings(shared, "ssd_mobilenet_v1_0.75_depth_coco"), coco)
    assert str(error.value).startswith(f"{coco / 'frozen_inference_graph.pb'}: no frozen graph: ")


def test_half_a_tarball_is_refused_in_one_screen(shared, tmp_path):
    half = tmp_path / "half.tar.gz"
    shutil.copy(shared / "zoo" / f"{COCO}.tar.gz", half)
    with half.open("r+b") as file:
        file.truncate(half.stat().st_size // 2)
    done = odtrain(["zoo", "verify", str(half), "model=ssd_mobilenet_v1_0.75_depth_coco"], tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert str(half) in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fetch", "nix"], "zoo fetch nix: no such model.\n  Models: efficientdet_lite0_coco, "),
        (["fetch"], "zoo fetch: no such model.\n  Models: "),
        (["verify", "nix"], "zoo verify nix: no such model, and no such path.\n  Models: "),
        (["verify"], "zoo verify: no such model, and no such path.\n  Models: "),
        (["list", "--sort", "nix"], "--sort nix: no such column.\n  Choose one of: name, "),
        (
            ["nix"],
            "zoo nix: no such action.\n  Choose one of: list, fetch, verify, status, adopt.\n",
        ),
        (
            ["fetch", "panels_ssd_mobilenet_v1"],
            "model=panels_ssd_mobilenet_v1: it has no published weights.\n"
            "  Train it from random weights: train.checkpoint=null.\n",
        ),
    ],
)
def test_what_is_not_there_is_told(words, message, capsys):
    assert main(["zoo", *words]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err.startswith(message)) == ("", True)
