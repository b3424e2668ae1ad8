"""One token per sequence: in as few operations as it can be said, or by the model's own forward.

Generating text is a matrix-vector product per weight and a hundred small operations around them;
for a small model it is those operations, not their arithmetic, that take the time. So
:class:`FastDecoder` writes the forward pass of the default model out once more for a single
position, with what can be prepared prepared: queries, keys and values are one product, gate and up
another; the gains of the norms before them and the attention's 1 / sqrt(d_head) are multiplied into
their weights; residuals are added by the products themselves. What comes out is what the model
computes, to rounding. It also knows the choices that fit in this form: no norms, no positions, the
other feed-forward networks, fewer heads of keys, norms of queries and keys, capped logits. Each is
chosen when it is made. :func:`fits` says whether a model is one that it knows; every other model
goes through its own forward with a cache (:class:`ModelDecoder`).

A product of a vector and a matrix waits for memory, so how the matrix is read decides. On a CPU a
library's product wants it stored (in, out), the other way round than in training: in order along
all outputs at once it is up to twice as fast as output by output. Best is what the compiler makes
of a multiplication and a sum, over weights that stay as in training: one loop over them, with the
operations around it inside.

Shapes are the same in every step and nothing depends on values that only the device knows, so a
step can be captured. Where the host knows that all sequences stand at the same position, it may say
so, and only the cache's used part is read. Where keys and values lie is not for the pass itself
(:class:`FastForward`): :mod:`cs336lm.generation.batching` keeps them otherwise.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Identity, Module

from cs336lm.generation.kernel_decoder import KernelDecoder, suits
from cs336lm.model.attention import MultiHeadSelfAttention
from cs336lm.model.blocks import TransformerBlock
from cs336lm.model.feed_forward import (
    ReLUSquaredFeedForward,
    SiLUFeedForward,
    SwiGLU,
    TwoMatrices,
    relu_squared,
)
from cs336lm.model.functional import at_least_float32, silu
from cs336lm.model.kernels.gated_silu import gated_silu
from cs336lm.model.kernels.one_query_attention import attend_by_products, attend_by_reductions
from cs336lm.model.kernels.rope import Rotation
from cs336lm.model.kv_cache import KVCache
from cs336lm.model.linear import is_plain_linear, product
from cs336lm.model.norm import RMSNorm
from cs336lm.model.plain import is_plain
from cs336lm.model.positions import POSITIONS
from cs336lm.model.softcap import Softcap, Uncapped
from cs336lm.model.transformer import TransformerLM
from cs336lm.model.unchanged import Unchanged

CompiledStep = Callable[[Tensor, Tensor], Tensor]
"""Token ids and positions, both (batch,), to logits (batch, vocab)."""

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""A layer's number, and the rotated queries (batch, heads, d_head), keys and values (batch,
kv_heads, d_head) of one position, to what attention makes of them (batch, d_model). The scale
1 / sqrt(d_head) is in the queries already."""

MOST_SEQUENCES_FOR_REDUCTIONS = {"cpu": 4}
"""Up to how many sequences the compiler's reductions beat a library's products; elsewhere one."""


class Decoder(Protocol):
    """Continues the sequences whose past is in a cache, one token each at a time."""

    is_replayable: bool
    """Whether a step is the same work each time, and asks for no values of the device's."""

    def step(
        self,
        token_ids: Int[Tensor, " batch"],
        positions: Int[Tensor, " batch"],
        common_position: int | None = None,
    ) -> Float[Tensor, "batch vocab"]:
        """Reads one token per sequence, at its position, and returns its successor's logits.

        ``common_position`` is the value of all ``positions``, where the host knows it.
        """

    def compiled(self) -> CompiledStep:
        """:meth:`step` as few kernels."""


def make_decoder(model: TransformerLM, cache: KVCache, *, compile: bool = False) -> Decoder:
    """The fastest decoder that computes what ``model`` does.

    ``compile`` prepares it for :meth:`Decoder.compiled`.
    """
    if not fits(model):
        return ModelDecoder(model, cache)
    if compile and suits(model, cache):
        return KernelDecoder(model, cache)
    return FastDecoder(model, cache, compile=compile)


