"""Every choice of the model is what its paper says, and is learned, saved, decoded, compiled."""

import pytest
import torch
from choices import CHOICES, NOT_FAST, config_of, model_of
from cs336lm.generation.decoder import FastDecoder, ModelDecoder, fits, make_decoder
from cs336lm.generation.engine import generate_ids
from cs336lm.generation.sampling import Sampler, SamplingParams
from cs336lm.model import TransformerLM
from cs336lm.model.kernels import cross_entropy
from cs336lm.model.kv_cache import KVCache
from cs336lm.model.linear import Linear
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
    for name, ours, theirs in zip(
        parameters, gradients, torch.autograd.grad(theirs, parameters.values()), strict=True
    ):
        assert theirs.abs().max() > 0, f"{name} does nothing"
        torch.testing.assert_close(ours, theirs, **EXACT, msg=lambda m, name=name: f"{name}: {m}")
