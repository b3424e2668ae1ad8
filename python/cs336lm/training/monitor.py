"""The monitor: every ``train.monitor_every`` steps a look at the model, into the step's record.

    "monitor": {
      "residual_rms": [...]        what leaves each block; a list has a value a layer
      "attention_rms": [...]       what attention puts out
      "ffn_rms": [...]             what the feed-forward network puts out
      "attention_entropy": [...]   nats, mean over heads and positions
      "dead_units": [...]          share of the feed-forward network's units never active
      "weight_rms": [...]          of the block's matrices together
      "gradient_rms": [...]        likewise, as the optimizer got it: after clipping
      "update_rms": [...]          likewise: what the step changed, weight decay included
      "update_ratio": [...]        update_rms / weight_rms
      "roles": {"matrix": {"weight_rms": ..., ...}, ...}   these four by role, over the whole model
      "logit_max": ..., "logsumexp": ...                   means over positions
    }

RMS is the root of the mean square: sizes of layers of any width compare. Weights are those after
the step; activations are of a forward pass of them on a few sequences that the step learned from,
by the model itself, uncompiled. Gradients and updates are caught at the optimizer, by hooks that
are there for that step alone. Nothing of this changes what the run computes, bit for bit.

What it costs: a forward pass of at most ``MOST_SEQUENCES`` sequences, some eight passes over the
weights (an optimizer's step makes about as many), and for a moment, when the activations of the
step are gone, a copy of the weights.

Under torchrun every process looks at sequences of its own share, and the means over all of them
are reported; a unit is dead if it was in none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter

from cs336lm.optim.groups import parameter_roles
from cs336lm.training.callbacks import Callback, StepResult, is_due
from cs336lm.training.look_inside import Inside, look_inside
from cs336lm.training.reporter import Reporter
from cs336lm.training.setup import Setup

MOST_SEQUENCES = 4
MOST_TOKENS = 4096
"""Of each process's share, for the look inside; at least one sequence."""


