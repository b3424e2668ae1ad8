"""The files of a configuration's ``[data]``, opened and checked against each other."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cs336lm.data import TokenDataset, TokenMixture, WindowPlan, make_plan, validation_starts
from cs336lm.data.documents import document_token
from cs336lm.data.validation import first_windows
from cs336lm.errors import UsageError
from cs336lm.training.config import Config

if TYPE_CHECKING:
    from cs336lm.text.tokenizer import Tokenizer

EVAL_BATCH_SIZE = 32
"""Windows in each of ``train.eval_batches``: fixed, so that runs of any batch size compare."""


@dataclass(frozen=True)
class TrainingData:
    """What a run reads, known to fit together."""

    train: TokenDataset | TokenMixture
    val: TokenDataset | None
    tokenizer: Tokenizer | None
    vocab_size: int
    plan: WindowPlan
    """Which windows of ``train`` each step learns from."""


def open_data(config: Config, *, check_ids: bool = True) -> TrainingData:
    """Opens what ``config`` names; ``check_ids`` reads the files through for ids out of range.

    Raises ``OSError`` or ``ValueError`` naming the file that is missing, not a token file, too
    short for one window, made with another tokenizer, without what ``data.sampling`` needs, or
    holding an id outside the vocabulary.
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
    parts = [TokenDataset(path) for path in config.data.train_files]
    val = TokenDataset(config.data.val) if config.data.val is not None else None
    files = parts if val is None else [*parts, val]
    vocab_size = _vocab_size(config.model.vocab_size, tokenizer, files)
    for dataset in files:
        dataset.check_length(config.model.context_length)
        if tokenizer is not None:
            dataset.check_tokenizer(tokenizer.fingerprint, str(config.data.tokenizer))
        if check_ids:
            dataset.check_ids(vocab_size)
    train: TokenDataset | TokenMixture = parts[0]
    if isinstance(config.data.train, dict):
        train = TokenMixture(parts, list(config.data.train.values()))
    return TrainingData(train, val, tokenizer, vocab_size, _plan(train, tokenizer, config))


def _plan(
    train: TokenDataset | TokenMixture, tokenizer: Tokenizer | None, config: Config
) -> WindowPlan:
    token, sampling = None, config.data.sampling
    if sampling == "documents":
        asked = config.data.document_token
        token = document_token(asked, tokenizer, "--data.document-token")
    return make_plan(
        train,
        config.model.context_length,
        seed=config.train.seed,
        sampling=sampling,
        document_token=token,
    )


def validation_windows(val: TokenDataset, config: Config) -> npt.NDArray[np.int64]:
    """Where the windows of a validation begin: (windows,)."""
    context, train = config.model.context_length, config.train
    if train.eval_tokens is not None:
        return first_windows(len(val), train.eval_tokens, context)
    assert train.eval_batches is not None, "the configuration is resolved"
    return validation_starts(len(val), EVAL_BATCH_SIZE, train.eval_batches, context).ravel()


def validation_fingerprint(val: TokenDataset, config: Config, dtype: str) -> str:
    """What a validation measures: two losses of one fingerprint compare, others do not.

    It covers the tokens that are looked at, in what windows, and the precision of the products
    (which are never in eight bits).
    """
    length = config.model.context_length
    digest = hashlib.sha256(f"{dtype}, {length}".encode())
    windows = validation_windows(val, config)
    for first in range(0, len(windows), EVAL_BATCH_SIZE):
        rows = val.windows(windows[first : first + EVAL_BATCH_SIZE], length + 1)
        digest.update(rows.astype(np.uint32).tobytes())
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