def fits(model: TransformerLM) -> bool:
    """Whether ``model`` is, part by part, the one that :class:`FastDecoder` writes out.

    A part of another class, or with a hook or a parametrization, may compute anything.
    """
    return (
        is_plain(model, TransformerLM)
        and all(_block_fits(block, model) for block in model.layers)
        and _linears_fit(model.lm_head)
        and (is_plain(model.softcap, Uncapped) or is_plain(model.softcap, Softcap))
    )


def _block_fits(block: Module, model: TransformerLM) -> bool:
    first = cast("TransformerBlock", model.layers[0])
    return (
        is_plain(block, TransformerBlock)
        and is_plain(block.residual, Unchanged)
        and is_plain(block.attn, MultiHeadSelfAttention)
        and any(is_plain(block.attn.positions, kind) for kind in POSITIONS.values())
        and block.attn.positions is first.attn.positions
        and is_plain(block.attn.value_embedding, Unchanged)
        and type(block.ffn) is type(first.ffn)
        and any(is_plain(block.ffn, kind) for kind in _FEED_FORWARDS)
        and _norms_fit(model, block.ln1, block.ln2, model.ln_final)
        and _norms_fit(model, block.attn.q_norm, block.attn.k_norm)
        and type(block.attn.q_norm) is type(first.attn.q_norm)
        and _linears_fit(block.attn.q_proj, block.attn.k_proj, block.attn.v_proj)
        and _linears_fit(block.attn.output_proj, *block.ffn.children())
    )


def _norms_fit(model: TransformerLM, *norms: Module) -> bool:
    """Whether there is nothing in all of these places, or the same norm."""
    eps = model.config.rms_norm_eps
    return all(is_plain(norm, Identity) for norm in norms) or all(
        is_plain(norm, RMSNorm) and norm.eps == eps for norm in norms
    )


def _linears_fit(*linears: Module) -> bool:
    return all(is_plain_linear(linear) and linear.multiply is product for linear in linears)


class ModelDecoder:
    """Any model, by its own forward."""

    is_replayable = False  # who knows what stands in the place of a layer

    def __init__(self, model: TransformerLM, cache: KVCache) -> None:
        self.model = model
        self.cache = cache

    def compiled(self) -> CompiledStep:
        """See :class:`Decoder`."""
        for layer in self.cache:
            torch._dynamo.mark_static_address(layer.keys)
            torch._dynamo.mark_static_address(layer.values)
        # Not fullgraph, for the same reason; a graph for each part of it that can be one.
        step: CompiledStep = torch.compile(self.step, mode="reduce-overhead", dynamic=False)
        return step

    def step(
        self,
        token_ids: Int[Tensor, " batch"],
        positions: Int[Tensor, " batch"],
        common_position: int | None = None,
    ) -> Float[Tensor, "batch vocab"]:
        """See :class:`Decoder`."""
        logits = self.model(
            token_ids.unsqueeze(1), token_positions=positions.unsqueeze(1), cache=self.cache
        )
        return logits.squeeze(1)


class _Weights(NamedTuple):
    """One block's weights; ``up`` may be a gate and an up side by side."""

    qkv: Tensor
    output: Tensor
    up: Tensor
    down: Tensor
    qk_gains: Tensor
    """(heads + kv_heads, d_head): what normalized queries and keys are multiplied by, if they are;
    of queries 1 / sqrt(d_head) too."""


