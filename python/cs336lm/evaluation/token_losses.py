"""The loss of each token by itself, where a mean over whole windows does not say enough.

Windows of different lengths are read together: the shorter ones are filled up at their ends, which
no token before can see, and only the windows' own tokens go through the head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cs336lm.evaluation.windows import Window, in_groups
from cs336lm.model.kernels.cross_entropy import CHUNK_ELEMENTS

if TYPE_CHECKING:
    from cs336lm.model.transformer import TransformerLM

TOKENS_PER_BATCH = {"cpu": 4_096, "cuda": 65_536}
"""What keeps a device busy; on a CPU more only overflows the caches."""

_GROUP = 4_096  # windows that are sorted by length at a time

Read = Callable[[Window], npt.NDArray[Any]]
"""The ``length + 1`` ids of a window."""


@dataclass(frozen=True)
class TokenLosses:
    """The losses of the new tokens of some windows, one after the other."""

    nats: npt.NDArray[np.float64]
    rows: npt.NDArray[np.int64]
    """``Window.row`` of each."""
    positions: npt.NDArray[np.int64]
    """How many tokens each was predicted from: at least 1."""


def default_rows(device: torch.device, context_length: int) -> int:
    """How many whole windows are read at once where nobody says it."""
    return max(1, TOKENS_PER_BATCH.get(device.type, 16_384) // context_length)


@torch.no_grad()
def token_losses(
    model: TransformerLM,
    windows: Iterable[Window],
    read: Read,
    *,
    dtype: torch.dtype = torch.float32,
    batch_size: int | None = None,
) -> Iterator[TokenLosses]:
    """The losses of all new tokens of ``windows``, in parts, each of some thousands of windows.

    ``batch_size`` is how many windows of the full context length are read at once; of shorter ones
    it is as many more as make the same number of tokens. ``dtype`` is that of the products.
    """
    device = next(model.parameters()).device
    context = model.config.context_length
    budget = (batch_size or default_rows(device, context)) * context
    for group in in_groups(windows, _GROUP):
        by_length = sorted(group, key=lambda window: -window.length)
        yield from (
            _losses_of(model, batch, read, device, dtype) for batch in _batches(by_length, budget)
        )


def _batches(windows: list[Window], budget: int) -> Iterator[list[Window]]:
    """Windows that fall in length, together as long as ``budget`` with what fills them up."""
    first = 0
    while first < len(windows):
        count = max(1, budget // windows[first].length)
        yield windows[first : first + count]
        first += count


def _losses_of(
    model: TransformerLM,
    windows: list[Window],
    read: Read,
    device: torch.device,
    dtype: torch.dtype,
) -> TokenLosses:
    longest = max(window.length for window in windows)
    ids = np.zeros((len(windows), longest + 1), np.int64)
    is_new = np.zeros((len(windows), longest), bool)
    for number, window in enumerate(windows):
        ids[number, : window.length + 1] = read(window)
        is_new[number, window.known : window.length] = True
    chosen = torch.from_numpy(is_new).to(device)
    tokens = torch.from_numpy(ids).to(device)
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        hidden = model.hidden_states(tokens[:, :-1])[chosen]
        nats = _head_losses(model, hidden, tokens[:, 1:][chosen])
    window_of, position = np.nonzero(is_new)
    rows = np.asarray([window.row for window in windows], np.int64)
    return TokenLosses(nats.double().cpu().numpy(), rows[window_of], position + 1)


def _head_losses(model: TransformerLM, hidden: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy of each target: (tokens,), in float32, a chunk of logits at a time."""
    vocab_size = model.config.vocab_size
    assert vocab_size is not None
    device = hidden.device.type
    chunk = max(1, CHUNK_ELEMENTS.get(device, CHUNK_ELEMENTS["cuda"]) // vocab_size)
    losses = []
    for some, wanted in zip(hidden.split(chunk), targets.split(chunk), strict=True):
        logits = model.lm_head(some)
        with torch.autocast(device, enabled=False):
            logits = logits.float()
            right = logits.gather(-1, wanted.unsqueeze(-1)).squeeze(-1)
            losses.append(logits.logsumexp(-1) - right)
    return torch.cat(losses)
