"""What a processor can do, told from /proc/cpuinfo, and when TensorFlow is made to use oneDNN."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from odtrain.system.processor import this_processor, wants_onednn

CPUINFO = Path("/proc/cpuinfo")
CORE = """processor\t: {number}
vendor_id\t: Maker
model name\t: A Processor
flags\t\t: {flags}
bogomips\t: 4200.00

"""
AMD_ZEN3 = "fpu sse4_1 avx avx2 fma"
XEON = f"{AMD_ZEN3} avx_vnni avx512bw avx512_vnni avx512_bf16 avx512_fp16 amx_bf16 amx_tile"


@pytest.fixture
def processor_of(tmp_path, monkeypatch):
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)

    def told(text):
        (tmp_path / "cpuinfo").write_text(text)
        return this_processor(tmp_path / "cpuinfo")

    return lambda flags: told("".join(CORE.format(number=i, flags=flags) for i in range(2)))


@pytest.mark.parametrize(
    ("flags", "instructions", "has_bf16"),
    [
        (XEON, "AVX512_CORE_AMX", True),
        (f"{AMD_ZEN3} avx512bw avx512_vnni avx512_bf16", "AVX512_CORE_BF16", True),
        (f"{AMD_ZEN3} avx512bw", "AVX512_CORE", False),
        (AMD_ZEN3, "AVX2", False),
    ],
)
def test_the_widest_instructions_are_named_as_onednn_names_them(
    processor_of, flags, instructions, has_bf16
):
    found = processor_of(flags)
    assert (found.name, found.instructions) == ("A Processor", instructions)
    assert found.has_bf16 == has_bf16


@pytest.mark.parametrize(
    ("variable", "mask", "instructions"),
    [
        ("ONEDNN_MAX_CPU_ISA", "AVX2", "AVX2"),
        ("ONEDNN_MAX_CPU_ISA", "avx512_core_bf16", "AVX512_CORE_BF16"),
        ("DNNL_MAX_CPU_ISA", "AVX512_CORE", "AVX512_CORE"),
        ("ONEDNN_MAX_CPU_ISA", "DEFAULT", "AVX512_CORE_AMX"),
    ],
)
def test_masked_instructions_do_not_count(processor_of, monkeypatch, variable, mask, instructions):
    monkeypatch.setenv(variable, mask)
    assert processor_of(XEON).instructions == instructions


def test_arms_bfloat16_is_known_by_its_feature(tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nFeatures\t: fp asimd i8mm bf16\n\n")
    assert this_processor(file).has_bf16
    file.write_text("processor\t: 0\nFeatures\t: fp asimd\n\n")
    assert not this_processor(file).has_bf16


def test_where_linux_tells_nothing_no_bfloat16_is_taken_for_granted(tmp_path):
    assert not this_processor(tmp_path / "none").has_bf16


# ---- oneDNN


@pytest.mark.parametrize(
    ("flags", "environment", "wanted"),
    [
        pytest.param(AMD_ZEN3, {}, True, id="without VNNI"),
        pytest.param(XEON, {}, True, id="with VNNI"),
        pytest.param("fpu sse4_1 avx", {}, False, id="without AVX2"),
        pytest.param(AMD_ZEN3, {"TF_ENABLE_ONEDNN_OPTS": "0"}, False, id="a user's no"),
        pytest.param(AMD_ZEN3, {"TF_ENABLE_ONEDNN_OPTS": "1"}, False, id="a user's yes"),
    ],
)
def test_onednn_is_turned_on_from_avx2_unless_the_user_has_said(flags, environment, wanted):
    assert wants_onednn(flags.split(), environment) == wanted


COMMAND = """
import os, subprocess, sys
from odtrain.cli.main import main
assert main(["check", "data.images=none"]) == 1
assert "tensorflow" not in sys.modules
print(os.environ.get("TF_ENABLE_ONEDNN_OPTS"), flush=True)
child = "import os; print(os.environ.get('TF_ENABLE_ONEDNN_OPTS'))"
subprocess.run([sys.executable, "-c", child], check=True)
"""


@pytest.mark.skipif(" avx2 " not in CPUINFO.read_text(), reason="a processor without AVX2")
@pytest.mark.parametrize("own", [None, "0"])
def test_a_command_and_its_children_have_onednn_as_it_is_or_as_the_user_said(
    monkeypatch, tmp_path, own
):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if own is not None:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", own)
    done = subprocess.run(
        [sys.executable, "-c", COMMAND], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [own or "1"] * 2
