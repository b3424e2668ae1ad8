"""The whole model: its names, its values, its causality, and that it learns."""

import math
from typing import get_args, get_type_hints

import pytest
import torch
from cs336lm.errors import UsageError
from cs336lm.model import ModelConfig, TransformerLM, linear
from cs336lm.model.accounting import FEED_FORWARD_MATRICES
from cs336lm.model.attention import MultiHeadSelfAttention
from cs336lm.model.blocks import BLOCKS
from cs336lm.model.feed_forward import FEED_FORWARDS
from cs336lm.model.kv_cache import KVCache
from cs336lm.model.norm import FINAL_NORMS, NORMS
from cs336lm.model.positions import POSITIONS
from cs336lm.model.rope_scaling import ROPE_SCALINGS
from cs336lm.optim import AdamW
from torch import Tensor

CONFIG = ModelConfig(
    vocab_size=50, context_length=12, d_model=24, num_layers=3, num_heads=3, d_ff=40, rope_theta=100
)
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def model_in_float64(seed: int = 0) -> TransformerLM:
    torch.manual_seed(seed)
    model = TransformerLM(CONFIG, dtype=torch.float64).double()
    for layer in model.layers:  # gains of 1 would hide a gain that is not applied
        torch.nn.init.uniform_(layer.ln1.weight, 0.5, 1.5)
        torch.nn.init.uniform_(layer.ln2.weight, 0.5, 1.5)
    return model


