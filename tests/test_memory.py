"""Memory as counted, against what PyTorch's autograd really saves."""

import dataclasses

import pytest
import torch
from cs336lm.model import ModelConfig, TransformerLM
from cs336lm.model.memory import (
    BYTES_PER_NUMBER,
    handout_activations,
    kept_activations,
    largest_batch,
    numbers,
    training_bytes,
)
from cs336lm.model.presets import preset_model
from cs336lm.optim import AdamW

CONFIG = ModelConfig(
    vocab_size=97, context_length=16, d_model=24, num_layers=2, num_heads=3, d_ff=40
)
CHOICES = [
    {},
    {"norm": "none"},
    {"norm": "post"},
    {"positions": "none"},
    {"ffn": "silu"},
    {"ffn": "relu2"},
    {"num_kv_heads": 1},
    {"qk_norm": True},
    {"qk_norm": True, "positions": "none"},
    {"tie_embeddings": True},
    {"logit_softcap": 5.0},
    {"zero_init": True},
    {"residual_scalars": True},
]


def saved_bytes(config: ModelConfig, batch: int, seq: int) -> int:
    """Of all storages that a backward pass would read, besides the weights and the ids."""
    model = TransformerLM(config)
    ids = torch.randint(config.vocab_size, (2, batch, seq))
    others = [*model.parameters(), *model.buffers(), ids]
    ours = {tensor.untyped_storage().data_ptr() for tensor in others}
    seen: dict[int, torch.Tensor] = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in ours:
            seen[tensor.untyped_storage().data_ptr()] = tensor  # held: no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(ids[0], ids[1])
    assert loss.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in seen.values())


@pytest.mark.parametrize("choice", CHOICES, ids=str)
@pytest.mark.parametrize(("batch", "seq"), [(1, 16), (5, 16), (3, 9)])
def test_activations_are_those_that_autograd_saves(choice, batch, seq):
    config = dataclasses.replace(CONFIG, **choice)
    counted = BYTES_PER_NUMBER * numbers(kept_activations(config, seq), batch)
    assert counted == saved_bytes(config, batch, seq)


def test_the_handouts_list_of_a_block_by_hand():
    """Assignment 1 of CS336, resource accounting: each tensor that it names, written out."""
    d, ff, h, t, v, n = 24, 40, 3, 16, 97, 2
    block = 2 * t * d + 3 * t * d + 2 * h * t * t + t * d + t * d + 4 * t * ff + t * d
    expected = n * block + t * d + t * v + t
    assert numbers(handout_activations(CONFIG), 1) == expected
    without_gate = n * (block - 2 * t * ff) + t * d + t * v + t
    silu = dataclasses.replace(CONFIG, ffn="silu")
    assert numbers(handout_activations(silu), 1) == without_gate


def test_state_is_what_adamw_holds():
    model = TransformerLM(CONFIG)
    optimizer = AdamW(model.parameters())
    ids = torch.randint(97, (2, 2, 16))
    model(ids[0], ids[1]).backward()
    optimizer.step()
    held = training_bytes(CONFIG, [], 0)
    assert held["parameters"] == sum(p.numel() * 4 for p in model.parameters())
    assert held["gradients"] == sum(p.grad.numel() * 4 for p in model.parameters())
    states = [t for s in optimizer.state.values() for t in s.values() if torch.is_tensor(t)]
    assert held["optimizer"] == sum(t.numel() * 4 for t in states if t.ndim)


@pytest.mark.parametrize("activations", [handout_activations, kept_activations])
def test_the_largest_batch_fits_and_one_more_does_not(activations):
    config = preset_model("gpt2-xl")
    kept = activations(config)
    memory = 80 * 10**9
    batch = largest_batch(config, kept, memory)
    assert training_bytes(config, kept, batch)["total"] <= memory
    assert training_bytes(config, kept, batch + 1)["total"] > memory
    assert largest_batch(config, kept, 10**9) == 0
