"""The shape of a Transformer, as plain data: what a config file says and a checkpoint remembers.

It imports no PyTorch, so that commands can read and check a configuration at once.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

from cs336lm.errors import UsageError

# Beyond any model; what a stranger's file says beyond it would not be built in a day.
_MOST = {"num_layers": 10_000, "context_length": 1 << 31, "rope_original_context_length": 1 << 31}
_LARGEST = 1 << 24


@dataclass(frozen=True)
class ModelConfig:
    """A decoder-only Transformer; by default pre-norm blocks of causal attention with RoPE, SwiGLU.

    The default sizes are the shape the CS336 handout trains on TinyStories. Impossible values, and
    values that do not go together, are refused with a :class:`~cs336lm.errors.UsageError` that
    names the fields.

    Examples:
        >>> ModelConfig(d_model=64, num_heads=3)
        Traceback (most recent call last):
        cs336lm.errors.UsageError: model.num_heads=3: ...
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
    """Attention heads a block; must divide d_model, with rope into heads of even size."""
    d_ff: int | None = None
    """Width inside the feed-forward network; None means 8/3 d_model, to a multiple of 64, for
    swiglu and 4 d_model for the others, so that all have about as many parameters."""
    rope_theta: float = 10_000.0
    """Base of the wavelengths of the rotary position embedding."""
    rms_norm_eps: float = 1e-5
    """Added to the mean square before RMSNorm takes its root."""
    norm: Literal["pre", "post", "none"] = "pre"
    """Where a block normalises: pre, before attention and before the feed-forward network; post,
    after each has been added to the stream, and not once more before the head; none, nowhere."""
    positions: Literal["rope", "none"] = "rope"
    """How attention knows positions: rope, the rotary position embedding; none, by the causal mask
    alone."""
    ffn: Literal["swiglu", "silu", "relu2"] = "swiglu"
    """The feed-forward network: swiglu, gated by a SiLU; silu and relu2 (the square of a ReLU),
    two matrices with that between them."""
    tie_embeddings: bool = False
    """Embedding and head share one matrix, which starts as small as a head does."""
    num_kv_heads: int | None = None
    """Heads of keys and values (grouped-query attention), each shared by equally many heads of
    queries; must divide num_heads. None means num_heads: each has its own."""
    qk_norm: bool = False
    """RMSNorm of each head's queries and keys, before they are rotated."""
    logit_softcap: float = 0.0
    """The head's logits z become c tanh(z / c), so none is larger than c; 0 leaves them alone."""
    zero_init: bool = False
    """The output projections of attention and of the feed-forward network begin at zero, and so
    does the head, unless it is tied: an embedding of zeros could not learn."""
    residual_scalars: bool = False
    """Each block reads a x + b e: x the stream, e the token's embedding, a (1 at first) and b (0)
    learned."""
    value_embeddings: bool = False
    """Every other block, the last one always, has a table of vectors by token that it adds to the
    values of attention, through a gate for each head."""
    rope_scaling: Literal["none", "linear", "llama3"] = "none"
    """How rope is stretched to a longer context than it was trained on: linear, all wavelengths;
    llama3, the long ones alone."""
    rope_scaling_factor: float = 1.0
    """By how much rope_scaling stretches; must be above 1 for it."""
    rope_low_freq_factor: float = 1.0
    """llama3: wavelengths above rope_original_context_length over this are stretched whole."""
    rope_high_freq_factor: float = 4.0
    """llama3: wavelengths below rope_original_context_length over this stay as they are."""
    rope_original_context_length: int = 8192
    """llama3: the context that the model was trained on before it was stretched."""

    def __post_init__(self) -> None:
        self._check_whole_numbers()
        for name in ("norm", "positions", "ffn", "rope_scaling"):
            known, value = get_args(get_type_hints(ModelConfig)[name]), getattr(self, name)
            if value not in known:
                raise UsageError(f"model.{name} must be one of {', '.join(known)}, not {value!r}")
        self._check_heads()
        # `not >` refuses NaN as well.
        if not self.rope_theta > 0:
            raise UsageError(f"model.rope_theta must be above 0, not {self.rope_theta!r}")
        if not self.rms_norm_eps >= 0:
            raise UsageError(f"model.rms_norm_eps must not be below 0: {self.rms_norm_eps!r}")
        if not 0 <= self.logit_softcap < math.inf:
            raise UsageError(
                f"model.logit_softcap must be above 0, or 0 for none, not {self.logit_softcap!r}"
            )
        self._check_rope_scaling()

    def _check_whole_numbers(self) -> None:
        optional = ("vocab_size", "d_ff", "num_kv_heads")
        needed = ("context_length", "d_model", "num_layers", "num_heads")
        for name in (*needed, *optional, "rope_original_context_length"):
            value = getattr(self, name)
            if value is None and name in optional:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"model.{name} must be a whole number from 1, not {value!r}")
            if value > (most := _MOST.get(name, _LARGEST)):
                raise UsageError(f"model.{name} must be at most {most:,}, not {value:,}")

    def _check_heads(self) -> None:
        if self.d_model % self.num_heads:
            raise UsageError(
                f"model.d_model = {self.d_model} is not divisible by "
                f"model.num_heads = {self.num_heads}"
            )
        if self.positions == "rope" and self.d_head % 2:
            raise UsageError(
                f"model.d_model / model.num_heads = {self.d_head} is odd; RoPE rotates pairs, "
                "so a head needs an even size"
            )
        if self.num_heads % self.kv_heads:
            raise UsageError(
                f"model.num_kv_heads = {self.kv_heads} does not divide "
                f"model.num_heads = {self.num_heads}: each is shared by equally many heads"
            )

    def _check_rope_scaling(self) -> None:
        if self.rope_scaling == "none":
            return
        if self.positions != "rope":
            raise UsageError(
                f"model.rope_scaling = {self.rope_scaling} needs model.positions = rope, not "
                f"{self.positions}: there is nothing to stretch"
            )
        if not 1 < self.rope_scaling_factor < math.inf:
            raise UsageError(
                f"model.rope_scaling = {self.rope_scaling} needs model.rope_scaling_factor above "
                f"1, not {self.rope_scaling_factor!r}: by how much is the context longer?"
            )
        low, high = self.rope_low_freq_factor, self.rope_high_freq_factor
        if self.rope_scaling == "llama3" and not 0 < low < high < math.inf:
            raise UsageError(
                f"model.rope_low_freq_factor = {low!r} must be above 0 and below "
                f"model.rope_high_freq_factor = {high!r}"
            )

    @property
    def d_head(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.num_heads

    @property
    def kv_heads(self) -> int:
        """``num_kv_heads``, or ``num_heads`` where it was left open."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def d_kv(self) -> int:
        """Width of the keys, and of the values, of all heads together."""
        return self.kv_heads * self.d_head

    @property
    def ffn_width(self) -> int:
        """``d_ff``, or the default for this ``d_model`` and ``ffn`` where it was left open."""
        return default_d_ff(self.d_model, self.ffn) if self.d_ff is None else self.d_ff

    @property
    def value_gate_width(self) -> int:
        """How many numbers of a token's vector decide on its value embedding."""
        return min(32, self.d_model)

    def has_value_embedding(self, layer: int) -> bool:
        """Whether block ``layer``, from 0, has a value embedding: every other one, and the last."""
        return self.value_embeddings and (self.num_layers - 1 - layer) % 2 == 0

    def resolved(self, vocab_size: int | None = None) -> ModelConfig:
        """The same with every value that was left open filled in (by ``vocab_size`` its own)."""
        return dataclasses.replace(
            self,
            vocab_size=self.vocab_size if vocab_size is None else vocab_size,
            d_ff=self.ffn_width,
            num_kv_heads=self.kv_heads,
        )


def default_d_ff(d_model: int, ffn: str = "swiglu") -> int:
    """How wide a feed-forward network is: 4 d_model with two matrices.

    With SwiGLU's three it is 8/3 of ``d_model``, rounded to the nearest multiple of 64 (which
    hardware likes), and so has as many parameters (Shazeer 2020, "GLU Variants Improve
    Transformer", section 2).
    """
    if ffn != "swiglu":
        return 4 * d_model
    return max(64, 64 * round(8 * d_model / 3 / 64))
