"""What a training computes with: decided as measured, on this processor and on masked ones."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from odtrain.config.compose import compose_config
from odtrain.errors import ConfigError
from odtrain.jobs import speed
from odtrain.jobs.speed import with_precision
from odtrain.training import precision
from odtrain.training.precision import Kind, Place, Steps, steps_here, this_place

AMX = Place("A Processor", "AVX512_CORE_AMX", True, True, 2)
AVX2 = Place("A Processor", "AVX2", False, True, 2)
RESNET = "model=ssd_resnet_50_fpn_coco"


@pytest.fixture
def measured(monkeypatch):
    """Have steps of networks of depthwise and of dense convolutions measured as given."""

    def have(place, depthwise, dense=(1.0, 1.0)):
        def steps(kind):
            return Steps(*(dense if kind.blocks == "dense" else depthwise), 0.0)

        monkeypatch.setattr(speed, "this_place", lambda: place)
        monkeypatch.setattr(speed, "steps_here", steps)

    return have


def precision_of(*overrides):
    return with_precision(compose_config(overrides)).train.precision


def test_auto_is_decided_for_the_kind_of_network_and_said(measured, said):
    measured(AMX, depthwise=(0.0346, 0.0530), dense=(0.0129, 0.0093))
    assert (precision_of(), precision_of(RESNET)) == ("fp32", "bf16")
    assert said == [
        "train.precision=auto is fp32 here: a step of a small network of this kind takes 34.6 ms in fp32 "
        "and 53.0 ms in bf16, measured now.",
        "train.precision=auto is bf16 here: a step of a small network of this kind takes 12.9 ms in fp32 "
        "and 9.3 ms in bf16, measured now.",
    ]


@pytest.mark.parametrize(
    ("overrides", "blocks", "width"),
    [
        (["model=ssd_mobilenet_v1_coco"], "separable", 1.0),
        (["model=ssd_mobilenet_v1_coco", "model.depth_multiplier=0.25"], "separable", 0.25),
        ([], "inverted", 0.35),
        ([RESNET], "dense", 1.0),
    ],
)
def test_a_network_is_of_a_kind_and_as_wide_as_its_depth_multiplier_says(overrides, blocks, width):
    assert speed.kind_of(compose_config(overrides)) == Kind(blocks, width)


def test_of_several_networks_the_one_that_is_slowest_in_bf16_decides(measured, said):
    measured(AMX, depthwise=(0.03, 0.05), dense=(0.03, 0.02))
    configs = [compose_config([RESNET]), compose_config([])]
    assert speed.decided(configs) == "fp32"
    assert "takes 30.0 ms in fp32 and 50.0 ms in bf16" in said[0]
    assert speed.decided(configs[:1]) == "bf16"


def test_of_one_blocks_the_narrowest_is_measured():
    kinds = [Kind("inverted", 1.0), Kind("dense", 1.0), Kind("inverted", 0.35)]
    assert sorted(speed.narrowest(kinds)) == [Kind("dense", 1.0), Kind("inverted", 0.35)]


def test_the_recipes_leave_it_to_the_processor(measured):
    measured(AMX, depthwise=(0.0346, 0.0530))
    assert precision_of("experiment=small_data") == "fp32"
    assert compose_config(["sweep=speed_accuracy"]).sweep.overrides == [
        "train.steps=300",
        "train.batch_size=24",
        "evaluate.every=30",
    ]


def test_a_precision_that_is_asked_for_stays(measured, said):
    measured(AMX, depthwise=(0.05, 0.03))
    assert precision_of("train.precision=fp32") == "fp32"
    assert precision_of("train.precision=bf16") == "bf16"
    assert said == []


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (AVX2, "is emulated on this processor (A Processor, AVX2), and takes 6.0 times"),
        (
            AMX,
            "saves memory alone on this processor (A Processor, AVX512_CORE_AMX), and takes 6.0 times",
        ),
    ],
)
def test_a_wish_for_a_slow_bf16_is_granted_and_warned_of_with_the_factor(
    measured, said, place, text
):
    measured(place, depthwise=(0.1, 0.6))
    assert precision_of("train.precision=bf16") == "bf16"
    assert said == [
        f"train.precision=bf16 {text} as long as fp32: a step of a small network of this kind takes "
        "100.0 ms in fp32 and 600.0 ms in bf16, measured now."
    ]


def test_a_bf16_that_cannot_be_computed_is_refused(measured):
    measured(AVX2, depthwise=(0.1, None))
    with pytest.raises(ConfigError) as error:
        precision_of("train.precision=bf16")
    assert str(error.value) == (
        "train.precision=bf16: TensorFlow cannot compute it on this processor (A Processor, AVX2).\n"
        "  Give train.precision=auto, or fp32; a run begun in bf16 goes on where it can be computed."
    )


# ---- measured, on this processor as it is and masked

MASKS = {
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "without oneDNN": {"TF_ENABLE_ONEDNN_OPTS": "0"},
}
PROGRAM = """
import json, os
import tensorflow
from odtrain.config.compose import compose_config
from odtrain.errors import OdtrainError
from odtrain.jobs.speed import kind_of, with_precision
from odtrain.system import logs
from odtrain.system.processor import choose_onednn
from odtrain.training.precision import steps_here, this_place

