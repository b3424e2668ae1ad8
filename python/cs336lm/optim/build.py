"""The optimizer that a configuration names; a new one is a file beside this and a line below."""

from collections.abc import Callable
from typing import Protocol

from torch.nn import Module
from torch.optim import Optimizer

from cs336lm.errors import UsageError
from cs336lm.optim.adagrad import AdaGrad
from cs336lm.optim.adamw import AdamW
from cs336lm.optim.groups import parameter_groups
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
    def weight_decay(self) -> float:
        """Decoupled weight decay."""


def _adamw(model: Module, settings: OptimizerSettings) -> Optimizer:
    groups = parameter_groups(model, settings.weight_decay)
    return AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps)


def _sgd(model: Module, settings: OptimizerSettings) -> Optimizer:
    return ScheduledSGD(model.parameters(), lr=settings.lr)


def _adagrad(model: Module, settings: OptimizerSettings) -> Optimizer:
    return AdaGrad(model.parameters(), lr=settings.lr, eps=settings.eps)


OPTIMIZERS: dict[str, Callable[[Module, OptimizerSettings], Optimizer]] = {
    "adamw": _adamw,
    "sgd": _sgd,
    "adagrad": _adagrad,
}


def build_optimizer(model: Module, settings: OptimizerSettings) -> Optimizer:
    """The optimizer ``settings.name`` for all parameters of ``model``.

    Raises ``UsageError`` if there is none of this name.
    """
    if settings.name not in OPTIMIZERS:
        raise UsageError(f"optim.name={settings.name!r} is not one of {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[settings.name](model, settings)