class FastForward:
    """A model that :func:`fits`, written out for one position of each sequence.

    It holds a prepared copy of the weights (of two thirds of them where the others stay as they
    are), made when it is; later changes of the model do not reach it. ``by_reductions``: products
    as multiplications and sums, for the compiler. ``softcap``: how logits are capped, if not by the
    model's own call.
    """

    def __init__(
        self,
        model: TransformerLM,
        *,
        by_reductions: bool = False,
        softcap: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.model = model
        self.softcap = model.softcap if softcap is None else softcap
        self.by_reductions = by_reductions
        weight = model.lm_head.weight
        blocks = cast("Sequence[TransformerBlock]", model.layers)
        head = at_least_float32(weight) * _gain(model.ln_final)
        self.weights = [self._prepared(block) for block in blocks]
        self.head = self._stored(head.to(weight.dtype))
        attn = blocks[0].attn
        self.positions = attn.positions
        self.activation = _FEED_FORWARDS[type(blocks[0].ffn)]
        self.normalized = _NORMALIZERS[type(model.ln_final)]
        self.qk_normalized = _HEAD_NORMALIZERS[type(attn.q_norm)]
        self.heads = (attn.num_heads, attn.num_kv_heads, attn.num_kv_heads)
        self.eps = torch.tensor(
            model.config.rms_norm_eps,
            dtype=torch.promote_types(weight.dtype, torch.float32),
            device=weight.device,
        )

    def __call__(
        self, token_ids: Int[Tensor, " batch"], positions: Int[Tensor, " batch"], attend: Attend
    ) -> Float[Tensor, "batch vocab"]:
        """The logits after one token of each sequence, at its position.

        ``attend`` is called once a layer, in their order.
        """
        x = self.model.token_embeddings(token_ids)
        # One position per sequence, whatever the head.
        rotate = self.positions.rotation(1, positions.unsqueeze(1))
        for layer, weights in enumerate(self.weights):
            q, k, v = self._project(x, weights, rotate)
            x = self._add_product(x, attend(layer, q, k, v), weights.output)
            up = self._product(self.normalized(x, self.eps), weights.up)
            x = self._add_product(x, self.activation(up), weights.down)
        return self.softcap(self._product(self.normalized(x, self.eps), self.head))

    def _product(self, x: Tensor, weight: Tensor) -> Tensor:
        """(batch, in) and (in, out) -> (batch, out)."""
        return (x.unsqueeze(1) * weight.T).sum(-1) if self.by_reductions else x @ weight

    def _add_product(self, residual: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """``residual`` and the product."""
        if self.by_reductions:
            return residual + self._product(x, weight)
        return torch.addmm(residual, x, weight)

    def _stored(self, weight: Float[Tensor, "d_out d_in"]) -> Float[Tensor, "d_in d_out"]:
        """Transposed; in memory only where a library reads it on a CPU."""
        by_library = weight.device.type == "cpu" and not self.by_reductions
        return weight.T.contiguous() if by_library else weight.T

    def _project(
        self, x: Tensor, weights: _Weights, rotate: Rotation
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, d_model) -> rotated queries and keys, and values, (batch, heads, d_head) each."""
        heads, kv_heads, _ = self.heads
        joined = self._product(self.normalized(x, self.eps), weights.qkv)
        qkv = joined.view(x.shape[0], heads + 2 * kv_heads, -1)
        qk = self.qk_normalized(qkv[:, : heads + kv_heads], self.eps, weights.qk_gains)
        rotated = rotate(qk)
        return rotated[:, :heads], rotated[:, heads:], qkv[:, heads + kv_heads :]

    def _prepared(self, block: TransformerBlock) -> _Weights:
        """A block's weights, joined and scaled in float32 or better, whatever they are kept in."""
        attn, ffn = block.attn, block.ffn
        dtype = attn.q_proj.weight.dtype
        q, k, v = (at_least_float32(p.weight) for p in (attn.q_proj, attn.k_proj, attn.v_proj))
        # Where queries are normalized it comes after that, with the gains.
        is_normalized = isinstance(attn.q_norm, RMSNorm)
        scale = 1.0 if is_normalized else (q.shape[0] // attn.num_heads) ** -0.5
        qkv = torch.cat((q * scale, k, v)) * _gain(block.ln1)
        up = torch.cat([at_least_float32(weight) for weight in _up_weights(ffn)]) * _gain(block.ln2)
        return _Weights(
            self._stored(qkv.to(dtype)),
            self._stored(attn.output_proj.weight),
            self._stored(up.to(dtype)),
            self._stored(ffn.w2.weight),
            _qk_gains(attn),
        )


class FastDecoder:
    """:class:`FastForward` over a cache. ``compile`` prepares it for :meth:`compiled`."""

    is_replayable = True

    def __init__(self, model: TransformerLM, cache: KVCache, *, compile: bool = False) -> None:
        self.cache = cache
        device = model.lm_head.weight.device
        most = MOST_SEQUENCES_FOR_REDUCTIONS.get(device.type, 1)
        by_reductions = compile and cache.batch_size <= most
        self.forward = FastForward(model, by_reductions=by_reductions)
        self.attend = attend_by_reductions if by_reductions else attend_by_products
        self.slots = torch.arange(cache.length, device=device)

    def compiled(self) -> CompiledStep:
        """:meth:`step` as few kernels."""
        step: CompiledStep = torch.compile(self.step, fullgraph=True, dynamic=False)
        return step

    def step(
        self,
        token_ids: Int[Tensor, " batch"],
        positions: Int[Tensor, " batch"],
        common_position: int | None = None,
    ) -> Float[Tensor, "batch vocab"]:
        """Reads one token per sequence, at its position, and returns its successor's logits.

        ``common_position`` is the value of all ``positions``, where the host knows it.
        """
        dtype = self.cache.layers[0].keys.dtype
        bias = None if common_position is not None else self._bias(positions, dtype)
        seen = None if common_position is None else common_position + 1

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            cache = self.cache.layers[layer]
            if common_position is None:
                cache.write(k.unsqueeze(2), v.unsqueeze(2), positions.unsqueeze(1))
            else:
                cache.keys[:, :, common_position] = k
                cache.values[:, :, common_position] = v
            return self.attend(q, cache.keys[:, :, :seen], cache.values[:, :, :seen], bias)

        return self.forward(token_ids, positions, attend)

    def _bias(self, positions: Tensor, dtype: torch.dtype) -> Tensor:
        """-inf where a sequence has no token yet, else 0."""
        return unseen_bias(self.slots, positions, self.forward.heads[1], dtype)


def unseen_bias(
    slots: Int[Tensor, " slots"],
    positions: Int[Tensor, " batch"],
    kv_heads: int,
    dtype: torch.dtype,
) -> Tensor:
    """(batch * kv_heads, 1, slots): -inf in the slots behind each sequence's position, else 0."""
    unseen = slots > positions.unsqueeze(1)
    bias = torch.zeros(unseen.shape, dtype=dtype, device=unseen.device)
    bias = bias.masked_fill_(unseen, -torch.inf)
    return bias.repeat_interleave(kv_heads, dim=0).unsqueeze(1)


def unlimited_recompilation() -> AbstractContextManager[None]:
    """Lets the compiler make one more of a function that it has made for many shapes already.

    By default it gives up at the ninth, for fear of a program that compiles in every step. Here one
    comes for shapes that are new, and those are few.
    """
    config = torch._dynamo.config
    limits = dict.fromkeys(("recompile_limit", "accumulated_recompile_limit"), 1 << 20)
    patched: AbstractContextManager[None] = config.patch(limits)
    return patched


def _gain(norm: Module) -> Tensor | float:
    """What a norm multiplies by in the end; nothing multiplies by 1."""
    return norm.weight if isinstance(norm, RMSNorm) else 1.0


def _qk_gains(attn: MultiHeadSelfAttention) -> Tensor:
    """The gains of queries, with 1 / sqrt(d_head), and those of keys; by head."""
    d_head = attn.q_proj.out_features // attn.num_heads
    ones = at_least_float32(attn.q_proj.weight).new_ones(1, d_head)
    q = ones * _gain(attn.q_norm) * d_head**-0.5
    k = ones * _gain(attn.k_norm)
    return torch.cat((q.expand(attn.num_heads, -1), k.expand(attn.num_kv_heads, -1)))


def _up_weights(ffn: SwiGLU | TwoMatrices) -> tuple[Tensor, ...]:
    """The weights of the first product of a feed-forward network."""
    return (ffn.w1.weight, ffn.w3.weight) if isinstance(ffn, SwiGLU) else (ffn.w1.weight,)


def _normalized(x: Tensor, eps: Tensor) -> Tensor:
    """RMSNorm without its gains."""
    wide = at_least_float32(x)
    norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    scale = torch.addcmul(eps, norm, norm, value=1 / x.shape[-1]).rsqrt_()
    return (wide * scale).to(x.dtype)


def _heads_normalized(x: Tensor, eps: Tensor, gains: Tensor) -> Tensor:
    """RMSNorm of each head."""
    return (_normalized(at_least_float32(x), eps) * gains).to(x.dtype)


def _as_it_is(x: Tensor, *_: Tensor) -> Tensor:
    return x


_FEED_FORWARDS: dict[type[Module], Callable[[Tensor], Tensor]] = {
    SwiGLU: gated_silu,
    SiLUFeedForward: silu,
    ReLUSquaredFeedForward: relu_squared,
}
"""What a network does between its products."""

_NORMALIZERS: dict[type[Module], Callable[[Tensor, Tensor], Tensor]] = {
    RMSNorm: _normalized,
    Identity: _as_it_is,
}
_HEAD_NORMALIZERS: dict[type[Module], Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    RMSNorm: _heads_normalized,
    Identity: _as_it_is,
}
