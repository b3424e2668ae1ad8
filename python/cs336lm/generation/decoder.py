"""One token per sequence, in as few operations as it can be said.

Generating text is a matrix-vector product per weight and a hundred small operations around them;
for a small model it is those operations, not their arithmetic, that take the time. So the model's
forward pass is written out here once more for a single position, with what can be prepared
prepared: queries, keys and values are one product, gate and up another; the gains of the norms
before them and the attention's 1 / sqrt(d_head) are multiplied into their weights; residuals are
added by the products themselves. What comes out is what the model computes, to rounding.

A product of a vector and a matrix waits for memory, so how the matrix is read decides. On a CPU a
library's product wants it stored (in, out), the other way round than in training: in order along
all outputs at once it is up to twice as fast as output by output. Best is what the compiler makes
of the sums written out, over weights that stay as in training: one loop over them, with the
operations around it inside.

Shapes are the same in every step and nothing depends on values that only the device knows, so a
step can be captured. Where the host knows that all sequences stand at the same position, it may say
so, and only the cache's used part is read.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cs336lm.model.functional import at_least_float32
from cs336lm.model.kernels.rms_norm import gated_silu, turn_complex, turn_pairs
from cs336lm.model.kv_cache import KVCache
from cs336lm.model.transformer import TransformerBlock, TransformerLM

CompiledStep = Callable[[Tensor, Tensor], Tensor]
"""Token ids and positions, both (batch,), to logits (batch, vocab)."""

SEQUENCES_BY_SUMS = {"cpu": 4}
"""Up to how many sequences the compiler's own sums beat a library's products; elsewhere one."""


class _Weights(NamedTuple):
    """One block's weights."""

    qkv: Tensor
    output: Tensor
    gate_up: Tensor
    down: Tensor


