"""One continuation: its tokens, its random numbers, and where its keys and values are."""

from __future__ import annotations

import secrets

from torch import Tensor

from cs336lm.generation.batching.random_streams import stream_key
from cs336lm.generation.batching.request import PromptToken, Request


class Prompt:
    """What is to be read for one or several sequences, and the scores that come of it."""

    def __init__(self, request: Request, sequences: list[Sequence]) -> None:
        self.request = request
        self.sequences = sequences
        self.scores: list[PromptToken] | None = None
        """Of the prompt's tokens, if the request asks for them, as far as they have been read."""
        if request.prompt_logprobs is not None:
            self.scores = [PromptToken(int(token), None, None) for token in request.prompt]


def new_prompt(request: Request, first_number: int) -> Prompt:
    """A request's prompt, with its sequences numbered from ``first_number``."""
    seed = request.sampling.seed
    seed = secrets.randbits(64) if seed is None else seed
    sequences = [
        Sequence(first_number + sample, request, stream_key(seed, sample))
        for sample in range(request.n)
    ]
    return Prompt(request, sequences)


class Sequence:
    """A continuation of a prompt, from its request to its end."""

    def __init__(self, number: int, request: Request, key: int) -> None:
        self.number = number
        self.request = request
        self.key = key
        """Which random numbers are its own."""
        self.ids = [int(token) for token in request.prompt]
        self.is_running = False
        """Whether it has a place in the batch."""
        self.capacity: int | None = None
        """That of the pool where its keys and values are; None while they are being read."""
        self.row = 0
        """Where in that pool."""
        self.bias: Tensor | None = None
        """(vocab,) float32: what is added to its logits, penalties so far included."""
        self.prompt_scores: list[PromptToken] | None = None
        """To be told with the next event."""

    @property
    def generated(self) -> int:
        """How many new tokens there are."""
        return len(self.ids) - len(self.request.prompt)
