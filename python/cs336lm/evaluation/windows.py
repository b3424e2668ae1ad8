"""Which tokens are predicted from which: windows that slide over a row of tokens.

The first window predicts ``context_length`` tokens. Each further one begins ``stride`` tokens
later, and only what the one before did not predict counts: so each token counts once and, from the
second window on, has more than ``context_length - stride`` tokens before it. (The recipe of Hugging
Face's guide to the perplexity of fixed-length models.) With a stride of ``context_length`` the
windows stand side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple, TypeVar

from cs336lm.errors import UsageError

T = TypeVar("T")


class Window(NamedTuple):
    """``length`` tokens from ``start`` on predict as many, and all but the first ``known`` are new.

    ``row`` is what the window is a part of: the number of a document, for instance.
    """

    start: int
    length: int
    known: int = 0
    row: int = 0


def sliding_windows(
    start: int, predicted: int, context_length: int, stride: int, row: int = 0
) -> Iterator[Window]:
    """The windows that predict the ``predicted`` tokens after the one at ``start``, each once."""
    done = begin = 0
    while done < predicted:
        length = min(context_length, predicted - begin)
        yield Window(start + begin, length, done - begin, row)
        done, begin = begin + length, begin + stride


def check_stride(stride: int | None, context_length: int, default: int) -> int:
    """``stride``, or the ``default`` if it is None; a ``UsageError`` if it leaves tokens out."""
    if stride is None:
        return default
    if not 1 <= stride <= context_length:
        raise UsageError(
            f"a stride of {stride} is impossible: it must be from 1 to the model's context_length "
            f"of {context_length}"
        )
    return stride


def in_groups(things: Iterable[T], size: int) -> Iterator[list[T]]:
    """``things`` in lists of ``size``, the last one shorter."""
    them = iter(things)
    while group := list(islice(them, size)):
        yield group
