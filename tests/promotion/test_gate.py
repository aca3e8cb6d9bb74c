"""The gate on what files found: synthetic detections of two classes in thirty pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from odtrain.config.compose import section
from odtrain.config.schema import RegistryConfig
from odtrain.evaluation.evaluate import quick_map
from odtrain.evaluation.saved_detections import Kept
from odtrain.export.parity import not_exact
from odtrain.export.raw_outputs import RawOutputs, raw_difference
from odtrain.promotion.gate import Evidence, judge_version
from odtrain.structures import Detections, GroundTruth, LabelledSplit

NAMES = ("circle", "square")
LIMITS = section(RegistryConfig, name="shapes")


def scene(seed: int = 1, count: int = 30) -> LabelledSplit:
    rng = np.random.default_rng(seed)
    truths = []
    for i in range(count):
        n = 2 + i % 2
        corner = rng.uniform(0, 0.5, (n, 2))
        boxes = np.concatenate([corner, corner + rng.uniform((0.3, 0.1), (0.45, 0.2), (n, 2))], 1)
        truths.append(
            GroundTruth(f"{i}", 100, 120, boxes.astype(np.float32), rng.integers(1, 3, n))
        )
    return LabelledSplit(NAMES, truths, tuple(map(str, range(count))))


def found_in(split: LabelledSplit, noise: float, seed: int = 0) -> list[Detections]:
    rng = np.random.default_rng(seed)
    found = []
    for truth in split.truths:
        n = len(truth.classes)
        boxes = np.clip(truth.boxes + rng.normal(0, noise, (n, 4)), 0, 1).astype(np.float32)
        scores = np.sort(rng.uniform(0.4, 1, n).astype(np.float32))[::-1]
        found.append(Detections(boxes, scores, truth.classes))
    return found


def kept(found: list[Detections], format: str, **facts: object) -> Kept:
    passport = {"run": "r1", "data_digest": "d1", "format": format}
    known = {"latency_ms_p50": 2.0, "size_mb": 3.0, "passport": passport}
    known |= {"raw": [0.0, 0.0], "threads_differ": None}
    return Kept("s", found, NAMES, {**known, **facts})


SPLIT = scene()
FOUND = found_in(SPLIT, 0.02)
MAP = quick_map(SPLIT.truths, FOUND, NAMES)["mAP"]


@pytest.fixture
def good() -> Evidence:
    return Evidence(
        split=SPLIT,
        reference=FOUND,
        found={
            "tflite_fp32": kept(FOUND, "tflite_fp32"),
            "tflite_int8": kept(FOUND, "tflite_int8"),
        },
        names={"tflite_fp32": "model.tflite", "tflite_int8": "model_int8.tflite"},
        label_files={"labels.txt": NAMES, "label_map.pbtxt": NAMES},
        expected={"run": ("r1",), "data_digest": ("d1",)},
        recorded={"tflite_fp32": MAP, "tflite_int8": MAP},
        left_out={},
        damaged=None,
        judged="tflite_fp32",
        max_map_drop=0.02,
    )


def with_file(evidence: Evidence, format: str, file: Kept | str) -> Evidence:
    return replace(evidence, found={**evidence.found, format: file})


def reasons(evidence: Evidence, limits: RegistryConfig = LIMITS) -> list[str]:
    return judge_version(evidence, limits).reasons().splitlines()


def test_files_that_do_what_the_checkpoint_does_pass(good):
    verdict = judge_version(good, LIMITS)
    assert verdict.passed and verdict.sound
    assert verdict.reasons() == ""
    assert verdict.files["tflite_int8"]["mAP"] == pytest.approx(MAP)
    assert [check.name for check in verdict.checks] == [
        "checksums",
        "runs",
        "labels",
        "metadata",
        "box order",
        "class order",
        "agreement",
        "threads",
        "numbers",
        "floor",
        "accuracy",
        "latency",
        "size",
    ]


def test_a_file_that_is_not_the_registered_one_fails(good):
    damaged = replace(good, damaged="model_int8.tflite is damaged or missing")
    assert reasons(damaged) == ["checksums: model_int8.tflite is damaged or missing"]


def test_a_file_that_cannot_be_run_fails(good):
    broken = with_file(good, "tflite_int8", "cannot be run: Model provided has model identifier")
    assert reasons(broken) == [
        "runs: model_int8.tflite: cannot be run: Model provided has model identifier"
    ]


def test_a_version_that_does_not_serve_what_registry_format_asks_for_is_not_promoted(good):
    limits = replace(LIMITS, format="tflite_int8")
    assert reasons(good, limits) == [
        "accuracy: registry.format=tflite_int8 is not what the version serves, which is tflite_fp32"
    ]
    assert judge_version(good, limits).sound
    assert judge_version(replace(good, judged="tflite_int8"), limits).passed


def test_a_version_without_files_fails(good):
    verdict = judge_version(replace(good, found={}, recorded={}, judged=""), LIMITS)
    assert "runs: the version lists no exported file" in verdict.reasons()


def test_labels_in_another_order_fail(good):
    other = Kept("s", FOUND, NAMES[::-1], good.found["tflite_int8"].facts)
    turned = replace(
        with_file(good, "tflite_int8", other),
        label_files={"labels.txt": NAMES[::-1], "label_map.pbtxt": ("circle", "triangle")},
    )
    assert reasons(turned) == [
        "labels: labels.txt has the class names in another order: its class 1 is square, the data's is "
        "circle; label_map.pbtxt has the class names circle, triangle; the data have circle, square; "
        "model_int8.tflite has the class names in another order: its class 1 is square, the data's is "
        "circle"
    ]


def test_classes_that_come_out_in_another_order_fail(good):
    turned = [Detections(each.boxes, each.scores, 3 - each.classes) for each in FOUND]
    problems = reasons(with_file(good, "tflite_fp32", kept(turned, "tflite_fp32")))
    assert problems[0] == (
        "class order: model.tflite gives other classes than it finds (circle for square, square for "
        f"circle): mAP 0.000 as they are, {MAP:.3f} in their right order"
    )
    assert problems[1].startswith("agreement: model.tflite: ")


def test_many_classes_are_put_in_order_too(good):
    names = tuple("abcdefghij")
    truths = [
        GroundTruth(t.name, t.height, t.width, t.boxes, 1 + (np.arange(len(t.classes)) + i) % 10)
        for i, t in enumerate(SPLIT.truths)
    ]
    split = LabelledSplit(names, truths, SPLIT.keys)
    found = found_in(split, 0.01)
    shifted = [Detections(f.boxes, f.scores, f.classes % 10 + 1) for f in found]
    files = {key: Kept("s", shifted, names, file.facts) for key, file in good.found.items()}
    evidence = replace(good, split=split, reference=found, found=files, recorded={})
    (problem,) = [line for line in reasons(evidence) if line.startswith("class order")]
    assert "b for a" in problem


def test_boxes_with_x_and_y_exchanged_fail(good):
    turned = [Detections(f.boxes[:, [1, 0, 3, 2]], f.scores, f.classes) for f in FOUND]
    problems = reasons(with_file(good, "tflite_fp32", kept(turned, "tflite_fp32")))
    assert problems[0].startswith(
        "box order: model.tflite gives boxes with x and y exchanged: mAP 0."
    )
    assert problems[0].endswith(f" as they are, {MAP:.3f} exchanged")


def test_an_int8_file_that_loses_too_much_fails_and_says_how_much(good):
    worse = found_in(SPLIT, 0.05, 7)
    lost = MAP - quick_map(SPLIT.truths, worse, NAMES)["mAP"]
    problems = reasons(with_file(good, "tflite_int8", kept(worse, "tflite_int8")))
    assert problems == [
        f"agreement: model_int8.tflite: loses {lost * 100:.1f} of the checkpoint's {MAP * 100:.1f} mAP; "
        "export.max_map_drop allows 2",
        f"numbers: model_int8.tflite has mAP {MAP - lost:.4f}, the version says {MAP:.4f}",
    ]


def test_a_number_that_is_not_the_files_fails(good):
    told = replace(good, recorded={"tflite_fp32": MAP + 0.01})
    assert reasons(told) == [
        f"numbers: model.tflite has mAP {MAP:.4f}, the version says {MAP + 0.01:.4f}"
    ]


def test_metadata_of_another_run_data_or_format_fail(good):
    passport = {"run": "r2", "data_digest": "d1", "format": "tflite_fp16"}
    told = with_file(good, "tflite_int8", kept(FOUND, "tflite_int8", passport=passport))
    assert reasons(told) == [
        "metadata: model_int8.tflite says run r2, the version r1; model_int8.tflite says format "
        "tflite_fp16, the version tflite_int8"
    ]


def test_an_exact_export_that_was_left_out_fails_and_an_int8_one_does_not(good):
    assert reasons(replace(good, left_out={"tflite_int8": "loses 0.1 mAP"})) == []
    assert reasons(replace(good, left_out={"pb": "3 detections differ"})) == [
        "agreement: pb was left out: 3 detections differ"
    ]


def test_a_version_worse_than_the_champion_fails_and_says_by_how_much(good):
    champion = kept(found_in(SPLIT, 0.005), "tflite_fp32")
    against = replace(good, champion="4", champion_found=champion)
    verdict = judge_version(against, LIMITS)
    assert verdict.sound and not verdict.passed
    lead = quick_map(SPLIT.truths, champion.detections, NAMES)["mAP"] - MAP
    assert verdict.reasons().startswith(
        f"accuracy: the champion, version 4, is better by {lead * 100:.1f} mAP ["
    )
    assert verdict.reasons().endswith("]: shown on 30 pictures; registry.max_map_loss allows 0")
    assert judge_version(against, replace(LIMITS, max_map_loss=lead + 1e-6)).passed


def test_a_version_as_good_as_the_champion_passes(good):
    against = replace(good, champion="4", champion_found=kept(FOUND, "tflite_fp32"))
    assert judge_version(against, LIMITS).passed


def test_a_champion_that_cannot_be_run_keeps_nothing_out(good):
    verdict = judge_version(replace(good, champion="4", champion_found="is damaged"), LIMITS)
    assert verdict.passed
    assert verdict.checks[10].says == "the champion, version 4, cannot be run: is damaged"


# ---- threads and ties


def test_a_file_that_finds_other_things_with_more_threads_fails(good):
    differ = "finds other things with 2 threads: 6 detections differ"
    told = with_file(good, "tflite_int8", kept(FOUND, "tflite_int8", threads_differ=differ))
    assert reasons(told) == [f"threads: model_int8.tflite {differ}"]


def test_a_float_file_that_says_something_else_before_suppression_fails(good):
    told = with_file(good, "tflite_fp32", kept(FOUND, "tflite_fp32", raw=[0.002, 0.0]))
    assert reasons(told) == [
        "agreement: model.tflite: boxes before suppression differ by 0.002 from the checkpoint's, above 0.001"
    ]


def test_a_float_file_that_decides_a_tie_otherwise_passes(good):
    first = FOUND[0]
    other = Detections(first.boxes + np.float32(0.01), first.scores, first.classes)
    told = with_file(good, "tflite_fp32", kept([other, *FOUND[1:]], "tflite_fp32"))
    assert reasons(replace(told, recorded={})) == []


# ---- the floor


def test_a_version_that_finds_next_to_nothing_is_below_the_floor(good):
    faint = [Detections(each.boxes, each.scores * np.float32(0.4), each.classes) for each in FOUND]
    told = replace(with_file(good, "tflite_fp32", kept(faint, "tflite_fp32")), recorded={})
    verdict = judge_version(told, LIMITS)
    assert not verdict.sound
    assert verdict.reasons() == (
        "floor: finds 0% of the objects at score 0.5 and IoU 0.5; registry.min_recall=0.1. Train longer or "
        "on more pictures: odtrain check says what the data lack."
    )
    assert judge_version(told, replace(LIMITS, min_recall=0)).passed


def test_a_version_whose_map_may_be_zero_is_below_the_floor(good):
    hidden = [
        Detections(*(part[:0] for part in (each.boxes, each.scores, each.classes)))
        for each in FOUND
    ]
    few = [FOUND[0], *hidden[1:]]
    told = replace(
        with_file(good, "tflite_fp32", kept(few, "tflite_fp32")), recorded={}, reference=few
    )
    told = with_file(told, "tflite_int8", kept(few, "tflite_int8"))
    assert reasons(told, replace(LIMITS, min_recall=0.01)) == [
        "floor: its mAP may be 0: the 95 % interval begins there. Train longer or on more pictures: odtrain "
        "check says what the data lack."
    ]


def test_without_an_interval_nothing_becomes_a_first_champion(good):
    one = replace(
        good,
        split=SPLIT.part([0]),
        reference=FOUND[:1],
        found={name: kept(FOUND[:1], name) for name in good.found},
        recorded={},
    )
    assert reasons(one) == [
        "floor: 1 test picture gives no interval of the mAP. Give more: data.test_fraction, data.test_list."
    ]
    assert reasons(replace(one, champion="4", champion_found=kept(FOUND[:1], "tflite_fp32"))) == []


def test_nothing_is_shown_on_few_pictures_and_promotion_is_as_before(good):
    rows = list(range(12))
    champion = kept(found_in(SPLIT, 0.1)[:12], "tflite_fp32")
    few = replace(
        good,
        split=SPLIT.part(rows),
        reference=FOUND[:12],
        found={name: kept(FOUND[:12], name) for name in good.found},
        recorded={},
        champion="4",
        champion_found=champion,
    )
    verdict = judge_version(few, LIMITS)
    assert verdict.passed and not verdict.difference.shown
    (said,) = (check.says for check in verdict.checks if check.name == "accuracy")
    assert said.endswith("]: not shown on 12 pictures, which are too few to show anything")
    assert judge_version(few, replace(LIMITS, min_pictures=12)).difference.shown


def test_classes_with_few_objects_are_named(good):
    against = replace(good, champion="4", champion_found=kept(FOUND, "tflite_fp32"))
    verdict = judge_version(against, replace(LIMITS, min_objects=40))
    counts = {
        name: sum((t.classes == i).sum() for t in SPLIT.truths) for i, name in enumerate(NAMES, 1)
    }
    (name,) = (name for name, count in counts.items() if count < 40)
    (said,) = (check.says for check in verdict.checks if check.name == "accuracy")
    assert said.endswith(f"; fewer than 40 objects: {name} ({counts[name]})")
    assert verdict.passed


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (
            {"max_latency_ms": 1.5},
            "latency: model.tflite has 2 ms, 0.5 ms more than registry.max_latency_ms=1.5",
        ),
        (
            {"max_size_mb": 1.0},
            "size: model.tflite has 3 MB, 2 MB more than registry.max_size_mb=1",
        ),
    ],
)
def test_a_file_over_the_limit_fails(good, limits, reason):
    assert reasons(good, replace(LIMITS, **limits)) == [reason]


def test_the_report_shows_checks_and_files(good):
    text = judge_version(replace(good, damaged="a|b"), LIMITS).markdown("models:/shapes/3")
    assert text.startswith("# models:/shapes/3: not passed\n")
    assert "| checksums | **fails** | a\\|b |" in text
    assert "| tflite_int8 | " in text


def test_a_file_that_finds_classes_which_the_data_have_not_fails(good):
    more = [
        Detections(each.boxes, each.scores, np.where(np.arange(len(each)) == 0, 7, each.classes))
        for each in FOUND
    ]
    verdict = judge_version(with_file(good, "tflite_int8", kept(more, "tflite_int8")), LIMITS)
    assert verdict.reasons().splitlines()[0] == (
        "labels: model_int8.tflite finds class 7; the data have 2 classes: circle, square"
    )
    assert not verdict.sound


@pytest.mark.parametrize("found", [[], [RawOutputs(np.zeros((9, 4)), np.zeros((9, 3)))]])
def test_other_classes_before_suppression_are_told(found):
    reference = [RawOutputs(np.zeros((9, 4)), np.zeros((9, 2)))]
    assert not_exact(raw_difference(reference, found)) == (
        "has other anchors or classes before suppression than the checkpoint"
    )
