"""How the two endpoints put the same texts: OpenAI's objects for completions and for chats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from cs336lm.serving.choices import Delta, Scored
    from cs336lm.serving.requests import Asked
    from cs336lm.serving.served_model import ServedModel

Object = dict[str, Any]

_LEAST = -9999.0
"""What JSON gets for a probability of nothing, as in OpenAI's answers."""


class Wording(Protocol):
    """An endpoint's form."""

    prefix: str
    whole_object: str
    chunk_object: str

    def choice(self, index: int, text: Delta, asked: Asked) -> Object:
        """A text as a whole."""

    def opening(self, index: int) -> Object | None:
        """What a stream says of a text before it begins."""

    def piece(self, index: int, new: Delta, asked: Asked) -> Object:
        """What a stream says of new text."""


class Completions:
    """``/v1/completions``: texts; log-probabilities side by side in arrays."""

    prefix = "cmpl"
    whole_object = chunk_object = "text_completion"

    def __init__(self, model: ServedModel) -> None:
        self._model = model

    def choice(self, index: int, text: Delta, asked: Asked) -> Object:
        """A text as a whole."""
        return {
            "text": text.text,
            "index": index,
            "logprobs": None if asked.logprobs is None else self._scores(text.scored, asked),
            "finish_reason": text.finish,
        }

    def opening(self, index: int) -> Object | None:
        """What a stream says of a text before it begins."""
        return None

    def piece(self, index: int, new: Delta, asked: Asked) -> Object:
        """What a stream says of new text."""
        return self.choice(index, new, asked)

    def _scores(self, scored: Sequence[Scored], asked: Asked) -> Object:
        spell = self._model.spell
        scores: Object = {
            "tokens": [spell(token.id) for token in scored],
            "token_logprobs": [_number(token.logprob) for token in scored],
            "top_logprobs": [self._top(token) for token in scored],
            "text_offset": [token.offset for token in scored],
        }
        if asked.token_ids:
            scores["token_ids"] = [token.id for token in scored]
            scores["top"] = [self._top_ids(token) for token in scored]
        return scores

    def _top(self, token: Scored) -> Object | None:
        if token.logprob is None:
            return None
        return {self._model.spell(i): _number(logprob) for i, logprob in with_chosen(token)}

    def _top_ids(self, token: Scored) -> list[Object] | None:
        """The same as a list: two tokens of a loaded vocabulary may have the same text."""
        if token.logprob is None:
            return None
        return [
            {"id": i, "token": self._model.spell(i), "logprob": _number(logprob)}
            for i, logprob in with_chosen(token)
        ]


class Chats:
    """``/v1/chat/completions``: messages; log-probabilities an object a token."""

    prefix = "chatcmpl"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(self, model: ServedModel) -> None:
        self._model = model

    def choice(self, index: int, text: Delta, asked: Asked) -> Object:
        """A text as a whole."""
        message = {"role": "assistant", "content": text.text, "refusal": None}
        return {
            "index": index,
            "message": message,
            "logprobs": self._scores(text.scored, asked),
            "finish_reason": text.finish,
        }

    def opening(self, index: int) -> Object | None:
        """What a stream says of a text before it begins."""
        delta = {"role": "assistant", "content": ""}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def piece(self, index: int, new: Delta, asked: Asked) -> Object:
        """What a stream says of new text."""
        return {
            "index": index,
            "delta": {"content": new.text} if new.text else {},
            "logprobs": self._scores(new.scored, asked),
            "finish_reason": new.finish,
        }

    def _scores(self, scored: Sequence[Scored], asked: Asked) -> Object | None:
        if asked.logprobs is None:
            return None
        content = [
            {
                **self._token(token.id, token.logprob, asked),
                "top_logprobs": [self._token(i, logprob, asked) for i, logprob in token.top],
            }
            for token in scored
        ]
        return {"content": content, "refusal": None}

    def _token(self, token: int, logprob: float | None, asked: Asked) -> Object:
        entry = {
            "token": self._model.spell(token),
            "logprob": _number(logprob),
            "bytes": list(self._model.vocab.get(token, b"")),
        }
        return {**entry, "token_id": token} if asked.token_ids else entry


def with_chosen(token: Scored) -> list[tuple[int, float]]:
    """The likeliest tokens, and the one that was taken if it is not among them."""
    top = list(token.top)
    if token.logprob is not None and all(i != token.id for i, _ in top):
        top.append((token.id, token.logprob))
    return top


def _number(logprob: float | None) -> float | None:
    return None if logprob is None else max(logprob, _LEAST)
