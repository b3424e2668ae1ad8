"""Log-probabilities, the model's own: of chosen tokens and of prompts, and the likeliest beside."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cs336lm.generation.batching.request import Top
from cs336lm.model.functional import at_least_float32


def token_scores(
    logits: Float[Tensor, "rows vocab"],
    ids: Int[Tensor, " rows"],
    counts: Sequence[int],
    forbidden: Bool[Tensor, " vocab"] | None,
) -> list[tuple[float, Top]]:
    """Each row's log-probability of its id, and as many of the likeliest as it counts.

    ``forbidden`` ids are never among these, though their share of the probability is theirs.
    """
    logprobs = torch.log_softmax(at_least_float32(logits), -1)
    of_ids = logprobs.gather(-1, ids.clamp(min=0).unsqueeze(-1)).squeeze(-1).tolist()
    if forbidden is not None:
        logprobs = logprobs.masked_fill(forbidden, -torch.inf)
    tops: list[Top] = [[] for _ in counts]
    # Each number by itself: which of equals comes first is then nobody else's affair.
    for count in sorted(set(counts) - {0}):
        rows = [row for row, wanted in enumerate(counts) if wanted == count]
        best = logprobs[rows].topk(min(count, logprobs.shape[-1]), dim=-1)
        for row, values, places in zip(
            rows, best.values.tolist(), best.indices.tolist(), strict=True
        ):
            tops[row] = [
                (place, value)
                for place, value in zip(places, values, strict=True)
                if value > -torch.inf
            ]
    return list(zip(of_ids, tops, strict=True))
