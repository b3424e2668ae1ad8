"""What a model costs, from its own matrix products, and what a device could do.

A product of (m, k) and (k, n) is 2 m k n floating-point operations; the backward pass does each
twice. Attention is counted whole, as PaLM does (Chowdhery et al. 2022, appendix B), so that figures
compare with published ones. MFU is these operations a second over the device's published peak.

Counting needs no PyTorch; what a device is called does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cs336lm.errors import UsageError
from cs336lm.model.config import ModelConfig

if TYPE_CHECKING:
    import torch


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


# TF32 of Hopper is 989 with sparsity on the sheet: the CS336 handout says 495, and so do we.
_H100_NVL = _Peaks(835.5e12, 3.9e12, 417.5e12, 1671e12)
_A100_40GB = _Peaks(312e12, 1.555e12, 156e12)
_V100_SXM = _Peaks(125e12, 900e9, bfloat16=False)
_V100_PCIE = _Peaks(112e12, 900e9, bfloat16=False)

# By all words of the name that the driver gives, in any order, without the maker's. A name with a
# word more (Ti, Laptop, a slice "MIG 1g.10gb") is another device, whose figures nobody has told.
_DEVICES = {
    "GB200": _Peaks(2.5e15, 8.0e12, 1.25e15, 5e15),
    "B200": _Peaks(2.25e15, 8.0e12, 1.125e15, 4.5e15),
    "H200": _Peaks(989e12, 4.8e12, 495e12, 1979e12),
    "H200 NVL": replace(_H100_NVL, bandwidth=4.8e12),
    "GH200 480GB": _Peaks(989e12, 4.0e12, 495e12, 1979e12),
    "GH200 120GB": _Peaks(989e12, 4.0e12, 495e12, 1979e12),
    "H100 80GB HBM3": _Peaks(989e12, 3.35e12, 495e12, 1979e12),  # SXM
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


@dataclass(frozen=True)
class MatrixProduct:
    """A product of (m, k) and (k, n) that a forward pass takes ``times`` times."""

    component: str
    """As in :func:`parameters`: attention, feed_forward, value_embeddings, lm_head."""
    name: str
    """Of the weight, as in the state dict without the layer; or what is multiplied."""
    m: int
    k: int
    n: int
    times: int

    @property
    def flops(self) -> int:
        """Floating-point operations of all of them."""
        return 2 * self.m * self.k * self.n * self.times


FEED_FORWARD_MATRICES = {"swiglu": 3, "silu": 2, "relu2": 2}
"""Matrices of d_model by d_ff, by ``ModelConfig.ffn``."""

_BLOCK_NORMS = {"pre": 2, "post": 2, "none": 0}
_FINAL_NORMS = {"pre": 1, "post": 0, "none": 0}


def parameters(config: ModelConfig) -> dict[str, int]:
    """Parameters by component; their sum is the model's, a tied matrix counting once.

    Components that the model does not have are there with 0.
    """
    d, layers = config.d_model, config.num_layers
    norms = layers * _BLOCK_NORMS[config.norm] + _FINAL_NORMS[config.norm]
    tables = _value_embeddings(config)
    gate = config.value_gate_width * config.kv_heads
    return {
        "token_embeddings": _vocab_size(config) * d,
        "attention": layers * attention_parameters(config),
        "feed_forward": layers * feed_forward_parameters(config),
        "norms": norms * d + layers * config.qk_norm * 2 * config.d_head,
        "value_embeddings": tables * (_vocab_size(config) * config.d_kv + gate),
        "residual_scalars": layers * config.residual_scalars * 2,
        "lm_head": 0 if config.tie_embeddings else head_parameters(config),
    }


def total_parameters(config: ModelConfig) -> int:
    """Parameters in all, as ``sum(p.numel() for p in model.parameters())`` counts them."""
    return sum(parameters(config).values())


def forward_products(
    config: ModelConfig, tokens: int | None = None, sequences: int = 1
) -> list[MatrixProduct]:
    """Every matrix product of a forward pass over ``sequences`` of ``tokens`` (the context) each.

    Nothing else is counted: norms, rotations, softmax and activations are well below a hundredth.
    """
    seq = config.context_length if tokens is None else tokens
    rows, d, d_kv, layers = sequences * seq, config.d_model, config.d_kv, config.num_layers
    heads, d_head, ff = config.num_heads, config.d_head, config.ffn_width
    attention = [
        ("q_proj", rows, d, d, layers),
        ("k_proj", rows, d, d_kv, layers),
        ("v_proj", rows, d, d_kv, layers),
        ("Q K^T", seq, d_head, seq, layers * heads * sequences),
        ("weights V", seq, seq, d_head, layers * heads * sequences),
        ("output_proj", rows, d, d, layers),
    ]
    up = ("w1", "w3") if FEED_FORWARD_MATRICES[config.ffn] == 3 else ("w1",)
    products = [MatrixProduct("attention", f"attn.{name}", *sizes) for name, *sizes in attention]
    products += [MatrixProduct("feed_forward", f"ffn.{w}", rows, d, ff, layers) for w in up]
    products += [MatrixProduct("feed_forward", "ffn.w2", rows, ff, d, layers)]
    if tables := _value_embeddings(config):
        width, name = config.value_gate_width, "attn.value_embedding.gate"
        gate = MatrixProduct("value_embeddings", name, rows, width, config.kv_heads, tables)
        products.append(gate)
    products.append(MatrixProduct("lm_head", "lm_head", rows, d, _vocab_size(config), 1))
    return products


def forward_flops(
    config: ModelConfig, tokens: int | None = None, sequences: int = 1
) -> dict[str, int]:
    """The operations of :func:`forward_products` by component."""
    flops: dict[str, int] = {}
    for product in forward_products(config, tokens, sequences):
        flops[product.component] = flops.get(product.component, 0) + product.flops
    return flops


def kv_cache_numbers(config: ModelConfig) -> int:
    """Numbers that a KV cache holds for each token of a sequence."""
    return 2 * config.num_layers * config.d_kv


def attention_parameters(config: ModelConfig) -> int:
    """Weights of a block's query, key, value and output projections."""
    return 2 * config.d_model**2 + 2 * config.d_model * config.d_kv


