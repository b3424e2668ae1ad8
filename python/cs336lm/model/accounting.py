"""What a model costs, from its own matrix products, and what a device could do.

A product of (m, k) and (k, n) is 2 m k n floating-point operations; the backward pass does each
twice. Attention is counted whole, as PaLM does (Chowdhery et al. 2022, appendix B), so that figures
compare with published ones. MFU is these operations a second over the device's published peak.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch

from cs336lm.model.config import ModelConfig


@dataclass(frozen=True)
class _Peaks:
    """What a device does at most in a second: manufacturers' data sheets, without sparsity."""

    half: float
    """Floating-point operations in float16 and bfloat16, added up in float32."""
    bandwidth: float
    """Bytes from and to its memory."""
    tf32: float | None = None
    """Operations in float32, rounded to TF32 where they are multiplied."""
    fp8: float | None = None
    """Operations in float8."""
    bfloat16: bool = True
    """Whether bfloat16 is as fast as float16."""


_H100_NVL = _Peaks(835.5e12, 3.9e12, 417.5e12, 1671e12)
_A100_40GB = _Peaks(312e12, 1.555e12, 156e12)
_V100_SXM = _Peaks(125e12, 900e9, bfloat16=False)
_V100_PCIE = _Peaks(112e12, 900e9, bfloat16=False)

# By all words of the name that the driver gives, in any order, without the maker's. A name with a
# word more (Ti, Laptop, a slice "MIG 1g.10gb") is another device, whose figures nobody has told.
_DEVICES = {
    "GB200": _Peaks(2.5e15, 8.0e12, 1.25e15, 5e15),
    "B200": _Peaks(2.25e15, 8.0e12, 1.125e15, 4.5e15),
    "H200": _Peaks(989e12, 4.8e12, 494.5e12, 1979e12),
    "H200 NVL": replace(_H100_NVL, bandwidth=4.8e12),
    "GH200 480GB": _Peaks(989e12, 4.0e12, 494.5e12, 1979e12),
    "GH200 120GB": _Peaks(989e12, 4.0e12, 494.5e12, 1979e12),
    "H100 80GB HBM3": _Peaks(989e12, 3.35e12, 494.5e12, 1979e12),  # SXM
    "H100 PCIE": _Peaks(756e12, 2.0e12, 378e12, 1513e12),
    "H100 NVL": _H100_NVL,
    "A100 SXM4 40GB": _A100_40GB,
    "A100 PCIE 40GB": _A100_40GB,
    "A100 SXM4 80GB": replace(_A100_40GB, bandwidth=2.039e12),
    "A100 80GB PCIE": replace(_A100_40GB, bandwidth=1.935e12),
    "A10": _Peaks(125e12, 600e9, 62.5e12),
    "A10G": _Peaks(70e12, 600e9, 35e12),
    "A30": _Peaks(165e12, 933e9, 82e12),
    "A40": _Peaks(149.7e12, 696e9, 74.8e12),
    "L4": _Peaks(121e12, 300e9, 60e12, 242e12),
    "L40": _Peaks(181e12, 864e9, 90.5e12, 362e12),
    "L40S": _Peaks(362e12, 864e9, 183e12, 733e12),
    "T4": _Peaks(65e12, 320e9, bfloat16=False),
    "V100 SXM2 16GB": _V100_SXM,
    "V100 SXM2 32GB": _V100_SXM,
    "V100 PCIE 16GB": _V100_PCIE,
    "V100 PCIE 32GB": _V100_PCIE,
    "RTX 5090": _Peaks(209.5e12, 1.792e12, 104.8e12, 419e12),
    "RTX 4090": _Peaks(165e12, 1.008e12, 82.6e12, 330e12),
    "RTX 3090": _Peaks(71e12, 936e9, 35.6e12),
    "RTX A6000": _Peaks(154.8e12, 768e9, 77.4e12),
}
_MAKERS = {"NVIDIA", "TESLA", "GEFORCE"}


def attention_parameters(config: ModelConfig) -> int:
    """Weights of a block's query, key, value and output projections."""
    return 4 * config.d_model**2


FEED_FORWARD_MATRICES = {"swiglu": 3}
"""Matrices of d_model by d_ff, by ``ModelConfig.ffn``."""


def feed_forward_parameters(config: ModelConfig) -> int:
    """Weights of a block's feed-forward network."""
    return FEED_FORWARD_MATRICES[config.ffn] * config.d_model * config.ffn_width


def head_parameters(config: ModelConfig) -> int:
    """Weights of the last projection."""
    assert config.vocab_size is not None
    return config.d_model * config.vocab_size


def matmul_parameters(config: ModelConfig) -> int:
    """Weights that take part in matrix products: all but the embedding and the gains."""
    block = attention_parameters(config) + feed_forward_parameters(config)
    return config.num_layers * block + head_parameters(config)


def attention_flops_per_token(config: ModelConfig) -> float:
    """Operations of a block's scores and of its weighted values, for a full context."""
    return 4.0 * config.context_length * config.d_model


def training_flops_per_token(config: ModelConfig) -> float:
    """Operations of forward and backward for a token of a full-length sequence."""
    attention = config.num_layers * attention_flops_per_token(config)
    return 3.0 * (2 * matmul_parameters(config) + attention)


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """The device's published peak of products in ``dtype``; None where it is not known.

    In float32 that is TF32's, if PyTorch may use it.
    """
    peaks = _of_device(device)
    if peaks is None:
        return None
    may_use_tf32 = torch.get_float32_matmul_precision() != "highest"
    return {
        torch.float32: peaks.tf32 if may_use_tf32 else None,
        torch.bfloat16: peaks.half if peaks.bfloat16 else None,
        torch.float16: peaks.half,
        torch.float8_e4m3fn: peaks.fp8,
    }.get(dtype)


def peak_bandwidth(device: torch.device) -> float | None:
    """Bytes a second that the device can read from its memory; None where it is not known."""
    peaks = _of_device(device)
    return None if peaks is None else peaks.bandwidth


def _of_device(device: torch.device) -> _Peaks | None:
    if device.type != "cuda":
        return None
    words = _words(torch.cuda.get_device_name(device))
    return next((peaks for name, peaks in _DEVICES.items() if _words(name) == words), None)


def _words(name: str) -> list[str]:
    """The words of a device's name that tell it from others, sorted."""
    return sorted(set(re.split(r"[\s-]+", name.strip().upper())) - _MAKERS)
