"""Which windows of a token file a step learns from: one way a file, all of them in ``SAMPLERS``.

Each is a pure function of the seed and of numbers that a step has: there is no state to save, a
resumed run goes on with the same windows, and every rank of a distributed run knows them all.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from cs336lm.data.dataset import TokenDataset
from cs336lm.data.mixture import TokenMixture
from cs336lm.data.sampling.documents import DocumentSampler
from cs336lm.data.sampling.epochs import EpochSampler
from cs336lm.data.sampling.plan import WindowPlan
from cs336lm.data.sampling.sampler import Sampler, Source
from cs336lm.data.sampling.uniform import UniformSampler

__all__ = [
    "SAMPLERS",
    "DocumentSampler",
    "EpochSampler",
    "Sampler",
    "UniformSampler",
    "WindowPlan",
    "make_plan",
]

SAMPLERS: dict[str, type[Sampler]] = {
    "uniform": UniformSampler,
    "epochs": EpochSampler,
    "documents": DocumentSampler,
}
"""By ``data.sampling``; each is made by ``from_source(source)``."""


def make_plan(
    tokens: TokenDataset | TokenMixture | npt.NDArray[Any],
    context_length: int,
    *,
    seed: int,
    sampling: str = "uniform",
    document_token: int | None = None,
) -> WindowPlan:
    """The windows of every step of a run on ``tokens``, drawn as ``SAMPLERS[sampling]`` does.

    Raises ``ValueError`` if a file cannot be sampled like this.
    """
    parts = tokens.parts if isinstance(tokens, TokenMixture) else [tokens]
    samplers = [
        SAMPLERS[sampling].from_source(Source(part, context_length, seed, number, document_token))
        for number, part in enumerate(parts)
    ]
    return WindowPlan(tokens, samplers, seed)
