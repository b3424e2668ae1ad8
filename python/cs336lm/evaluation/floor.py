"""What no model can be below on average: the entropy of the documents, where it is known.

The documents of ``cs336lm stories`` are drawn from a grammar whose entropy is known exactly, and so
is the probability of each story. A model's mean ``-log p`` of a story is above that entropy by the
Kullback-Leibler divergence of the model from the grammar (Gibbs' inequality), plus what the drawn
stories happen to have more or less than expected. The second part is known too: it is what the
grammar itself, a perfect model, would pay for these very stories. Above *that* is what the model
does not know, with far less scatter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

if TYPE_CHECKING:
    from cs336lm.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Floor:
    """The entropy of a document, and how far above it a model is. All figures are in nats."""

    source: str
    """``stories``, or ``given``."""
    nats_per_document: float
    """The entropy of a document."""
    excess_per_document: float
    """The model's mean of a document's sum, minus that."""
    excess_per_token: float
    """The same per token of a document."""
    excess_share: float
    """The excess as a share of the entropy: 0.02 is 2 % above what a perfect model would reach."""
    perfect_nats_per_document: float | None = None
    """What a perfect model would pay for these very documents, where that is known."""
    excess_share_of_perfect: float | None = None
    """How far the model is above that, as a share of it."""


class StoryReader:
    """Finds out whether documents are stories of the built-in corpus, and how probable ones."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.are_stories = True
        self.log_probability = 0.0

    def read(self, ids: npt.NDArray[Any]) -> None:
        """Reads a document, without what ends it; after one that is no story nothing is read."""
        if not self.are_stories:
            return
        from cs336lm.text.stories import log_probability

        # In a corpus each stands on lines of its own, between lines of <|endoftext|>.
        found = log_probability(self._tokenizer.decode(ids).strip("\n"))
        self.are_stories = math.isfinite(found)
        self.log_probability += found


def compare(
    nats: float, documents: int, tokens: int, *, given: float | None, reader: StoryReader | None
) -> Floor | None:
    """The floor of ``documents`` that cost a model ``nats`` together, if there is a known one."""
    if given is not None:
        return _floor("given", given, nats, documents, tokens, None)
    if reader is None or not reader.are_stories:
        return None
    from cs336lm.text.stories import entropy

    perfect = -reader.log_probability / documents
    return _floor("stories", entropy().nats_per_story, nats, documents, tokens, perfect)


def _floor(
    source: str, entropy: float, nats: float, documents: int, tokens: int, perfect: float | None
) -> Floor:
    mean = nats / documents
    return Floor(
        source=source,
        nats_per_document=entropy,
        excess_per_document=mean - entropy,
        excess_per_token=(nats - entropy * documents) / tokens,
        excess_share=mean / entropy - 1,
        perfect_nats_per_document=perfect,
        excess_share_of_perfect=mean / perfect - 1 if perfect else None,
    )
