"""What is asked of the engine, and what it tells."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from cs336lm.errors import UsageError
from cs336lm.generation.sampling import SamplingParams

Finish = Literal["stop", "length", "error"]
"""A stop id came; all tokens that were asked for are there; the logits were no numbers."""

Top = list[tuple[int, float]]
"""The likeliest tokens and their log-probabilities, the likeliest first."""


@dataclass(frozen=True)
class Request:
    """One prompt to be continued, once or several times.

    Log-probabilities are the model's own, natural logarithms of the softmax of its logits in
    float32, before temperature, penalties and bias.
    """

    prompt: Sequence[int]
    """Token ids, at least one."""
    max_new_tokens: int
    """Where a continuation ends if no stop comes before; 0 where only the prompt is scored."""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    """How tokens are chosen; its seed makes them a function of (seed, sample, how many before)."""
    n: int = 1
    """How many continuations: the prompt is read once, each draws for itself."""
    stop_ids: frozenset[int] = frozenset()
    """Tokens that end a continuation and are no part of it."""
    logprobs: int | None = None
    """For each new token its log-probability and those of so many likeliest; None for none."""
    prompt_logprobs: int | None = None
    """The same for the prompt's tokens but the first, predicted through the windows that
    generating them would have had."""

    def __post_init__(self) -> None:
        if not len(self.prompt):
            raise UsageError("a prompt without any token cannot be continued")
        if self.max_new_tokens < 0:
            raise UsageError(f"max_new_tokens must not be negative: {self.max_new_tokens}")
        if self.n < 1:
            raise UsageError(f"n must be at least 1, not {self.n}")
        for name in ("logprobs", "prompt_logprobs"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UsageError(f"{name} must not be negative: {value}")


class PromptToken(NamedTuple):
    """A token of a prompt, and how likely the model found it."""

    id: int
    logprob: float | None
    """None for the first, which nothing predicts."""
    top: Top | None
    """As many likeliest as were asked for; None for the first."""


class Token(NamedTuple):
    """What has happened to a sequence: usually that it has one more token."""

    sequence: int
    """The number that ``add`` gave it."""
    id: int | None = None
    """None where there is no new token: only an end, or the prompt's scores, to tell."""
    logprob: float | None = None
    """Of the token, if the request asked."""
    top: Top | None = None
    """The likeliest in its place, of those that may be chosen, if the request asked."""
    prompt: list[PromptToken] | None = None
    """The prompt's scores, once, with the first event, if the request asked."""
    finish: Finish | None = None
    """Set in a sequence's last event."""
    message: str | None = None
    """What was wrong, with ``finish`` "error"."""
