"""How attention knows where a token stands: by rotating queries and keys, or not at all.

Attention asks for a *rotation* once per call and applies it to queries and keys.
"""

from collections.abc import Callable
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Module

from cs336lm.errors import UsageError
from cs336lm.model.config import ModelConfig
from cs336lm.model.initial import Device
from cs336lm.model.kernels.rope import Rotation, rotation
from cs336lm.model.rope_scaling import ROPE_SCALINGS, Scaling, unscaled


class NoPositions(Module):
    """Queries and keys stay as they are: attention knows no order but the causal mask.

    (Haviv et al. 2022; Kazemnejad et al. 2023, "NoPE".)
    """

    @classmethod
    def from_config(
        cls, config: ModelConfig, device: Device = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Nothing depends on ``config``."""
        return cls()

    def check_head_size(self, d_head: int) -> None:
        """Heads may have any size."""

    def rotation(self, length: int, token_positions: Tensor | None = None) -> Rotation:
        """The identity."""
        return _unchanged


def _unchanged(x: Tensor) -> Tensor:
    return x


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


class RotaryPositionalEmbedding(Module):
    """Rotates pair k of a query or key by the angle position * theta^(-2k / d_k) (Su et al. 2021).

    Pairs are neighbours: dimensions 2k and 2k + 1. ``scaling`` makes other angles of these. Cosines
    and sines for ``max_seq_len`` positions are made once, in float64, and kept in float32 (float64
    in a float64 model, by ``dtype`` or by ``.to``) however the rest of the model is cast: bfloat16
    could not tell position 256 from 257. They are not part of the state.

    Examples:
        The pair (1, 0) at position 1 turns by one radian:

        >>> rope = RotaryPositionalEmbedding(theta=10_000, d_k=2, max_seq_len=8)
        >>> rope(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
        tensor([[0.5403, 0.8415]])
    """

    cos: Float[Tensor, "max_seq_len half"]
    sin: Float[Tensor, "max_seq_len half"]

    def __init__(
        self,
        theta: float,
        d_k: int,
        max_seq_len: int,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        scaling: Scaling = unscaled,
    ) -> None:
        super().__init__()
        if d_k % 2:
            raise UsageError(f"RoPE rotates pairs: d_k must be even, not {d_k}")
        self.theta = theta
        self.d_k = d_k
        self.max_seq_len = max_seq_len
        self.scaling = scaling
        device = torch.get_default_device() if device is None else torch.device(device)
        self._make_tables(device, _at_least_float32(dtype or torch.get_default_dtype()))

    @classmethod
    def from_config(
        cls, config: ModelConfig, device: Device = None, dtype: torch.dtype | None = None
    ) -> Self:
        """What the heads of ``config`` need, for as many positions as its context has."""
        scaling = ROPE_SCALINGS[config.rope_scaling](config)
        return cls(
            config.rope_theta, config.d_head, config.context_length, device, dtype, scaling=scaling
        )

    def check_head_size(self, d_head: int) -> None:
        """Raises ``UsageError`` unless it was made for heads of this size."""
        if self.d_k != d_head:
            raise UsageError(f"RoPE of size {self.d_k} for heads of size {d_head}")

    def _make_tables(self, device: torch.device, dtype: torch.dtype) -> None:
        exponents = torch.arange(0, self.d_k, 2, dtype=torch.float64, device="cpu") / self.d_k
        positions = torch.arange(self.max_seq_len, dtype=torch.float64, device="cpu")
        angles = torch.outer(positions, self.scaling(self.theta**-exponents))
        self.register_buffer("cos", angles.cos().to(device, dtype), persistent=False)
        self.register_buffer("sin", angles.sin().to(device, dtype), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Module":
        """Follows the model to another device, but not into half precision.

        Made anew rather than copied, so that ``to_empty`` after building on "meta" works as well.
        """
        before = self.cos
        super()._apply(fn, recurse)
        if self.cos is not before:
            self._make_tables(self.cos.device, _at_least_float32(self.cos.dtype))
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
        return self.rotation(x.shape[-2], token_positions)(x)

    def rotation(
        self, length: int, token_positions: Int[Tensor, "... seq"] | None = None
    ) -> Rotation:
        """What rotates vectors (..., seq, d_k) at these positions, or at the first ``length``."""
        if token_positions is None:
            return rotation(self.cos[:length], self.sin[:length])
        return rotation(self.cos[token_positions], self.sin[token_positions])

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"theta={self.theta}, d_k={self.d_k}, max_seq_len={self.max_seq_len}"


POSITIONS: dict[str, type[RotaryPositionalEmbedding] | type[NoPositions]] = {
    "rope": RotaryPositionalEmbedding,
    "none": NoPositions,
}
"""By ``ModelConfig.positions``; each is made by ``from_config(config, device, dtype)``."""
