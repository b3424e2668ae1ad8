"""From logits to the next token: temperature, top-k, top-p, and the draw, all on the device."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cs336lm.errors import UsageError
from cs336lm.model.functional import at_least_float32, softmax


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen. Impossible values are refused with a ``UsageError``."""

    temperature: float = 1.0
    """Divides the logits: below 1 the likely becomes likelier; 0 always takes the likeliest."""
    top_p: float = 1.0
    """Draw among the fewest tokens that have this much probability together (nucleus sampling;
    Holtzman et al. 2020). 1 is all of them."""
    top_k: int | None = None
    """Draw among the k likeliest only (before top_p). None is all of them."""
    seed: int | None = None
    """Of the random numbers; None for a new one each time."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UsageError(f"temperature must be 0 or more, not {self.temperature!r}")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p must be above 0 and at most 1, not {self.top_p!r}")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top_k must be at least 1, not {self.top_k!r}")


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
        self.params = params
        self.forbidden = None if allowed is None or bool(allowed.all()) else ~allowed.to(device)
        self.generator = torch.Generator(device)
        if params.seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(params.seed)

    def __call__(self, logits: Float[Tensor, "batch vocab"]) -> Int[Tensor, " batch"]:
        """One token id per row."""
        if self.forbidden is not None:
            logits = logits.masked_fill(self.forbidden, -torch.inf)
        if self.params.temperature == 0:
            return logits.argmax(-1)
        weights = softmax(
            self._keep_top(at_least_float32(logits) / self.params.temperature), dim=-1
        )
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
            logits = logits.masked_fill(logits < least, -torch.inf)
        if top_p < 1:
            ordered, order = logits.sort(dim=-1, descending=True)
            shares = softmax(ordered, dim=-1)
            # What stands before a token decides, so the first is always in.
            outside = shares.cumsum(-1) - shares >= top_p
            outside = torch.zeros_like(outside).scatter_(-1, order, outside)
            logits = logits.masked_fill(outside, -torch.inf)
        return logits
