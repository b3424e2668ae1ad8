"""The GPU's kernels on a CPU, by Triton's interpreter, beside plain PyTorch; printed as JSON.

A process of its own: the interpreter must be asked for before Triton is imported.
"""

import json
import math
import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch
from cs336lm.generation.decoder import FastDecoder
from cs336lm.generation.kernel_decoder import KernelDecoder
from cs336lm.model import ModelConfig, TransformerLM
from cs336lm.model.kernels.one_query_attention import attend_formula
from cs336lm.model.kernels.one_token import Attention
from cs336lm.model.kv_cache import KVCache
from cs336lm.optim.adamw_kernel import adamw_in_one_kernel

MODELS = {
    "default": {},
    "heads share keys": {"num_kv_heads": 2, "logit_softcap": 3.0},
    "one head of keys, norms of queries and keys": {"num_kv_heads": 1, "qk_norm": True},
    "relu2, no positions": {"ffn": "relu2", "positions": "none", "qk_norm": True},
    "silu, no norms": {"ffn": "silu", "d_ff": 50, "norm": "none"},
    "tied, odd width": {"d_model": 24, "tie_embeddings": True, "d_ff": 37},
}


def decoder_errors(dtype: torch.dtype) -> dict[str, float]:
    """The largest difference of logits, as a share of the largest logit, over some tokens."""
    errors = {}
    for name, choices in MODELS.items():
        torch.manual_seed(0)
        shape = {"vocab_size": 41, "d_model": 32, "num_layers": 2, "num_heads": 4}
        config = ModelConfig(context_length=40, **(shape | choices))
        model = TransformerLM(config).eval()
        for parameter in model.parameters():
            if parameter.ndim == 1:
                torch.nn.init.uniform_(parameter, 0.5, 1.5)
        model = model.to(dtype)
        caches = [KVCache(config, 1, 40, dtype=dtype) for _ in range(2)]
        plain, kernels = FastDecoder(model, caches[0]), KernelDecoder(model, caches[1])
        worst = 0.0
        with torch.inference_mode():
            for position in [0, 1, 2, 35]:
                token = torch.randint(0, config.vocab_size, (1,))
                at = torch.tensor([position])
                wanted, got = plain.step(token, at).float(), kernels.step(token, at).float()
                worst = max(worst, float((wanted - got).abs().max() / wanted.abs().max()))
        kept = float((caches[0].tensor - caches[1].tensor).abs().max())
        errors[name] = max(worst, kept / float(caches[0].tensor.abs().max()))
    return errors


def attention_errors() -> dict[str, float]:
    """At positions around the edges of the blocks of keys that the kernel takes."""
    torch.manual_seed(0)
    heads, kv_heads, d_head, slots = 2, 1, 256, 600
    attend = Attention(heads, d_head, slots, "cpu")
    rows, span = attend.rows, attend.rows * attend.blocks
    assert attend.parts > 2
    assert attend.blocks > 1
    errors = {}
    for position in (0, 1, rows, rows + 1, span, span + 1, 2 * span + rows + 1, slots - 1):
        keys, values = torch.randn(2, 1, kv_heads, slots, d_head)
        qkv = torch.randn((heads + 2 * kv_heads) * d_head)
        q, k, v = qkv.split([heads * d_head, kv_heads * d_head, kv_heads * d_head])
        out = torch.empty(heads * d_head)
        ours = keys.clone(), values.clone()
        attend(qkv, *ours, torch.tensor([position]), out, tables=None)
        keys[0, :, position], values[0, :, position] = k.view(1, -1), v.view(1, -1)
        seen = slice(0, position + 1)
        wanted = attend_formula(
            q.view(1, heads, d_head) * d_head**-0.5, keys[:, :, seen], values[:, :, seen], None
        )
        assert torch.equal(ours[0], keys)
        assert torch.equal(ours[1], values)
        errors[str(position)] = float((out - wanted.flatten()).abs().max())
    return errors


def adamw_error() -> float:
    """Beside torch.optim.AdamW, tensors of one element to several blocks, three steps."""
    torch.manual_seed(0)
    shapes = ((1,), (4096,), (33, 129), (9000,))
    ours = [torch.randn(shape) for shape in shapes]
    theirs = [p.clone().requires_grad_() for p in ours]
    settings = {"lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-3, "weight_decay": 0.1}
    optimizer = torch.optim.AdamW(theirs, **settings)
    m, v = ([torch.zeros_like(p) for p in ours] for _ in range(2))
    for step in range(1, 4):
        grads = [torch.randn_like(p) for p in ours]
        for p, grad in zip(theirs, grads, strict=True):
            p.grad = grad.clone()
        optimizer.step()
        correction = math.sqrt(1 - 0.999**step)
        adamw_in_one_kernel(
            ours,
            grads,
            m,
            v,
            betas=settings["betas"],
            kept=1 - settings["lr"] * settings["weight_decay"],
            rate=settings["lr"] * correction / (1 - 0.9**step),
            eps=correction * settings["eps"],
        )
    return max(float((p - q.detach()).abs().max()) for p, q in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    json.dump(
        {
            "decoder float32": decoder_errors(torch.float32),
            "decoder bfloat16": decoder_errors(torch.bfloat16),
            "attention": attention_errors(),
            "adamw": {"three steps": adamw_error()},
        },
        sys.stdout,
    )
