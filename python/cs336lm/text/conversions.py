"""Tokenizers as live objects of tiktoken and of Hugging Face's ``tokenizers``, and back.

Neither package is needed for anything else, so each is imported where an object of it is made. All
that decides about ids goes along: vocabulary, merges, special tokens, pattern. What the other side
could not hold is refused, by name, rather than lost.
"""

from __future__ import annotations

import base64
import tempfile
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from cs336lm import _bpe
from cs336lm.errors import UsageError

if TYPE_CHECKING:
    import tiktoken
    import tokenizers

T = TypeVar("T")


class Tokenizer(Protocol):
    """What is needed of :class:`~cs336lm.text.tokenizer.Tokenizer`, which is made of this file."""

    @property
    def vocab(self) -> dict[int, bytes]: ...  # noqa: D102
    @property
    def merges(self) -> list[tuple[bytes, bytes]]: ...  # noqa: D102
    @property
    def special_tokens(self) -> list[str]: ...  # noqa: D102
    @property
    def pattern(self) -> str: ...  # noqa: D102
    @property
    def whole_words_first(self) -> bool: ...  # noqa: D102
    def token_to_id(self, token: str | bytes) -> int | None: ...  # noqa: D102
    def save(self, directory: str) -> None: ...  # noqa: D102
    @classmethod
    def load(cls, path: Path, *, pattern: str | None = None) -> Self: ...  # noqa: D102


# As tiktoken 0.12 and later spell their own; each is matched by the same engine as the pattern.
TIKTOKEN_PATTERNS = {
    "gpt2": r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s""",
    "gpt4": (
        r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"""
        r"""| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"""
    ),
    "gpt4o": "|".join(
        (
            r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"""
            r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
            r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"""
            r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
            r"""\p{N}{1,3}""",
            r""" ?[^\s\p{L}\p{N}]+[\r\n/]*""",
            r"""\s*[\r\n]+""",
            r"""\s+(?!\S)""",
            r"""\s+""",
        )
    ),
}


def to_tiktoken(tokenizer: Tokenizer, name: str) -> tiktoken.Encoding:
    """See :meth:`~cs336lm.text.tokenizer.Tokenizer.to_tiktoken`."""
    try:
        import tiktoken
    except ModuleNotFoundError:
        raise UsageError("it needs the package tiktoken: pip install tiktoken") from None

    special = special_ids(tokenizer)
    _refuse_ambiguous(special)
    ranks = tiktoken_ranks(tokenizer)
    return tiktoken.Encoding(
        name,
        pat_str=_pattern_for_tiktoken(tokenizer.pattern),
        mergeable_ranks=ranks,
        special_tokens=special,
    )


def from_tiktoken(load: Callable[..., T], encoding: tiktoken.Encoding) -> T:
    """See :meth:`~cs336lm.text.tokenizer.Tokenizer.from_tiktoken`."""
    special = dict(sorted(encoding._special_tokens.items(), key=lambda token: token[1]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "live.tiktoken"  # no name that says anything else about it
        path.write_bytes(tiktoken_lines(encoding._mergeable_ranks))
        pattern = _without_gaps(encoding._pat_str)
        return _loaded(load, path, f"the encoding {encoding.name!r}", special, pattern)


def to_hugging_face(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """See :meth:`~cs336lm.text.tokenizer.Tokenizer.to_hf`."""
    try:
        import tokenizers
    except ModuleNotFoundError:
        raise UsageError("it needs the package tokenizers: pip install 'cs336lm[hf]'") from None

    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        return tokenizers.Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))


def from_hugging_face(load: Callable[..., T], theirs: Any) -> T:
    """See :meth:`~cs336lm.text.tokenizer.Tokenizer.from_hf`."""
    backend = getattr(theirs, "backend_tokenizer", theirs)
    if not hasattr(backend, "to_str"):
        raise TypeError(
            f"expected a tokenizers.Tokenizer or a fast tokenizer of transformers, not "
            f"{type(theirs).__name__}"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(backend.to_str(), encoding="utf-8")
        return _loaded(load, path, f"the {type(theirs).__name__}", None, None)


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """The special tokens and their ids."""
    ids = {token: tokenizer.token_to_id(token) for token in tokenizer.special_tokens}
    return {token: number for token, number in ids.items() if number is not None}


def tiktoken_ranks(tokenizer: Tokenizer) -> dict[bytes, int]:
    """The tokens that are not special, and their ids, which tiktoken takes for ranks of merging.

    Raises ``ValueError`` if merging by them would give other ids than the tokenizer's merges.
    """
    special = set(special_ids(tokenizer).values())
    ranks = {token: id for id, token in tokenizer.vocab.items() if id not in special}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ranks.tiktoken"
        path.write_bytes(tiktoken_lines(ranks))
        again = type(tokenizer).load(path, pattern="gpt2")
    # An id more than tiktoken's ranks make is not reached there either.
    same_words = again.whole_words_first == tokenizer.whole_words_first
    if again.merges != tokenizer.merges or not same_words:
        raise ValueError(
            "tiktoken merges by ids, and the merges of this tokenizer do not follow from its ids: "
            "save it in Hugging Face's format"
        )
    return ranks


def tiktoken_lines(ranks: dict[bytes, int]) -> bytes:
    """The content of a ``.tiktoken`` file."""
    lines = sorted(ranks.items(), key=lambda entry: entry[1])
    return b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in lines)


# What stands between expressions that cut one after the other (``text/custom.rs``).
_THEN = "(?#then)"

# tiktoken drops what a pattern leaves unmatched; here it is a pretoken like any other.
_GAP = "|(?s:(?:(?!{}).)+)"


def _pattern_for_tiktoken(pattern: str) -> str:
    """The regular expression to give tiktoken for a pattern's name, or for one without a name."""
    if _THEN in pattern:
        raise ValueError(
            "tiktoken takes one regular expression, and this tokenizer's pattern is several that "
            "cut one after the other: save it in Hugging Face's format"
        )
    known = dict(_bpe.known_patterns()) | TIKTOKEN_PATTERNS  # these leave nothing unmatched
    return known.get(pattern) or _with_gaps(pattern)


def _with_gaps(pattern: str) -> str:
    """The pattern, or else all up to where it matches again."""
    return pattern + _GAP.format(pattern)


def _without_gaps(pattern: str) -> str:
    """The inverse of :func:`_with_gaps`; a pattern of others is left alone."""
    own = pattern[: (len(pattern) - len(_GAP.format(""))) // 2]
    return own if own and _with_gaps(own) == pattern else pattern


def _refuse_ambiguous(special: dict[str, int]) -> None:
    """tiktoken takes any of two special tokens that begin alike; here the longest is taken."""
    names = sorted(special)
    for first, second in pairwise(names):
        if second.startswith(first):
            raise ValueError(
                f"tiktoken cannot tell the special token {first!r} from {second!r}, which begins "
                "with it"
            )


def _loaded(
    load: Callable[..., T],
    path: Path,
    name: str,
    special: dict[str, int] | None,
    pattern: str | None,
) -> T:
    """What :meth:`Tokenizer.load` makes of a file that nobody has seen; errors call it ``name``."""
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            loaded = load(path, special, pattern=pattern)
    except ValueError as error:
        raise ValueError(str(error).replace(str(path), name)) from None
    for warning in warned:
        warnings.warn(str(warning.message).replace(str(path), name), stacklevel=4)
    return loaded
