"""A block of the Transformer: attention and a feed-forward network around the residual stream."""

from collections.abc import Callable
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Module

from cs336lm.model.attention import MultiHeadSelfAttention
from cs336lm.model.config import ModelConfig
from cs336lm.model.feed_forward import FEED_FORWARDS, SwiGLU, TwoMatrices
from cs336lm.model.initial import Device
from cs336lm.model.kv_cache import LayerCache
from cs336lm.model.norm import NORMS, RMSNorm
from cs336lm.model.positions import NoPositions, RotaryPositionalEmbedding
from cs336lm.model.residual import ResidualScalars
from cs336lm.model.unchanged import Unchanged


class TransformerBlock(Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)) (pre-norm; Xiong et al. 2020).

    Args:
        d_model: width of the stream.
        num_heads: attention heads.
        d_ff: width inside the feed-forward network; None is its default.
        rope: for the attention; it may be shared between blocks.
        eps: of the norms.
        device: where the weights live.
        dtype: of the weights.
        attn: another attention than the one that ``num_heads`` and ``rope`` describe.
        ffn: another feed-forward network than SwiGLU.
        norm: what makes the norms, of (d_model, eps, device, dtype).
        residual: what makes the block's input of the stream and the token's embedding; None takes
            the stream.
    """

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
        attn: MultiHeadSelfAttention | None = None,
        ffn: SwiGLU | TwoMatrices | None = None,
        norm: Callable[..., Module] = RMSNorm,
        residual: Module | None = None,
    ) -> None:
        super().__init__()
        self.residual = Unchanged() if residual is None else residual
        self.ln1 = norm(d_model, eps, device, dtype)
        self.attn = attn or MultiHeadSelfAttention(d_model, num_heads, rope, device, dtype)
        self.ln2 = norm(d_model, eps, device, dtype)
        self.ffn = ffn or SwiGLU(d_model, d_ff, device, dtype)

    @classmethod
    def from_config(
        cls,
        config: ModelConfig,
        layer: int,
        positions: RotaryPositionalEmbedding | NoPositions,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Block ``layer``, from 0, of ``config``; ``positions`` may be shared between blocks."""
        return cls(
            config.d_model,
            config.num_heads,
            eps=config.rms_norm_eps,
            device=device,
            dtype=dtype,
            attn=MultiHeadSelfAttention.from_config(config, layer, positions, device, dtype),
            ffn=FEED_FORWARDS[config.ffn](
                config.d_model,
                config.ffn_width,
                device,
                dtype,
                output_std=0 if config.zero_init else None,
            ),
            norm=NORMS[config.norm],
            residual=ResidualScalars(device, dtype) if config.residual_scalars else None,
        )

    def forward(
        self,
        x: Float[Tensor, "... seq d_model"],
        token_positions: Int[Tensor, "... seq"] | None = None,
        cache: LayerCache | None = None,
        token_ids: Int[Tensor, "... seq"] | None = None,
        embedded: Float[Tensor, "... seq d_model"] | None = None,
    ) -> Float[Tensor, "... seq d_model"]:
        """(..., seq, d_model) -> the same.

        Args:
            x: the stream.
            token_positions: as for the attention.
            cache: as for the attention.
            token_ids: as for the attention.
            embedded: the tokens' embeddings, for residual scalars.
        """
        x = self.residual(x, embedded)
        x = x + self.attn(self.ln1(x), token_positions, cache, token_ids)
        return x + self.ffn(self.ln2(x))


class PostNormBlock(TransformerBlock):
    """norm(x + attention(x)), then norm(x + feed_forward(x)) (Vaswani et al. 2017, section 3.1)."""

    def forward(
        self,
        x: Float[Tensor, "... seq d_model"],
        token_positions: Int[Tensor, "... seq"] | None = None,
        cache: LayerCache | None = None,
        token_ids: Int[Tensor, "... seq"] | None = None,
        embedded: Float[Tensor, "... seq d_model"] | None = None,
    ) -> Float[Tensor, "... seq d_model"]:
        """As for :class:`TransformerBlock`."""
        x = self.residual(x, embedded)
        x = self.ln1(x + self.attn(x, token_positions, cache, token_ids))
        return self.ln2(x + self.ffn(x))


BLOCKS: dict[str, type[TransformerBlock]] = {
    "pre": TransformerBlock,
    "post": PostNormBlock,
    "none": TransformerBlock,  # with norms that change nothing
}
"""By ``ModelConfig.norm``; made by ``from_config(config, layer, positions, device, dtype)``."""