class Decoder:
    """Continues the sequences whose past is in ``cache``.

    It holds a prepared copy of the weights (of two thirds of them where the others stay as they
    are), made when it is; later changes of the model do not reach it. ``compile`` prepares it for
    :meth:`compiled`.
    """

    def __init__(self, model: TransformerLM, cache: KVCache, *, compile: bool = False) -> None:
        self.model = model
        self.cache = cache
        weight = model.lm_head.weight
        few = cache.batch_size <= SEQUENCES_BY_SUMS.get(weight.device.type, 1)
        self.by_sums = compile and few
        blocks = cast("Sequence[TransformerBlock]", model.layers)
        head = at_least_float32(weight) * model.ln_final.weight
        self.weights = [_Weights(*map(self._stored, _joined(block))) for block in blocks]
        self.head = self._stored(head.to(weight.dtype))
        rope = blocks[0].attn.rope
        assert rope is not None  # a language model's attention knows positions
        self.cos, self.sin = rope.cos, rope.sin
        self.turns = torch.complex(rope.cos, rope.sin)
        self.eps = torch.tensor(
            model.config.rms_norm_eps,
            dtype=torch.promote_types(weight.dtype, torch.float32),
            device=weight.device,
        )
        self.slots = torch.arange(cache.length, device=weight.device)

    def compiled(self) -> CompiledStep:
        """:meth:`step` as few kernels, on a GPU launched together as one captured graph."""
        # What stays where it is need not be copied for each replay of the graph.
        caches = [tensor for layer in self.cache for tensor in (layer.keys, layer.values)]
        weights = [weight for layer in self.weights for weight in layer]
        for tensor in (*caches, *weights, self.head, self.cos, self.sin, self.eps, self.slots):
            torch._dynamo.mark_static_address(tensor)
        step: CompiledStep = torch.compile(
            self.step, mode="reduce-overhead", fullgraph=True, dynamic=False
        )
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
        x = self.model.token_embeddings(token_ids)
        turn = self._turn_at(positions, x.dtype)
        bias = None if common_position is not None else self._bias(positions, x.dtype)
        seen = None if common_position is None else common_position + 1
        attend = _attend_by_sums if self.by_sums else _attend
        for weights, layer_cache in zip(self.weights, self.cache, strict=True):
            q, k, v = self._project(x, weights.qkv, turn)
            if common_position is None:
                layer_cache.write(k.unsqueeze(2), v.unsqueeze(2), positions.unsqueeze(1))
            else:
                layer_cache.keys[:, :, common_position] = k
                layer_cache.values[:, :, common_position] = v
            keys, values = layer_cache.keys[:, :, :seen], layer_cache.values[:, :, :seen]
            x = self._added(x, attend(q, keys, values, bias), weights.output)
            gate_up = self._product(self._normed(x), weights.gate_up)
            x = self._added(x, gated_silu(gate_up), weights.down)
        return self._product(self._normed(x), self.head)

    def _product(self, x: Tensor, weight: Tensor) -> Tensor:
        """(batch, in) and (in, out) -> (batch, out)."""
        return (x.unsqueeze(1) * weight.T).sum(-1) if self.by_sums else x @ weight

    def _added(self, residual: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """``residual`` and the product."""
        if self.by_sums:
            return residual + self._product(x, weight)
        return torch.addmm(residual, x, weight)

    def _stored(self, weight: Float[Tensor, "d_out d_in"]) -> Float[Tensor, "d_in d_out"]:
        """Transposed; in memory only where a library reads it on a CPU."""
        by_library = weight.device.type == "cpu" and not self.by_sums
        return weight.T.contiguous() if by_library else weight.T

    def _turn_at(self, positions: Tensor, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """RoPE's turn of what stands at these positions."""
        # The compiler makes nothing of complex numbers, and there are none in half precision.
        if torch.compiler.is_compiling() or dtype != self.cos.dtype:
            cos, sin = self.cos[positions].unsqueeze(1), self.sin[positions].unsqueeze(1)
            return lambda x: turn_pairs(x, cos, sin)
        turns = self.turns[positions].unsqueeze(1)
        return lambda x: turn_complex(x, turns)

    def _project(
        self, x: Tensor, weight: Tensor, turn: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, d_model) -> rotated queries and keys, and values, (batch, heads, d_head) each."""
        heads, d_head = self.model.config.num_heads, self.model.config.d_head
        qkv = self._product(self._normed(x), weight).view(x.shape[0], 3 * heads, d_head)
        turned = turn(qkv[:, : 2 * heads])
        return turned[:, :heads], turned[:, heads:], qkv[:, 2 * heads :]

    def _normed(self, x: Tensor) -> Tensor:
        """RMSNorm without its gains."""
        wide = at_least_float32(x)
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = torch.addcmul(self.eps, norm, norm, value=1 / x.shape[-1]).rsqrt_()
        return (wide * scale).to(x.dtype)

    def _bias(self, positions: Tensor, dtype: torch.dtype) -> Tensor:
        """(batch * heads, 1, slots): -inf where a sequence has no token yet, else 0."""
        unseen = self.slots > positions.unsqueeze(1)
        bias = torch.zeros(unseen.shape, dtype=dtype, device=unseen.device)
        bias = bias.masked_fill_(unseen, -torch.inf)
        return bias.repeat_interleave(self.model.config.num_heads, dim=0).unsqueeze(1)


def _joined(block: TransformerBlock) -> _Weights:
    """(out, in) each, joined and scaled in float32 or better, whatever they are kept in."""
    attn, ffn = block.attn, block.ffn
    dtype = attn.q_proj.weight.dtype
    scale = (attn.q_proj.in_features // attn.num_heads) ** -0.5
    q, k, v = (at_least_float32(p.weight) for p in (attn.q_proj, attn.k_proj, attn.v_proj))
    qkv = torch.cat((q * scale, k, v)) * block.ln1.weight
    gate_up = torch.cat((at_least_float32(ffn.w1.weight), ffn.w3.weight)) * block.ln2.weight
    return _Weights(qkv.to(dtype), attn.output_proj.weight, gate_up.to(dtype), ffn.w2.weight)


def _attend(
    q: Float[Tensor, "batch heads d_head"],
    keys: Float[Tensor, "batch heads seen d_head"],
    values: Float[Tensor, "batch heads seen d_head"],
    bias: Tensor | None,
) -> Float[Tensor, "batch d_model"]:
    """Attention of one query per head; its scale is in the weights already."""
    batch, heads, d_head = q.shape
    keys, values = keys.flatten(0, 1), values.flatten(0, 1)
    queries = q.reshape(batch * heads, 1, d_head)
    if bias is None:
        scores = torch.bmm(queries, keys.transpose(1, 2))
    else:
        scores = torch.baddbmm(bias, queries, keys.transpose(1, 2))
    return torch.bmm(torch.softmax(scores, dim=-1), values).view(batch, heads * d_head)


def _attend_by_sums(q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    """:func:`_attend` for the compiler."""
    scores = (keys * q.unsqueeze(2)).sum(-1)
    if bias is not None:
        scores = scores + bias.view(*q.shape[:2], -1)
    shares = torch.softmax(scores, dim=-1)
    return (shares.unsqueeze(-1) * values).sum(2).flatten(1)