class Monitor(Callback):
    """Leaves ``monitor`` among the figures of a step that is due; all processes take part."""

    def __init__(self, setup: Setup, reporter: Reporter) -> None:
        self._setup = setup
        self._reporter = reporter
        self._every = setup.config.train.monitor_every
        self._most = max(1, min(MOST_SEQUENCES, MOST_TOKENS // setup.config.model.context_length))
        self._batch: tuple[Tensor, Tensor] | None = None
        self._watch: UpdateWatch | None = None

    def before_step(self, step: int, x: Tensor, y: Tensor) -> None:
        """Keeps a few sequences of a step that is due, and watches its optimizer."""
        if is_due(step, self._every):
            self._batch = x[: self._most], y[: self._most]
            self._watch = UpdateWatch(
                self._setup.optimizer, parameter_roles(self._setup.model.module)
            )

    def after_step(self, result: StepResult) -> None:
        """Looks inside, after a step that is due."""
        if self._batch is None or self._watch is None:
            return
        self._reporter.flush()  # the record before need not wait for this one
        result.request_scalars()  # before the look, whose time is not the step's
        (x, y), watch = self._batch, self._watch
        self._batch = self._watch = None
        watch.remove()
        setup = self._setup
        with torch.autocast(x.device.type, setup.dtype, enabled=setup.dtype != torch.float32):
            inside = look_inside(setup.model.module, x, y)
        result.figures["monitor"] = self._figures(inside, watch)

    def _figures(self, inside: Inside, watch: UpdateWatch) -> dict[str, Any]:
        """Over all processes, in one exchange; on the host."""
        parts = {name: torch.stack(values) for name, values in vars(inside).items()} | watch.sums
        together = torch.cat([part.flatten() for part in parts.values()])
        means = self._setup.world.mean(together).cpu().split([p.numel() for p in parts.values()])
        of = {
            name: mean.view(part.shape)
            for (name, part), mean in zip(parts.items(), means, strict=True)
        }
        figures: dict[str, Any] = {
            "residual_rms": _rounded(of["residual_square"].sqrt()),
            "attention_rms": _rounded(of["attention_square"].sqrt()),
            "ffn_rms": _rounded(of["ffn_square"].sqrt()),
            "attention_entropy": _rounded(of["attention_entropy"]),
            "dead_units": _rounded((of["active_units"] == 0).float().mean(-1)),
        }
        if watch.sums:
            figures |= self._sizes(of, watch)
        figures |= {name: _rounded(of[name])[0] for name in ("logit_max", "logsumexp")}
        return figures

    def _sizes(self, of: Mapping[str, Tensor], watch: UpdateWatch) -> dict[str, Any]:
        """Weights, gradients and updates by layer (matrices alone) and by role."""
        numbers = {parameter: at for at, parameter in enumerate(watch.roles)}
        layers = [
            _sizes(of, [numbers[p] for p in block.parameters() if watch.roles[p] == "matrix"])
            for block in self._setup.model.module.layers
        ]
        by_layer = {name: [layer[name] for layer in layers] for name in layers[0]}
        roles = {
            role: _sizes(of, [numbers[p] for p, stated in watch.roles.items() if stated == role])
            for role in dict.fromkeys(watch.roles.values())
        }
        return {**by_layer, "roles": roles}


class UpdateWatch:
    """Sums of squares around one step of an optimizer: of gradients, updates and weights.

    ``sums`` has a value a parameter, of this process's slice of it, in the order of ``roles``; it
    stays empty if the optimizer made no step (float16, after an overflow).
    """

    def __init__(self, optimizer: torch.optim.Optimizer, roles: Mapping[Parameter, str]) -> None:
        self.roles = roles
        self.sums: dict[str, Tensor] = {}
        self._before: list[Tensor] = []
        self._hooks = [
            optimizer.register_step_pre_hook(lambda *_: self._before_update()),
            optimizer.register_step_post_hook(lambda *_: self._after_update()),
        ]

    def remove(self) -> None:
        """Leaves the optimizer as it was."""
        for hook in self._hooks:
            hook.remove()

    @torch.no_grad()
    def _before_update(self) -> None:
        weights = [_local(parameter) for parameter in self.roles]
        nothing = torch.zeros((), device=weights[0].device)
        gradients = [nothing if p.grad is None else _local(p.grad) for p in self.roles]
        self.sums["gradient_square"] = _square_sums(gradients)
        self._before = [weight.clone() for weight in weights]

    @torch.no_grad()
    def _after_update(self) -> None:
        weights, before = [_local(parameter) for parameter in self.roles], self._before
        self._before = []
        self.sums["weight_square"] = _square_sums(weights)
        changes = [old.sub_(new) for old, new in zip(before, weights, strict=True)]
        self.sums["update_square"] = _square_sums(changes)
        self.sums["numbers"] = torch.tensor(
            [float(weight.numel()) for weight in weights], device=weights[0].device
        )


def _sizes(of: Mapping[str, Tensor], parameters: Sequence[int]) -> dict[str, float]:
    """RMS of parameters taken together."""
    chosen = torch.tensor(parameters, dtype=torch.int64)
    sums = {name: float(of[name][chosen].double().sum()) for name in (*_SQUARES, "numbers")}
    rms = {
        f"{name.removesuffix('_square')}_rms": _root(sums[name], sums["numbers"])
        for name in _SQUARES
    }
    rms["update_ratio"] = _short(
        rms["update_rms"] / rms["weight_rms"] if rms["weight_rms"] else 0.0
    )
    return rms


_SQUARES = ("weight_square", "gradient_square", "update_square")


def _root(total: float, count: float) -> float:
    return _short(math.sqrt(total / count)) if count else 0.0


def _local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()


def _square_sums(tensors: Iterable[Tensor]) -> Tensor:
    norms = [torch.linalg.vector_norm(tensor, dtype=torch.float32) for tensor in tensors]
    return torch.stack(norms).square()


def _rounded(values: Tensor) -> list[float]:
    return [_short(value) for value in values.tolist()]


def _short(value: float) -> float:
    """Six digits: more would be noise, and fill the file."""
    return float(f"{value:.6g}")
