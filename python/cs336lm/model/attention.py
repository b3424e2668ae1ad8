"""Causal self-attention in several heads."""

from typing import Self

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Identity, Module

from cs336lm.errors import UsageError
from cs336lm.model.config import ModelConfig
from cs336lm.model.functional import scaled_dot_product_attention
from cs336lm.model.initial import Device
from cs336lm.model.kernels.causal_attention import causal_attention
from cs336lm.model.kv_cache import LayerCache
from cs336lm.model.linear import Linear, project_apart
from cs336lm.model.norm import RMSNorm
from cs336lm.model.positions import NoPositions, RotaryPositionalEmbedding
from cs336lm.model.unchanged import Unchanged
from cs336lm.model.value_embedding import ValueEmbedding


class MultiHeadSelfAttention(Module):
    """Causal self-attention in ``num_heads`` heads (Vaswani et al. 2017, section 3.2.2).

    Args:
        d_model: width of input and output; each head takes d_model / num_heads of it.
        num_heads: how many heads.
        rope: rotates queries and keys by their positions; it may be shared between layers. None:
            attention knows no order but the causal mask.
        device: where the weights live.
        dtype: of the weights.
        num_kv_heads: how many heads of keys and values there are, each for equally many
            neighbouring heads of queries (Ainslie et al. 2023); None means ``num_heads``.
        output_std: the standard deviation that ``output_proj`` starts with, if not its usual one.
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        rope: RotaryPositionalEmbedding | NoPositions | None = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        num_kv_heads: int | None = None,
        output_std: float | None = None,
    ) -> None:
        super().__init__()
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if d_model % num_heads:
            raise UsageError(f"d_model = {d_model} is not divisible by num_heads = {num_heads}")
        if num_heads % num_kv_heads:
            raise UsageError(f"num_kv_heads = {num_kv_heads} does not divide {num_heads} heads")
        d_head = d_model // num_heads
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        self.positions: RotaryPositionalEmbedding | NoPositions = (
            NoPositions() if rope is None else rope
        )
        self.positions.check_head_size(d_head)
        self.q_proj = Linear(d_model, d_model, device, dtype)
        self.k_proj = Linear(d_model, num_kv_heads * d_head, device, dtype)
        self.v_proj = Linear(d_model, num_kv_heads * d_head, device, dtype)
        self.output_proj = Linear(d_model, d_model, device, dtype, std=output_std)
        self._widths = (d_model, num_kv_heads * d_head, num_kv_heads * d_head)
        self._shares_keys = num_kv_heads < num_heads
        self.q_norm: Module = Identity()
        self.k_norm: Module = Identity()
        self.value_embedding: Module = Unchanged()

    @classmethod
    def from_config(
        cls,
        config: ModelConfig,
        layer: int,
        positions: RotaryPositionalEmbedding | NoPositions,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """The attention of block ``layer``; ``positions`` may be shared between blocks."""
        self = cls(
            config.d_model,
            config.num_heads,
            positions,
            device,
            dtype,
            num_kv_heads=config.num_kv_heads,
            output_std=0 if config.zero_init else None,
        )
        if config.qk_norm:
            self.q_norm = RMSNorm(config.d_head, config.rms_norm_eps, device, dtype)
            self.k_norm = RMSNorm(config.d_head, config.rms_norm_eps, device, dtype)
        if config.has_value_embedding(layer):
            self.value_embedding = ValueEmbedding(config, device, dtype)
        return self

    @property
    def rope(self) -> RotaryPositionalEmbedding | None:
        """What it was built with."""
        positions = self.positions
        return positions if isinstance(positions, RotaryPositionalEmbedding) else None

    def forward(
        self,
        x: Float[Tensor, "... seq d_model"],
        token_positions: Int[Tensor, "... seq"] | None = None,
        cache: LayerCache | None = None,
        token_ids: Int[Tensor, "... seq"] | None = None,
    ) -> Float[Tensor, "... seq d_model"]:
        """Each token attends to itself and those before it.

        Args:
            x: the tokens' vectors.
            token_positions: for RoPE; None means 0, 1, 2, ... With a cache they also say where in
                it the tokens belong, and are needed.
            cache: keys and values of earlier tokens; these tokens' own are added to it.
            token_ids: which tokens these are; only a value embedding needs to know.
        """
        q, k, v = self.project(x, token_positions)
        v = self.value_embedding(v, x, token_ids)
        if cache is None:
            attended = causal_attention(q, k, v)
        else:
            if token_positions is None:
                raise ValueError("attention with a cache needs token_positions")
            k, v, mask = cache.append(k, v, token_positions)
            attended = scaled_dot_product_attention(q, k, v, mask, enable_gqa=self._shares_keys)
        return self.output_proj(rearrange(attended, "... heads seq d -> ... seq (heads d)"))

    def project(
        self, x: Tensor, token_positions: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(..., seq, d_model) -> rotated queries and keys, and values, (..., heads, seq, d)."""
        projected = project_apart(x, (self.q_proj, self.k_proj, self.v_proj), self._widths)
        heads = (self.num_heads, self.num_kv_heads, self.num_kv_heads)
        q, k, v = (
            rearrange(part, "... seq (heads d) -> ... heads seq d", heads=n)
            for part, n in zip(projected, heads, strict=True)
        )
        # One position per token, whatever the head.
        per_head = None if token_positions is None else token_positions.unsqueeze(-2)
        rotate = self.positions.rotation(x.shape[-2], per_head)
        return rotate(self.q_norm(q)), rotate(self.k_norm(k)), v
