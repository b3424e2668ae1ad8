"""Documents in a row of tokens: what stands between end-of-text tokens.

A document is the tokens after one end-of-text token up to the next one, which belongs to it; the
first begins with the file. So a newline that a text file has after ``<|endoftext|>`` begins the
next document, and what stands after the last end-of-text token is a document that is not finished.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cs336lm.data.dataset import TokenDataset
from cs336lm.errors import UsageError

if TYPE_CHECKING:
    from cs336lm.text.tokenizer import Tokenizer

END_OF_TEXT = "<|endoftext|>"


def ends_of_documents(
    dataset: TokenDataset, token: int
) -> Iterator[tuple[npt.NDArray[np.int64], int]]:
    """(positions of the end-of-text ``token``, how far was read), a part of the file at a time.

    One pass, in the memory of a part; a part without any gives an empty array.
    """
    for start, block in dataset.blocks():
        yield np.flatnonzero(block == token) + start, start + len(block)


def document_token(asked: int | None, tokenizer: Tokenizer | None, flag: str) -> int:
    """The id that ends a document: ``asked``, or the tokenizer's ``<|endoftext|>``.

    Raises ``UsageError``, naming the ``flag`` by which to say it, if neither is there.
    """
    if asked is not None:
        return asked
    found = tokenizer.token_to_id(END_OF_TEXT) if tokenizer is not None else None
    if found is None:
        missing = (
            "is no tokenizer" if tokenizer is None else f"is no {END_OF_TEXT} in the tokenizer"
        )
        raise UsageError(
            f"there {missing} to say which token ends a document: give its id by {flag}"
        )
    return found
