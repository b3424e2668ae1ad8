"""The layers of a Transformer, from ``torch.nn.Parameter`` up.

All of them take any leading dimensions, act on the last one, and carry no biases. A linear weight
is (out, in). Weights that see the same input (queries, keys and values; gate and up) stay separate
parameters, under the names the state dict promises, and are joined when used, so that one large
matrix product replaces several small ones.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Module, Parameter

from cs336lm.errors import UsageError
from cs336lm.model.config import default_d_ff
from cs336lm.model.functional import scaled_dot_product_attention
from cs336lm.model.kernels.fp8 import fp8_linear
from cs336lm.model.kernels.rms_norm import (
    evens_first,
    gated_silu,
    rms_norm,
    turn_halves,
    turn_pairs,
)

if TYPE_CHECKING:
    from cs336lm.model.kv_cache import LayerCache

Device = torch.device | str | None


def project(
    x: Float[Tensor, "... d_in"], weight: Float[Tensor, "d_out d_in"], *, fp8: bool = False
) -> Float[Tensor, "... d_out"]:
    """x W^T, in the dtype of ``x`` (of autocast), or in eight bits."""
    return fp8_linear(x, weight) if fp8 else x @ weight.T


@torch.no_grad()
def fill_truncated_normal(weight: Tensor, std: float) -> None:
    """Draws ``weight`` from N(0, std^2), cut off at three standard deviations.

    Drawn in float32 at least: the inverse error function behind it is too coarse in half
    precision.
    """
    draft = torch.empty_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
    torch.nn.init.trunc_normal_(draft, std=std, a=-3 * std, b=3 * std)
    weight.copy_(draft)


class Linear(Module):
    """y = x W^T, without bias; W starts truncated normal with variance 2 / (in + out)."""

    fp8 = False
    """Whether the product is taken in eight bits; see :meth:`TransformerLM.use_fp8`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(torch.empty(out_features, in_features, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the weight anew (Glorot and Bengio 2010, cut at 3 sigma)."""
        fill_truncated_normal(self.weight, std=(2 / (self.in_features + self.out_features)) ** 0.5)

    def forward(self, x: Float[Tensor, "... in_features"]) -> Float[Tensor, "... out_features"]:
        """(..., in_features) -> (..., out_features)."""
        return project(x, self.weight, fp8=self.fp8)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"{self.in_features}, {self.out_features}"


class Embedding(Module):
    """One row of ``weight`` per token id; it starts as N(0, 1), cut at 3."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.weight = Parameter(
            torch.empty(num_embeddings, embedding_dim, device=device, dtype=dtype)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the table anew."""
        fill_truncated_normal(self.weight, std=1.0)

    def forward(self, token_ids: Int[Tensor, "..."]) -> Float[Tensor, "... embedding_dim"]:
        """Integer ids (...) -> vectors (..., embedding_dim); an unknown id is an IndexError."""
        # Unlike indexing, whose gradient is scattered element by element, on one core.
        rows = self.weight.index_select(0, token_ids.flatten())
        return rows.view(*token_ids.shape, self.embedding_dim)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"{self.num_embeddings}, {self.embedding_dim}"


class RMSNorm(Module):
    """x / sqrt(mean(x^2) + eps) * g over the last dimension (Zhang and Sennrich 2019)."""

    def __init__(
        self,
        d_model: int,
        eps: float = 1e-5,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.eps = eps
        self.weight = Parameter(torch.ones(d_model, device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Sets the gains back to 1."""
        torch.nn.init.ones_(self.weight)

    def forward(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """Same shape and dtype as ``x``; works in float32 (float64 for float64) in between.

        In half precision the squares would overflow at 256 and their sum lose its digits.
        """
        return rms_norm(x, self.weight, self.eps)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"{self.weight.shape[0]}, eps={self.eps}"


class SwiGLU(Module):
    """w2(silu(w1 x) * w3 x): the gated feed-forward network (Shazeer 2020, equation 6).

    ``d_ff=None`` takes 8/3 d_model, to a multiple of 64.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int | None = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        d_ff = default_d_ff(d_model) if d_ff is None else d_ff
        self.w1 = Linear(d_model, d_ff, device, dtype)
        self.w2 = Linear(d_ff, d_model, device, dtype)
        self.w3 = Linear(d_model, d_ff, device, dtype)

    def forward(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """(..., d_model) -> (..., d_model)."""
        joined = torch.cat((self.w1.weight, self.w3.weight))
        return self.w2(gated_silu(project(x, joined, fp8=self.w1.fp8)))


class RotaryPositionalEmbedding(Module):
    """Turns pair k of a query or key by the angle position * theta^(-2k / d_k) (Su et al. 2021).

    Pairs are neighbours: dimensions 2k and 2k + 1. Cosines and sines for ``max_seq_len`` positions
    are made once, in float64, and kept in float32 (float64 in a float64 model) however the rest of
    the model is cast: bfloat16 could not tell position 256 from 257. They are no part of the state.
    """

    cos: Float[Tensor, "max_seq_len half"]
    sin: Float[Tensor, "max_seq_len half"]

    def __init__(self, theta: float, d_k: int, max_seq_len: int, device: Device = None) -> None:
        super().__init__()
        if d_k % 2:
            raise UsageError(f"RoPE rotates pairs: d_k must be even, not {d_k}")
        self.theta = theta
        self.d_k = d_k
        self.max_seq_len = max_seq_len
        device = torch.get_default_device() if device is None else torch.device(device)
        self._make_tables(device, torch.float32)

    def _make_tables(self, device: torch.device, dtype: torch.dtype) -> None:
        exponents = torch.arange(0, self.d_k, 2, dtype=torch.float64, device="cpu") / self.d_k
        positions = torch.arange(self.max_seq_len, dtype=torch.float64, device="cpu")
        angles = torch.outer(positions, self.theta**-exponents)
        self.register_buffer("cos", angles.cos().to(device, dtype), persistent=False)
        self.register_buffer("sin", angles.sin().to(device, dtype), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Module":
        """Follows the model to another device, but not into half precision.

        Made anew rather than copied, so that ``to_empty`` after building on "meta" works as well.
        """
        before = self.cos
        super()._apply(fn, recurse)
        if self.cos is not before:
            wide = torch.float64 if self.cos.dtype == torch.float64 else torch.float32
            self._make_tables(self.cos.device, wide)
        return self

    def forward(
        self,
        x: Float[Tensor, "... seq d_k"],
        token_positions: Int[Tensor, "... seq"] | None = None,
    ) -> Float[Tensor, "... seq d_k"]:
        """Rotates ``x``, whose dtype it keeps.

        Args:
            x: queries or keys.
            token_positions: each token's place, below ``max_seq_len``; broadcast over the leading
                dimensions of ``x``. None means 0, 1, 2, ...
        """
        return turn_pairs(x, *self.angles(x.shape[-2], token_positions))

    def angles(
        self, length: int, token_positions: Int[Tensor, "... seq"] | None = None
    ) -> tuple[Float[Tensor, "... seq half"], Float[Tensor, "... seq half"]]:
        """Cosines and sines for these positions, or for the first ``length``."""
        if token_positions is None:
            return self.cos[:length], self.sin[:length]
        return self.cos[token_positions], self.sin[token_positions]

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"theta={self.theta}, d_k={self.d_k}, max_seq_len={self.max_seq_len}"


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
        self.rope = rope
        self.q_proj = Linear(d_model, d_model, device, dtype)
        self.k_proj = Linear(d_model, d_model, device, dtype)
        self.v_proj = Linear(d_model, d_model, device, dtype)
        self.output_proj = Linear(d_model, d_model, device, dtype)

    def forward(
        self,
        x: Float[Tensor, "... seq d_model"],
        token_positions: Int[Tensor, "... seq"] | None = None,
        cache: "LayerCache | None" = None,
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
        weights: list[Tensor] = [self.q_proj.weight, self.k_proj.weight, self.v_proj.weight]
        # Attention does not care in which order queries and keys have their dimensions.
        halves = self.rope is not None and torch.compiler.is_compiling()
        if halves:
            weights[:2] = (evens_first(weight, self.num_heads) for weight in weights[:2])
        q, k, v = rearrange(
            project(x, torch.cat(weights), fp8=self.q_proj.fp8),
            "... seq (qkv heads d) -> qkv ... heads seq d",
            qkv=3,
            heads=self.num_heads,
        )
        if self.rope is not None:
            # One position per token, whatever the head.
            per_head = None if token_positions is None else token_positions.unsqueeze(-2)
            angles = self.rope.angles(x.shape[-2], per_head)
            turn = turn_halves if halves else turn_pairs
            q, k = turn(q, *angles), turn(k, *angles)
        return q, k, v
