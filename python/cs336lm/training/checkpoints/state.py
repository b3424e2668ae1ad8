"""What a checkpoint holds, taken from a model and its optimizer and loaded into them again.

Loading never changes a model that the checkpoint does not match: keys, shapes and what is known of
the model's configuration are compared before the first weight is copied. Wrappers make no
difference: a checkpoint of ``torch.compile(model)``, or of DDP's, is one of ``model``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

State = dict[str, Any]
Shapes = Mapping[str, "torch.Size"]

FORMAT = 1
"""The version of what is in a checkpoint; one that lacks it is of before there were versions."""

_KEYS_SHOWN = 4

# What torch.compile, FSDP 1 and activation checkpointing put before the name of what they wrap,
# and DDP and DataParallel before that of a whole model.
_WRAPPED_ANYWHERE = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_WRAPPED_WHOLE = "module."

_PLAIN = (bool, int, float, str, type(None))  # what any version of PyTorch loads without pickle

# Differences that loading weights may make on purpose.
_FREE_SETTINGS = ("context_length", "vocab_size", "d_ff", "num_kv_heads")


class Damaged(ValueError):
    """A checkpoint is not as it was written, or none at all."""


class Mismatch(ValueError):
    """A checkpoint is whole, but not of this model or optimizer."""


def pack(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, iteration: int, **extra: Any
) -> State:
    """The content of a checkpoint; its tensors are the live ones, not copies."""
    return {
        **describe(model),
        "model": unwrapped(distinct_weights(model)),
        "optimizer_name": type(optimizer).__name__,
        "optimizer": optimizer.state_dict(),
        "optimizer_parameters": _names_in_order(model, optimizer),
        "iteration": iteration,
        **extra,
    }


def describe(model: torch.nn.Module) -> State:
    """What a checkpoint says about itself: its format, and the configuration of its model."""
    config = _model_config(model)
    return {"format": FORMAT} | ({} if config is None else {"model_config": config})


def distinct_weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """The state dict with each tensor once, by the first of its names: tied weights have two."""
    weights, others = model.state_dict(), other_names(model)
    return {name: weight for name, weight in weights.items() if name not in others}


def other_names(model: torch.nn.Module) -> dict[str, str]:
    """Names in the state dict whose tensor has an earlier name there, and that name."""
    first: dict[int, str] = {}
    tensors = model.state_dict(keep_vars=True)
    names = {name: first.setdefault(id(tensor), name) for name, tensor in tensors.items()}
    return {name: earlier for name, earlier in names.items() if earlier != name}


def unwrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict by the names that the model itself gives, whatever it was wrapped in."""
    names = _unwrapped_names(weights)
    if list(names) == list(names.values()):
        return weights
    return {names[name]: weight for name, weight in weights.items()}


def refuse_later_format(state: State, name: str) -> None:
    """Raises ``Mismatch`` if the checkpoint ``name`` is of a version yet to come."""
    if state.get("format", FORMAT) != FORMAT:
        raise Mismatch(
            f"{name} is a checkpoint of format {state['format']!r}, this version of cs336lm reads "
            f"format {FORMAT}: use the version that wrote it"
        )


def unpack_model(state: State, model: torch.nn.Module, name: str) -> None:
    """Loads the weights.

    Raises ``Mismatch`` that calls the checkpoint ``name`` if keys or shapes differ, or what the
    model computes with them.
    """
    saved = state["model"]
    if not isinstance(saved, dict) or not all(hasattr(value, "shape") for value in saved.values()):
        raise ValueError(f"{name} is not a checkpoint: its model is not a table of tensors")
    saved, wrapped, others = dict(unwrapped(saved)), model.state_dict(), other_names(model)
    plain_names = _unwrapped_names(wrapped)
    names = {plain: name for name, plain in plain_names.items()}
    current = {plain: wrapped[name] for plain, name in names.items()}
    # What is tied here is in a checkpoint once, in a plain state dict by all of its names.
    tied = [(plain_names[other], plain_names[first]) for other, first in others.items()]
    for other, first in tied:
        if first in saved:
            saved.setdefault(other, saved[first])
    shapes = ({key: value.shape for key, value in table.items()} for table in (saved, current))
    refuse_other_model(state, differences(*shapes), model, name)
    for other, first in tied:
        if not _equal(saved[first], saved[other]):
            raise Mismatch(
                f"{name}: the checkpoint does not match the model: {first!r} and {other!r} "
                "differ, but are one tensor here"
            )
    weights = {names[key]: _sliced_like(value, current[key]) for key, value in saved.items()}
    model.load_state_dict(weights | {other: weights[first] for other, first in others.items()})


def _equal(a: Tensor, b: Tensor) -> bool:
    """Whether they are the same tensor, or have the same content."""
    import torch

    return a is b or torch.equal(a, b)


def refuse_other_model(state: State, found: list[str], model: torch.nn.Module, name: str) -> None:
    """Raises ``Mismatch`` if differences were found, or if ``model`` computes something else."""
    before, now = state.get("model_config") or {}, _model_config(model) or {}
    if before and now:  # what a version of before did not know was as it is by default
        before = {**_default_config(model), **before}
    settings = [key for key in before if key in now and key not in _FREE_SETTINGS]
    found = found or [
        f"model.{key} {before[key]!r} instead of {now[key]!r}"
        for key in settings
        if before[key] != now[key]
    ]
    if found:
        raise Mismatch(f"{name}: the checkpoint does not match the model: {', '.join(found)}")


