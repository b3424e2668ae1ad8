"""What a device multiplies fast, where that is a property of the very machine."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

_CPU_INFO = Path("/proc/cpuinfo")
_BFLOAT16_UNITS = ("avx512_bf16", "amx_bf16")
_LEAST_WIDTH = 64  # on a CPU: for narrower matrices the conversions cost what the products gain


def multiplies_bfloat16(device: torch.device, width: int) -> bool:
    """Whether products of matrices of ``width`` are much faster in bfloat16 than in float32.

    So they are on every CUDA device that knows the format, and on x86 processors with AVX512-BF16
    (Intel since Cooper Lake, AMD since Zen 4) or AMX. On others PyTorch computes them in float32
    after all, after a conversion. ARM has such units too; how fast PyTorch is there has not been
    measured, and the answer is no.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and width >= _LEAST_WIDTH and _cpu_multiplies_bfloat16()


def _cpu_multiplies_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else None
    if capabilities is not None:
        return any(capabilities.get(unit, False) for unit in _BFLOAT16_UNITS)
    # Older versions of PyTorch do not say it in public. Tiles and bfloat16 for them came together.
    asked = (f"_is_{unit}_supported" for unit in ("avx512_bf16", "amx_tile"))
    return any(getattr(torch.cpu, name, lambda: False)() for name in asked)


def multiply_alike() -> None:
    """Has a row of a product round alike, whatever rows are beside it, on Intel's processors too.

    There PyTorch's products are oneMKL's, which takes kernels that round in another way for other
    numbers of rows, unless it is asked for "strict" reproducibility (oneMKL Developer Guide,
    Obtaining Numerically Reproducible Results). It reads that from the environment before the first
    product of a process: later, this changes nothing. What is set already stays.
    """
    if _is_intel():
        os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")


def _is_intel() -> bool:
    try:
        said = _CPU_INFO.read_text()
    except OSError:  # not Linux
        said = platform.processor()
    return "GenuineIntel" in said
