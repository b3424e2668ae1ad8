"""The Rust crate ``bpe`` as Python sees it: use :mod:`cs336lm.tokenizer`, which documents it."""

from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

_Path = str | PathLike[str]
_Counts = tuple[int, int, int]
_Progress = Callable[[str, int, int], object]

@final
class Tokenizer:
    def __new__(
        cls,
        vocab: dict[int, bytes],
        merges: Iterable[tuple[bytes, bytes]],
        special_tokens: Sequence[str],
        pattern: str,
        whole_words_first: bool = False,
    ) -> Tokenizer: ...
    @staticmethod
    def train(
        paths: Sequence[_Path],
        vocab_size: int,
        special_tokens: Sequence[str],
        pattern: str,
        threads: int | None,
        max_memory: int | None,
        min_count: int,
        text_field: str | None,
        text_column: str,
        progress: _Progress | None,
    ) -> Tokenizer: ...
    @staticmethod
    def load(path: _Path, special_tokens: Sequence[str], pattern: str | None) -> Tokenizer: ...
    @staticmethod
    def from_files(
        vocab_path: _Path, merges_path: _Path, special_tokens: Sequence[str], pattern: str
    ) -> Tokenizer: ...
    def save(self, directory: _Path) -> None: ...
    def encode(self, text: str | bytes) -> list[int]: ...
    def encode_ordinary(self, text: str | bytes) -> list[int]: ...
    def encode_batch(
        self, texts: Sequence[str | bytes], threads: int | None
    ) -> list[NDArray[np.uint32]]: ...
    def encode_files(
        self,
        paths: Sequence[_Path],
        out: _Path,
        threads: int | None,
        progress: _Progress | None,
        *,
        text_field: str | None = None,
        text_column: str = "text",
        append_eot: bool = False,
        val_fraction: float = 0.0,
        seed: int = 0,
        shard_tokens: int | None = None,
        resume: bool = False,
        skip_errors: bool = False,
    ) -> tuple[str, _Counts, _Counts | None, list[str]]: ...
    def count_tokens(
        self,
        paths: Sequence[_Path],
        threads: int | None,
        text_field: str | None,
        text_column: str,
        progress: _Progress | None,
    ) -> tuple[int, int]: ...
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
    def fingerprint(self) -> str: ...

@final
class EncodeStream:
    def push(self, piece: str | bytes) -> list[int]: ...
    def finish(self) -> list[int]: ...

def count_pretokens(
    paths: Sequence[_Path],
    out: _Path,
    special_tokens: Sequence[str],
    pattern: str,
    threads: int | None,
    max_memory: int | None,
    text_field: str | None,
    text_column: str,
    progress: _Progress | None,
) -> int: ...
def train_counts(
    paths: Sequence[_Path],
    vocab_size: int,
    min_count: int,
    max_memory: int | None,
    threads: int | None,
    progress: _Progress | None,
) -> Tokenizer: ...
