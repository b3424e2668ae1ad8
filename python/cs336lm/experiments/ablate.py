"""Ablations: the baseline, and the baseline with one thing changed.

The first five are those of the CS336 handout (section 7.3 of assignment 1): no RMSNorm, at the
baseline's learning rate and at a lower one; post-norm; no position embedding; SiLU instead of
SwiGLU at equal parameters. The others change what has been proposed since.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cs336lm.errors import UsageError
from cs336lm.experiments.comparison import Group, p_value
from cs336lm.experiments.space import Overrides, with_overrides
from cs336lm.experiments.tables import Table, number, parameters
from cs336lm.model.accounting import FEED_FORWARD_MATRICES
from cs336lm.training.config import Config

BASELINE = "baseline"
NOISE = 0.05
"""A difference counts as more than the seeds' noise where chance gives it less often than this."""

_LOWER = 0.1  # of the baseline's learning rate, for the model without norms


@dataclass(frozen=True)
class Ablation:
    """One change of the baseline, with its reason."""

    what: str
    overrides: Callable[[Config], Overrides]


def _fields(**fields: object) -> Callable[[Config], Overrides]:
    """The same values whatever the baseline: ``model__norm="none"``."""
    return lambda _: {name.replace("__", "."): value for name, value in fields.items()}


def _network(ffn: str) -> Callable[[Config], Overrides]:
    """Another feed-forward network, as wide as gives it the baseline's number of parameters."""

    def overrides(base: Config) -> Overrides:
        matrices = FEED_FORWARD_MATRICES[base.model.ffn] / FEED_FORWARD_MATRICES[ffn]
        return {"model.ffn": ffn, "model.d_ff": round(base.model.ffn_width * matrices)}

    return overrides


def _times(field: str, factor: float, **fields: object) -> Callable[[Config], Overrides]:
    """The baseline's ``optim.FIELD`` times ``factor``, and other fields."""

    def overrides(base: Config) -> Overrides:
        return {**_fields(**fields)(base), f"optim.{field}": getattr(base.optim, field) * factor}

    return overrides


ABLATIONS: dict[str, Ablation] = {
    "no-norm": Ablation("no RMSNorm at all", _fields(model__norm="none")),
    "no-norm-low-lr": Ablation(
        "no RMSNorm, a tenth of the learning rate", _times("lr", _LOWER, model__norm="none")
    ),
    "post-norm": Ablation("RMSNorm after each sublayer", _fields(model__norm="post")),
    "nope": Ablation("no position embedding", _fields(model__positions="none")),
    "silu": Ablation("SiLU without a gate, at equal parameters", _network("silu")),
    "relu2": Ablation("squared ReLU, at equal parameters", _network("relu2")),
    "tied": Ablation("embedding and head share a matrix", _fields(model__tie_embeddings=True)),
    "qk-norm": Ablation("RMSNorm of queries and keys", _fields(model__qk_norm=True)),
    "zero-init": Ablation("output projections begin at zero", _fields(model__zero_init=True)),
    "soft-cap": Ablation("logits within 15 by tanh", _fields(model__logit_softcap=15.0)),
    "residual-scalars": Ablation(
        "each block reads a x + b e, learned", _fields(model__residual_scalars=True)
    ),
    "value-embeddings": Ablation(
        "vectors by token added to values", _fields(model__value_embeddings=True)
    ),
    "one-kv-head": Ablation(
        "all heads share one of keys and values", _fields(model__num_kv_heads=1)
    ),
    "linear": Ablation(
        "the learning rate falls in a line, to 0",
        _fields(optim__schedule="linear", optim__min_lr=0.0),
    ),
    "muon": Ablation("Muon for the blocks' matrices", _fields(optim__name="muon")),
    "normuon": Ablation("NorMuon for the blocks' matrices", _fields(optim__name="normuon")),
    "sgd": Ablation("SGD, 100 times the learning rate", _times("lr", 100.0, optim__name="sgd")),
    "adagrad": Ablation(
        "AdaGrad, ten times the learning rate", _times("lr", 10.0, optim__name="adagrad")
    ),
}


def variants_of(base: Config, names: Sequence[str], *, whole: bool = False) -> dict[str, Overrides]:
    """The baseline and the named ablations of it, in this order.

    Raises ``UsageError`` for a name that there is not, and for a change that changes nothing; with
    ``whole`` the latter is left out instead.
    """
    variants: dict[str, Overrides] = {BASELINE: {}}
    for name in names:
        if name not in ABLATIONS:
            raise UsageError(f"there is no ablation {name!r}: there are {', '.join(ABLATIONS)}")
        overrides = ABLATIONS[name].overrides(base)
        if with_overrides(base, overrides) != base:
            variants[name] = overrides
        elif not whole:
            raise UsageError(f"{name} is what the baseline is already: leave it out of --only")
    return variants


def ablation_table(groups: dict[str, Group]) -> Table:
    """A row a variant: parameters, loss with spread, difference from the baseline, its test."""
    baseline = groups[BASELINE]
    rows = [
        [name, *_figures(group), *_difference(group, baseline, is_baseline=name == BASELINE)]
        for name, group in groups.items()
    ]
    headings = ["", "parameters", "val loss", "± seeds", "difference", "p", "beyond the noise"]
    return Table(headings, rows)


def _figures(group: Group) -> list[str]:
    count = group.records[0]["parameters"] if group.records else None
    if group.diverged:
        loss = f"diverged ({group.diverged} of {len(group.records)})"
    else:
        loss = number(group.mean)
    return [parameters(count), loss, number(group.spread)]


def _difference(group: Group, baseline: Group, *, is_baseline: bool) -> list[str]:
    if is_baseline:
        return ["", "", ""]
    if group.diverged and not baseline.diverged:
        return ["", "", "yes: it diverged"]
    if group.mean is None or baseline.mean is None:
        return ["-", "-", "-"]
    p = p_value(group.losses, baseline.losses)
    verdict = "-" if p is None else "yes" if p < NOISE else "no"
    return [f"{group.mean - baseline.mean:+.4f}", number(p, 3), verdict]
