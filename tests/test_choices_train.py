"""Every choice goes through a run: trained, resumed, measured, continued, on one process and two."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from choices import BASE, CHOICES, TOGETHER, config_of
from cs336lm.data import TokenDataset
from cs336lm.evaluation import evaluate
from cs336lm.generation.engine import generate_ids
from cs336lm.generation.sampling import Sampler, SamplingParams
from cs336lm.model import TransformerLM
from cs336lm.optim import AdamW
from cs336lm.training.checkpoints.archive import read_state
from cs336lm.training.checkpoints.course import load_checkpoint, save_checkpoint
from cs336lm.training.checkpoints.state import Mismatch
from cs336lm.training.run_directory import RunDirectory, load_run
from cs336lm.training.trainer import Trainer
from test_distributed import figures, parallel, train
from tiny_run import VOCAB_SIZE, curve, make_config

SMALL = dataclasses.replace(BASE, vocab_size=VOCAB_SIZE, context_length=8, num_layers=2)


def run_config(folder, choice, **settings):
    return make_config(folder, model=config_of(choice, SMALL), checkpoint_every=3, **settings)


@pytest.mark.parametrize("choice", CHOICES)
def test_trains_resumes_evaluates_and_generates(choice, tmp_path):
    """Half a run and the rest of it are the whole run, bit for bit."""
    whole = run_config(tmp_path, choice, steps=6, eval_every=3)
    Trainer(whole, tmp_path / "whole").train()
    losses = figures(tmp_path / "whole", "train_loss")
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    trainer = Trainer(whole, tmp_path / "halves")
    for _ in range(3):
        x, y = next(trainer.batches)
        trainer.update(x, y, rounds=1)
