"""Parameters and operations as counted, against those of a model that runs."""

import pytest
import torch
from choices import CHOICES, config_of
from cs336lm.errors import UsageError
from cs336lm.model import ModelConfig, TransformerLM
from cs336lm.model.accounting import (
    forward_flops,
    kv_cache_numbers,
    matmul_parameters,
    parameters,
    peak_bandwidth,
    peak_flops,
    total_parameters,
    training_flops_per_token,
    with_swiglu,
)
from cs336lm.model.kv_cache import KVCache
from torch.utils.flop_counter import FlopCounterMode

CONFIG = ModelConfig(
    vocab_size=50, context_length=16, d_model=24, num_layers=3, num_heads=3, d_ff=40
)


def test_parameters_are_those_of_the_model():
    model = TransformerLM(CONFIG)
    embedding = model.token_embeddings.weight.numel()
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    assert matmul_parameters(CONFIG) == matrices - embedding


def test_operations_are_those_that_pytorch_counts():
    """Forward alone, which is a third: the backward pass of fused attention computes more."""
    model = TransformerLM(CONFIG, device="meta")
    ids = torch.zeros(2, 16, dtype=torch.int64, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as count:
        model(ids)
    assert 3 * count.get_total_flops() == training_flops_per_token(CONFIG) * ids.numel()


def test_operations_of_a_training_step_are_those_that_pytorch_counts():
    """Products forward and backward counted by PyTorch, attention (fused there) by hand."""
    model = TransformerLM(CONFIG)
    ids = torch.zeros(2, 16, dtype=torch.int64)
    with FlopCounterMode(display=False) as count:
        model(ids, ids).backward()
    products = sum(
        operations
        for name, operations in count.get_flop_counts()["Global"].items()
        if name.__name__ in ("mm", "addmm", "bmm")
    )
    by_hand = 3 * CONFIG.num_layers * 4 * 16 * 24 * ids.numel()  # Q K^T and P V, three times
    # The gradients of the gains are products as well, of a row of ones; they do not count.
    gains = 2 * ids.numel() * sum(p.numel() for p in model.parameters() if p.ndim == 1)
    assert products - gains + by_hand == training_flops_per_token(CONFIG) * ids.numel()


@pytest.fixture
def named(monkeypatch):
    """A device that calls itself so."""

    def make(name):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
        return torch.device("cuda", 0)

    return make


@pytest.mark.parametrize(
    ("name", "teraflops", "gigabytes"),
    [
        ("NVIDIA H100 80GB HBM3", 989, 3350),
        ("NVIDIA H100 PCIe", 756, 2000),
        ("NVIDIA H100 NVL", 835.5, 3900),
        ("NVIDIA H200", 989, 4800),
        ("NVIDIA H200 NVL", 835.5, 4800),
        ("NVIDIA GH200 480GB", 989, 4000),
        ("NVIDIA B200", 2250, 8000),
        ("NVIDIA GB200", 2500, 8000),
        ("NVIDIA A100-SXM4-40GB", 312, 1555),
        ("A100-SXM4-40GB", 312, 1555),
        ("NVIDIA A100-SXM4-80GB", 312, 2039),
        ("NVIDIA A100-PCIE-40GB", 312, 1555),
        ("NVIDIA A100 80GB PCIe", 312, 1935),
        ("NVIDIA A10", 125, 600),
        ("NVIDIA A10G", 70, 600),
        ("NVIDIA A40", 149.7, 696),
        ("NVIDIA L4", 121, 300),
        ("NVIDIA L40", 181, 864),
        ("NVIDIA L40S", 362, 864),
        ("NVIDIA GeForce RTX 4090", 165, 1008),
        ("NVIDIA GeForce RTX 3090", 71, 936),
        ("NVIDIA RTX A6000", 154.8, 768),
    ],
)
def test_a_device_is_known_by_its_whole_name(named, name, teraflops, gigabytes):
    device = named(name)
    for dtype in (torch.bfloat16, torch.float16):
        assert peak_flops(device, dtype) == teraflops * 1e12
    assert peak_bandwidth(device) == gigabytes * 1e9


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA RTX A1000", "NVIDIA RTX A1000 6GB Laptop GPU", "NVIDIA A100X", "NVIDIA A1000",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA A100-SXM4-40GB MIG 3g.20gb", "NVIDIA H20",
        "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 D", "NVIDIA A16",
        "NVIDIA GeForce RTX 3090 Ti", "NVIDIA T400", "NVIDIA T1000", "Quadro T4", "NVIDIA A2",
        "NVIDIA RTX 4000 SFF Ada Generation", "AMD Instinct MI300X", "NVIDIA L400", "",
    ],
)  # fmt: skip
def test_a_device_that_only_sounds_like_one_is_unknown(named, name):
    device = named(name)
    assert peak_flops(device, torch.bfloat16) is None
    assert peak_bandwidth(device) is None


