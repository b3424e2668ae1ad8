"""Which parameters are updated alike: groups by the role that a parameter has in the model.

A module states the role of its own parameters as ``module.role``, see
:mod:`cs336lm.model.roles`. One that states none (an adapter, a layer from elsewhere) gets it from
the number of dimensions: a matrix, or a gain.
"""

from collections.abc import Callable
from typing import Any

from torch.nn import Module, Parameter

from cs336lm.model.roles import Role

DECAYED: frozenset[Role] = frozenset({"embedding", "matrix", "head"})
"""Roles that weight decay is for. A gain's neutral value is 1, not 0."""


def parameter_roles(model: Module) -> dict[Parameter, Role]:
    """The role of each parameter, in the order of ``model.parameters()``.

    A parameter that several modules share has the role that the first of them states.
    """
    roles: dict[Parameter, Role] = {}
    for module in model.modules():
        stated: Role | None = getattr(module, "role", None)
        for parameter in module.parameters(recurse=False):
            by_shape: Role = "matrix" if parameter.ndim >= 2 else "gain"
            roles.setdefault(parameter, by_shape if stated is None else stated)
    return roles


def groups_by_role(
    model: Module, settings: Callable[[Role, Parameter], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Groups for an optimizer: the parameters for which ``settings`` says the same, together.

    First come those of roles that weight decay is for, where it is among the settings, so that the
    order (by which a state dict knows a parameter) depends on the model alone as far as it can.
    """
    groups: dict[Any, dict[str, Any]] = {}
    for parameter, role in parameter_roles(model).items():
        said = settings(role, parameter)
        plain = "weight_decay" in said and role not in DECAYED
        group = groups.setdefault((plain, *said.items()), {"params": [], **said})
        group["params"].append(parameter)
    return [groups[key] for key in sorted(groups, key=lambda key: key[0])]


def parameter_groups(model: Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for an optimizer: with weight decay, and without."""
    return groups_by_role(
        model, lambda role, _: {"weight_decay": weight_decay if role in DECAYED else 0.0}
    )
