"""The model that a server serves: its tokenizer, its names for tokens, what ends its texts."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cs336lm.generation.engine import END_OF_TEXT, encode_prompt
from cs336lm.serving.api_error import ApiError, invalid

if TYPE_CHECKING:
    from cs336lm.serving.chat_template import ChatTemplate
    from cs336lm.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class ServedModel:
    """All that requests need to know of a model but its weights."""

    name: str
    """What requests call it."""
    tokenizer: Tokenizer
    vocab_size: int
    """Of the model: rows of logits. The tokenizer may have fewer ids."""
    context_length: int
    """Tokens that the model looks at together; a longer text is seen through a window."""
    chat_template: ChatTemplate | None = None
    end_ids: Collection[int] = ()
    """Ids that end a text, beside ``<|endoftext|>``."""
    created: int = field(default_factory=lambda: int(time.time()))

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """The ids that end a text."""
        end = self.tokenizer.token_to_id(END_OF_TEXT)
        known = END_OF_TEXT in self.tokenizer.special_tokens and end is not None
        return frozenset(self.end_ids) | ({end} if known and end is not None else set())

    @cached_property
    def vocab(self) -> dict[int, bytes]:
        """The tokenizer's, made once."""
        return self.tokenizer.vocab

    @property
    def special_tokens(self) -> Sequence[str]:
        """Texts that are one token each."""
        return self.tokenizer.special_tokens

    def check_name(self, name: str | None) -> None:
        """Refuses a request that names another model; None is whichever there is."""
        if name is not None and name != self.name:
            raise ApiError(
                404,
                f"there is no model {name[:100]!r} here; this server has {self.name!r}",
                param="model",
                code="model_not_found",
            )

    def encode(self, text: str, *, parse_special: bool) -> list[int]:
        """A prompt's ids; an empty one is the beginning of a document."""
        return encode_prompt(self.tokenizer, text, parse_special=parse_special)

    def check_ids(self, ids: Sequence[int], name: str) -> None:
        """Refuses ids that stand for no text."""
        vocab = self.vocab
        wrong = next((token for token in ids if token not in vocab), None)
        if wrong is not None:
            raise invalid(f"{name}: {wrong} is no token of this tokenizer", name)

    def spell(self, token: int) -> str:
        """A token's text; ``bytes:\\xe2\\x82`` where it is no whole text, as OpenAI writes it.

        So different tokens are spelled differently.
        """
        return spell_bytes(self.vocab.get(token, b""))

    def description(self) -> dict[str, Any]:
        """The model in OpenAI's list of models."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "cs336lm",
            "max_model_len": self.context_length,
        }


def spell_bytes(token: bytes) -> str:
    """A token's bytes as text, or each of them in hexadecimal."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)
