"""A decoder's step computes what the model computes."""

import pytest
import torch
from cs336lm.generation.decoder import FastDecoder
from cs336lm.model import ModelConfig, TransformerLM
from cs336lm.model.kv_cache import KVCache

CONFIG = ModelConfig(
    vocab_size=50, context_length=12, d_model=24, num_layers=3, num_heads=3, d_ff=40
)


def make_model(dtype):
    torch.manual_seed(0)
    model = TransformerLM(CONFIG, dtype=dtype).to(dtype)
    for layer in model.layers:  # gains of 1 would hide one that is forgotten
        torch.nn.init.uniform_(layer.ln1.weight, 0.5, 1.5)
        torch.nn.init.uniform_(layer.ln2.weight, 0.5, 1.5)
    torch.nn.init.uniform_(model.ln_final.weight, 0.5, 1.5)
    return model


@pytest.mark.parametrize("lengths", [[1], [4, 4], [1, 7, 3]])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # Two to five times what is seen.
    [
        (torch.float64, 1e-14),
        (torch.float32, 3e-6),
        (torch.bfloat16, 0.05),
        (torch.float16, 0.005),
    ],
)
@pytest.mark.parametrize("compile", [False, True])
@torch.no_grad()
def test_steps_equal_the_model(lengths, dtype, tolerance, compile):
    """Sequences at one position, and each at its own; every step to the end of the context."""
    model = make_model(dtype)
    batch = len(lengths)
    ids = torch.randint(0, 50, (batch, 12))
    whole = model(ids).double()
    cache = KVCache(CONFIG, batch, 12, dtype=dtype)
    prefix = max(lengths)
    model(ids[:, :prefix], token_positions=torch.arange(prefix).expand(batch, -1), cache=cache)
    decoder = FastDecoder(model, cache, compile=compile)  # what is for the compiler, run without it
    positions = torch.tensor(lengths)
    rows = torch.arange(batch)
    while positions.max() < 12:
        logits = decoder.step(ids[rows, positions], positions)
        expected = whole[rows, positions]
        assert logits.dtype == dtype
        assert (logits - expected).norm() < tolerance * expected.norm()
        if len(set(lengths)) == 1:
            again = decoder.step(ids[rows, positions], positions, int(positions[0]))
            assert (again - expected).norm() < tolerance * expected.norm()
        positions = positions + 1
