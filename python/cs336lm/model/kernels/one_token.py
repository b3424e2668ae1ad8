"""Kernels for one token of one sequence on a GPU, in Triton: all that lies between two waits.

A token needs every weight once, so reading them decides, and after that the number of kernels:
each begins with some two microseconds in which nothing is read. Here a block takes six. What an
operation needs of the whole vector is computed by each program for itself (the vector is a few
kilobytes, a norm of it costs nothing beside a row of weights), so norms, gains, activations and
residuals are inside the products, and everything about one head inside attention.

The kernels of a token overlap (programmatic dependent launch, from compute capability 9.0 on): each
lets the next one begin at once, reads what no kernel of this token writes (weights, older keys and
values, tables), and only then waits for the one before. Vectors between them are float32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ACTIVATIONS = {"none": 0, "silu": 1, "relu2": 2, "swiglu": 3}
"""What ``project`` may do to its products; "swiglu" makes one of two, a gate and an up."""

WIDEST = 16384
"""The longest row of a matrix: a program holds whole rows."""
WIDEST_HEAD = 256

_NUMBERS_AT_ONCE = 8192  # of keys, and of values: what eight warps have registers for
_MOST_PARTS = 8

_NONE, _SILU, _RELU2, _SWIGLU = map(tl.constexpr, ACTIVATIONS.values())


@triton.jit
def _sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def _project_kernel(
    x_ptr,
    gain_ptr,
    first_ptr,
    second_ptr,
    third_ptr,
    out_ptr,
    rows_of_first,
    rows_of_second,
    rows_of_third,
    eps,
    d_in: tl.constexpr,
    columns: tl.constexpr,
    rows: tl.constexpr,
    normalizes: tl.constexpr,
    activation: tl.constexpr,
    adds: tl.constexpr,
    overlaps: tl.constexpr,
):
    if overlaps:
        tl.extra.cuda.gdc_launch_dependents()
    # Programs are numbered through the matrices; none has rows of two.
    program = tl.program_id(0)
    programs_of_first = tl.cdiv(rows_of_first, rows)
    weight_ptr = first_ptr
    last = rows_of_first
    out = out_ptr
    if activation != _SWIGLU:
        programs_of_second = tl.cdiv(rows_of_second, rows)
        if program >= programs_of_first + programs_of_second:
            program -= programs_of_first + programs_of_second
            weight_ptr = third_ptr
            last = rows_of_third
            out += rows_of_first + rows_of_second
        elif program >= programs_of_first:
            program -= programs_of_first
            weight_ptr = second_ptr
            last = rows_of_second
            out += rows_of_first
    n = program * rows + tl.arange(0, rows)
    k = tl.arange(0, columns)
    place = n.to(tl.int64)[:, None] * d_in + k[None, :]
    exists = (n < last)[:, None] & (k < d_in)[None, :]
    weight = tl.load(weight_ptr + place, mask=exists, other=0.0)
    if activation == _SWIGLU:
        up_weight = tl.load(second_ptr + place, mask=exists, other=0.0)
    if normalizes:
        gain = tl.load(gain_ptr + k, mask=k < d_in, other=0.0).to(tl.float32)
    if overlaps:
        tl.extra.cuda.gdc_wait()

    x = tl.load(x_ptr + k, mask=k < d_in, other=0.0)
    if normalizes:
        x *= tl.rsqrt(tl.sum(x * x, 0) / d_in + eps) * gain
    y = tl.sum(weight.to(tl.float32) * x[None, :], 1)
    if activation == _SILU:
        y *= _sigmoid(y)
    if activation == _RELU2:
        y = tl.maximum(y, 0.0)
        y *= y
    if activation == _SWIGLU:
        y *= _sigmoid(y) * tl.sum(up_weight.to(tl.float32) * x[None, :], 1)
    if adds:
        y += tl.load(out + n, mask=n < last, other=0.0)
    tl.store(out + n, y, mask=n < last)


def project(
    x: Tensor,
    weights: tuple[Tensor, ...],
    out: Tensor,
    *,
    gain: Tensor | None = None,
    eps: float = 0.0,
    activation: int = 0,
    adds: bool = False,
    overlaps: bool = False,
) -> None:
    """``out`` becomes the products of ``x`` with up to three matrices, one after the other.

    Args:
        x: (d_in,), float32.
        weights: (d_out, d_in) each, of any floating dtype, contiguous; ``d_in`` up to ``WIDEST``.
        out: float32, as long as all ``d_out`` together; for "swiglu" as one of them.
        gain: (d_in,), of an RMSNorm that ``x`` goes through before, with ``eps``.
        activation: one of ``ACTIVATIONS``: what the products go through.
        adds: whether to add to what ``out`` holds.
        overlaps: whether the kernel may begin before the one launched before it is done.
    """
    d_in = weights[0].shape[1]
    sizes = [weight.shape[0] for weight in weights] + [0] * (3 - len(weights))
    matrices = [*weights] + [weights[0]] * (3 - len(weights))
    is_gated = activation == ACTIVATIONS["swiglu"]
    rows = 2 if is_gated else 4
    programs = sum(-(-size // rows) for size in (sizes[:1] if is_gated else sizes))
    _project_kernel[(programs,)](
        x,
        x if gain is None else gain,
        *matrices,
        out,
        *sizes,
        eps,
        d_in=d_in,
        columns=triton.next_power_of_2(d_in),
        rows=rows,
        normalizes=gain is not None,
        activation=activation,
        adds=adds,
        overlaps=overlaps,
        num_warps=4 if d_in <= 4096 else 8,
        **_launch(overlaps),
    )


@triton.jit
def _attend_kernel(
    qkv_ptr,
    q_gain_ptr,
    k_gain_ptr,
    cos_ptr,
    sin_ptr,
    position_ptr,
    keys_ptr,
    values_ptr,
    parts_ptr,
    slots,
    scale,
    eps,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    d_head: tl.constexpr,
    columns: tl.constexpr,
    rows: tl.constexpr,
    blocks: tl.constexpr,
    rotates: tl.constexpr,
    normalizes: tl.constexpr,
    overlaps: tl.constexpr,
):
    if overlaps:
        tl.extra.cuda.gdc_launch_dependents()
    head = tl.program_id(0)
    part = tl.program_id(1)
    group: tl.constexpr = heads // kv_heads
    kv_head = head // group
    d = tl.arange(0, columns)
    exists = d < d_head
    neighbour = d ^ 1  # the other one of a rotated pair
    position = tl.load(position_ptr)
    keys_ptr += kv_head.to(tl.int64) * slots * d_head
    values_ptr += kv_head.to(tl.int64) * slots * d_head
    slot = tl.arange(0, rows)
    place = slot[:, None] * d_head + d[None, :]
    first = part * (rows * blocks)
    end = tl.minimum(first + rows * blocks, position)
    seen = (first + slot < end)[:, None] & exists[None, :]
    keys = tl.load(keys_ptr + first * d_head + place, mask=seen, other=0.0)
    values = tl.load(values_ptr + first * d_head + place, mask=seen, other=0.0)
    if rotates:
        cos = tl.load(cos_ptr + position * (d_head // 2) + d // 2, mask=exists, other=0.0)
        sin = tl.load(sin_ptr + position * (d_head // 2) + d // 2, mask=exists, other=0.0)
        sin = tl.where(d % 2 == 0, -sin, sin)
    if overlaps:
        tl.extra.cuda.gdc_wait()

    q_ptr = qkv_ptr + head * d_head
    k_ptr = qkv_ptr + (heads + kv_head) * d_head
    q = tl.load(q_ptr + d, mask=exists, other=0.0)
    k = tl.load(k_ptr + d, mask=exists, other=0.0)
    v = tl.load(qkv_ptr + (heads + kv_heads + kv_head) * d_head + d, mask=exists, other=0.0)
    if normalizes:
        q_scale = tl.rsqrt(tl.sum(q * q, 0) / d_head + eps)
        k_scale = tl.rsqrt(tl.sum(k * k, 0) / d_head + eps)
        q *= q_scale * tl.load(q_gain_ptr + d, mask=exists, other=0.0).to(tl.float32)
        k *= k_scale * tl.load(k_gain_ptr + d, mask=exists, other=0.0).to(tl.float32)
    if rotates:
        other_q = tl.load(q_ptr + neighbour, mask=exists, other=0.0)
        other_k = tl.load(k_ptr + neighbour, mask=exists, other=0.0)
        if normalizes:
            q_gain = tl.load(q_gain_ptr + neighbour, mask=exists, other=0.0).to(tl.float32)
            k_gain = tl.load(k_gain_ptr + neighbour, mask=exists, other=0.0).to(tl.float32)
            other_q *= q_scale * q_gain
            other_k *= k_scale * k_gain
        q = q * cos + other_q * sin
        k = k * cos + other_k * sin
    q *= scale
    # What later tokens will read is what this one sees.
    k = k.to(keys.dtype)
    v = v.to(values.dtype)
    keeps = (part == 0) & (head % group == 0)
    if keeps:
        tl.store(keys_ptr + position * d_head + d, k, mask=exists)
        tl.store(values_ptr + position * d_head + d, v, mask=exists)

    # Softmax as the scores come (Milakov and Gimelshein 2018): the first part begins with this
    # token's own, the others with nothing.
    is_first = (part == 0).to(tl.float32)
    greatest = tl.where(part == 0, tl.sum(q * k.to(tl.float32), 0), -float("inf"))
    total = is_first
    mixed = v.to(tl.float32) * is_first
    while first < end:
        scores = tl.sum(keys.to(tl.float32) * q[None, :], 1)
        scores = tl.where(first + slot < end, scores, -float("inf"))
        above = tl.maximum(greatest, tl.max(scores, 0))
        shares = tl.exp(scores - above)
        shrink = tl.exp(greatest - above)
        total = total * shrink + tl.sum(shares, 0)
        mixed = mixed * shrink + tl.sum(shares[:, None] * values.to(tl.float32), 0)
        greatest = above
        first += rows
        seen = (first + slot < end)[:, None] & exists[None, :]
        keys = tl.load(keys_ptr + first * d_head + place, mask=seen, other=0.0)
        values = tl.load(values_ptr + first * d_head + place, mask=seen, other=0.0)
    part_ptr = parts_ptr + (head * tl.num_programs(1) + part) * (d_head + 2)
    tl.store(part_ptr + d, mixed, mask=exists)
    tl.store(part_ptr + d_head, greatest)
    tl.store(part_ptr + d_head + 1, total)


@triton.jit
def _join_kernel(
    parts_ptr,
    out_ptr,
    parts,
    d_head: tl.constexpr,
    columns: tl.constexpr,
    most: tl.constexpr,
    overlaps: tl.constexpr,
):
    if overlaps:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    head = tl.program_id(0)
    part = tl.arange(0, most)
    d = tl.arange(0, columns)
    exists = part < parts
    part_ptr = parts_ptr + (head * parts + part) * (d_head + 2)
    seen = exists[:, None] & (d < d_head)[None, :]
    mixed = tl.load(part_ptr[:, None] + d[None, :], mask=seen, other=0.0)
    greatest = tl.load(part_ptr + d_head, mask=exists, other=-float("inf"))
    total = tl.load(part_ptr + d_head + 1, mask=exists, other=0.0)
    shares = tl.exp(greatest - tl.max(greatest, 0))
    whole = tl.sum(shares[:, None] * mixed, 0) / tl.sum(shares * total, 0)
    tl.store(out_ptr + head * d_head + d, whole, mask=d < d_head)


class Attention:
    """One token's attention to those before and to itself, in a cache of so many slots.

    The slots are shared out among up to eight programs a head, whose results are joined then
    (Flash-Decoding, Dao et al. 2023).
    """

    def __init__(self, heads: int, d_head: int, slots: int, device: torch.device | str) -> None:
        self.heads, self.d_head = heads, d_head
        self.columns = triton.next_power_of_2(d_head)
        self.rows = _NUMBERS_AT_ONCE // self.columns
        tiles = -(-slots // self.rows)
        self.blocks = -(-tiles // _MOST_PARTS)
        self.parts = -(-tiles // self.blocks)
        size = heads * self.parts * (d_head + 2)
        self.results = torch.empty(size, device=device, dtype=torch.float32)

    def __call__(
        self,
        qkv: Tensor,
        keys: Tensor,
        values: Tensor,
        position: Tensor,
        out: Tensor,
        *,
        tables: tuple[Tensor, Tensor] | None,
        gains: tuple[Tensor, Tensor] | None = None,
        eps: float = 0.0,
        overlaps: bool = False,
    ) -> None:
        """``out`` becomes what the heads see.

        Args:
            qkv: ((heads + 2 kv_heads) d_head,), float32: this token's queries, keys and values.
            keys, values: (1, kv_heads, slots, d_head), where those of the tokens before are, and
                where this token's go.
            position: (1,), this token's; in a slot of this number.
            out: (heads d_head,), float32.
            tables: cosines and sines, (positions, d_head / 2) each, that queries and keys are
                rotated by; None leaves them.
            gains: (d_head,) each, of RMSNorms of queries and keys before that, with ``eps``.
            overlaps: see :func:`project`.
        """
        _, kv_heads, slots, d_head = keys.shape
        _attend_kernel[(self.heads, self.parts)](
            qkv,
            *((qkv, qkv) if gains is None else gains),
            *((qkv, qkv) if tables is None else tables),
            position,
            keys,
            values,
            self.results,
            slots,
            d_head**-0.5,
            eps,
            heads=self.heads,
            kv_heads=kv_heads,
            d_head=d_head,
            columns=self.columns,
            rows=self.rows,
            blocks=self.blocks,
            rotates=tables is not None,
            normalizes=gains is not None,
            overlaps=overlaps,
            num_warps=8,
            **_launch(overlaps),
        )
        _join_kernel[(self.heads,)](
            self.results,
            out,
            self.parts,
            d_head=d_head,
            columns=self.columns,
            most=_MOST_PARTS,
            overlaps=overlaps,
            num_warps=1 if self.columns <= 64 else 4,
            **_launch(overlaps),
        )


def _launch(overlaps: bool) -> dict[str, bool]:
    return {"launch_pdl": True} if overlaps else {}


def can_overlap(device: torch.device) -> bool:
    """Whether kernels may begin before the one before them is done."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
