"""A file of token ids as one row, however many shards it is written in, and however long.

The files are memory-mapped: a terabyte opens at once, and only what is read is loaded. NumPy is all
that it takes; PyTorch is not imported here.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from cs336lm.data.token_files import TokenArray, checksums, has_header, open_token_files

_SCAN_TOKENS = 1 << 22  # 8 or 16 MB at once: a file of any size is checked in little memory


class TokenDataset:
    """A row of token ids in files: one ``.npy``, or shards that follow each other.

    Args:
        path: ``tokens.npy``. Where the array was written in shards (``tokens-00000.npy``, ...),
            that name, ``tokens``, or the sidecar ``tokens.json`` stands for all of them. Or a
            ``.bin`` of nanoGPT's, llm.c's or Megatron's (``.idx`` beside it); ``train_*.bin`` is
            all that match, in order of name.

    It is indexed as the array would be, by a number, a slice or an array of numbers, and gives ids
    of the files' own dtype. A slice is not copied unless it crosses from one shard into the next,
    or has a step. A pickle holds the path alone, and opens the files again. Raises ``OSError`` if a
    file cannot be opened and ``ValueError`` if it holds anything but a row of uint16 or uint32, or
    not what the sidecar says.

    Examples:
        >>> np.save("tokens.npy", np.arange(1000, dtype=np.uint16))
        >>> dataset = TokenDataset("tokens.npy")
        >>> len(dataset)
        1000
        >>> dataset[10:13]
        array([10, 11, 12], dtype=uint16)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._absolute = self.path.absolute()  # for a pickle, wherever it is read
        self.shards, self.sidecar = open_token_files(self.path)
        self._is_checked = False
        # Where each shard begins in the row, and where the last one ends.
        self._starts = np.cumsum([0, *map(len, self.shards)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __reduce__(self) -> tuple[type[TokenDataset], tuple[Path]]:
        return type(self), (self._absolute,)

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> np.unsignedinteger[Any]: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | npt.NDArray[Any]) -> TokenArray: ...
    def __getitem__(self, index: Any) -> Any:
        if len(self.shards) == 1:
            return self.shards[0][index]
        if not isinstance(index, slice):
            return self._pick(index)
        start, stop, step = index.indices(len(self))
        if step != 1:
            return self._pick(np.arange(start, stop, step))
        first, last = self._starts[:-1], self._starts[1:]
        parts: list[Any] = [
            self.shards[shard][max(start - first[shard], 0) : stop - first[shard]]
            for shard in np.flatnonzero((first < stop) & (start < last))
        ]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else self.shards[0][:0]

    def _pick(self, index: Any) -> Any:
        """The ids at one position or an array of them, which may be counted from the end."""
        size = len(self)
        # An array of as many elements, none of them in memory, knows what NumPy would say.
        np.broadcast_to(self.shards[0].dtype.type(0), size)[index]
        positions = np.asarray(index)
        if positions.dtype == bool:
            positions = np.flatnonzero(positions)
        elif not positions.size:
            positions = positions.astype(np.int64)
        found = self.windows(np.where(positions < 0, positions + size, positions).ravel(), 1)
        return found.reshape(positions.shape)[()]

    def windows(self, starts: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
        """``length`` tokens from each of ``starts`` on: (starts, length), a copy."""
        if len(self.shards) == 1:
            return windows_of(self.shards[0], starts, length)
        starts = starts.astype(np.int64)
        rows = np.empty((len(starts), length), self.dtype)
        home = np.searchsorted(self._starts, starts, side="right") - 1
        inside = starts + length <= self._starts[home + 1]
        for shard in np.unique(home[inside]):
            chosen = inside & (home == shard)
            rows[chosen] = windows_of(
                self.shards[shard], starts[chosen] - self._starts[shard], length
            )
        for row in np.flatnonzero(~inside):
            rows[row] = self[starts[row] : starts[row] + length]
        return rows

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint16 or uint32."""
        return self.shards[0].dtype

    def max_id(self) -> int:
        """The largest id, by one pass over the whole file; -1 if it is empty."""
        return max((int(block.max()) for _, block in self.blocks()), default=-1)

    def check_ids(self, vocab_size: int) -> None:
        """Raises ``ValueError`` at the first id that a vocabulary of ``vocab_size`` lacks."""
        if vocab_size > np.iinfo(self.dtype).max:
            return  # no value of this dtype can be too large
        for start, block in self.blocks():
            if int(block.max()) >= vocab_size:
                at = int(np.argmax(block >= vocab_size))
                raise ValueError(
                    f"{self.path}: the id {block[at]} at position {start + at} is outside a "
                    f"vocabulary of {vocab_size}: was the file made with another tokenizer, or "
                    "model.vocab_size set too low?"
                )

    def check_contents(self) -> bool:
        """Whether the sidecar knows the checksum of every array; the first time they are compared.

        That is one pass over the files, at some gigabytes a second. Raises ``ValueError`` naming
        the file that is not as it was written.
        """
        known = checksums(self.path, self.sidecar)
        if not self._is_checked:
            for array, (path, expected) in zip(self.shards, known, strict=False):
                crc = 0
                if expected is None:
                    continue
                for start in range(0, len(array), _SCAN_TOKENS):
                    crc = zlib.crc32(array[start : start + _SCAN_TOKENS].data, crc)
                if crc != expected or not has_header(path, array):
                    raise ValueError(
                        f"{path} is damaged: the checksum of its ids does not match; write it "
                        "again with `cs336lm tokenize`"
                    )
            self._is_checked = True
        return bool(known) and all(crc is not None for _, crc in known)

    def check_tokenizer(self, fingerprint: str, tokenizer_path: str | Path) -> None:
        """Raises ``ValueError`` if the sidecar says that another tokenizer made this file."""
        made_by = (self.sidecar or {}).get("tokenizer_sha256")
        if made_by is not None and made_by != fingerprint:
            raise ValueError(
                f"{self.path} was made with another tokenizer than {tokenizer_path} (SHA-256 "
                f"{made_by[:12]}..., not {fingerprint[:12]}...); tokenize the text with this one"
            )

    def check_length(self, context_length: int) -> None:
        """Raises ``ValueError`` if the file is too short for one window and its targets."""
        if len(self) <= context_length:
            raise ValueError(
                f"{self.path} holds {len(self)} tokens, too few for a context_length of "
                f"{context_length}: at least {context_length + 1} are needed"
            )

    def blocks(self) -> Iterator[tuple[int, TokenArray]]:
        """The whole row in pieces that fit in memory, and where each begins."""
        for start in range(0, len(self), _SCAN_TOKENS):
            yield start, self[start : start + _SCAN_TOKENS]


def windows_of(array: npt.NDArray[Any], starts: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """``length`` values of a one-dimensional array from each of ``starts`` on, gathered at once."""
    return sliding_window_view(array, length)[starts]
