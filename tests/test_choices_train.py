"""Every choice goes through a run: trained, resumed, measured, continued; on two processes, too."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from choices import BASE, CHOICES, TOGETHER, config_of
from cs336lm.cli.main import main
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
    """The second half of a run, from the checkpoint of the first, is the same bit for bit."""
    config = run_config(tmp_path, choice, steps=6, eval_every=3)
    Trainer(config, tmp_path / "whole").train()
    losses = figures(tmp_path / "whole", "train_loss")
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    (tmp_path / "again" / "checkpoints" / "step-00000006.pt").unlink()
    resumed = Trainer(config, tmp_path / "again", resume=True)
    assert resumed.progress.step == 3
    resumed.train()
    assert curve(tmp_path / "again") == curve(tmp_path / "whole")
    _, model, _ = load_run(tmp_path / "whole", which="last")
    for name, weight in load_run(tmp_path / "again", which="last")[1].state_dict().items():
        assert torch.equal(weight, model.state_dict()[name]), name
    measured = evaluate(model, TokenDataset(tmp_path / "val.npy"))
    assert measured.loss < figures(tmp_path / "whole", "val_loss")[0]
    (ids,) = zip(*generate_ids(model, [[1, 2]], 12, Sampler(SamplingParams(seed=1))), strict=True)
    assert len(ids) == 12


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
@pytest.mark.parametrize("choice", ["tied", *TOGETHER])
def test_on_two_processes_it_is_the_same(choice, mode, tmp_path):
    config = run_config(tmp_path, choice, steps=4, eval_every=2, grad_accumulation=2)
    Trainer(config, tmp_path / "alone").train()
    train(2, parallel(config, mode), tmp_path / "run")
    for name in ("train_loss", "val_loss", "grad_norm"):
        ours, alone = (figures(tmp_path / run, name) for run in ("run", "alone"))
        np.testing.assert_allclose(ours, alone, rtol=1e-4, err_msg=name)
    longer = dataclasses.replace(config.train, steps=5, parallel="ddp")
    on_one = Trainer(dataclasses.replace(config, train=longer), tmp_path / "run", resume=True)
    assert on_one.progress.step == 4
    on_one.train()


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_a_checkpoint_holds_a_tied_matrix_once(mode, tmp_path):
    config = run_config(tmp_path, "tied", steps=2, eval_every=1)
    train(2, parallel(config, mode), tmp_path / "run")
    best = read_state(tmp_path / "run" / "checkpoints" / "best.pt")["model"]
    assert "token_embeddings.weight" in best
    assert "lm_head.weight" not in best
    for which in ("best", "last"):
        _, model, _ = load_run(tmp_path / "run", which=which)
        assert model.token_embeddings.weight is model.lm_head.weight
    (last,) = RunDirectory(tmp_path / "run").step_checkpoints()
    assert last.is_dir() == (mode == "fsdp")


def test_checkpoints_of_tied_and_untied_models_are_told_apart(tmp_path):
    torch.manual_seed(0)
    models = {choice: TransformerLM(config_of(choice)) for choice in ("default", "tied", "softcap")}
    optimizers = {choice: AdamW(model.parameters()) for choice, model in models.items()}
    for choice, model in models.items():
        save_checkpoint(model, optimizers[choice], 3, tmp_path / f"{choice}.pt")
    for saved in models:
        for choice, model in models.items():
            arguments = (tmp_path / f"{saved}.pt", model, optimizers[choice])
            if saved == choice:
                assert load_checkpoint(*arguments) == 3
            else:
                with pytest.raises(Mismatch, match="does not match the model"):
                    load_checkpoint(*arguments)


def test_a_plain_state_dict_with_both_names_is_loaded_too(tmp_path):
    """As PyTorch itself would save a tied model."""
    source, target = (TransformerLM(config_of("tied")) for _ in range(2))
    optimizer = AdamW(source.parameters())
    state = {"model": source.state_dict(), "optimizer": optimizer.state_dict(), "iteration": 1}
    torch.save(state, tmp_path / "both.pt")
    load_checkpoint(tmp_path / "both.pt", target, AdamW(target.parameters()))
    assert torch.equal(target.lm_head.weight, source.lm_head.weight)
    state["model"] = state["model"] | {"lm_head.weight": torch.zeros(50, 32)}
    torch.save(state, tmp_path / "different.pt")
    with pytest.raises(Mismatch, match=r"'lm_head\.weight' differ, but are one tensor here"):
        load_checkpoint(tmp_path / "different.pt", target, AdamW(target.parameters()))


def test_a_checkpoint_of_before_the_choices_was_made_by_default(tmp_path):
    """It does not mention them, and is none of a model that computes something else."""
    default, capped = (TransformerLM(config_of(choice)) for choice in ("default", "softcap"))
    optimizer = AdamW(default.parameters())
    save_checkpoint(default, optimizer, 3, tmp_path / "new.pt")
    state = read_state(tmp_path / "new.pt")
    known = ("d_model", "num_layers", "num_heads", "rope_theta", "norm", "positions", "ffn")
    state["model_config"] = {name: state["model_config"][name] for name in known}
    torch.save(state, tmp_path / "old.pt")
    assert load_checkpoint(tmp_path / "old.pt", default, optimizer) == 3
    with pytest.raises(Mismatch, match=r"model.logit_softcap 0.0 instead of 2.0"):
        load_checkpoint(tmp_path / "old.pt", capped, AdamW(capped.parameters()))


def test_both_counts_are_told_where_parameters_are_printed(tmp_path, capsys):
    data = run_config(tmp_path, "default").data
    argv = ["train", "--data.train", str(data.train), "--train.steps", "1", "--data.batch-size"]
    argv += ["2", "--train.device", "cpu", "--run-dir", str(tmp_path / "run")]
    sizes = "--model.d-model 64 --model.num-heads 2 --model.num-layers 1 --model.context-length 8"
    assert main([*argv, *sizes.split(), "--model.ffn", "silu"]) == 0
    said = capsys.readouterr().err
    assert "0.05 M parameters (0.06 M with model.ffn=swiglu) on cpu" in said
