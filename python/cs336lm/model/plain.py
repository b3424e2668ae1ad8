"""Whether a module does just what its class says, so that a twin may compute it in its place."""

from typing import TypeGuard, TypeVar

from torch.nn import Module
from torch.nn.modules import module as torch_module

M = TypeVar("M", bound=Module)


def is_plain(module: object, kind: type[M]) -> TypeGuard[M]:
    """Whether ``module`` is a ``kind``, not a subclass, with nothing attached to its call.

    An adapter is another class, and so is a parametrized or a sharded module; hooks, on the module
    or on all modules, would not fire if its forward were passed by.
    """
    return (
        type(module) is kind
        and "forward" not in module.__dict__
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and not module._backward_hooks
        and not module._backward_pre_hooks
        and not torch_module._has_any_global_hook()
    )
