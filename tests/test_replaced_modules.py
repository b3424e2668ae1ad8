"""What is put in a layer's place, or attached to it, is what is computed: eager, compiled, decoded.

The oracle is a plain model whose weights have been changed to what the replacement stands for.
"""

import copy

import pytest
import torch
from choices import CHOICES, model_of
from cs336lm.generation import generate_ids
from cs336lm.generation.decoder import FastDecoder, ModelDecoder, fits, make_decoder
from cs336lm.generation.sampling import Sampler, SamplingParams
from cs336lm.model import ModelConfig, TransformerLM
from cs336lm.model.kernels import cross_entropy
from cs336lm.model.kv_cache import KVCache
from cs336lm.model.linear import Linear, head_cross_entropy, project_together
from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.utils import parametrize

CONFIG = ModelConfig(
    vocab_size=50, context_length=12, d_model=24, num_layers=2, num_heads=3, d_ff=40
)
EXACT = {"rtol": 1e-10, "atol": 1e-10}
LINEARS = (
    *(f"layers.1.attn.{name}_proj" for name in ("q", "k", "v", "output")),
    *(f"layers.0.ffn.w{number}" for number in (1, 2, 3)),
    "lm_head",
)


class Adapter(Module):
    """y = W x + B A x: LoRA (Hu et al. 2021). It owns a Linear, and has no weight."""

    def __init__(self, base: Module) -> None:
        super().__init__()
        self.base = base
        self.a = Parameter(torch.randn(2, base.in_features, dtype=torch.float64))
        self.b = Parameter(torch.randn(base.out_features, 2, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.a.T @ self.b.T

    def stands_for(self) -> Tensor:
        return self.base.weight + self.b @ self.a


class EightBits(Module):
    """A weight of whole numbers and a scale for each row; there is no parameter at all."""

    def __init__(self, base: Module) -> None:
        super().__init__()
        scale = base.weight.detach().abs().amax(1, keepdim=True) / 3  # so coarse that it shows
        self.register_buffer("scale", scale)
        self.register_buffer("rounded", (base.weight.detach() / scale).round().to(torch.int8))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.stands_for().T

    def stands_for(self) -> Tensor:
        return self.rounded * self.scale


def make_model() -> TransformerLM:
    torch.manual_seed(0)
    model = TransformerLM(CONFIG, dtype=torch.float64).double()
    torch.nn.init.normal_(model.lm_head.weight)  # logits far enough apart for a clear maximum
    return model


def replace(model: Module, name: str, kind: type[Module]) -> Tensor:
    """Puts a ``kind`` in the place of a Linear; returns the weight that it stands for."""
    parent, _, leaf = name.rpartition(".")
    owner = model.get_submodule(parent)
    setattr(owner, leaf, kind(getattr(owner, leaf)))
    return getattr(owner, leaf).stands_for().detach()


def adapt(model: Module, name: str) -> Tensor:
    return replace(model, name, Adapter)


def quantize(model: Module, name: str) -> Tensor:
    return replace(model, name, EightBits)


def hook(model: Module, name: str) -> Tensor:
    """A forward hook that doubles the output."""
    linear = model.get_submodule(name)
    linear.register_forward_hook(lambda module, inputs, output: 2 * output)
    return 2 * linear.weight.detach()


def hook_before(model: Module, name: str) -> Tensor:
    linear = model.get_submodule(name)
    linear.register_forward_pre_hook(lambda module, inputs: (3 * inputs[0],))
    return 3 * linear.weight.detach()


class Negated(Module):
    def forward(self, weight: Tensor) -> Tensor:
        return -weight


def parametrized(model: Module, name: str) -> Tensor:
    linear = model.get_submodule(name)
    weight = linear.weight.detach().clone()
    parametrize.register_parametrization(linear, "weight", Negated())
    return -weight


def patch_forward(model: Module, name: str) -> Tensor:
    """A forward of this one module alone."""
    linear = model.get_submodule(name)
    linear.forward = lambda x: x @ (5 * linear.weight).T
    return 5 * linear.weight.detach()


def multiply_otherwise(model: Module, name: str) -> Tensor:
    linear = model.get_submodule(name)
    linear.multiply = lambda x, weight: x @ weight.T / 2
    return linear.weight.detach() / 2


CHANGES = [adapt, quantize, hook, hook_before, parametrized, patch_forward, multiply_otherwise]


def changed_and_merged(change, *names: str) -> tuple[TransformerLM, TransformerLM]:
    """A model with the change, and a plain one that computes the same."""
    merged = make_model()
    model = copy.deepcopy(merged)
    for name in names:
        weight = change(model, name)
        merged.get_submodule(name).weight.data = weight
    return model, merged


def check_computes_what_merged_does(run, model: Module, merged: Module) -> None:
    """Logits, and the loss with a gradient."""
    ids, targets = torch.randint(0, 50, (2, 2, 12))
    with torch.no_grad():
        assert not torch.allclose(make_model()(ids), merged(ids))
        torch.testing.assert_close(run(ids), merged(ids), **EXACT)
    loss, expected = run(ids, targets), merged(ids, targets)
    torch.testing.assert_close(loss, expected, **EXACT)
    other = "layers.0.attn.k_proj.weight"
    gradients = [
        torch.autograd.grad(value, lm.get_parameter(other))
        for value, lm in ((loss, model), (expected, merged))
    ]
    torch.testing.assert_close(*gradients, **EXACT)


@pytest.mark.parametrize("chunk", [7, 1000])
@pytest.mark.parametrize("name", LINEARS)
@pytest.mark.parametrize("change", CHANGES)
def test_changes_what_is_computed(change, name, chunk, monkeypatch):
    """With the loss in several chunks of tokens, and in one."""
    monkeypatch.setitem(cross_entropy.CHUNK_ELEMENTS, "cpu", 50 * chunk)
    model, merged = changed_and_merged(change, name)
    check_computes_what_merged_does(model, model, merged)


@pytest.mark.parametrize("change", CHANGES)
def test_changes_what_is_computed_when_compiled(change):
    torch._dynamo.reset()
    model, merged = changed_and_merged(change, "layers.1.attn.q_proj", "layers.0.ffn.w1", "lm_head")
    check_computes_what_merged_does(torch.compile(model, backend="eager"), model, merged)


@pytest.mark.parametrize("compiled", [False, True])
def test_hooks_are_called_with_inputs_and_outputs(compiled):
    model = make_model()
    shapes = {}

    def record(name):
        def hook(module, inputs, output):
            shapes[name] = (inputs[0].shape[-1], output.shape[-1])

        return hook

    for name in LINEARS:
        model.get_submodule(name).register_forward_hook(record(name))
    torch._dynamo.reset()
    run = torch.compile(model, backend="eager") if compiled else model
    run(*torch.randint(0, 50, (2, 2, 12)))
    widths = {name: tuple(model.get_submodule(name).weight.shape[::-1]) for name in LINEARS}
    assert shapes == widths


def test_hooks_on_all_modules_are_called():
    model = make_model()
    seen = []
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda module, inputs, output: seen.append(module)
    )
    try:
        model(*torch.randint(0, 50, (2, 2, 12)))
        assert not fits(model)
    finally:
        handle.remove()
    assert all(model.get_submodule(name) in seen for name in LINEARS)
    assert fits(model)


def test_plain_projections_are_one_product():
    q, k = Linear(6, 4), Linear(6, 10)
    x = torch.randn(2, 3, 6)
    calls = []

    def multiply(x: Tensor, weight: Tensor) -> Tensor:
        calls.append(tuple(weight.shape))
        return x @ weight.T

    q.multiply = k.multiply = multiply
    together = project_together(x, q, k)
    assert calls == [(14, 6)]
    torch.testing.assert_close(together, torch.cat((q(x), k(x)), -1))


def test_the_gradient_of_a_replaced_head_is_exact_in_chunks_of_bounded_size(monkeypatch):
    torch.manual_seed(0)
    head = Adapter(Linear(6, 50, dtype=torch.float64))
    hidden = torch.randn(3, 5, 6, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 50, (3, 5))
    inputs = (hidden, *head.parameters())
    sizes = []
    head.register_forward_hook(lambda module, inputs, output: sizes.append(output.numel()))
    losses = {}
    for elements in (50 * 4, 50 * 100):
        monkeypatch.setitem(cross_entropy.CHUNK_ELEMENTS, "cpu", elements)
        sizes.clear()
        loss = head_cross_entropy(head, hidden, targets, vocab_size=50)
        losses[elements] = [loss, *torch.autograd.grad(loss, inputs)]
        assert max(sizes) <= elements
    expected = torch.nn.functional.cross_entropy(head(hidden).flatten(0, 1), targets.flatten())
    for loss_and_gradients in losses.values():
        torch.testing.assert_close(loss_and_gradients[0], expected, **EXACT)
        for a, b in zip(
            loss_and_gradients[1:],
            torch.autograd.grad(expected, inputs, retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(a, b, **EXACT)


def greedy_without_cache(model: Module, prompt: list[int], steps: int) -> list[int]:
    ids = list(prompt)
    for _ in range(steps):
        with torch.no_grad():
            ids.append(model(torch.tensor(ids))[-1].argmax().item())
    return ids[len(prompt) :]


def check_generates_what_the_loop_does(model: TransformerLM, *, compile: bool) -> None:
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8]]
    greedy = Sampler(SamplingParams(temperature=0))
    steps = generate_ids(model, prompts, 7, greedy, compile=compile)
    ids = [list(row) for row in zip(*steps, strict=True)]
    assert ids == [greedy_without_cache(model, prompt, 7) for prompt in prompts]


@pytest.mark.parametrize("name", LINEARS)
@pytest.mark.parametrize("change", CHANGES)
def test_generates_what_the_model_would_without_a_cache(change, name):
    model, _ = changed_and_merged(change, name)
    check_generates_what_the_loop_does(model, compile=False)


@pytest.mark.parametrize("change", [adapt, quantize, hook])
def test_generates_the_same_when_compiled(change, monkeypatch):
    monkeypatch.setattr(torch, "compile", eager_compile)
    torch._dynamo.reset()
    model, _ = changed_and_merged(change, "layers.1.attn.q_proj", "layers.0.ffn.w1", "lm_head")
    check_generates_what_the_loop_does(model, compile=True)


def eager_compile(function, *, mode=None, _compile=torch.compile, **options):
    return _compile(function, backend="eager", **options)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", LINEARS)
def test_only_the_model_that_it_knows_gets_the_fast_decoder(change, name):
    model = make_model()
    cache = KVCache(CONFIG, 1, 12, dtype=torch.float64)
    assert fits(model)
    assert isinstance(make_decoder(model, cache), FastDecoder)
    change(model, name)
    assert not fits(model)
    assert isinstance(make_decoder(model, cache), ModelDecoder)


@pytest.mark.parametrize("name", ["layers.0", "layers.1.attn", "layers.0.ffn", "layers.1.ln1", ""])
def test_hooks_on_larger_parts_do_not_fit_either(name):
    model = make_model()
    model.get_submodule(name).register_forward_hook(lambda module, inputs, output: None)
    assert not fits(model)


def test_a_norm_with_another_epsilon_does_not_fit():
    model = make_model()
    model.layers[1].ln2.eps = 0.1
    assert not fits(model)


@pytest.mark.parametrize("choice", CHOICES)
def test_whatever_is_chosen_what_is_replaced_is_what_is_computed(choice, monkeypatch):
    """Each Linear in turn: logits, loss in chunks, and generation."""
    monkeypatch.setitem(cross_entropy.CHUNK_ELEMENTS, "cpu", 50 * 7)
    plain = model_of(choice, num_layers=1)
    ids, targets = torch.randint(0, 50, (2, 2, 12))
    names = [name for name, module in plain.named_modules() if isinstance(module, Linear)]
    assert len(names) >= 4 + 2 + 1
    for name in names:
        model, merged = copy.deepcopy(plain), copy.deepcopy(plain)
        weight = adapt(model, name)
        # By itself, were it tied to another.
        merged.get_submodule(name).weight = Parameter(weight)
        with torch.no_grad():
            assert not torch.allclose(plain(ids), merged(ids)), name
            torch.testing.assert_close(model(ids), merged(ids), **EXACT)
            torch.testing.assert_close(model(ids, targets), merged(ids, targets), **EXACT)
    check_generates_what_the_loop_does(model, compile=False)
