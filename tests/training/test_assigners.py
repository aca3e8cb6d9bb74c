import numpy as np
import pytest
import tensorflow as tf
from support import slow_assigners

from odtrain.config.compose import section
from odtrain.config.schema import AnchorConfig
from odtrain.models.anchors import anchors_per_cell, levels_of, ssd_anchors
from odtrain.training.assigners import ASSIGNERS, Scene

SIZE = (120, 160)
MAPS = [(8, 10), (4, 5), (2, 3)]
CONFIG = section(AnchorConfig, num_layers=3)
ANCHORS = ssd_anchors(CONFIG, MAPS, SIZE) * np.float32([*SIZE] * 2)
LEVELS = levels_of(MAPS, SIZE, len(ANCHORS), anchors_per_cell(CONFIG))
CLASSES = 3


def scenes(seed, objects=(0, 1, 2, 5)):
    """A batch with so many objects in its pictures, and what an untrained network says of it."""
    draw = np.random.default_rng(seed)
    most = max(objects) + 1
    corners = np.sort(draw.uniform(0, 1, (len(objects), most, 2, 2)), axis=2)
    boxes = corners.reshape(len(objects), most, 4) * np.array([*SIZE] * 2)
    boxes[-1, 0, 2:] = boxes[-1, 0, :2] + 1.5  # smaller than a cell
    counts = np.array(objects)
    return Scene(
        ANCHORS,
        LEVELS,
        boxes.astype(np.float32),
        draw.integers(1, CLASSES + 1, (len(objects), most)).astype(np.int32),
        np.arange(most) < counts[:, None],
        (ANCHORS + draw.normal(0, 4, (len(objects), len(ANCHORS), 4))).astype(np.float32),
        draw.normal(0, 2, (len(objects), len(ANCHORS), CLASSES)).astype(np.float32),
    )


def in_double(scene, picture):
    """One picture of a batch, without padding, as the slow ones take it."""
    own = scene.present[picture]
    values = (scene.boxes[picture][own], scene.classes[picture][own], scene.found[picture])
    return *(np.asarray(value, np.float64) for value in values), scene.logits[picture]


@pytest.mark.parametrize("seed", [0, 2, 3])  # 1 has two overlaps that are one in float32
@pytest.mark.parametrize("name", ASSIGNERS)
def test_each_anchor_gets_the_object_that_the_paper_s_rule_gives_it(name, seed):
    scene = scenes(seed)
    matches, alignment = ASSIGNERS[name](Scene(*map(tensor, scene)))
    for picture in range(len(scene.boxes)):
        boxes, classes, found, logits = in_double(scene, picture)
        anchors = ANCHORS.astype(np.float64)
        if name == "tal":
            owners, shall = slow_assigners.tal(anchors, boxes, classes.astype(int), found, logits)
            np.testing.assert_allclose(alignment[picture], shall, atol=1e-4)
        elif name == "simota":
            owners = slow_assigners.simota(anchors, LEVELS, boxes, classes, found, logits)
        else:
            owners = slow_assigners.atss(anchors, LEVELS, boxes)
        assert matches[picture].numpy().tolist() == owners


def tensor(value):
    return tf.constant(value) if isinstance(value, np.ndarray) and value is not ANCHORS else value


@pytest.mark.parametrize("name", ASSIGNERS)
def test_an_object_smaller_than_a_cell_has_an_anchor_all_the_same(name):
    scene = scenes(7)
    matches = ASSIGNERS[name](Scene(*map(tensor, scene))).matches
    assert set(matches[-1].numpy()) >= {-1, 0, 1, 2, 3, 4}


def test_the_levels_are_those_of_the_anchors():
    assert [(level.anchors, level.per_cell) for level in LEVELS] == [(240, 3), (120, 6), (36, 6)]
    assert LEVELS[0].stride == (15.0, 16.0)