logs.show()
auto = with_precision(compose_config([])).train.precision
try:
    with_precision(compose_config(["train.precision=bf16"]))
except OdtrainError as error:
    print(error)
os.environ.pop("TF_ENABLE_ONEDNN_OPTS", None)
choose_onednn()
print(json.dumps([auto, this_place(), steps_here(kind_of(compose_config([]))).factor]))
"""


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """By mask: the precision, the place, the factor, and all that was said."""

    def run(name):
        own = {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")), **MASKS[name]}
        cleared = {key: text for key, text in os.environ.items() if "ONEDNN" not in key}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**cleared, **own},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        *said, last = done.stdout.splitlines()
        auto, place, factor = json.loads(last)
        return auto, Place(*place), factor, [*done.stderr.splitlines(), *said]

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(MASKS, pool.map(run, MASKS), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("mask", MASKS)
def test_on_a_masked_processor_the_decision_follows_from_the_numbers_that_are_said(masked, mask):
    follows(*masked[mask])


@pytest.mark.slow
@pytest.mark.parametrize("model", ["model=panels_ssd_mobilenet_v1", RESNET])
def test_the_decision_follows_from_the_numbers_that_are_said(
    own_environment, monkeypatch, said, model
):
    monkeypatch.setattr(precision, "_ready", {})
    decided = precision_of(model)
    kind = speed.kind_of(compose_config([model]))
    follows(decided, this_place(), steps_here(kind).factor, said)


def follows(precision, place, factor, said):
    (line,) = [line for line in said if line.startswith("train.precision=auto is ")]
    assert line.startswith(f"train.precision=auto is {precision} here: a step of a small network ")
    assert line.endswith(", measured now.")
    numbers = [float(number) for number in re.findall(r"([\d.]+) ms", line)]
    assert len(numbers) == (2 if math.isfinite(factor) else 1)
    if math.isfinite(factor):
        assert numbers[1] / numbers[0] == pytest.approx(factor, rel=0.05)
    expected = "bf16" if place.bf16 and factor * 1.05 < 1 else "fp32"
    assert precision == expected


@pytest.mark.slow
def test_masked_instructions_are_said_and_bf16_is_not_chosen(masked):
    precision, place, factor, said = masked["AVX2"]
    if place.instructions != "AVX2":
        pytest.skip("a processor without AVX2")
    assert (precision, place.bf16, factor > 1) == ("fp32", False, True)
    assert any(line.startswith("train.precision=bf16") and "AVX2" in line for line in said)


@pytest.mark.slow
def test_without_onednn_bf16_is_emulated_and_a_wish_for_it_warned_of(masked):
    precision, place, factor, said = masked["without oneDNN"]
    assert (precision, place.onednn, place.bf16, factor > 1) == ("fp32", False, False, True)
    assert any(
        line.startswith("train.precision=bf16 is emulated on this processor")
        and f"and takes {factor:.1f} times as long as fp32: " in line
        for line in said
    )


@pytest.mark.slow
def test_where_tensorflow_was_imported_without_onednn_it_is_said_that_this_stays(masked):
    told = (
        "TensorFlow was imported before odtrain, and computes without oneDNN, which about doubles the time. "
        "That cannot be changed any more: set TF_ENABLE_ONEDNN_OPTS=1 before TensorFlow is imported."
    )
    assert [told in said for _, _, _, said in masked.values()] == [
        not place.onednn for _, place, _, _ in masked.values()
    ]
    assert told in masked["without oneDNN"][3]