def test_each_precision_has_its_own_peak(named, monkeypatch):
    device = named("NVIDIA H100 80GB HBM3")
    assert peak_flops(device, torch.float8_e4m3fn) == 1979e12
    assert peak_flops(device, torch.float64) is None
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert peak_flops(device, torch.float32) == 495e12
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "highest")
    assert peak_flops(device, torch.float32) is None
    turing = named("Tesla T4")
    assert peak_flops(turing, torch.float16) == 65e12
    assert peak_flops(turing, torch.bfloat16) is peak_flops(turing, torch.float8_e4m3fn) is None
    for kind in ("cpu", "mps"):
        assert peak_flops(torch.device(kind), torch.bfloat16) is None
        assert peak_bandwidth(torch.device(kind)) is None


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_is_counted(choice):
    """Parameters by component, and the operations of a forward pass as PyTorch counts them."""
    config = config_of(choice)
    model = TransformerLM(config, device="meta")
    assert total_parameters(config) == sum(p.numel() for p in model.parameters())
    counted = dict.fromkeys(parameters(config), 0)
    for name, parameter in model.named_parameters():
        counted[component_of(name)] += parameter.numel()
    assert parameters(config) == counted
    ids = torch.zeros(2, 9, dtype=torch.int64, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as count:
        model(ids)
    assert sum(forward_flops(config, 9, 2).values()) == count.get_total_flops()
    by_module = {name: sum(flops.values()) for name, flops in count.get_flop_counts().items()}
    assert by_module["TransformerLM.lm_head"] == forward_flops(config, 9, 2)["lm_head"]
    ffn = sum(flops for name, flops in by_module.items() if name.endswith(".ffn"))
    assert ffn == forward_flops(config, 9, 2)["feed_forward"]
    whole = torch.zeros(2, config.context_length, dtype=torch.int64, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as count:
        model(whole)
    assert 3 * count.get_total_flops() == training_flops_per_token(config) * whole.numel()


def component_of(name):
    """Of a parameter, by its name in the state dict."""
    for part, component in {
        "token_embeddings": "token_embeddings",
        "value_embedding": "value_embeddings",
        "_proj": "attention",
        ".ffn.": "feed_forward",
        "norm": "norms",
        ".ln": "norms",
        "ln_": "norms",
        "residual": "residual_scalars",
        "lm_head": "lm_head",
    }.items():
        if part in name:
            return component
    raise AssertionError(name)


def test_a_cache_is_counted():
    for choice in ("default", "two-kv-heads"):
        config = config_of(choice)
        cache = KVCache(config, batch_size=2, length=5)
        held = sum(layer.keys.numel() + layer.values.numel() for layer in cache)
        assert held == kv_cache_numbers(config) * 2 * 5


def test_networks_of_two_matrices_have_as_many_parameters_by_default():
    """To the rounding of SwiGLU's width."""
    for ffn in ("silu", "relu2"):
        config = ModelConfig(vocab_size=50, d_model=512, ffn=ffn)
        assert with_swiglu(config) == ModelConfig(vocab_size=50, d_model=512)
        ours, theirs = total_parameters(config), total_parameters(with_swiglu(config))
        assert ours == pytest.approx(theirs, rel=0.02)


def test_a_vocabulary_is_needed():
    with pytest.raises(UsageError, match=r"model\.vocab_size is not set"):
        parameters(ModelConfig())
