"""What a client sees of one text as its tokens come: characters, log-probabilities, the end.

Characters are shown when they are whole and sure to stay (bytes that are no character yet, and what
may be the beginning of a stop, wait), and the log-probabilities of tokens with the first character
that comes after them. A token's ``offset`` is where its text begins, in characters.
"""

from __future__ import annotations

import codecs
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cs336lm.generation.text_stream import TextStream
from cs336lm.serving.served_model import ServedModel

if TYPE_CHECKING:
    from cs336lm.generation.batching import Token

Top = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Scored:
    """A token of a text with its log-probability and the likeliest ones in its place."""

    id: int
    logprob: float | None
    """None for a prompt's first token, which nothing predicts."""
    top: Top
    offset: int


@dataclass
class Delta:
    """What is new of a text."""

    text: str = ""
    scored: list[Scored] = field(default_factory=list)
    finish: str | None = None
    """``stop`` or ``length``, once."""

    @property
    def says_something(self) -> bool:
        """Whether there is anything to send."""
        return bool(self.text or self.scored or self.finish)


class Choice:
    """One text.

    Args:
        model: whose tokens they are.
        stops: texts that end it.
        stop_ids: tokens that do, where the engine was not told of them.
        scored: whether log-probabilities are wanted.
        offset: where it begins, in characters: after an echoed prompt.
    """

    def __init__(
        self,
        model: ServedModel,
        stops: Sequence[str],
        stop_ids: Collection[int] = (),
        *,
        scored: bool,
        offset: int = 0,
    ) -> None:
        self._model = model
        self._stream = TextStream(model.tokenizer, stops)
        self._stop_ids = stop_ids
        self._wants_scores = scored
        self._places = _Places(model, offset)
        self._held: list[Scored] = []
        self._shown = offset
        self.tokens = 0
        """That the model has drawn, the one that ended the text included."""
        self.has_ended = False

    def push(self, token: Token) -> Delta:
        """What a token adds. A text that a stop has ended takes no more."""
        delta = Delta()
        is_end = token.finish == "stop" or token.id in self._stop_ids
        self.tokens += is_end or token.id is not None
        if token.id is not None:
            self._hold(token)
            if not is_end:
                delta.text = self._stream.push(token.id)
        stopped = self._stream.ended  # by one of its stops
        if stopped:
            delta.finish = "stop"
        elif is_end or token.finish is not None:
            delta.text += self._stream.end()
            delta.finish = "stop" if is_end else "length"
        self._shown += len(delta.text)
        if delta.finish is not None:
            self.has_ended = True
            # Of the tokens of a stop, which is not shown, nothing is told.
            delta.scored = [s for s in self._held if not stopped or s.offset < self._shown]
        elif delta.text:
            delta.scored, self._held = self._held, []
        return delta

    def _hold(self, token: Token) -> None:
        assert token.id is not None
        offset = self._places.push(token.id)
        if self._wants_scores:
            self._held.append(Scored(token.id, token.logprob, token.top or (), offset))


class _Places:
    """Where the text of each token begins, in characters."""

    def __init__(self, model: ServedModel, start: int) -> None:
        self._vocab = model.vocab
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._at = start

    def push(self, token: int) -> int:
        place = self._at
        self._at += len(self._utf8.decode(self._vocab.get(token, b"")))
        return place


def scored_prompt(
    model: ServedModel, tokens: Sequence[tuple[int, float | None, Top]]
) -> list[Scored]:
    """A prompt's tokens, each with its place."""
    places = _Places(model, 0)
    return [Scored(token, logprob, top, places.push(token)) for token, logprob, top in tokens]
