"""The Rust crate ``bpe`` as Python sees it: use :mod:`cs336lm.text`, which documents it."""

from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from cs336lm.text.options import EncodeOptions, Resources, TextSource

_Path = str | PathLike[str]
_Counts = tuple[int, int, int]
Written = tuple[str, _Counts, _Counts | None, list[str]]
_WithIds = Sequence[tuple[str, int | None]]

@final
class Tokenizer:
    def __new__(
        cls,
        vocab: dict[int, bytes],
        merges: Iterable[tuple[bytes, bytes]],
        special_tokens: _WithIds,
        pattern: str,
        whole_words_first: bool = False,
        extras: str | None = None,
    ) -> Tokenizer: ...
    @staticmethod
    def train(
        source: TextSource,
        vocab_size: int,
        special_tokens: Sequence[str],
        pattern: str,
        min_count: int,
        resources: Resources,
    ) -> Tokenizer: ...
    @staticmethod
    def load(path: _Path, special_tokens: _WithIds, pattern: str | None) -> Tokenizer: ...
    @staticmethod
    def from_files(
        vocab_path: _Path, merges_path: _Path, special_tokens: _WithIds, pattern: str
    ) -> Tokenizer: ...
    def save(self, directory: _Path) -> None: ...
    def encode(self, text: str | bytes) -> list[int]: ...
    def encode_ordinary(self, text: str | bytes) -> list[int]: ...
    def encode_batch(
        self, texts: Sequence[str | bytes], threads: int | None
    ) -> list[NDArray[np.uint32]]: ...
    def encode_files(
        self, source: TextSource, out: _Path, options: EncodeOptions, resources: Resources
    ) -> Written: ...
    def join_files(
        self,
        source: TextSource,
        parts: Sequence[tuple[_Path, Sequence[int]]] | None,
        out: _Path,
        options: EncodeOptions,
        resources: Resources,
    ) -> Written | None: ...
    def count_tokens(self, source: TextSource, resources: Resources) -> tuple[int, int]: ...
    def encode_stream(self) -> EncodeStream: ...
    def decode(self, ids: Any) -> str: ...
    def decode_bytes(self, ids: Any) -> bytes: ...
    def vocab(self) -> dict[int, bytes]: ...
    def merges(self) -> list[tuple[bytes, bytes]]: ...
    def token_to_id(self, token: str | bytes) -> int | None: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def special_tokens(self) -> list[str]: ...
    @property
    def pattern(self) -> str: ...
    @property
    def whole_words_first(self) -> bool: ...
    @property
    def notes(self) -> list[str]: ...
    @property
    def extras(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...

@final
class EncodeStream:
    def push(self, piece: str | bytes) -> list[int]: ...
    def finish(self) -> list[int]: ...

@final
class FolderClaim:
    """A tokenizer's directory, for one job at a time, from the call to :meth:`release`.

    Raises:
        OSError: the directory cannot be written to.
        ValueError: a file in it is among ``inputs`` or was not written by this package, or another
            job is writing there.
    """

    def __new__(cls, directory: _Path, inputs: Sequence[_Path]) -> FolderClaim: ...
    def release(self) -> None: ...

def count_pretokens(
    source: TextSource,
    out: _Path,
    special_tokens: Sequence[str],
    pattern: str,
    resources: Resources,
) -> int: ...
def text_cuts(
    source: TextSource, part_bytes: int, special_tokens: Sequence[str], pattern: str
) -> list[list[int] | None]: ...
def add_counts(paths: Sequence[_Path], out: _Path, resources: Resources) -> int: ...
def check_counts_output(out: _Path, inputs: Sequence[_Path]) -> None: ...
def check_savable(special_tokens: Sequence[str], pattern: str) -> None: ...
def train_counts(
    paths: Sequence[_Path], vocab_size: int, min_count: int, resources: Resources
) -> Tokenizer: ...
