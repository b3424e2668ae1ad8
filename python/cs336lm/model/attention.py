"""Causal self-attention in several heads."""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Module

from cs336lm.errors import UsageError
from cs336lm.model.functional import scaled_dot_product_attention
from cs336lm.model.initial import Device
from cs336lm.model.kv_cache import LayerCache
from cs336lm.model.linear import Linear, project_together
from cs336lm.model.positions import NoPositions, RotaryPositionalEmbedding


class MultiHeadSelfAttention(Module):
    """Causal self-attention in ``num_heads`` heads (Vaswani et al. 2017, section 3.2.2).

    Args:
        d_model: width of input and output; each head takes d_model / num_heads of it.
        num_heads: how many heads.
        rope: rotates queries and keys by their positions; it may be shared between layers. None:
            attention knows no order but the causal mask.
        device: where the weights live.
        dtype: of the weights.
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        rope: RotaryPositionalEmbedding | None = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if d_model % num_heads:
            raise UsageError(f"d_model = {d_model} is not divisible by num_heads = {num_heads}")
        if rope is not None and rope.d_k != d_model // num_heads:
            raise UsageError(f"RoPE of size {rope.d_k} for heads of size {d_model // num_heads}")
        self.num_heads = num_heads
        self.positions = NoPositions() if rope is None else rope
        self.q_proj = Linear(d_model, d_model, device, dtype)
        self.k_proj = Linear(d_model, d_model, device, dtype)
        self.v_proj = Linear(d_model, d_model, device, dtype)
        self.output_proj = Linear(d_model, d_model, device, dtype)

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
    ) -> Float[Tensor, "... seq d_model"]:
        """Each token attends to itself and those before it.

        Args:
            x: the tokens' vectors.
            token_positions: for RoPE; None means 0, 1, 2, ... With a cache they also say where in
                it the tokens belong, and are needed.
            cache: keys and values of earlier tokens; these tokens' own are added to it.
        """
        q, k, v = self._project(x, token_positions)
        if cache is None:
            attended = scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            if token_positions is None:
                raise ValueError("attention with a cache needs token_positions")
            k, v, mask = cache.append(k, v, token_positions)
            attended = scaled_dot_product_attention(q, k, v, mask)
        return self.output_proj(rearrange(attended, "... heads seq d -> ... seq (heads d)"))

    def _project(self, x: Tensor, token_positions: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """(..., seq, d_model) -> rotated queries and keys, and values, (..., heads, seq, d)."""
        q, k, v = rearrange(
            project_together(x, self.q_proj, self.k_proj, self.v_proj),
            "... seq (qkv heads d) -> qkv ... heads seq d",
            qkv=3,
            heads=self.num_heads,
        )
        # One position per token, whatever the head.
        per_head = None if token_positions is None else token_positions.unsqueeze(-2)
        rotate = self.positions.rotation(x.shape[-2], per_head)
        return rotate(q), rotate(k), v
