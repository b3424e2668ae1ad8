"""What a model costs, from its own matrix products, and what a device could do.

A product of (m, k) and (k, n) is 2 m k n floating-point operations; the backward pass does each
twice. Attention is counted whole, as PaLM does (Chowdhery et al. 2022, appendix B), so that figures
compare with published ones. MFU is these operations a second over the device's published peak.
"""

from __future__ import annotations

import torch

from cs336lm.model.config import ModelConfig

# Dense bf16/fp16 tensor-core FLOP/s by a part of the device's name (manufacturers' data sheets,
# SXM variants); the first that fits counts.
_PEAK_HALF = {
    "B200": 2.25e15,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "L40S": 362e12,
    "A100": 312e12,
    "A10": 125e12,
    "L4": 121e12,
    "T4": 65e12,
    "V100": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}

# Bytes a second between a device and its memory (the same data sheets).
_BANDWIDTH = {
    "B200": 8.0e12,
    "H200": 4.8e12,
    "H100 PCIe": 2.0e12,
    "H100": 3.35e12,
    "L40S": 864e9,
    "A100-SXM4-40GB": 1.555e12,
    "A100": 2.039e12,
    "A10": 600e9,
    "L4": 300e9,
    "T4": 320e9,
    "V100": 900e9,
    "RTX 4090": 1.008e12,
    "RTX 3090": 936e9,
}


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
    """The device's published peak in this precision; None where it is not known."""
    if device.type != "cuda" or dtype == torch.float32:
        return None
    return _of_device(device, _PEAK_HALF)


def peak_bandwidth(device: torch.device) -> float | None:
    """Bytes a second that the device can read from its memory; None where it is not known."""
    return _of_device(device, _BANDWIDTH) if device.type == "cuda" else None


def _of_device(device: torch.device, figures: dict[str, float]) -> float | None:
    name = torch.cuda.get_device_name(device)
    return next((figure for part, figure in figures.items() if part in name), None)
