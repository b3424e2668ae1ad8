"""A block of the Transformer: attention and a feed-forward network around the residual stream."""

from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Module

from cs336lm.model.attention import MultiHeadSelfAttention
from cs336lm.model.config import ModelConfig
from cs336lm.model.feed_forward import FEED_FORWARDS, SwiGLU
from cs336lm.model.initial import Device
from cs336lm.model.kv_cache import LayerCache
from cs336lm.model.norm import RMSNorm
from cs336lm.model.positions import RotaryPositionalEmbedding


class TransformerBlock(Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)) (pre-norm; Xiong et al. 2020)."""

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        d_ff: int | None = None,
        rope: RotaryPositionalEmbedding | None = None,
        eps: float = 1e-5,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        ffn: type[SwiGLU] = SwiGLU,
    ) -> None:
        super().__init__()
        self.ln1 = RMSNorm(d_model, eps, device, dtype)
        self.attn = MultiHeadSelfAttention(d_model, num_heads, rope, device, dtype)
        self.ln2 = RMSNorm(d_model, eps, device, dtype)
        self.ffn = ffn(d_model, d_ff, device, dtype)

    @classmethod
    def from_config(
        cls,
        config: ModelConfig,
        positions: RotaryPositionalEmbedding | None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """The block that ``config`` describes; ``positions`` may be shared between blocks."""
        return cls(
            config.d_model,
            config.num_heads,
            config.ffn_width,
            positions,
            config.rms_norm_eps,
            device,
            dtype,
            ffn=FEED_FORWARDS[config.ffn],
        )

    def forward(
        self,
        x: Float[Tensor, "... seq d_model"],
        token_positions: Int[Tensor, "... seq"] | None = None,
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "... seq d_model"]:
        """(..., seq, d_model) -> the same; arguments as for the attention."""
        x = x + self.attn(self.ln1(x), token_positions, cache)
        return x + self.ffn(self.ln2(x))


BLOCKS: dict[str, type[TransformerBlock]] = {"pre": TransformerBlock}
"""By ``ModelConfig.norm``; each is made by ``from_config(config, positions, device, dtype)``."""
