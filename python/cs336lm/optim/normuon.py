"""NorMuon: Muon whose steps are equally large for all neurons."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cs336lm.optim.muon import Muon, what_is_here
from cs336lm.optim.newton_schulz import alike
from cs336lm.optim.sharing import Sharing

_EPS = 1e-10  # of a root mean square, which is about 1 / sqrt(columns), and of a norm


class NorMuon(Muon):
    """Muon with a second moment for each neuron, a row of the matrix (Li et al. 2025, "NorMuon").

        v <- beta2 v + (1 - beta2) mean over columns of O^2
        N  = O / sqrt(v)                        W <- W - lr sqrt(max(1, rows / columns)) |O| / |N| N

    with O as in :class:`Muon` and beta2 the second of ``betas``. An orthogonalised update may still
    be long in some rows and short in others; here all of them learn at about one pace. The
    Frobenius norm of the whole stays what it was, so Muon's learning rates and factor do here too.
    (The paper scales to 0.2 sqrt(rows columns) instead, for AdamW's rates.) v needs no correction
    for its start at zero: a factor that all rows have in common falls out.

    Arguments and errors are those of :class:`Muon`.
    """

    def _normalised(
        self, params: list[Tensor], updates: list[Tensor], group: dict[str, Any], sharing: Sharing
    ) -> list[Tensor]:
        for param in params:
            if "second_moment" not in self.state[param]:
                self.state[param]["second_moment"] = torch.zeros_like(param[:, :1])
        moments = what_is_here([self.state[param]["second_moment"] for param in params])
        results = list(updates)
        squares = torch.zeros(len(updates), 2, device=updates[0].device)
        for places in alike([update.shape for update in updates]):
            o = torch.stack([updates[i] for i in places])
            o = o.to(torch.promote_types(o.dtype, torch.float32))
            v = torch.stack([moments[i] for i in places]).to(o.dtype)
            v.lerp_(o.square().mean(-1, keepdim=True), 1 - group["betas"][1])
            n = o / (v.sqrt() + _EPS)
            sums = torch.stack([o.square().sum((-2, -1)), n.square().sum((-2, -1))], dim=-1)
            squares = squares.to(o.dtype)
            squares[places] = sums
            for i, mean, result in zip(places, v, n, strict=True):
                moments[i].copy_(mean)
                results[i] = result
        before, after = sharing.total(squares).sqrt().unbind(-1)
        torch._foreach_mul_(results, list((before / (after + _EPS)).unbind()))
        return results
