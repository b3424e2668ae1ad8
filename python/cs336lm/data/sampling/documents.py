"""Windows that begin where a document begins, filled up with the documents after it.

The first window begins with the file. The next one begins with the first document that did not end
within it, and so on: a document that fits into a window is whole in one of them, with nothing but
an end-of-text token before or whole documents, and nothing is padded. What the end of a window cuts
off comes again from its beginning in the next; only what a document has beyond ``context_length``
is never seen, and a user is told how much that is. (Packing whole documents is what Ding et al.
2024, *Fewer truncations improve language modeling*, and nanochat do, by putting together any
documents that fit; here those stay together that follow each other in the file, so that a window is
one piece of it. Attention is not cut between documents, as in the training of GPT-2 and 3.)

A window begins with the end-of-text token before its document, which is how `evaluate
--by-document` measures. Each is drawn once an epoch, in shuffled order.

**Memory.** The beginnings are found in one pass over the file. Of at most `_MOST_KEPT` of them,
evenly chosen, the positions are kept (32 MiB); those between are found again from there, by reading
on over as many windows as one kept position stands for (20 at most for 10^10 tokens and a context
of 256).
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cs336lm.data.dataset import TokenDataset
from cs336lm.data.documents import ends_of_documents
from cs336lm.data.sampling.permutation import ShuffledEpochs
from cs336lm.data.sampling.sampler import Sampler, Source

_MOST_KEPT = 1 << 22
_SCAN = 1 << 16  # tokens read at once where a document is longer than a window


def windows_of_documents(
    dataset: TokenDataset, token: int, context_length: int
) -> npt.NDArray[np.int64]:
    """Where all the windows of an epoch begin, in the order of the file: (windows,).

    Raises ``ValueError`` if the file holds no end of a document.
    """
    return np.sort(DocumentSampler(dataset, token, context_length, 0, 0).all_starts())


class DocumentSampler(Sampler):
    """See the module. Raises ``ValueError`` if the file holds no end of a document."""

    def __init__(
        self, dataset: TokenDataset, token: int, context_length: int, seed: int, part: int
    ) -> None:
        self._dataset = dataset
        self._token = token
        self._context_length = context_length
        index = _Index(len(dataset), context_length)
        for ends, read in ends_of_documents(dataset, token):
            index.add(ends, read)
        index.finish()
        if not index.documents:
            raise ValueError(
                f"{dataset.path} does not hold the token {token}, which is to end a document: "
                "data.sampling cannot be documents, or data.document_token is another"
            )
        self._kept, self._each = np.concatenate(index.kept), index.each
        self._index = index
        self.windows_per_epoch = index.windows
        self._epochs = ShuffledEpochs(index.windows, seed, part)
        index.kept = []

    @classmethod
    def from_source(cls, source: Source) -> Self:
        """Reads the file through."""
        dataset, token = source.dataset, source.document_token
        assert isinstance(dataset, TokenDataset)
        assert token is not None, "the configuration is checked before"
        return cls(dataset, token, source.context_length, source.seed, source.part)

    def starts(
        self, rows: npt.NDArray[np.int64], numbers: npt.NDArray[np.uint64]
    ) -> npt.NDArray[Any]:
        """The windows at these places of the epochs' orders."""
        windows = self._epochs.things(rows)
        places, ahead = np.divmod(windows, self._each)
        starts = self._kept[places]
        for row in np.flatnonzero(ahead):
            for _ in range(ahead[row]):
                starts[row] = self._after(int(starts[row]))
        return starts

    def all_starts(self) -> npt.NDArray[np.int64]:
        """Where the windows begin, every one once."""
        return self.starts(np.arange(self.windows_per_epoch or 0), np.zeros(0, np.uint64))

    def _after(self, start: int) -> int:
        """Where the window after the one at ``start`` begins."""
        context = self._context_length
        inside = np.flatnonzero(self._dataset[start + 1 : start + 1 + context] == self._token)
        if len(inside):
            return start + 1 + int(inside[-1])
        at = start + 1 + context
        while True:  # there is a next window, or nobody would ask
            inside = np.flatnonzero(self._dataset[at : at + _SCAN] == self._token)
            if len(inside):
                return at + int(inside[0])
            at += _SCAN

    def remarks(self) -> list[str]:
        """How many documents are cut, and how often a token is seen."""
        index, context = self._index, self._context_length
        tokens = len(self._dataset)
        average = index.windows * context / tokens
        length = index.lengths / index.documents
        return [
            f"{self._dataset.path}: {index.documents:,} documents, {length:,.0f} tokens each on "
            f"average, make {index.windows:,} windows an epoch, in which a token is seen "
            f"{average:.2f} times; {index.long:,} are longer than the context of {context:,} "
            f"tokens, and {index.unseen:,} tokens ({index.unseen / tokens:.2%}) are cut off"
        ]


class _Index:
    """Where windows begin, found while the ends of documents come in."""

    def __init__(self, tokens: int, context_length: int) -> None:
        self._context = context_length
        self._tokens = tokens
        self._last = tokens - 1 - context_length  # where a window can begin at the latest
        self._open = np.zeros(1, np.int64)  # beginnings from the latest window's on
        self._before = 0  # the end before
        self._reached = 0  # the last token that the windows found so far predict
        self.documents = self.long = self.lengths = 0
        self.unseen = 0  # tokens that no window predicts
        self.windows = 0
        self.kept: list[npt.NDArray[np.int64]] = []
        self._kept_count = 0
        self.each = 1  # one in so many windows is kept

    def add(self, ends: npt.NDArray[np.int64], read: int) -> None:
        """Takes the next ends of documents; the file has been read up to ``read``."""
        if len(ends):
            gaps = np.diff(ends, prepend=self._before)
            self.documents += len(ends)
            self.lengths += int(ends[-1] - self._before)
            self.long += int((gaps > self._context).sum())
            self._before = int(ends[-1])
            self._open = np.concatenate([self._open, ends[ends > 0]])
        self._settle(read)

    def finish(self) -> None:
        """The file has ended."""
        self._settle(None)
        self.unseen += self._tokens - 1 - self._reached

    def _settle(self, read: int | None) -> None:
        """Follows the windows as far as what comes after each is known."""
        begins = self._open
        after = np.searchsorted(begins, begins + self._context, side="right") - 1
        after = np.maximum(after, np.arange(1, len(begins) + 1))
        # The last window that is sure of all the documents that end within it.
        known = len(begins) if read is None else int(np.searchsorted(begins, read - self._context))
        follow, at, found = after.tolist(), 0, []
        while at < min(known, len(begins)) and begins[at] <= self._last:
            if read is not None and follow[at] >= len(begins):
                break  # the document is longer than what has been read
            found.append(at)
            at = follow[at]
        self._keep(begins[found])
        self._open = begins[at:]

    def _keep(self, starts: npt.NDArray[np.int64]) -> None:
        if not len(starts):
            return
        reached = np.concatenate([[self._reached], starts + self._context])
        self.unseen += int(np.maximum(starts - reached[:-1], 0).sum())
        self._reached = int(reached[-1])
        first = -self.windows % self.each
        self.windows += len(starts)
        self.kept.append(starts[first :: self.each])
        self._kept_count += len(self.kept[-1])
        while self._kept_count > _MOST_KEPT:
            self.kept = [np.concatenate(self.kept)[::2]]
            self._kept_count, self.each = len(self.kept[0]), 2 * self.each
