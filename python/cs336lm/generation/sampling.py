"""From logits to the next token: temperature, top-k, top-p, and the draw, all on the device."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cs336lm.errors import UsageError
from cs336lm.model.functional import at_least_float32, softmax

NO_TOKEN = -1
"""What is drawn from logits of which no token is the likeliest: NaN, infinite, or all forbidden."""

_GREEDY_BELOW = 1e-8
"""A temperature at which no two different float32 logits of ordinary size share the probability:
from here on only rounding and ties could tell the draw from the likeliest token."""


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen. Impossible values are refused with a ``UsageError``."""

    temperature: float = 1.0
    """Divides the logits: below 1 the likely becomes likelier; 0, and what is next to nothing,
    always takes the likeliest (the first of several)."""
    top_p: float = 1.0
    """Draw among the fewest tokens that have this much probability together (nucleus sampling;
    Holtzman et al. 2020). 1 is all of them."""
    top_k: int | None = None
    """Draw among the k likeliest only (before top_p), of equals the first. None is all of them."""
    seed: int | None = None
    """Of the random numbers; None for a new one each time."""
    presence_penalty: float = 0.0
    """Subtracted from the logit of every token that the continuation has already. Penalties and
    ``logit_bias`` are for :mod:`cs336lm.generation.batching`; they change the logits before the
    temperature does."""
    frequency_penalty: float = 0.0
    """Subtracted as often as the continuation has the token (both as OpenAI defines them)."""
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    """By id, what is added to its logit."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UsageError(f"temperature must be 0 or more, not {self.temperature!r}")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p must be above 0 and at most 1, not {self.top_p!r}")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top_k must be at least 1, not {self.top_k!r}")
        if self.seed is not None and not -(1 << 63) <= self.seed < 1 << 64:
            raise UsageError(f"seed {self.seed} is impossible: it must fit in 64 bits")
        for name in ("presence_penalty", "frequency_penalty"):
            if not math.isfinite(getattr(self, name)):
                raise UsageError(f"{name} must be a finite number, not {getattr(self, name)!r}")
        for token, bias in self.logit_bias.items():
            if not math.isfinite(bias):
                raise UsageError(f"logit_bias of token {token} must be finite, not {bias!r}")

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always taken, and nothing is drawn."""
        return self.temperature < _GREEDY_BELOW or self.top_k == 1

    @property
    def has_penalties(self) -> bool:
        """Whether logits depend on the tokens generated so far."""
        return bool(self.presence_penalty or self.frequency_penalty)


class Sampler:
    """Draws one token per row of logits; the same seed draws the same tokens again.

    Args:
        params: how to draw.
        device: where the logits will be.
        allowed: (vocab,), False for ids that must never be drawn.
    """

    def __init__(
        self,
        params: SamplingParams,
        device: torch.device | str = "cpu",
        allowed: Bool[Tensor, " vocab"] | None = None,
    ) -> None:
        if params.has_penalties or params.logit_bias:
            raise UsageError(
                "penalties and logit_bias are not for this sampler: use generation.batching"
            )
        self.params = params
        self.forbidden = None if allowed is None or bool(allowed.all()) else ~allowed.to(device)
        self.generator = torch.Generator(device)
        if params.seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(params.seed)

    def __call__(self, logits: Float[Tensor, "batch vocab"]) -> Int[Tensor, " batch"]:
        """One token id per row, or ``NO_TOKEN``; the host does not wait for it."""
        if self.forbidden is not None:
            logits = logits.masked_fill(self.forbidden, -torch.inf)
        greatest, likeliest = logits.max(-1)  # the first of several; a NaN is the greatest
        drawn = likeliest if self.params.is_greedy else self._draw(logits, greatest)
        # What is not finite is not 0 when it is taken from itself: two operations for five.
        return drawn.masked_fill(greatest - greatest != 0, NO_TOKEN)

    def _draw(self, logits: Tensor, greatest: Tensor) -> Tensor:
        """One token id per row, at random."""
        # The greatest becomes 0 first: no quotient overflows but those of improbable tokens, to
        # -inf. An infinite greatest makes NaN here, and is no token in the end.
        wide = at_least_float32(logits) - at_least_float32(greatest).unsqueeze(-1)
        weights = softmax(self._keep_top(wide / self.params.temperature), dim=-1)
        # The least of exponential variables with rates w_i is the i-th with probability w_i: a
        # draw without the normalisation, the search, and torch.multinomial's look at the weights,
        # for which the host would have to wait. A zero must not meet a zero.
        waits = torch.empty_like(weights).exponential_(generator=self.generator)
        return (weights / waits.clamp_min_(torch.finfo(waits.dtype).tiny)).argmax(-1)

    def _keep_top(self, logits: Tensor) -> Tensor:
        """``logits`` with -inf for every token outside the top k or the top p."""
        top_k, top_p = self.params.top_k, self.params.top_p
        if top_k is not None and top_k < logits.shape[-1]:
            least = logits.topk(top_k, dim=-1).values[..., -1:]
            above, equal = logits > least, logits == least
            # Of those that equal the k-th, the first: as many as make up k.
            room = top_k - above.sum(-1, keepdim=True)
            kept = above | (equal & (equal.cumsum(-1, dtype=torch.int32) <= room))
            logits = logits.masked_fill(~kept, -torch.inf)
        if top_p < 1:
            ordered, order = logits.sort(dim=-1, descending=True, stable=True)
            shares = softmax(ordered, dim=-1)
            # What stands before a token decides, so the first is always in.
            outside = shares.cumsum(-1) - shares >= top_p
            outside = torch.zeros_like(outside).scatter_(-1, order, outside)
            logits = logits.masked_fill(outside, -torch.inf)
        return logits
