"""From the logits of many sequences to their next tokens, each by its own parameters.

What happens to a row depends on that row alone, to the last bit: reductions are along a row, and
what is elementwise is arithmetic that rounds exactly. A draw takes one random number a row, which
is given: the token whose interval of the cumulated probabilities it falls into.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cs336lm.generation.sampling import NO_TOKEN, SamplingParams
from cs336lm.model.functional import at_least_float32

_CANDIDATES = 64
"""How many of the likeliest tokens are first looked at for a top p, then eight times as many."""


class BatchSampler:
    """Draws one token a row; row i by ``params[i]``. Penalties and biases are not its business."""

    def __init__(self, params: Sequence[SamplingParams], vocab_size: int, device: torch.device):
        drawing = [row for row, p in enumerate(params) if not p.is_greedy]
        chosen = [params[row] for row in drawing]
        self._all_draw = len(drawing) == len(params)
        self._drawing = np.array(drawing, dtype=np.int64)
        self._rows = torch.tensor(drawing, dtype=torch.int64, device=device)
        self._temperature = _column([p.temperature for p in chosen], device)
        self._top_k = torch.tensor(
            [[min(p.top_k or vocab_size, vocab_size)] for p in chosen], device=device
        )
        self._top_p = _column([p.top_p for p in chosen], device)
        cut = [
            i for i, p in enumerate(chosen) if p.top_p < 1 or (p.top_k or vocab_size) < vocab_size
        ]
        self._cut = torch.tensor(cut, dtype=torch.int64, device=device)

    def __call__(
        self, logits: Float[Tensor, "rows vocab"], uniforms: NDArray[np.float64]
    ) -> Int[Tensor, " rows"]:
        """One id a row, or ``NO_TOKEN`` where no token is the likeliest.

        ``logits``: -inf where an id must not be drawn; ``uniforms``: (rows,), one number each.
        """
        greatest, ids = logits.max(-1)  # the first of several; a NaN is the greatest
        if len(self._drawing):
            some = logits if self._all_draw else logits[self._rows]
            most = greatest if self._all_draw else greatest[self._rows]
            numbers = torch.from_numpy(uniforms[self._drawing]).to(logits.device)
            ids = ids.index_copy(0, self._rows, self._drawn(some, most, numbers))
        return ids.masked_fill(~greatest.isfinite(), NO_TOKEN)

    def _drawn(self, logits: Tensor, greatest: Tensor, numbers: Tensor) -> Tensor:
        # The greatest becomes 0: no quotient overflows but those of improbable tokens, to -inf.
        wide = at_least_float32(logits) - at_least_float32(greatest).unsqueeze(-1)
        wide = (wide.double() / self._temperature).to(wide.dtype)
        if len(self._cut) == len(wide):
            wide = keep_top(wide, self._top_k, self._top_p)
        elif len(self._cut):
            cut = keep_top(wide[self._cut], self._top_k[self._cut], self._top_p[self._cut])
            wide = wide.index_copy(0, self._cut, cut)
        reached = torch.softmax(wide, -1).cumsum(-1, dtype=torch.float64)
        target = numbers.unsqueeze(-1) * reached[:, -1:]
        found = torch.searchsorted(reached, target, right=True).squeeze(-1)
        return found.clamp_(max=logits.shape[-1] - 1)  # where all is NaN


def _column(values: Sequence[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=device).unsqueeze(-1)


def keep_top(
    logits: Float[Tensor, "rows vocab"],
    top_k: Int[Tensor, "rows 1"],
    top_p: Float[Tensor, "rows 1"],
    *,
    candidates: int = _CANDIDATES,
) -> Float[Tensor, "rows vocab"]:
    """``logits`` with -inf for every token outside a row's top k or, of those, its top p.

    The k likeliest, of equals the first; then the fewest of them with that share of their
    probability. A row is not sorted: of its likeliest tokens only so many as may be needed.
    """
    vocab_size = logits.shape[-1]
    width = min(candidates, vocab_size)
    best, places = logits.topk(width, dim=-1)
    shares = torch.softmax(logits, -1).gather(-1, places)
    reached = shares.cumsum(-1, dtype=torch.float64)
    # What the k likeliest have together; of all tokens it is 1.
    last = (top_k.clamp(max=width) - 1).clamp(min=0)
    whole = torch.where(top_k < vocab_size, reached.gather(-1, last), 1.0)
    ranks = torch.arange(width, device=logits.device)
    # What stands before a token decides, so the first is always in.
    inside = ((reached - shares) < top_p * whole) & (ranks < top_k)
    inside[:, 0] = True
    kept = inside.sum(-1, keepdim=True)
    result = _first_of_equals(logits, best.gather(-1, kept - 1), kept)
    if width < vocab_size:
        # Rows of which more may be in, or whose k likeliest are more than were looked at.
        unsure = ((kept == width) & (top_k > width)) | ((top_k > width) & (top_k < vocab_size))
        rows = unsure.squeeze(-1).nonzero().squeeze(-1)
        if len(rows):
            wider = keep_top(logits[rows], top_k[rows], top_p[rows], candidates=8 * candidates)
            result = result.index_copy(0, rows, wider)
    return result


def _first_of_equals(logits: Tensor, least: Tensor, kept: Tensor) -> Tensor:
    """-inf but for the first ``kept`` of each row by falling logit, the last being ``least``."""
    inside = logits >= least
    if (inside.sum(-1, keepdim=True) > kept).any():  # more equal the last than there is room for
        above, equal = logits > least, logits == least
        room = kept - above.sum(-1, keepdim=True)
        inside = above | (equal & (equal.cumsum(-1, dtype=torch.int32) <= room))
    return logits.masked_fill(~inside, -torch.inf)
