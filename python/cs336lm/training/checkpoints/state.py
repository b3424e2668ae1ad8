"""What a checkpoint holds, taken from a model and its optimizer and loaded into them again.

Loading never changes a model that the checkpoint does not match: keys and shapes are compared
before the first weight is copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

State = dict[str, Any]

_KEYS_SHOWN = 4


def pack(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, iteration: int, **extra: Any
) -> State:
    """The content of a checkpoint; its tensors are the live ones, not copies."""
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "iteration": iteration,
        **extra,
    }


def unpack_model(state: State, model: torch.nn.Module, name: str) -> None:
    """Loads the weights.

    Raises ``ValueError`` that calls the checkpoint ``name`` if keys or shapes differ.
    """
    current, saved = model.state_dict(), state["model"]
    if not isinstance(saved, dict) or not all(hasattr(value, "shape") for value in saved.values()):
        raise ValueError(f"{name} is not a checkpoint: its model is not a table of tensors")
    differences = _differences(saved, current)
    if differences:
        raise ValueError(
            f"{name}: the checkpoint does not match the model: {', '.join(differences)}"
        )
    model.load_state_dict({key: _sliced_like(value, current[key]) for key, value in saved.items()})


def unpack(
    state: State, model: torch.nn.Module, optimizer: torch.optim.Optimizer, name: str
) -> int:
    """Loads weights and optimizer state, and returns the iteration they are of."""
    if "optimizer" not in state:
        raise ValueError(
            f"{name} does not contain an optimizer's state, only weights: training cannot "
            "continue from it"
        )
    unpack_model(state, model, name)
    saved = state["optimizer"]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    slices = {
        index: {key: _sliced_like(value, parameters[index]) for key, value in values.items()}
        for index, values in saved["state"].items()
        if index < len(parameters)
    }
    try:
        optimizer.load_state_dict({**saved, "state": slices})
    except (ValueError, KeyError) as error:
        raise ValueError(f"{name}: the checkpoint does not match the optimizer: {error}") from None
    return int(state["iteration"])


def _differences(saved: dict[str, Tensor], current: dict[str, Tensor]) -> list[str]:
    """How the saved tensors differ from the current ones in keys and shapes."""
    found = {
        "missing keys": [repr(key) for key in current if key not in saved],
        "unexpected keys": [repr(key) for key in saved if key not in current],
        "shapes": [
            f"{key!r} {tuple(saved[key].shape)} instead of {tuple(value.shape)}"
            for key, value in current.items()
            if key in saved and saved[key].shape != value.shape
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
