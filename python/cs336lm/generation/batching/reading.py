"""Prompts, and windows that have moved, are read: many tokens of a few sequences at once.

What is read is a piece of a sequence of at most ``context_length`` tokens. Pieces are padded to a
few lengths, and those of one length are read together. Usually it is a whole prompt, or the window
on its end; where the prompt's tokens are scored and it is longer than the context, there is a
piece for each window that one of them is predicted through.
"""

from collections.abc import Sequence as Several
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cs336lm.generation.batching.buckets import rows_for, tile_of, tiled
from cs336lm.generation.batching.decoding import logits_of
from cs336lm.generation.batching.request import PromptToken
from cs336lm.generation.batching.scores import token_scores
from cs336lm.generation.batching.sequence import Prompt
from cs336lm.generation.engine import window_start
from cs336lm.model.kv_cache import KVCache
from cs336lm.model.transformer import TransformerLM

_SCORED_LOGITS = 1 << 24
"""How many logits of a prompt exist at once while it is scored: 64 MB of them."""


class Piece(NamedTuple):
    """What is read at once of a sequence."""

    prompt: Prompt
    ids: list[int]
    """The window's tokens."""
    start: int
    """Where in the sequence it begins."""
    scored: range
    """Which tokens of the prompt it predicts, by their place in the sequence."""
    is_last: bool
    """Whether the sequences go on from here."""


def pieces_of(prompt: Prompt, context_length: int) -> list[Piece]:
    """What must be read before ``prompt`` can be continued, and for its scores."""
    ids = [int(token) for token in prompt.request.prompt]
    last = window_start(len(ids), context_length)
    scored: dict[int, range] = {}
    if prompt.request.prompt_logprobs is not None:
        for place in range(1, len(ids)):
            start = window_start(place, context_length)
            first = scored[start].start if start in scored else place
            scored[start] = range(first, place + 1)
    if prompt.request.max_new_tokens:
        scored.setdefault(last, range(0))
    goes_on = prompt.request.max_new_tokens > 0
    return [
        Piece(
            prompt,
            ids[start:] if goes_on and start == last else ids[start : places.stop - 1],
            start,
            places,
            is_last=start == max(scored),
        )
        for start, places in scored.items()
    ]


class Read(NamedTuple):
    """What came of a piece that sequences go on from."""

    piece: Piece
    cache: Float[Tensor, "2 layers kv_heads span d_head"]
    logits: Float[Tensor, " vocab"]


class Reader:
    """Reads pieces with a model's own forward."""

    def __init__(self, model: TransformerLM, forbidden: Bool[Tensor, " vocab"] | None) -> None:
        self._model = model
        weight = next(p for p in model.parameters() if p.is_floating_point())
        self._device, self._dtype = weight.device, weight.dtype
        self._forbidden = forbidden
        self._tile = tile_of(model.config, is_fast=False)

    def __call__(self, pieces: Several[Piece], length: int) -> list[Read]:
        """Reads pieces of at most ``length`` tokens; scores go to their prompts."""
        rows = rows_for(len(pieces), length)
        ids = torch.zeros(rows, length, dtype=torch.int64)
        for row, piece in zip(ids, pieces, strict=False):
            row[: len(piece.ids)] = torch.tensor(piece.ids)
            # Behind, where no token looks, not any token but one of its own: if the vector of
            # another were NaN, that would be seen through every mask.
            row[len(piece.ids) :] = piece.ids[-1]
        cache = KVCache(self._model.config, rows, length, self._device, self._dtype)
        places = torch.arange(length, device=self._device).expand(rows, -1)
        hidden = self._model.hidden_states(ids.to(self._device), places, cache)
        for row, piece in enumerate(pieces):
            if piece.scored:
                self._score(piece, hidden[row])
        lasts = torch.tensor([len(piece.ids) - 1 for piece in pieces], device=self._device)
        ends = hidden[torch.arange(len(pieces), device=self._device), lasts]
        logits = self._logits(ends)
        return [
            Read(piece, cache.tensor[:, :, row, :, : len(piece.ids)], logits[row])
            for row, piece in enumerate(pieces)
            if piece.is_last
        ]

    def _score(self, piece: Piece, hidden: Float[Tensor, "length d_model"]) -> None:
        request = piece.prompt.request
        count = request.prompt_logprobs
        assert count is not None  # else nothing is scored
        assert piece.prompt.scores is not None
        at_once = max(1, _SCORED_LOGITS // self._model.token_embeddings.num_embeddings)
        for first in range(piece.scored.start, piece.scored.stop, at_once):
            places = range(first, min(first + at_once, piece.scored.stop))
            rows = hidden[places.start - 1 - piece.start : places.stop - 1 - piece.start]
            ids = [int(request.prompt[place]) for place in places]
            scores = token_scores(
                self._logits(rows),
                torch.tensor(ids, device=self._device),
                [count] * len(ids),
                self._forbidden,
            )
            piece.prompt.scores[places.start : places.stop] = [
                PromptToken(token, *score) for token, score in zip(ids, scores, strict=True)
            ]

    def _logits(self, hidden: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows vocab"]:
        """In tiles, as in decoding."""
        rows = len(hidden)
        padded = torch.nn.functional.pad(hidden, (0, 0, 0, tiled(rows, self._tile) - rows))
        return logits_of(self._model, padded)[:rows]
