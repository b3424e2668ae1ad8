"""Parameters and operations as counted, against those of a model that runs."""

import torch
from cs336lm.model import ModelConfig, TransformerLM
from cs336lm.model.accounting import matmul_parameters, training_flops_per_token
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