def feed_forward_parameters(config: ModelConfig) -> int:
    """Weights of a block's feed-forward network."""
    return FEED_FORWARD_MATRICES[config.ffn] * config.d_model * config.ffn_width


def head_parameters(config: ModelConfig) -> int:
    """Weights of the last projection, also where it shares them with the embedding."""
    return config.d_model * _vocab_size(config)


def matmul_parameters(config: ModelConfig) -> int:
    """Weights that take part in matrix products: all but tables of vectors, gains and scalars."""
    block = attention_parameters(config) + feed_forward_parameters(config)
    gates = _value_embeddings(config) * config.value_gate_width * config.kv_heads
    return config.num_layers * block + gates + head_parameters(config)


def attention_flops_per_token(config: ModelConfig) -> float:
    """Operations of a block's scores and of its weighted values, for a full context."""
    return 4.0 * config.context_length * config.d_model


def training_flops_per_token(config: ModelConfig) -> float:
    """Operations of forward and backward for a token of a full-length sequence."""
    attention = config.num_layers * attention_flops_per_token(config)
    return 3.0 * (2 * matmul_parameters(config) + attention)


def with_swiglu(config: ModelConfig) -> ModelConfig:
    """The same model with the default feed-forward network: what another one compares with."""
    return replace(config, ffn="swiglu", d_ff=None)


def _value_embeddings(config: ModelConfig) -> int:
    """How many blocks have one."""
    return sum(config.has_value_embedding(layer) for layer in range(config.num_layers))


def _vocab_size(config: ModelConfig) -> int:
    if config.vocab_size is None:
        raise UsageError("model.vocab_size is not set: say how many token ids there are")
    return config.vocab_size


# What people write: h100-bf16. Of a device that comes in several shapes it is the usual one.
_SHORT = {
    "gb200": "GB200",
    "b200": "B200",
    "h200": "H200",
    "h100": "H100 80GB HBM3",
    "h100-pcie": "H100 PCIE",
    "h100-nvl": "H100 NVL",
    "a100": "A100 SXM4 80GB",
    "a100-pcie": "A100 80GB PCIE",
    "a10": "A10",
    "a10g": "A10G",
    "a30": "A30",
    "a40": "A40",
    "l4": "L4",
    "l40": "L40",
    "l40s": "L40S",
    "t4": "T4",
    "v100": "V100 SXM2 32GB",
    "rtx5090": "RTX 5090",
    "rtx4090": "RTX 4090",
    "rtx3090": "RTX 3090",
    "a6000": "RTX A6000",
}


def published_peaks() -> dict[str, float]:
    """Operations a second by device and precision: ``{"h100-bf16": 989e12, ...}``."""
    found: dict[str, float] = {}
    for name, full in _SHORT.items():
        peaks = _DEVICES[full]
        each = {
            "tf32": peaks.tf32,
            "bf16": peaks.half if peaks.bfloat16 else None,
            "fp16": peaks.half,
            "fp8": peaks.fp8,
        }
        found |= {f"{name}-{kind}": peak for kind, peak in each.items() if peak is not None}
    return found


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """The device's published peak of products in ``dtype``; None where it is not known.

    In float32 that is TF32's, if PyTorch may use it.
    """
    import torch

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
    import torch

    words = _words(torch.cuda.get_device_name(device))
    return next((peaks for name, peaks in _DEVICES.items() if _words(name) == words), None)


def _words(name: str) -> list[str]:
    """The words of a device's name that tell it from others, sorted."""
    return sorted(set(re.split(r"[\s-]+", name.strip().upper())) - _MAKERS)
