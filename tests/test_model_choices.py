"""Every choice of the model is what its paper says, and is learned, saved, decoded, compiled."""

import pytest
import torch
from choices import CHOICES, NOT_FAST, TOGETHER, config_of, model_of
from cs336lm.generation.decoder import FastDecoder, ModelDecoder, fits, make_decoder
from cs336lm.generation.engine import generate_ids
from cs336lm.generation.sampling import Sampler, SamplingParams
from cs336lm.model import TransformerLM
from cs336lm.model.kernels import cross_entropy
from cs336lm.model.kv_cache import KVCache
from cs336lm.model.linear import Linear
from cs336lm.training.distributed import World
from cs336lm.training.parallel import ParallelModel
from plain_transformer import logits_of

EXACT = {"rtol": 1e-9, "atol": 1e-9}
each_choice = pytest.mark.parametrize("choice", CHOICES)


@each_choice
def test_is_what_its_paper_says(choice, monkeypatch):
    """Logits, loss in chunks of tokens, and the gradient of every parameter."""
    monkeypatch.setitem(cross_entropy.CHUNK_ELEMENTS, "cpu", 50 * 5)
    model = model_of(choice)
    parameters = dict(model.named_parameters())
    ids, targets = torch.randint(0, 50, (2, 8))
    plain = logits_of(parameters, model.config, ids.tolist())
    torch.testing.assert_close(model(ids), plain, **EXACT)
    ours = model(ids, targets)
    theirs = torch.nn.functional.cross_entropy(plain, targets)
    torch.testing.assert_close(ours, theirs, **EXACT)
    gradients = torch.autograd.grad(ours, parameters.values())
    expected = torch.autograd.grad(theirs, parameters.values())
    for name, gradient, exact in zip(parameters, gradients, expected, strict=True):
        assert exact.abs().max() > 0, f"{name} does nothing"
        torch.testing.assert_close(gradient, exact, **EXACT, msg=lambda m, n=name: f"{n}: {m}")


def test_each_choice_changes_what_is_computed():
    """From the same weights, so far as there are the same: none is forgotten on the way."""
    ids = torch.arange(10)
    default = model_of("default")
    for choice in CHOICES.keys() - {"default"}:
        model = model_of(choice)
        model.load_state_dict(
            {
                name: weight
                for name, weight in default.state_dict().items()
                if name in model.state_dict() and weight.shape == model.state_dict()[name].shape
                if name != "lm_head.weight" or not model.config.tie_embeddings
            },
            strict=False,
        )
        if choice == "zero-init":  # only where a model starts
            assert torch.equal(model(ids), default(ids))
        else:
            assert not torch.allclose(model(ids), default(ids), rtol=1e-3), choice


def greedy_without_cache(model: TransformerLM, prompt: list[int], steps: int) -> list[int]:
    ids = list(prompt)
    for _ in range(steps):
        with torch.no_grad():
            ids.append(int(model(torch.tensor(ids[-12:]))[-1].argmax()))
    return ids[len(prompt) :]


def eager_compile(function, *, mode=None, _compile=torch.compile, **options):
    return _compile(function, backend="eager", **options)


def test_together_they_are_all():
    together = {(field, value) for choice in TOGETHER for field, value in CHOICES[choice].items()}
    for choice in CHOICES.keys() - TOGETHER:
        free = {"rope_scaling_factor"}
        assert {item for item in CHOICES[choice].items() if item[0] not in free} <= together


def check_generates_what_the_loop_does(model, *, compile):
    """Two prompts of different lengths, to the end of the context."""
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8]]
    greedy = Sampler(SamplingParams(temperature=0))
    steps = generate_ids(model, prompts, 7, greedy, compile=compile)
    ids = [list(row) for row in zip(*steps, strict=True)]
    assert ids == [greedy_without_cache(model, prompt, 7) for prompt in prompts]


@pytest.mark.parametrize("decoder", ["chosen", "the model's own"])
@each_choice
def test_cached_generation_is_the_uncached_loop(choice, decoder, monkeypatch):
    model = model_of(choice)
    assert fits(model) == (choice not in NOT_FAST)
    chosen = make_decoder(model, KVCache(model.config, 1, 12, dtype=torch.float64))
    assert isinstance(chosen, ModelDecoder if choice in NOT_FAST else FastDecoder)
    if decoder == "the model's own":
        monkeypatch.setattr("cs336lm.generation.decoder.fits", lambda model: False)
    check_generates_what_the_loop_does(model, compile=False)


