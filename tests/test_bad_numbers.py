"""Losses and gradients that are no numbers: found before they reach the weights, and where."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
import torch
from cs336lm.cli.main import main
from cs336lm.errors import Note
from cs336lm.model.transformer import TransformerLM
from cs336lm.training.bad_numbers import MOST_SAVED, MOST_SKIPPED, BadNumbers, SpikeCounter, replay
from cs336lm.training.checkpoints.archive import read_state
from cs336lm.training.config import OptimConfig
from cs336lm.training.first_bad import first_bad
from cs336lm.training.run_directory import RunDirectory
from cs336lm.training.trackers.jsonl import read_metrics
from cs336lm.training.trainer import Trainer
from test_distributed import on_ranks
from tiny_run import MODEL, curve, make_config

CPU = torch.device("cpu")


def spoil(trainer: Trainer, steps: set[int], value: float = math.nan) -> None:
    """Makes one number of a layer's output ``value`` in these steps."""

    def hook(module, inputs, output):
        if trainer.progress.step + 1 in steps:
            output = output.clone()
            output.view(-1)[0] = value
        return output

    trainer.model.layers[0].attn.output_proj.register_forward_hook(hook)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_run_stops_before_the_step_and_names_the_layer(tmp_path, value):
    config = make_config(tmp_path, steps=12, log_every=5, checkpoint_every=3, eval_every=2)
    trainer = Trainer(config, tmp_path / "run")
    spoil(trainer, {8}, value)
    file = tmp_path / "run" / "bad-batches" / "step-00000008.pt"
    with pytest.raises(BadNumbers) as caught:
        trainer.train()
    assert re.fullmatch(
        r"step 8: the loss is nan and the norm of the gradient nan, first in the output of "
        r"layers\.0\.attn\.output_proj \(1 of 1,024 numbers\): training has diverged; see it again "
        rf"with: cs336lm train --replay {file}; a lower --optim\.lr .*",
        str(caught.value),
    )
    # What is on the disk is of before, and so are the weights, bit for bit.
    run = RunDirectory(tmp_path / "run")
    whole = make_config(tmp_path, steps=12, log_every=1, checkpoint_every=1, eval_every=2)
    whole = dataclasses.replace(whole, train=dataclasses.replace(whole.train, keep_checkpoints=99))
    Trainer(whole, tmp_path / "whole").train()
    seven = read_state(tmp_path / "whole" / "checkpoints" / "step-00000007.pt")["model"]
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(weight, seven[name])
    assert [path.stem for path in run.step_checkpoints()] == ["step-00000003", "step-00000006"]
    assert read_state(run.best_checkpoint)["iteration"] <= 6
    last = read_metrics(run.metrics_file)[-1]
    assert (last["step"], last["train_loss"], last["grad_norm"]) == (8, None, None)
    saved = read_state(file)
    assert saved["iteration"] == 7
    assert all(torch.equal(saved["model"][name], seven[name]) for name in seven)
    # Without what spoiled it, the run goes on from its last checkpoint as if nothing had been.
    Trainer(config, run.path, resume=True).train()
    assert curve(run.path)[-1] == curve(tmp_path / "whole")[-1]


def test_where_the_device_is_not_waited_for_the_step_is_named_one_later(tmp_path):
    """As on a GPU: with the weights of the last checkpoint, for those of the step are gone."""
    trainer = Trainer(make_config(tmp_path, steps=12, checkpoint_every=3), tmp_path / "run")
    trainer._step._guard._waits = False
    spoil(trainer, {8, 9})
    with pytest.raises(BadNumbers) as caught:
        trainer.train()
    assert "step 8: the loss is nan" in str(caught.value)
    # The sixth step's may still be on its way to the disk.
    step = re.search(r"with the weights of step-0000000([36]), see it again", str(caught.value))[1]
    assert trainer.progress.step == 8
    run = RunDirectory(tmp_path / "run")
    before = read_state(run.checkpoints / f"step-0000000{step}.pt")
    saved = read_state(run.bad_batch(8))
    for name, weight in before["model"].items():
        assert torch.equal(saved["model"][name], weight)


def test_a_run_may_leave_such_steps_out(tmp_path):
    config = make_config(tmp_path, steps=12, grad_accumulation=2, on_bad_numbers="skip")
    trainer = Trainer(config, tmp_path / "run")
    spoil(trainer, {3, 4, 7, 9, 12})
    with pytest.warns(Note) as notes:
        result = trainer.train()
    assert len(notes) == 5
    assert result.progress.skipped_steps == 5
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [r["step"] for r in records if r.get("train_loss", 0) is None] == [3, 4, 7, 9, 12]
    assert records[-1]["skipped_steps"] == 5
    assert math.isfinite(result.val_loss)
    files = sorted((tmp_path / "run" / "bad-batches").iterdir())
    assert [file.stem for file in files] == ["step-00000003", "step-00000004", "step-00000007"]
    assert len(files) == MOST_SAVED
    # A step that is left out changes neither the weights nor what the optimizer remembers.
    state = read_state(RunDirectory(tmp_path / "run").step_checkpoints()[-1])
    assert {int(entry["step"]) for entry in state["optimizer"]["state"].values()} == {7}


def test_a_run_that_leaves_out_every_step_ends(tmp_path):
    config = make_config(tmp_path, steps=60, eval_every=0, on_bad_numbers="skip")
    trainer = Trainer(config, tmp_path / "run")
    spoil(trainer, set(range(5, 100)))
    with pytest.warns(Note), pytest.raises(BadNumbers, match=f"{MOST_SKIPPED} steps in a row"):
        trainer.train()
    assert trainer.progress.step == 4 + MOST_SKIPPED - 1


