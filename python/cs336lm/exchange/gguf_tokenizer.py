"""A tokenizer inside a GGUF file: tokens by id, their types, merges, and the pattern by a name.

llama.cpp splits text with patterns of its own, which a file chooses by a name
(``tokenizer.ggml.pre``): what it has no name for cannot be written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from cs336lm.errors import UsageError
from cs336lm.generation.engine import END_OF_TEXT
from cs336lm.text.conversions import special_ids

if TYPE_CHECKING:
    from cs336lm.text.tokenizer import Tokenizer


class Pre(NamedTuple):
    """What llama.cpp calls a pattern, and where its own differs from it."""

    name: str
    differs: str | None = None


PRES = {
    "gpt2": Pre("gpt-2"),
    # Of the names for cl100k_base's pattern, one that neither adds a token before each text nor
    # takes words whole.
    "gpt4": Pre(
        "dbrx",
        "llama.cpp ends a token at the last line break of the spaces that end a text; here, as in "
        "tiktoken, they are one token",
    ),
    "gpt4o": Pre(
        "gpt-4o",
        "llama.cpp tells capital from small letters in ASCII alone, and knows no combining marks: "
        "other scripts may be split otherwise",
    ),
    # Not "llama-bpe", under which llama.cpp takes words whole and begins each text with a token.
    "llama3": Pre("dbrx"),
    "qwen2": Pre("qwen2"),
    "starcoder": Pre("starcoder"),
}


def add_tokenizer(gguf: Any, writer: Any, tokenizer: Tokenizer | None) -> list[str]:
    """Adds the tokenizer to a file that is being written; returns what the user should know.

    Raises ``UsageError`` if llama.cpp has no name for the pattern, and ``ValueError`` if it would
    find other ids, or no end of a text.
    """
    if tokenizer is None:
        writer.add_tokenizer_model("none")
        return ["the run has no tokenizer/, so none was written: the model takes ids alone"]
    if tokenizer.pattern not in PRES:
        raise UsageError(
            f"llama.cpp has no name for the pattern {tokenizer.pattern!r}: GGUF holds the patterns "
            f"{', '.join(PRES)}"
        )
    if tokenizer.whole_words_first:
        raise ValueError(
            "the tokenizer takes words that are tokens whole, whatever the merges make of them, "
            "which llama.cpp does not do for its pattern"
        )
    special = special_ids(tokenizer)
    if END_OF_TEXT not in special:
        raise ValueError(
            f"the tokenizer has no {END_OF_TEXT}: llama.cpp would take the id 11 for the end of a "
            "text"
        )
    pre = PRES[tokenizer.pattern]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre.name)
    tokens, types = _tokens(gguf, tokenizer, set(special.values()))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([f"{_spell(left)} {_spell(right)}" for left, right in tokenizer.merges])
    writer.add_bos_token_id(special[END_OF_TEXT])
    writer.add_eos_token_id(special[END_OF_TEXT])
    writer.add_add_bos_token(False)
    return [] if pre.differs is None else [pre.differs]


def _tokens(gguf: Any, tokenizer: Tokenizer, special: set[int]) -> tuple[list[str], list[int]]:
    """Every id's token as GGUF spells it, and its type; ids of no token are unused."""
    kinds = gguf.TokenType
    tokens = [f"[PAD{id}]" for id in range(tokenizer.vocab_size)]
    types = [int(kinds.UNUSED)] * len(tokens)
    for id, token in tokenizer.vocab.items():
        tokens[id] = token.decode() if id in special else _spell(token)
        types[id] = int(kinds.CONTROL if id in special else kinds.NORMAL)
    return tokens, types


def _spell(token: bytes) -> str:
    return token.decode("latin-1").translate(_ALPHABET)


def _alphabet() -> dict[int, int]:
    """GPT-2's: bytes that print stand for themselves, the others for characters from 256 on."""
    prints = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in prints]
    return {byte: 256 + place for place, byte in enumerate(others)}


_ALPHABET = _alphabet()
