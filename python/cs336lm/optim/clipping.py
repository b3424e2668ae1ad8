"""Clipping the gradient by its global norm."""

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def clip_gradients(
    parameters: Iterable[Tensor] | Tensor, max_l2_norm: float, eps: float = 1e-6
) -> Tensor:
    """Scales all gradients, in place, so that together their L2 norm is at most ``max_l2_norm``.

    (Pascanu et al. 2012.) Gradients are multiplied by min(1, max_l2_norm / (norm + eps)); that
    multiplication happens on the device whatever the norm is, so nothing waits for its value.

    Returns:
        The norm before clipping, in float32 or better, as a scalar tensor on the gradients' device.
        Reading it (``float(norm)``) is up to the caller.

    Examples:
        >>> weight = torch.zeros(2, requires_grad=True)
        >>> weight.grad = torch.tensor([3.0, 4.0])
        >>> clip_gradients([weight], max_l2_norm=1.0)
        tensor(5.)
        >>> weight.grad
        tensor([0.6000, 0.8000])
    """
    parameters = [parameters] if isinstance(parameters, Tensor) else parameters
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return torch.zeros(())
    norms = [norm.to(grads[0].device) for norm in _l2_norms(grads)]
    total = torch.linalg.vector_norm(torch.stack(norms))
    if hasattr(total, "full_tensor"):  # each rank holds a shard: gather what they contribute
        total = total.full_tensor()
    scale = (max_l2_norm / (total + eps)).clamp(max=1.0)
    for device in {grad.device for grad in grads}:
        torch._foreach_mul_([g for g in grads if g.device == device], scale.to(device))
    return total


def _l2_norms(grads: list[Tensor]) -> list[Tensor]:
    """One norm a tensor; half precision is summed in float32."""
    half = (torch.float16, torch.bfloat16)
    dtype = torch.float32 if any(grad.dtype in half for grad in grads) else None
    return list(torch._foreach_norm(grads, 2, dtype=dtype))
