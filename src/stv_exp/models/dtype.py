"""Which dtype `model.dtype=auto` is: bfloat16 only where the device computes it fast, else float32, and why.

Without instructions of its own bfloat16 is converted to float32 and back: on a 2-core AVX2 processor it was 7 times
slower. With avx512_bf16 (Zen 4, torch 2.13, CPU time of one thread over that of float32) 64 x 576 times 576 x 1536
takes 0.5 and a single row 1.2; SmolLM2 takes 0.9 for one token, 0.6 for 32 tokens after 64 (the branches of a tree).
There the product takes 2.5 when these instructions are hidden from oneDNN, 4.6 when all of AVX-512 is hidden.
amx_bf16 was not measured.
"""

from __future__ import annotations

import logging
import re
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)
_FAST = ("amx_bf16", "avx512_bf16")


def resolve(dtype: str, accelerator: str) -> tuple[str, str]:
    """The dtype by name, and the reason where it was `auto`; one that was named stays, with no reason."""
    if dtype != "auto":
        return dtype, ""
    if accelerator == "cuda":
        return _on_gpu()
    if accelerator == "cpu":
        return on_cpu(_cpuinfo())
    return "float32", f"bfloat16 was not measured on {accelerator}"


@cache
def say(model: str, dtype: str, accelerator: str) -> None:
    """Log what `auto` is, once a process: the jobs of a sweep share a model."""
    name, reason = resolve(dtype, accelerator)
    if reason:
        log.info("%s: %s (auto: %s)", model, name, reason)


def on_cpu(cpuinfo: str) -> tuple[str, str]:
    """The choice for a processor, from the text of Linux's /proc/cpuinfo; only x86 lists `flags` there."""
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    if flags is None:
        return "float32", "whether this processor has fast bfloat16 cannot be read here"
    found = next((flag for flag in _FAST if flag in flags[1].split()), None)
    return ("bfloat16", f"this processor has {found}") if found else ("float32", "this processor has no fast bfloat16")


@cache
def _cpuinfo() -> str:
    """Linux's description of the processors; empty on other systems."""
    file = Path("/proc/cpuinfo")
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def _on_gpu() -> tuple[str, str]:
    """From compute capability 8.0 on; older GPUs emulate it. Without any GPU, loading refuses it in its own words."""
    import torch  # here: the command line asks before it needs torch

    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16", "this GPU computes bfloat16"
    return "float32", "torch sees no GPU that computes bfloat16"
