"""The files of a configuration's ``[data]``, opened and checked against each other."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cs336lm.data import TokenDataset, TokenMixture, WindowPlan, make_plan, validation_starts
from cs336lm.data.documents import document_token
from cs336lm.data.sampling.documents import windows_of_documents
from cs336lm.data.validation import evenly_chosen, first_windows
from cs336lm.errors import UsageError
from cs336lm.training.config import Config
from cs336lm.training.config.tree import EVAL_BATCHES

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
    val_windows: npt.NDArray[np.int64]
    """Where the windows of a validation begin: (windows,); none without ``val``."""


def open_data(config: Config, *, check_ids: bool = True) -> TrainingData:
    """Opens what ``config`` names; ``check_ids`` reads it through for damage and ids out of range.

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
            dataset.check_contents()
            dataset.check_ids(vocab_size)
    train: TokenDataset | TokenMixture = parts[0]
    if isinstance(config.data.train, dict):
        train = TokenMixture(parts, list(config.data.train.values()))
    token = None
    if config.data.sampling == "documents" or config.train.eval_by_document:
        asked = config.data.document_token
        token = document_token(asked, tokenizer, "--data.document-token")
    plan = make_plan(
        train,
        config.model.context_length,
        seed=config.train.seed,
        sampling=config.data.sampling,
        document_token=token,
    )
    windows = np.zeros(0, np.int64) if val is None else _validation_windows(val, config, token)
    return TrainingData(train, val, tokenizer, vocab_size, plan, windows)


def _validation_windows(
    val: TokenDataset, config: Config, token: int | None
) -> npt.NDArray[np.int64]:
    """Those that ``[train]`` asks for; ``token`` ends a document, where that matters."""
    context, train = config.model.context_length, config.train
    batches = train.eval_batches or EVAL_BATCHES
    if train.eval_by_document:
        assert token is not None
        windows = windows_of_documents(val, token, context)
        if train.eval_tokens is not None:
            return windows[: -(-train.eval_tokens // context)]
        return evenly_chosen(windows, batches * EVAL_BATCH_SIZE)
    if train.eval_tokens is not None:
        return first_windows(len(val), train.eval_tokens, context)
    return validation_starts(len(val), EVAL_BATCH_SIZE, batches, context).ravel()


def validation_fingerprint(data: TrainingData, config: Config, dtype: str) -> str:
    """What a validation measures: two losses of one fingerprint compare, others do not.

    It covers the tokens that are looked at, in what windows, and the precision of the products
    (which are never in eight bits).
    """
    length = config.model.context_length
    digest = hashlib.sha256(f"{dtype}, {length}".encode())
    assert data.val is not None
    for first in range(0, len(data.val_windows), EVAL_BATCH_SIZE):
        rows = data.val.windows(data.val_windows[first : first + EVAL_BATCH_SIZE], length + 1)
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
