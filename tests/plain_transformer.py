"""The model with all its choices once more, token by token and head by head, as the papers say it.

It takes a state dict and a configuration and shares no code with the package. One sequence at a
time, in plain loops; what it computes can be differentiated.
"""

import math

import torch
from torch import Tensor


def logits_of(state: dict[str, Tensor], config, ids: list[int]) -> Tensor:
    """(tokens, vocab): for each token of one sequence the logits of its successor."""
    embedded = [state["token_embeddings.weight"][token] for token in ids]
    stream = list(embedded)
    for layer in range(config.num_layers):
        prefix = f"layers.{layer}."
        weights = {
            name.removeprefix(prefix): w for name, w in state.items() if name.startswith(prefix)
        }
        stream = _block(stream, embedded, ids, weights, config)
    if config.norm == "pre":
        stream = [_norm(x, state["ln_final.weight"], config) for x in stream]
    head = state["token_embeddings.weight" if config.tie_embeddings else "lm_head.weight"]
    logits = torch.stack([head @ x for x in stream])
    if config.logit_softcap:
        logits = config.logit_softcap * torch.tanh(logits / config.logit_softcap)
    return logits


def _block(stream, embedded, ids, w, config):
    if config.residual_scalars:
        a, b = w["residual.weight"]
        stream = [a * x + b * e for x, e in zip(stream, embedded, strict=True)]

    def norm(x, name):
        return x if config.norm == "none" else _norm(x, w[name], config)

    if config.norm == "post":
        added = _attention(stream, ids, w, config)
        stream = [norm(x + y, "ln1.weight") for x, y in zip(stream, added, strict=True)]
        return [norm(x + _feed_forward(x, w, config), "ln2.weight") for x in stream]
    added = _attention([norm(x, "ln1.weight") for x in stream], ids, w, config)
    stream = [x + y for x, y in zip(stream, added, strict=True)]
    return [x + _feed_forward(norm(x, "ln2.weight"), w, config) for x in stream]


def _norm(x, gain, config):
    return x / (x.square().mean() + config.rms_norm_eps).sqrt() * gain


def _feed_forward(x, w, config):
    up = w["ffn.w1.weight"] @ x
    if config.ffn == "swiglu":
        inside = up / (1 + torch.exp(-up)) * (w["ffn.w3.weight"] @ x)
    elif config.ffn == "silu":
        inside = up / (1 + torch.exp(-up))
    else:
        inside = torch.where(up > 0, up, 0.0) ** 2
    return w["ffn.w2.weight"] @ inside


def _attention(xs, ids, w, config):
    d = config.d_model // config.num_heads
    kv_heads = config.num_kv_heads or config.num_heads
    queries_per_key = config.num_heads // kv_heads
    mixed = [[] for _ in xs]
    for head in range(config.num_heads):
        shared = head // queries_per_key
        rows = slice(head * d, head * d + d)
        kv_rows = slice(shared * d, shared * d + d)
        queries = [w["attn.q_proj.weight"][rows] @ x for x in xs]
        keys = [w["attn.k_proj.weight"][kv_rows] @ x for x in xs]
        values = [w["attn.v_proj.weight"][kv_rows] @ x for x in xs]
        if config.qk_norm:
            queries = [_norm(q, w["attn.q_norm.weight"], config) for q in queries]
            keys = [_norm(k, w["attn.k_norm.weight"], config) for k in keys]
        if config.positions == "rope":
            queries = [_rotated(q, place, config) for place, q in enumerate(queries)]
            keys = [_rotated(k, place, config) for place, k in enumerate(keys)]
        if "attn.value_embedding.table.weight" in w:
            table, gate = (w[f"attn.value_embedding.{part}.weight"] for part in ("table", "gate"))
            for place, (token, x) in enumerate(zip(ids, xs, strict=True)):
                opening = 2 / (1 + torch.exp(-(gate[shared] @ x[: gate.shape[1]])))
                values[place] = values[place] + opening * table[token][kv_rows]
        for place, query in enumerate(queries):
            scores = torch.stack([query @ key for key in keys[: place + 1]]) / math.sqrt(d)
            shares = scores.softmax(0)
            mixed[place].append(sum(s * v for s, v in zip(shares, values, strict=False)))
    return [w["attn.output_proj.weight"] @ torch.cat(parts) for parts in mixed]


def _rotated(x, place, config):
    turned = []
    for pair in range(len(x) // 2):
        angle = place * _angle_of_a_step(pair, len(x), config)
        a, b = x[2 * pair], x[2 * pair + 1]
        turned += [a * math.cos(angle) - b * math.sin(angle)]
        turned += [a * math.sin(angle) + b * math.cos(angle)]
    return torch.stack(turned)


def _angle_of_a_step(pair, d, config):
    angle = config.rope_theta ** (-2 * pair / d)
    if config.rope_scaling == "linear":
        return angle / config.rope_scaling_factor
    if config.rope_scaling == "llama3":
        length, wavelength = config.rope_original_context_length, 2 * math.pi / angle
        low, high = config.rope_low_freq_factor, config.rope_high_freq_factor
        if wavelength > length / low:
            return angle / config.rope_scaling_factor
        if wavelength >= length / high:
            share = (length / wavelength - low) / (high - low)
            return (1 - share) * angle / config.rope_scaling_factor + share * angle
    return angle
