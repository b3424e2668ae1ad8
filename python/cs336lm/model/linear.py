"""Multiplication by a weight: the one place that does it.

A linear weight is (out, in), without bias. Weights that see the same input (queries, keys and
values; gate and up) are separate parameters, under the names that the state dict promises, and are
joined when used, so that one large matrix product replaces several small ones. But nobody except
:class:`Linear` takes its weight for all there is: what stands in its place (an adapter, a quantized
layer) or is attached to it (a hook, a parametrization) is asked for its own forward.
"""

from collections.abc import Callable, Sequence
from typing import TypeGuard

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Module, Parameter

from cs336lm.model.initial import Device, fill_truncated_normal
from cs336lm.model.kernels.cross_entropy import linear_cross_entropy, projected_cross_entropy
from cs336lm.model.plain import is_plain
from cs336lm.model.roles import Role
from cs336lm.model.softcap import Softcap, Uncapped

Product = Callable[[Tensor, Tensor], Tensor]
"""x (..., in) and a weight (out, in) to x W^T (..., out)."""


def product(
    x: Float[Tensor, "... d_in"], weight: Float[Tensor, "d_out d_in"]
) -> Float[Tensor, "... d_out"]:
    """x W^T, in the dtype of ``x`` (of autocast)."""
    return x @ weight.T


_APART_WHERE_COMPILED = {"cuda"}


class Linear(Module):
    """y = x W^T, without bias; W starts truncated normal with variance 2 / (in + out).

    ``std`` is another standard deviation for it; with 0 it starts as zeros.

    Examples:
        >>> layer = Linear(4, 3)
        >>> layer.weight.shape, layer(torch.ones(2, 5, 4)).shape
        (torch.Size([3, 4]), torch.Size([2, 5, 3]))
    """

    role: Role = "matrix"
    multiply: Product
    """How the product is taken: :func:`product`, or another with its arguments."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        std: float | None = None,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.std = (2 / (in_features + out_features)) ** 0.5 if std is None else std
        self.multiply = product
        self.weight = Parameter(torch.empty(out_features, in_features, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the weight anew (Glorot and Bengio 2010, cut at 3 sigma)."""
        fill_truncated_normal(self.weight, std=self.std)

    def forward(self, x: Float[Tensor, "... in_features"]) -> Float[Tensor, "... out_features"]:
        """(..., in_features) -> (..., out_features)."""
        return self.multiply(x, self.weight)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"{self.in_features}, {self.out_features}"


def is_plain_linear(module: object) -> TypeGuard[Linear]:
    """Whether a product with ``module.weight``, by its ``multiply``, is all that a call does."""
    return is_plain(module, Linear) and type(module.weight) in (Parameter, Tensor)


def project_together(
    x: Float[Tensor, "... d_in"], *linears: Module
) -> Float[Tensor, "... sum_of_d_out"]:
    """What each of ``linears`` makes of ``x``, side by side in the order given.

    One product where all of them are plain and multiply alike, else a call of each.
    """
    plain = [linear for linear in linears if is_plain_linear(linear)]
    if len(plain) == len(linears) and all(p.multiply is plain[0].multiply for p in plain):
        return plain[0].multiply(x, torch.cat([linear.weight for linear in plain]))
    return torch.cat([linear(x) for linear in linears], dim=-1)


def project_apart(
    x: Float[Tensor, "... d_in"], linears: Sequence[Module], widths: Sequence[int]
) -> Sequence[Tensor]:
    """What each of ``linears`` makes of ``x``, of these ``widths``; together where that is faster.

    In compiled code on a GPU it is not: the gradients would have to be brought together for it,
    which takes longer than one product in place of several saves.
    """
    if torch.compiler.is_compiling() and x.device.type in _APART_WHERE_COMPILED:
        return [linear(x) for linear in linears]
    return project_together(x, *linears).split(widths, dim=-1)


def head_cross_entropy(
    head: Module,
    hidden: Float[Tensor, "... d_model"],
    targets: Int[Tensor, "..."],
    *,
    vocab_size: int,
    softcap: Module | None = None,
) -> Float[Tensor, ""]:
    """The mean cross-entropy, in nats, of the logits that ``head`` makes of ``hidden``.

    ``softcap`` is what the logits go through then, if anything. They never exist all at once.
    """
    softcap = Uncapped() if softcap is None else softcap
    if (
        is_plain_linear(head)
        and head.multiply is product
        and (is_plain(softcap, Uncapped) or is_plain(softcap, Softcap))
    ):
        return linear_cross_entropy(hidden, head.weight, targets, cap=softcap.cap)
    return projected_cross_entropy(
        lambda hidden: softcap(head(hidden)), hidden, targets, vocab_size=vocab_size
    )