@pytest.mark.parametrize("choice", TOGETHER)
def test_compiled_generation_is_the_uncached_loop(choice, monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", eager_compile)
    check_generates_what_the_loop_does(model_of(choice), compile=True)


@each_choice
@torch.no_grad()
def test_a_cache_has_a_head_for_each_head_of_keys(choice):
    model = model_of(choice)
    cache = KVCache(model.config, 2, 12, dtype=torch.float64)
    assert cache.layers[0].keys.shape == (2, model.config.kv_heads, 12, 8)
    ids = torch.randint(0, 50, (2, 12))
    whole = model(ids)
    places = torch.arange(12).expand(2, -1)
    first = model(ids[:, :5], token_positions=places[:, :5], cache=cache)
    rest = model(ids[:, 5:], token_positions=places[:, 5:], cache=cache)
    torch.testing.assert_close(torch.cat((first, rest), 1), whole, **EXACT)


@each_choice
def test_with_recomputed_activations_it_is_the_same(choice):
    model = model_of(choice)
    ids, targets = torch.randint(0, 50, (2, 2, 12))
    expected = loss_and_gradients(model, model, ids, targets)
    parallel = ParallelModel(model, World(), "ddp", torch.float32, torch.device("cpu"))
    parallel.checkpoint_activations()
    torch.testing.assert_close(loss_and_gradients(parallel, model, ids, targets), expected, **EXACT)


def loss_and_gradients(run, model, ids, targets):
    loss = run(ids, targets)
    return [loss, *torch.autograd.grad(loss, list(model.parameters()))]


@pytest.mark.parametrize("choice", TOGETHER)
def test_compiled_it_is_the_same(choice):
    torch._dynamo.reset()
    model = model_of(choice)
    ids, targets = torch.randint(0, 50, (2, 2, 12))
    expected = loss_and_gradients(model, model, ids, targets)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(loss_and_gradients(compiled, model, ids, targets), expected, **EXACT)


def test_by_the_real_compiler():
    """A training step and decoded tokens by Inductor; the decoder is the fast one."""
    torch._dynamo.reset()
    model = model_of("many-for-the-fast-decoder", torch.float32, num_layers=1)
    ids, targets = torch.randint(0, 50, (2, 2, 12))
    expected = loss_and_gradients(model, model, ids, targets)
    compiled = torch.compile(model)
    for ours, theirs in zip(
        loss_and_gradients(compiled, model, ids, targets), expected, strict=True
    ):
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm()
    steps = [
        list(generate_ids(model, [[1, 2, 3]], 5, Sampler(SamplingParams(temperature=0)), compile=c))
        for c in (False, True)
    ]
    assert steps[0] == steps[1]


@each_choice
def test_builds_on_meta_and_draws_its_weights_later(choice):
    model = TransformerLM(config_of(choice), device="meta").to_empty(device="cpu")
    torch.manual_seed(3)
    model.reset_parameters()
    torch.manual_seed(3)
    expected = TransformerLM(config_of(choice))
    assert model.state_dict().keys() == expected.state_dict().keys()
    for name, weight in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    assert len(list(model.parameters())) == len(list(expected.parameters()))


@each_choice
def test_every_weight_is_where_and_what_was_asked_for(choice):
    model = TransformerLM(config_of(choice), device="meta", dtype=torch.bfloat16)
    for name, weight in model.named_parameters():
        assert (weight.device.type, weight.dtype) == ("meta", torch.bfloat16), name


def test_names_and_shapes_of_what_choices_add():
    def keys(choice):
        return {name: tuple(w.shape) for name, w in model_of(choice).state_dict().items()}

    default = keys("default")
    for choice in ("nope", "softcap", "zero-init", "linear-rope", "llama3-rope", "tied"):
        assert keys(choice) == default
    layers = range(3)
    final = {"ln_final.weight"}
    assert keys("post-norm").keys() == default.keys() - final
    norms = {f"layers.{i}.ln{n}.weight" for i in layers for n in (1, 2)}
    assert keys("no-norm").keys() == default.keys() - final - norms
    for choice in ("silu", "relu2"):
        ffn = {f"layers.{i}.ffn.w1.weight": (128, 32) for i in layers}
        ffn |= {f"layers.{i}.ffn.w2.weight": (32, 128) for i in layers}
        rest = {name: shape for name, shape in default.items() if ".ffn." not in name}
        assert keys(choice) == rest | ffn
    shared = {f"layers.{i}.attn.{n}_proj.weight": (16, 32) for i in layers for n in "kv"}
    assert keys("two-kv-heads") == default | shared
    qk = {f"layers.{i}.attn.{n}_norm.weight": (8,) for i in layers for n in "qk"}
    assert keys("qk-norm") == default | qk
    scalars = {f"layers.{i}.residual.weight": (2,) for i in layers}
    assert keys("residual-scalars") == default | scalars
    values = {f"layers.{i}.attn.value_embedding.table.weight": (50, 32) for i in (0, 2)}
    values |= {f"layers.{i}.attn.value_embedding.gate.weight": (4, 32) for i in (0, 2)}
    assert keys("value-embeddings") == default | values


def test_how_choices_begin():
    """At the start added parts change nothing, and what is to be zero is."""
    torch.manual_seed(0)
    model = TransformerLM(config_of("many"))
    for layer in model.layers:
        assert torch.equal(layer.residual.weight, torch.tensor([1.0, 0.0]))
        for linear in (layer.attn.output_proj, layer.ffn.w2):
            assert not linear.weight.any()
        assert layer.attn.q_proj.weight.any()
    assert model.lm_head.weight.any(), "tied to an embedding, which could not learn from zero"
    values = model.layers[2].attn.value_embedding
    assert not values.gate.weight.any()
    assert values.table.weight.std().item() == pytest.approx((2 / (32 + 16)) ** 0.5, rel=0.05)
    alone = TransformerLM(config_of("zero-init"))
    for layer in alone.layers:  # SwiGLU, where "many" has another network
        assert not layer.attn.output_proj.weight.any()
        assert not layer.ffn.w2.weight.any()
    assert not alone.lm_head.weight.any()
    assert not alone(torch.arange(5)).any()


def test_a_tied_matrix_is_one_and_starts_as_a_head():
    torch.manual_seed(0)
    model = TransformerLM(config_of("tied"))
    assert model.token_embeddings.weight is model.lm_head.weight
    assert model.lm_head.weight.std().item() == pytest.approx((2 / (32 + 50)) ** 0.5, rel=0.05)
    model.double()
    assert model.token_embeddings.weight is model.lm_head.weight
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model.lm_head.weight.detach().clone()
    model(torch.arange(5), torch.arange(5)).backward()
    optimizer.step()
    assert not torch.equal(model.token_embeddings.weight, before)
    assert model.token_embeddings.weight is model.lm_head.weight


def test_a_tied_model_loads_one_name_or_both():
    source, target = model_of("tied", seed=1), model_of("tied")
    both = source.state_dict()
    assert {"token_embeddings.weight", "lm_head.weight"} <= both.keys()
    for left_out in (None, "token_embeddings.weight", "lm_head.weight"):
        target = model_of("tied")
        target.load_state_dict({n: w for n, w in both.items() if n != left_out})
        assert torch.equal(target.lm_head.weight, source.lm_head.weight)
        assert target.token_embeddings.weight is target.lm_head.weight
    with pytest.raises(RuntimeError, match=r"lm_head.weight differ, but model.tie_embeddings"):
        target.load_state_dict(both | {"lm_head.weight": both["lm_head.weight"] + 1})
    with pytest.raises(RuntimeError, match=r"Missing key.*token_embeddings.weight"):
        target.load_state_dict({n: w for n, w in both.items() if n.startswith("layers")})


def test_eight_bits_are_for_the_blocks_matrices():
    """A gate's sizes are no multiples of 16, and its product costs nothing."""
    model = model_of("many")
    model.use_fp8(True)
    changed = {
        name
        for name, module in model.named_modules()
        if isinstance(module, Linear) and module.multiply.__name__ == "fp8_linear"
    }
    attention = {f"layers.{i}.attn.{n}_proj" for i in range(3) for n in ("q", "k", "v", "output")}
    assert changed == attention | {f"layers.{i}.ffn.w{n}" for i in range(3) for n in (1, 2)}
