import numpy as np
import pytest

from odtrain.config.compose import section
from odtrain.config.schema import PredictConfig
from odtrain.errors import ConfigError
from odtrain.model_files.thresholds import choose_thresholds
from odtrain.structures import Detections
from odtrain_runtime.provenance import THRESHOLDS, read_thresholds, write_thresholds

NAMES = ("circle", "square")


def found(*pairs):
    """Detections of (class id, score)."""
    classes, scores = zip(*pairs, strict=True)
    boxes = np.tile(np.float32([0, 0, 1, 1]), (len(pairs), 1))
    return Detections(boxes, np.float32(scores), np.int64(classes))


def kept(setting, detections, names=NAMES, passport=None):
    thresholds = choose_thresholds(
        section(PredictConfig, threshold=setting), names, passport or {}, "a.tflite"
    )
    seen = thresholds.keep(detections)
    return list(zip(seen.classes.tolist(), seen.scores.tolist(), strict=True))


def test_one_score_holds_for_all_classes():
    assert kept(0.5, found((1, 0.75), (2, 0.5), (2, 0.25))) == [(1, 0.75), (2, 0.5)]


def test_a_class_has_its_own_and_default_holds_for_the_others():
    setting = {"square": 0.25, "default": 0.6}
    assert kept(setting, found((1, 0.75), (1, 0.5), (2, 0.5), (2, 0.125))) == [(1, 0.75), (2, 0.5)]


def test_without_a_default_the_others_have_a_half():
    assert kept({"square": 0.9}, found((1, 0.5), (1, 0.25), (2, 0.75))) == [(1, 0.5)]


def test_a_nameless_class_is_named_by_its_number():
    assert kept({"class 2": 0.25}, found((2, 0.25), (1, 0.25)), names=()) == [(2, 0.25)]


def test_stored_ones_come_from_the_passport():
    passport = {THRESHOLDS: write_thresholds({"circle": 0.25, "square": 0.75})}
    assert kept("stored", found((2, 0.5), (1, 0.5)), passport=passport) == [(1, 0.5)]


def test_a_file_without_any_is_told():
    with pytest.raises(ConfigError) as caught:
        kept("stored", found((1, 0.5)))
    assert str(caught.value) == (
        "predict.threshold=stored: a.tflite carries no thresholds.\n"
        "  Give a score from 0 to 1, or {CLASS: SCORE, default: SCORE}."
    )


def test_a_class_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(ConfigError) as caught:
        kept({"triangle": 0.5}, found((1, 0.5)))
    assert str(caught.value) == (
        "predict.threshold: triangle: no such class.\n  Choose of: circle, square, default."
    )


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"a": "high"}', '{"a": 7}', "null"])
def test_thresholds_that_cannot_be_read_are_none(text):
    assert read_thresholds({THRESHOLDS: text}) == {}
