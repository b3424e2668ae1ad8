"""The optimizer that a configuration names; a new one is a file beside this and a line below."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from torch.nn import Module, Parameter
from torch.optim import Optimizer

from cs336lm.errors import UsageError
from cs336lm.model.roles import Role
from cs336lm.optim.adagrad import AdaGrad
from cs336lm.optim.adamw import AdamW
from cs336lm.optim.groups import groups_by_role
from cs336lm.optim.muon import Muon
from cs336lm.optim.normuon import NorMuon
from cs336lm.optim.scheduled_sgd import ScheduledSGD


class OptimizerSettings(Protocol):
    """What an optimizer reads of the section ``[optim]``; each takes what it knows."""

    @property
    def name(self) -> str:
        """A key of ``OPTIMIZERS``."""

    @property
    def lr(self) -> float:
        """The learning rate; the schedule sets it anew before each step."""

    @property
    def betas(self) -> tuple[float, float]:
        """How much of the running means of g and g^2 a step keeps."""

    @property
    def eps(self) -> float:
        """Keeps quotients finite."""

    @property
    def momentum(self) -> float:
        """How much of the running mean of the gradients Muon keeps."""

    def lr_of(self, role: Role) -> float:
        """The learning rate of the parameters of a role, at its highest."""

    def decay_of(self, role: Role) -> float:
        """Their decoupled weight decay."""

    def betas_of(self, role: Role) -> tuple[float, float]:
        """Their ``betas``."""


def _adamw(model: Module, settings: OptimizerSettings, _: Any) -> Optimizer:
    groups = groups_by_role(model, lambda role, _: _adamw_of(settings, role))
    return AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps)


def _sgd(model: Module, settings: OptimizerSettings, _: Any) -> Optimizer:
    groups = groups_by_role(model, lambda role, _: {"lr": settings.lr_of(role)})
    return ScheduledSGD(groups, lr=settings.lr)


def _adagrad(model: Module, settings: OptimizerSettings, _: Any) -> Optimizer:
    groups = groups_by_role(model, lambda role, _: {"lr": settings.lr_of(role)})
    return AdaGrad(groups, lr=settings.lr, eps=settings.eps)


def _muon(
    kind: type[Muon], model: Module, settings: OptimizerSettings, process_group: Any
) -> Optimizer:
    def of(role: Role, parameter: Parameter) -> dict[str, Any]:
        said = _adamw_of(settings, role)
        if role != "matrix":
            return {"matrices": False, **said}
        if parameter.ndim == 2:
            return {"matrices": True, **said}
        return {"matrices": False, **said, "lr": settings.lr}  # no matrix, whatever it is called

    groups = groups_by_role(model, of)
    if not any(group["matrices"] for group in groups):
        raise UsageError(
            f"optim.name={settings.name!r} is for matrices inside blocks, of which this model has "
            "none: take optim.name='adamw'"
        )
    return kind(
        groups,
        settings.lr_of("matrix"),
        settings.momentum,
        betas=settings.betas,
        eps=settings.eps,
        process_group=process_group,
    )


def _adamw_of(settings: OptimizerSettings, role: Role) -> dict[str, Any]:
    return {
        "lr": settings.lr_of(role),
        "betas": settings.betas_of(role),
        "weight_decay": settings.decay_of(role),
    }


OPTIMIZERS: dict[str, Callable[[Module, OptimizerSettings, Any], Optimizer]] = {
    "adamw": _adamw,
    "sgd": _sgd,
    "adagrad": _adagrad,
    "muon": partial(_muon, Muon),
    "normuon": partial(_muon, NorMuon),
}


def build_optimizer(
    model: Module, settings: OptimizerSettings, process_group: Any = None
) -> Optimizer:
    """The optimizer ``settings.name`` for all parameters of ``model``.

    ``process_group`` are the processes that hold copies of the model, if there are several. Each
    group of the optimizer remembers as ``"base_lr"`` the learning rate that it has here, which a
    schedule multiplies. Raises ``UsageError`` if there is no optimizer of this name, or if it is
    none for this model.
    """
    if settings.name not in OPTIMIZERS:
        raise UsageError(f"optim.name={settings.name!r} is not one of {', '.join(OPTIMIZERS)}")
    optimizer = OPTIMIZERS[settings.name](model, settings, process_group)
    for group in optimizer.param_groups:
        group["base_lr"] = group["lr"]
    return optimizer
