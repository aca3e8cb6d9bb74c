"""What this machine's processor can do, and whether TensorFlow is to use oneDNN on it.

Instruction sets have the names by which `ONEDNN_MAX_CPU_ISA` takes them, so that a masked one reads alike.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

logger = logging.getLogger(__name__)

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
MASKS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Variables that keep oneDNN from instructions; the first that is set counts."""
SETS = {
    "SSE41": "sse4_1",
    "AVX": "avx",
    "AVX2": "avx2",
    "AVX2_VNNI": "avx_vnni",
    "AVX2_VNNI_2": "avx_ne_convert",
    "AVX512_CORE": "avx512bw",
    "AVX512_CORE_VNNI": "avx512_vnni",
    "AVX512_CORE_BF16": "avx512_bf16",
    "AVX512_CORE_FP16": "avx512_fp16",
    "AVX512_CORE_AMX": "amx_bf16",
    "AVX512_CORE_AMX_FP16": "amx_fp16",
}
"""Instruction sets of x86, each wider than those before it -> the flag by which Linux tells it."""
WITH_BF16 = {
    "AVX2_VNNI_2",
    "AVX512_CORE_BF16",
    "AVX512_CORE_FP16",
    "AVX512_CORE_AMX",
    "AVX512_CORE_AMX_FP16",
    "bf16",
}
"""Those that compute in bfloat16; the last is ARM's."""


@dataclass(frozen=True)
class Processor:
    """A processor, as far as oneDNN may use it.

    Attributes:
        name: that its maker gave it.
        instructions: the widest set of instructions for matrices; the architecture where none is known.
    """

    name: str
    instructions: str

    @property
    def has_bf16(self) -> bool:
        """Whether there are instructions for bfloat16; otherwise it is emulated."""
        return self.instructions in WITH_BF16


def this_processor(information: Path = Path("/proc/cpuinfo")) -> Processor:
    """The processor of this machine, less what `ONEDNN_MAX_CPU_ISA` keeps from use."""
    told = _told(information)
    name = told.get("model name") or platform.processor() or platform.machine()
    flags = _flags(told)
    mask = next((os.environ[key].upper() for key in MASKS if os.environ.get(key)), "")
    usable = [*takewhile(lambda one: one != mask, SETS), mask] if mask in SETS else list(SETS)
    found = [one for one in usable if SETS[one] in flags]
    if found:
        return Processor(name, found[-1])
    return Processor(name, "bf16" if "bf16" in flags else platform.machine())


def choose_onednn() -> None:
    """Have TensorFlow compute with oneDNN, before it is imported; a user's own choice stays.

    By itself TensorFlow does so on processors with VNNI alone; without, it takes twice as long where
    there is AVX2. Processes that this one starts inherit the choice.
    """
    if not wants_onednn(_flags(_told(Path("/proc/cpuinfo"))), os.environ):
        return
    if "tensorflow" not in sys.modules:
        os.environ[ONEDNN] = "1"
    elif not onednn_is_on():
        logger.warning(
            "TensorFlow was imported before odtrain, and computes without oneDNN, which about doubles the "
            f"time. That cannot be changed any more: set {ONEDNN}=1 before TensorFlow is imported."
        )


def wants_onednn(flags: Collection[str], environment: Mapping[str, str]) -> bool:
    """Whether oneDNN is to be turned on: it helps from AVX2 on, and nobody has said otherwise."""
    return ONEDNN not in environment and SETS["AVX2"] in flags


def onednn_is_on() -> bool:
    """Whether the TensorFlow of this process computes with oneDNN; imports it."""
    from tensorflow.python.framework.test_util import IsMklEnabled

    return bool(IsMklEnabled())


def _told(information: Path) -> dict[str, str]:
    """What Linux tells of the first core, by name; empty elsewhere."""
    try:
        with information.open(encoding="utf-8", errors="replace") as lines:
            first = list(takewhile(str.strip, lines))
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (one.partition(":") for one in first)}


def _flags(told: Mapping[str, str]) -> list[str]:
    """`flags` on x86, `Features` on ARM."""
    return (told.get("flags") or told.get("Features") or "").split()