def llama(state: dict[str, Tensor], ids: Tensor, config: ModelConfig) -> Tensor:
    """The same model once more, from the state dict alone, in the form Hugging Face gives it.

    There RoPE pairs dimension k with k + d/2, so the rows of the query and key projections are
    reordered first: evens, then odds. Shares no code with the package.
    """
    heads, d = config.num_heads, config.d_model // config.num_heads
    batch, seq = ids.shape

    def halves(weight: Tensor) -> Tensor:
        return weight.view(heads, d // 2, 2, -1).transpose(1, 2).reshape(weight.shape)

    def norm(x: Tensor, gain: Tensor) -> Tensor:
        return torch.nn.functional.rms_norm(x, x.shape[-1:], gain, eps=1e-5)

    inv_freq = 1.0 / config.rope_theta ** (torch.arange(0, d, 2, dtype=torch.float64) / d)
    angles = torch.outer(torch.arange(seq, dtype=torch.float64), inv_freq)
    angles = torch.cat((angles, angles), -1)

    def rotate(x: Tensor) -> Tensor:
        turned = torch.cat((-x[..., d // 2 :], x[..., : d // 2]), -1)
        return x * angles.cos() + turned * angles.sin()

    def split(x: Tensor) -> Tensor:
        return x.view(batch, seq, heads, d).transpose(1, 2)

    x = torch.nn.functional.embedding(ids, state["token_embeddings.weight"])
    for i in range(config.num_layers):
        w = {name.removeprefix(f"layers.{i}."): value for name, value in state.items()}
        h = norm(x, w["ln1.weight"])
        q = rotate(split(h @ halves(w["attn.q_proj.weight"]).T))
        k = rotate(split(h @ halves(w["attn.k_proj.weight"]).T))
        v = split(h @ w["attn.v_proj.weight"].T)
        scores = q @ k.transpose(-1, -2) / math.sqrt(d)
        scores = scores + torch.full((seq, seq), -torch.inf, dtype=torch.float64).triu(1)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, seq, -1)
        x = x + mixed @ w["attn.output_proj.weight"].T
        h = norm(x, w["ln2.weight"])
        gate, up = h @ w["ffn.w1.weight"].T, h @ w["ffn.w3.weight"].T
        x = x + (torch.nn.functional.silu(gate) * up) @ w["ffn.w2.weight"].T
    return norm(x, state["ln_final.weight"]) @ state["lm_head.weight"].T


def test_state_dict_has_the_assignments_names_and_shapes():
    d, f, v = 24, 40, 50
    expected = {
        "token_embeddings.weight": (v, d),
        "ln_final.weight": (d,),
        "lm_head.weight": (v, d),
    }
    for i in range(3):
        for name in ("q", "k", "v", "output"):
            expected[f"layers.{i}.attn.{name}_proj.weight"] = (d, d)
        expected[f"layers.{i}.ln1.weight"] = expected[f"layers.{i}.ln2.weight"] = (d,)
        expected[f"layers.{i}.ffn.w1.weight"] = expected[f"layers.{i}.ffn.w3.weight"] = (f, d)
        expected[f"layers.{i}.ffn.w2.weight"] = (d, f)
    state = TransformerLM(CONFIG).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == expected


def test_equals_llama_with_gradients():
    model = model_in_float64()
    ids, targets = torch.randint(0, 50, (2, 2, 12))
    logits = llama(dict(model.named_parameters()), ids, CONFIG)
    torch.testing.assert_close(model(ids), logits, **EXACT)
    theirs = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    ours = model(ids, targets)
    torch.testing.assert_close(ours, theirs, **EXACT)
    parameters = list(model.parameters())
    for a, b in zip(
        torch.autograd.grad(ours, parameters),
        torch.autograd.grad(theirs, parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b, **EXACT)


def test_float32_agrees_with_float64():
    wide = model_in_float64()
    narrow = TransformerLM(CONFIG)
    narrow.load_state_dict(wide.state_dict())
    ids = torch.randint(0, 50, (4, 12))
    expected = wide(ids)
    error = (narrow(ids).double() - expected).norm() / expected.norm()
    assert error < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_agrees_roughly(dtype):
    wide = model_in_float64()
    narrow = TransformerLM(CONFIG, dtype=dtype)
    narrow.load_state_dict(wide.state_dict())
    ids, targets = torch.randint(0, 50, (2, 4, 12))
    assert narrow(ids).dtype == dtype
    assert narrow(ids, targets).item() == pytest.approx(wide(ids, targets).item(), rel=2e-2)


def test_is_causal():
    model = model_in_float64()
    ids = torch.randint(0, 50, (12,))
    before = model(ids)
    for t in range(12):
        changed = ids.clone()
        changed[t] = (changed[t] + 1) % 50
        after = model(changed)
        assert torch.equal(after[:t], before[:t])
        assert not torch.allclose(after[t:], before[t:])


@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
def test_any_leading_dimensions(leading):
    model = model_in_float64()
    ids = torch.randint(0, 50, (*leading, 7))
    logits = model(ids)
    assert logits.shape == (*leading, 7, 50)
    flat = model(ids.reshape(-1, 7)).reshape(logits.shape)
    torch.testing.assert_close(logits, flat, **EXACT)


def test_overfits_one_batch():
    torch.manual_seed(0)
    model = TransformerLM(CONFIG)
    ids, targets = torch.randint(0, 50, (2, 4, 12))
    targets[:, :-1] = ids[:, 1:]
    ids[:, 0] = torch.arange(4)  # told apart from the first token on, so the loss can reach zero
    optimizer = AdamW(model.parameters(), lr=1e-2)
    for _ in range(200):
        loss = model(ids, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.01


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_cached_steps_equal_the_whole(cut):
    """Sequences of different lengths side by side, padded on the right."""
    model = model_in_float64()
    lengths = torch.tensor([cut, max(1, cut - 3)])
    ids = torch.randint(0, 50, (2, 12))
    cache = KVCache(CONFIG, batch_size=2, length=12, dtype=torch.float64)
    with torch.no_grad():
        whole = model(ids)
        padded = ids[:, :cut].clone()
        padded[1, lengths[1] :] = 49
        prefill = model(padded, token_positions=torch.arange(cut).expand(2, -1), cache=cache)
        for row, length in enumerate(lengths):
            torch.testing.assert_close(prefill[row, :length], whole[row, :length], **EXACT)
        positions = lengths.clone()
        while positions.max() < 12:
            token = ids.gather(1, positions[:, None])
            step = model(token, token_positions=positions[:, None], cache=cache)
            expected = whole[torch.arange(2), positions]
            torch.testing.assert_close(step[:, 0], expected, **EXACT)
            positions += 1


@pytest.mark.parametrize("first", ["compiled", "eager"])
@torch.no_grad()
def test_a_cache_is_the_same_compiled_and_eager(first):
    """What one of them has written the other reads: RoPE's pairs lie alike in both."""
    torch._dynamo.reset()
    model = model_in_float64()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    prefill, step = (compiled, model) if first == "compiled" else (model, compiled)
    ids = torch.randint(0, 50, (2, 12))
    cache = KVCache(CONFIG, batch_size=2, length=12, dtype=torch.float64)
    prefill(ids[:, :8], token_positions=torch.arange(8).expand(2, -1), cache=cache)
    for position in range(8, 12):
        logits = step(
            ids[:, position : position + 1],
            token_positions=torch.full((2, 1), position),
            cache=cache,
        )
        torch.testing.assert_close(logits[:, 0], model(ids)[:, position], **EXACT)


def test_a_cache_keeps_its_dtype_whatever_it_is_given():
    (layer, *_) = KVCache(CONFIG, batch_size=2, length=4, dtype=torch.float32)
    k, v = torch.randn(2, 2, CONFIG.kv_heads, 1, CONFIG.d_head, dtype=torch.float64)
    positions = torch.tensor([[3], [1]])
    keys, values, _ = layer.append(k, v, positions)
    for kept, given in ((keys, k), (values, v)):
        assert kept.dtype == torch.float32
        assert torch.equal(kept[0, :, 3], given[0, :, 0].float())
        assert torch.equal(kept[1, :, 1], given[1, :, 0].float())
        assert kept.count_nonzero() == given.numel()


def test_builds_on_meta_and_draws_its_weights_later():
    model = TransformerLM(CONFIG, device="meta").to_empty(device="cpu")
    torch.manual_seed(3)
    model.reset_parameters()
    torch.manual_seed(3)
    expected = TransformerLM(CONFIG)
    ids = torch.randint(0, 50, (2, 12))
    torch.testing.assert_close(model(ids), expected(ids), rtol=0, atol=0)


def test_shapes_are_computed_on_meta_which_knows_no_autocast():
    model = TransformerLM(CONFIG, device="meta")
    ids = torch.zeros(2, 12, dtype=torch.int64, device="meta")
    assert model(ids).shape == (2, 12, 50)
    loss = model(ids, ids)
    assert (loss.shape, loss.dtype) == ((), torch.float32)
    loss.backward()
    assert all(weight.grad.shape == weight.shape for weight in model.parameters())


def test_too_many_tokens_are_refused():
    with pytest.raises(ValueError, match=r"13 tokens .* context_length of 12"):
        TransformerLM(CONFIG)(torch.zeros(13, dtype=torch.long))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab_size", 0),
        ("context_length", -1),
        ("d_model", 100.0),
        ("d_model", 100),  # 16 heads do not divide it
        ("d_model", 48),  # heads of size 3
        ("num_layers", 0),
        ("num_heads", True),
        ("d_ff", 0),
        ("rope_theta", 0.0),
        ("rope_theta", math.nan),
        ("rms_norm_eps", -1e-5),
        ("norm", "layer"),
        ("positions", "alibi"),
        ("ffn", "gelu"),
        ("num_kv_heads", 3),  # does not divide 16
        ("num_kv_heads", 0),
        ("num_kv_heads", 32),
        ("logit_softcap", -1.0),
        ("logit_softcap", math.nan),
        ("logit_softcap", math.inf),
        ("rope_scaling", "yarn"),
        ("rope_original_context_length", 0),
    ],
)
def test_impossible_shapes_are_refused_by_name(field, value):
    with pytest.raises(UsageError, match=f"model.{field}"):
        ModelConfig(**{field: value})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"d_model": 48, "positions": "none", "rope_scaling": "linear"}, "positions = rope"),
        ({"rope_scaling": "linear"}, "linear needs model.rope_scaling_factor above 1, not 1.0"),
        ({"rope_scaling": "llama3", "rope_scaling_factor": math.inf}, "rope_scaling_factor"),
        (
            {"rope_scaling": "llama3", "rope_scaling_factor": 8.0, "rope_low_freq_factor": 4.0},
            "rope_low_freq_factor = 4.0 must be above 0 and below model.rope_high_freq_factor",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(fields, says):
    with pytest.raises(UsageError, match=says) as caught:
        ModelConfig(**fields)
    assert "\n" not in str(caught.value)


def test_odd_heads_are_for_models_without_rope():
    assert ModelConfig(d_model=48, positions="none").d_head == 3
    with pytest.raises(UsageError, match="is odd; RoPE rotates pairs"):
        ModelConfig(d_model=48)


@pytest.mark.parametrize(
    ("field", "table"),
    [
        ("norm", BLOCKS),
        ("norm", NORMS),
        ("norm", FINAL_NORMS),
        ("positions", POSITIONS),
        ("ffn", FEED_FORWARDS),
        ("ffn", FEED_FORWARD_MATRICES),
        ("rope_scaling", ROPE_SCALINGS),
    ],
)
def test_the_tables_have_what_the_configuration_knows(field, table):
    assert set(get_args(get_type_hints(ModelConfig)[field])) == set(table)


def test_a_model_needs_a_vocabulary():
    with pytest.raises(UsageError, match=r"model\.vocab_size"):
        TransformerLM(ModelConfig())


@pytest.mark.parametrize("made", ["by dtype", "by cast", "by default dtype"])
def test_a_float64_model_turns_by_float64_angles(made):
    """Against tables made here; float32's would be 1e-8 off."""
    if made == "by default dtype":
        torch.set_default_dtype(torch.float64)
    try:
        model = TransformerLM(CONFIG, dtype=torch.float64 if made == "by dtype" else None)
    finally:
        torch.set_default_dtype(torch.float32)
    rope = model.to(torch.float64 if made == "by cast" else None).layers[0].attn.rope
    half = torch.arange(0, rope.d_k, 2, dtype=torch.float64)
    positions = torch.arange(CONFIG.context_length, dtype=torch.float64)
    angles = torch.outer(positions, rope.theta ** -(half / rope.d_k))
    for table, expected in ((rope.cos, angles.cos()), (rope.sin, angles.sin())):
        assert table.dtype == torch.float64
        torch.testing.assert_close(table, expected, rtol=1e-14, atol=1e-14)
    for half_precision in (torch.bfloat16, torch.float16):
        model = TransformerLM(CONFIG, dtype=half_precision)
        assert model.layers[0].attn.rope.cos.dtype == torch.float32


def test_the_compiler_sees_the_whole_step(monkeypatch):
    """PyTorch 2.11's cannot look into this one question; it compiled the model in pieces."""

    def refuse(device):
        raise AssertionError("asked")

    monkeypatch.setattr(torch.amp, "is_autocast_available", refuse)
    torch._dynamo.reset()
    model = TransformerLM(ModelConfig(vocab_size=16, context_length=8, d_model=16, num_heads=2))
    step = torch.compile(model, backend="aot_eager", fullgraph=True)
    ids = torch.randint(0, 16, (2, 8))
    with torch.autocast("cpu", torch.bfloat16):
        compiled, expected = step(ids, ids), model(ids, ids)
    compiled.backward()
    torch.testing.assert_close(compiled, expected)


@pytest.mark.parametrize("where", [set(), {"cpu"}])
def test_compiled_projections_are_the_same_together_and_apart(where, monkeypatch):
    """The second as on a GPU: no weights, and no gradients, are put side by side."""
    monkeypatch.setattr(linear, "_APART_WHERE_COMPILED", where)
    torch._dynamo.reset()
    torch.manual_seed(0)
    attention = MultiHeadSelfAttention(16, 4, num_kv_heads=2)
    x = torch.randn(2, 5, 16, requires_grad=True)
    seen = []

    def backend(graph, inputs):
        seen.extend(node.target for node in graph.graph.nodes)
        return graph.forward

    inputs = [x, *attention.parameters()]
    compiled = torch.compile(attention, backend=backend, fullgraph=True)(x)
    torch.testing.assert_close(compiled, attention(x))
    for ours, expected in zip(
        torch.autograd.grad(compiled.square().sum(), inputs),
        torch.autograd.grad(attention(x).square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, expected)
    assert (torch.cat in seen) == (not where)