def test_replaying_shows_the_layer_again(tmp_path, capsys):
    """Weights so large that a product overflows: nothing but the file is needed to see it."""
    optim = OptimConfig(name="sgd", schedule="constant", lr=1e25, warmup_steps=0, grad_clip=0)
    config = make_config(tmp_path, optim=optim, steps=50, eval_every=0)
    with pytest.raises(BadNumbers, match="first in") as caught:
        Trainer(config, tmp_path / "run").train()
    where = re.search(r"first in (.*?): training", str(caught.value))[1]
    (file,) = (tmp_path / "run" / "bad-batches").iterdir()
    assert replay(file, CPU)[1] == [where]
    assert main(["train", "--replay", str(file), "--train.device", "cpu"]) == 0
    assert f"part 1: first not finite: {where}" in capsys.readouterr().out
    assert main(["check", str(file)]) == 0
    checkpoint = RunDirectory(tmp_path / "run").checkpoints / "step-00000001.pt"
    torch.save({"model": {}, "iteration": 1}, checkpoint)
    assert main(["train", "--replay", str(checkpoint)]) == 1
    assert "holds no batch" in capsys.readouterr().err


def test_a_broken_gradient_under_a_sound_loss_is_found_too(tmp_path):
    trainer = Trainer(make_config(tmp_path), tmp_path / "run")
    trainer.model.layers[0].ffn.w2.weight.register_hook(
        lambda gradient: gradient * math.inf if trainer.progress.step == 4 else gradient
    )
    with pytest.raises(BadNumbers, match=r"step 5: the loss is \d.*the gradient of layers\.0\.ffn"):
        trainer.train()


def test_weights_that_are_bad_themselves_are_named():
    model = TransformerLM(MODEL)
    x = torch.zeros(2, 8, dtype=torch.int64)
    assert first_bad(model, x, x, 1, torch.float32) is None
    assert all(parameter.grad is None for parameter in model.parameters())
    with torch.no_grad():
        model.ln_final.weight[3] = math.nan
    assert first_bad(model, x, x, 2, torch.float32) == "ln_final.weight itself (1 of 16 numbers)"


def bad_on_one_rank(config, run):
    trainer = Trainer(config, run)
    if trainer.world.rank == 1:
        spoil(trainer, {6})
    try:
        trainer.train()
    except BadNumbers as error:
        (run / f"rank-{trainer.world.rank}.txt").write_text(str(error))


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_all_processes_stop_at_one_step(tmp_path, mode):
    config = make_config(tmp_path, steps=12, parallel=mode)
    on_ranks(2, lambda rank: bad_on_one_rank(config, tmp_path / "run"))
    said = [(tmp_path / "run" / f"rank-{rank}.txt").read_text() for rank in (0, 1)]
    assert said[0] == said[1]
    assert "step 6: " in said[0]
    assert "first in the output of layers.0.attn.output_proj (1 of 512 numbers)" in said[0]
    saved = read_state(tmp_path / "run" / "bad-batches" / "step-00000006.pt")
    assert saved["batch"]["x"].shape == (8, 8)
    assert saved["model"]["lm_head.weight"].shape == (MODEL.vocab_size, MODEL.d_model)


def test_a_compiled_run_stops_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: torch._dynamo.disable(function))
    trainer = Trainer(make_config(tmp_path, compile=True), tmp_path / "run")
    spoil(trainer, {2})
    with pytest.raises(BadNumbers, match=r"step 2: .*layers\.0\.attn\.output_proj"):
        trainer.train()


def test_a_spike_is_what_its_definition_says():
    """The definition, by NumPy: six standard deviations above the mean of the last 128."""
    for seed in range(4):
        generator = np.random.default_rng(seed)
        losses = generator.normal(2.0, 0.01, 400)
        deviations = generator.uniform(5.0, 7.0, 400)
        counter, found, expected = SpikeCounter(), [], []
        for step in range(400):
            before = losses[max(0, step - 128) : step]
            if step >= 32 and step % 3 == 0:  # near the border, on both sides of it
                losses[step] = before.mean() + deviations[step] * before.std()
            found.append(counter.is_one(float(losses[step])))
            expected.append(step >= 32 and losses[step] > before.mean() + 6 * before.std())
        assert found == expected
        assert 0 < sum(found) < 123
    # A few losses say nothing yet, and equal ones are no spikes.
    early = SpikeCounter()
    assert [early.is_one(loss) for loss in [1.0, 2.0] * 15 + [1.5, 99.0]] == [False] * 32
    assert early.is_one(999.0)
    equal = SpikeCounter()
    assert not any(equal.is_one(2.0) for _ in range(200))
    assert equal.is_one(2.001)


def test_spikes_are_counted(tmp_path):
    counter = SpikeCounter()
    calm = [2 + math.sin(i) / 10 for i in range(100)]
    assert not any(counter.is_one(loss) for loss in calm)
    assert counter.is_one(4.0)
    assert not counter.is_one(1.0)
    # So is the spike of a run, and it is told.
    config = make_config(tmp_path, steps=60, eval_every=0)
    trainer = Trainer(config, tmp_path / "run")
    trainer.model.lm_head.register_forward_hook(lambda *_: None)
    whole = trainer._step._model
    trainer._step._model = Louder(whole, trainer)
    assert trainer.train().progress.loss_spikes == 1
    last = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["loss_spikes"] == 1


class Louder:
    """A model whose loss is a hundred times as high at step 50."""

    def __init__(self, model, trainer):
        self._model, self._trainer = model, trainer

    def __call__(self, x, y):
        factor = 100.0 if self._trainer.progress.step == 49 else 1.0
        return self._model(x, y) * factor

    def round(self, **how):
        return self._model.round(**how)