def unpack(
    state: State, model: torch.nn.Module, optimizer: torch.optim.Optimizer, name: str
) -> int:
    """Loads weights and optimizer state, and returns the iteration they are of."""
    if "optimizer" not in state:
        raise Mismatch(
            f"{name} does not contain an optimizer's state, only weights: training cannot "
            "continue from it"
        )
    ours = type(optimizer).__name__
    theirs = state.get("optimizer_name", ours)
    if theirs != ours:
        raise Mismatch(f"{name} holds the state of the optimizer {theirs}, not of {ours}")
    unpack_model(state, model, name)
    try:
        _load_optimizer(_grouped_as_now(state, model, optimizer), optimizer)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RuntimeError) as error:
        raise Mismatch(f"{name}: the checkpoint does not match the optimizer: {error}") from None
    return int(state["iteration"])


def _load_optimizer(saved: dict[str, Any], optimizer: torch.optim.Optimizer) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    slices = {
        index: {key: _sliced_like(value, parameters[index]) for key, value in values.items()}
        for index, values in saved["state"].items()
        if index < len(parameters)
    }
    optimizer.load_state_dict({**saved, "state": slices})


def _names_in_order(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> list[str | None]:
    """The name of each parameter of an optimizer, in the order in which a state dict counts them.

    None stands for one that is not the model's.
    """
    parameters = dict(model.named_parameters())
    plain = _unwrapped_names(parameters)
    names = {id(parameter): plain[name] for name, parameter in parameters.items()}
    return [names.get(id(p)) for group in optimizer.param_groups for p in group["params"]]


def _grouped_as_now(
    state: State, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """The optimizer's state dict with its parameters in the groups that ``optimizer`` has.

    The groups of ``build_optimizer`` follow from settings (a role with a learning rate of its own,
    say), which may be others when a run goes on: what is remembered of a parameter is found by its
    name. Somebody's own groups are left to match, and so are checkpoints of before there were
    names.
    """
    saved: dict[str, Any] = state["optimizer"]
    if not all("base_lr" in group for group in optimizer.param_groups):
        return saved
    before, now = state.get("optimizer_parameters"), _names_in_order(model, optimizer)
    if before is None or None in now or set(before) != set(now):
        return saved
    groups = optimizer.state_dict()["param_groups"]
    if before == now and list(map(_size, saved["param_groups"])) == list(map(_size, groups)):
        return saved
    places = {name: index for index, name in enumerate(before)}
    by_place = saved["state"]
    remembered = {
        index: by_place[places[name]] for index, name in enumerate(now) if places[name] in by_place
    }
    return {"state": remembered, "param_groups": groups}


def _size(group: dict[str, Any]) -> int:
    return len(group["params"])


def _unwrapped_names(weights: Mapping[str, Any]) -> dict[str, str]:
    """The name of each weight -> the name that the model itself gives it."""
    names = {name: _WRAPPED_ANYWHERE.sub("", name) for name in weights}
    while names and all(plain.startswith(_WRAPPED_WHOLE) for plain in names.values()):
        names = {name: plain.removeprefix(_WRAPPED_WHOLE) for name, plain in names.items()}
    is_clear = len(set(names.values())) == len(names)
    return names if is_clear else {name: name for name in weights}


def _model_config(model: Any) -> dict[str, Any] | None:
    """The configuration of the model inside whatever it is wrapped in, if it has one."""
    while not hasattr(model, "config") and hasattr(model, "module"):
        model = model.module
    config = getattr(model, "config", None)
    if not dataclasses.is_dataclass(config):
        return None
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {name: value for name, value in fields.items() if isinstance(value, _PLAIN)}


def _default_config(model: Any) -> dict[str, Any]:
    """The defaults of the model's configuration, where a field has one."""
    while not hasattr(model, "config"):
        model = model.module
    return {
        field.name: field.default
        for field in dataclasses.fields(model.config)
        if field.default is not dataclasses.MISSING
    }


def differences(saved: Shapes, current: Shapes) -> list[str]:
    """How saved tensors differ from the current ones in keys and shapes."""
    found = {
        "missing keys": [repr(key) for key in current if key not in saved],
        "unexpected keys": [repr(key) for key in saved if key not in current],
        "shapes": [
            f"{key!r} {tuple(saved[key])} instead of {tuple(shape)}"
            for key, shape in current.items()
            if key in saved and saved[key] != shape
        ],
    }
    return [f"{what} [{_shortened(items)}]" for what, items in found.items() if items]


def _shortened(items: list[str]) -> str:
    more = len(items) - _KEYS_SHOWN
    return ", ".join(items[:_KEYS_SHOWN] + ([f"and {more} more"] if more > 0 else []))


def _sliced_like(value: Any, like: Any) -> Any:
    """``value``, cut over the processes where ``like`` is the slice of a sharded tensor."""
    if not hasattr(like, "device_mesh") or not hasattr(value, "shape"):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
