"""The shape of a Transformer, as plain data: what a config file says and a checkpoint remembers.

It imports no PyTorch, so that commands can read and check a configuration at once.
"""

from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

from cs336lm.errors import UsageError


@dataclass(frozen=True)
class ModelConfig:
    """A decoder-only Transformer: pre-norm blocks of causal attention with RoPE, and SwiGLU.

    The defaults are the shape the CS336 handout trains on TinyStories. Impossible values are
    refused with a :class:`~cs336lm.errors.UsageError` that names the field.
    """

    vocab_size: int | None = None
    """How many token ids there are; None means as many as the tokenizer has."""
    context_length: int = 256
    """The most tokens the model can look at together."""
    d_model: int = 512
    """Width of the residual stream."""
    num_layers: int = 4
    """How many Transformer blocks."""
    num_heads: int = 16
    """Attention heads a block; must divide d_model into heads of even size."""
    d_ff: int | None = None
    """Width inside the feed-forward network; None means 8/3 d_model, to a multiple of 64."""
    rope_theta: float = 10_000.0
    """Base of the wavelengths of the rotary position embedding."""
    rms_norm_eps: float = 1e-5
    """Added to the mean square before RMSNorm takes its root."""
    norm: Literal["pre"] = "pre"
    """Where a block normalises: pre, before attention and before the feed-forward network."""
    positions: Literal["rope"] = "rope"
    """How attention knows positions: rope, the rotary position embedding."""
    ffn: Literal["swiglu"] = "swiglu"
    """The feed-forward network: swiglu, gated by a SiLU."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context_length", "d_model", "num_layers", "num_heads", "d_ff"):
            value = getattr(self, name)
            if value is None and name in ("vocab_size", "d_ff"):
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"model.{name} must be a whole number from 1, not {value!r}")
        for name in ("norm", "positions", "ffn"):
            known, value = get_args(get_type_hints(ModelConfig)[name]), getattr(self, name)
            if value not in known:
                raise UsageError(f"model.{name} must be one of {', '.join(known)}, not {value!r}")
        if self.d_model % self.num_heads:
            raise UsageError(
                f"model.d_model = {self.d_model} is not divisible by "
                f"model.num_heads = {self.num_heads}"
            )
        if self.d_head % 2:
            raise UsageError(
                f"model.d_model / model.num_heads = {self.d_head} is odd; RoPE rotates pairs, "
                "so a head needs an even size"
            )
        # `not >` refuses NaN as well.
        if not self.rope_theta > 0:
            raise UsageError(f"model.rope_theta must be above 0, not {self.rope_theta!r}")
        if not self.rms_norm_eps >= 0:
            raise UsageError(f"model.rms_norm_eps must not be below 0: {self.rms_norm_eps!r}")

    @property
    def d_head(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.num_heads

    @property
    def ffn_width(self) -> int:
        """``d_ff``, or the default for this ``d_model`` where it was left open."""
        return default_d_ff(self.d_model) if self.d_ff is None else self.d_ff


def default_d_ff(d_model: int) -> int:
    """8/3 of ``d_model``, rounded to the nearest multiple of 64 (which hardware likes).

    With three matrices, SwiGLU then has as many parameters as the classic two-matrix network of
    width 4 d_model (Shazeer 2020, "GLU Variants Improve Transformer", section 2).
    """
    return max(64, 64 * round(8 * d_model / 3 / 64))
