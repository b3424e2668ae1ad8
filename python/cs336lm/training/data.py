"""The files of a configuration's ``[data]``, opened and checked against each other."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cs336lm.data import TokenDataset, validation_starts
from cs336lm.errors import UsageError
from cs336lm.training.config import Config

if TYPE_CHECKING:
    from cs336lm.text.tokenizer import Tokenizer

EVAL_BATCH_SIZE = 32
"""Windows in each of ``train.eval_batches``: fixed, so that runs of any batch size compare."""


@dataclass(frozen=True)
class TrainingData:
    """What a run reads, known to fit together."""

    train: TokenDataset
    val: TokenDataset | None
    tokenizer: Tokenizer | None
    vocab_size: int


def open_data(config: Config, *, check_ids: bool = True) -> TrainingData:
    """Opens what ``config`` names; ``check_ids`` reads the files through for ids out of range.

    Raises ``OSError`` or ``ValueError`` naming the file that is missing, not a token file, too
    short for one window, made with another tokenizer, or holding an id outside the vocabulary.
    """
    if config.data.train is None:
        raise UsageError(
            "data.train is missing: name a token file with --data.train tokens.npy "
            "(`cs336lm tokenize` makes one)"
        )
    tokenizer = None
    if config.data.tokenizer is not None:
        from cs336lm.text.tokenizer import Tokenizer

        tokenizer = Tokenizer.load(config.data.tokenizer)
    train = TokenDataset(config.data.train)
    val = TokenDataset(config.data.val) if config.data.val is not None else None
    files = [train] if val is None else [train, val]
    vocab_size = _vocab_size(config.model.vocab_size, tokenizer, files)
    for dataset in files:
        dataset.check_length(config.model.context_length)
        if tokenizer is not None:
            dataset.check_tokenizer(tokenizer.fingerprint, str(config.data.tokenizer))
        if check_ids:
            dataset.check_ids(vocab_size)
    return TrainingData(train, val, tokenizer, vocab_size)


def validation_windows(val: TokenDataset, config: Config) -> npt.NDArray[np.int64]:
    """Where the windows of a validation begin: (batches, EVAL_BATCH_SIZE)."""
    return validation_starts(
        len(val), EVAL_BATCH_SIZE, config.train.eval_batches, config.model.context_length
    )


def validation_fingerprint(val: TokenDataset, config: Config, dtype: str) -> str:
    """What a validation measures: two losses of one fingerprint compare, others do not.

    It covers the tokens that are looked at, in what windows, and the precision of the products
    (which are never in eight bits).
    """
    length = config.model.context_length
    digest = hashlib.sha256(f"{dtype}, {length}".encode())
    for starts in validation_windows(val, config):
        digest.update(val.windows(starts, length + 1).astype(np.uint32).tobytes())
    return digest.hexdigest()


def _vocab_size(
    configured: int | None, tokenizer: Tokenizer | None, files: list[TokenDataset]
) -> int:
    """What is configured; else the tokenizer's, else the sidecars', else what the ids need."""
    if tokenizer is not None and configured is not None and configured < tokenizer.vocab_size:
        raise UsageError(
            f"model.vocab_size={configured} is less than the tokenizer's {tokenizer.vocab_size}"
        )
    if configured is not None:
        return configured
    if tokenizer is not None:
        return tokenizer.vocab_size
    stated = [(dataset.sidecar or {}).get("vocab_size") for dataset in files]
    if all(isinstance(size, int) for size in stated):
        return max(filter(None, stated), default=1)
    return max(1, *(dataset.max_id() + 1 for dataset in files))
