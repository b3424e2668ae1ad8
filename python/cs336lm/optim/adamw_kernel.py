"""AdamW on a GPU in one kernel: every number is read and written once a step.

As multi-tensor operations, one for each term of the formula, a step moves five times as much. Here
a program takes a block of one parameter; where the tensors lie, it looks up in tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import Parameter

from cs336lm.model.kernels.triton_trial import on_device_of

_BLOCK = 4096  # elements a program
_ALIGNMENT = tl.constexpr(16)  # bytes


@triton.jit
def _adamw_kernel(
    addresses_ptr,
    sizes_ptr,
    tensor_of_block_ptr,
    number_in_tensor_ptr,
    tensors,
    kept,
    new_in_m,
    beta2,
    new_in_v,
    rate,
    eps,
    block: tl.constexpr,
):
    program = tl.program_id(0)
    tensor = tl.load(tensor_of_block_ptr + program)
    first = tl.load(number_in_tensor_ptr + program).to(tl.int64) * block
    size = tl.load(sizes_ptr + tensor)
    p_ptr = _tensor_at(addresses_ptr + tensor) + first
    m_ptr = _tensor_at(addresses_ptr + tensors + tensor) + first
    v_ptr = _tensor_at(addresses_ptr + 2 * tensors + tensor) + first
    g_ptr = _tensor_at(addresses_ptr + 3 * tensors + tensor) + first
    i = tl.arange(0, block)
    # Where nothing is masked, four numbers are read at once.
    if first + block <= size:
        p, m, v = _updated(
            tl.load(p_ptr + i),
            tl.load(m_ptr + i),
            tl.load(v_ptr + i),
            tl.load(g_ptr + i),
            kept,
            new_in_m,
            beta2,
            new_in_v,
            rate,
            eps,
        )
        tl.store(p_ptr + i, p)
        tl.store(m_ptr + i, m)
        tl.store(v_ptr + i, v)
    else:
        exists = first + i < size
        p, m, v = _updated(
            tl.load(p_ptr + i, mask=exists, other=0.0),
            tl.load(m_ptr + i, mask=exists, other=0.0),
            tl.load(v_ptr + i, mask=exists, other=0.0),
            tl.load(g_ptr + i, mask=exists, other=0.0),
            kept,
            new_in_m,
            beta2,
            new_in_v,
            rate,
            eps,
        )
        tl.store(p_ptr + i, p, mask=exists)
        tl.store(m_ptr + i, m, mask=exists)
        tl.store(v_ptr + i, v, mask=exists)


@triton.jit
def _tensor_at(address_ptr):
    return tl.multiple_of(tl.load(address_ptr).to(tl.pointer_type(tl.float32)), _ALIGNMENT)


@triton.jit
def _updated(p, m, v, g, kept, new_in_m, beta2, new_in_v, rate, eps):
    m += new_in_m * (g - m)
    v = beta2 * v + new_in_v * g * g
    return kept * p - rate * m / (tl.sqrt(v) + eps), m, v


class _Blocks:
    """Which program works on what, for tensors of some sizes; and where the tensors are."""

    def __init__(self, sizes: Sequence[int], device: torch.device) -> None:
        elements = torch.tensor(sizes)
        blocks = (elements + _BLOCK - 1) // _BLOCK
        tensor_of_block = torch.repeat_interleave(torch.arange(len(sizes)), blocks)
        first_block = torch.cumsum(blocks, 0) - blocks
        number_in_tensor = torch.arange(len(tensor_of_block)) - first_block[tensor_of_block]
        self.sizes = elements.to(device)
        self.tensor_of_block = tensor_of_block.to(device, torch.int32)
        self.number_in_tensor = number_in_tensor.to(device, torch.int32)
        self._addresses: list[int] = []
        self._table = torch.empty(0)

    def table_of(self, tensors: Sequence[Tensor]) -> Tensor:
        """Their addresses, on the device: (tensors,), int64."""
        addresses = [tensor.data_ptr() for tensor in tensors]
        if addresses != self._addresses:
            table, device = torch.tensor(addresses), self.sizes.device
            if device.type == "cuda":
                table = table.pin_memory()
            self._table = table.to(device, non_blocking=True)
            self._addresses = addresses
        return self._table


_blocks = lru_cache(maxsize=16)(_Blocks)


def suits(*lists: Sequence[Tensor]) -> bool:
    """Whether the kernel is for these: contiguous, aligned and float32, all on one GPU."""
    device = lists[0][0].device
    return device.type == "cuda" and all(
        type(tensor) in (Tensor, Parameter)
        and tensor.dtype == torch.float32
        and tensor.device == device
        and tensor.is_contiguous()
        and tensor.data_ptr() % _ALIGNMENT.value == 0
        for tensors in lists
        for tensor in tensors
    )


def adamw_in_one_kernel(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    *,
    betas: tuple[float, float],
    kept: float,
    rate: float,
    eps: float,
) -> None:
    """Takes the gradients into m and v; then p <- kept p - rate m / (sqrt(v) + eps).

    The tensors must be such that it :func:`suits`.
    """
    blocks = _blocks(tuple(param.numel() for param in params), params[0].device)
    with on_device_of(params[0]):
        _adamw_kernel[(len(blocks.tensor_of_block),)](
            blocks.table_of([*params, *exp_avgs, *exp_avg_sqs, *grads]),
            blocks.sizes,
            blocks.tensor_of_block,
            blocks.number_in_tensor,
            len(params),
            kept,
            1 - betas[0],
            betas[1],
            1 - betas[1],
            rate,
            eps,
            block=_BLOCK,
            num_warps=8,
        )
