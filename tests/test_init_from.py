"""``train --init-from``: the weights of another run, and nothing else of it."""

import json

import pytest
import tiny_run
import torch
from cs336lm import Trainer, load_run
from cs336lm.cli.main import main
from exchanged import make_model, make_run, make_tokenizer, one_line

SIZES = ["--train.device", "cpu", "--train.steps", "2", "--data.batch-size", "4"]


@pytest.fixture
def trained(tmp_path):
    run = tmp_path / "first"
    Trainer(tiny_run.make_config(tmp_path), run).train()
    return run


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_training_starts_from_the_best_weights_with_a_new_optimizer(trained, tmp_path, capsys):
    run = tmp_path / "second"
    data = ["--data.train", str(tmp_path / "train.npy"), "--data.val", str(tmp_path / "val.npy")]
    start = ["--init-from", str(trained), "--run-dir", str(run), "--optim.lr", "0"]
    assert main(["train", *start, *data, *SIZES, "--optim.weight-decay", "0"]) == 0
    # Nothing is learned at a rate of 0: the weights are those of the run's best checkpoint.
    before, after = load_run(trained)[1], load_run(run)[1]
    assert after.config == before.config  # the shape, too, is that run's
    for name, weight in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], weight)
    best = min(record["val_loss"] for record in metrics(trained) if "val_loss" in record)
    assert metrics(run)[-1]["val_loss"] == pytest.approx(best)
    saved = torch.load(run / "checkpoints" / "step-00000002.pt")
    steps = {int(state["step"]) for state in saved["optimizer"]["state"].values()}
    assert steps == {2}


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_there_again(trained, tmp_path):
    run = tmp_path / "second"
    data = ["--data.train", str(tmp_path / "train.npy"), "--train.checkpoint-every", "1"]
    arguments = ["--init-from", str(trained), "--run-dir", str(run), *data, *SIZES]
    assert main(["train", *arguments]) == 0
    expected = metrics(run)
    for checkpoint in (run / "checkpoints").iterdir():
        checkpoint.unlink()
    (run / "metrics.jsonl").unlink()
    assert main(["train", "--resume", "--run-dir", str(run)]) == 0
    again = metrics(run)
    assert [r["train_loss"] for r in again] == [r["train_loss"] for r in expected]
    # And once there is one, the run goes on with its own weights.
    assert main(["train", "--resume", "--run-dir", str(run), "--train.steps", "3"]) == 0
    assert metrics(run)[-1]["step"] == 3


def test_a_file_may_say_it_relative_to_itself(trained, tmp_path):
    (tmp_path / "run.toml").write_text(
        '[data]\ntrain = "train.npy"\nbatch_size = 4\n'
        '[train]\ninit_from = "first"\nsteps = 1\ndevice = "cpu"\n[optim]\nlr = 0.0\n'
    )
    run = tmp_path / "second"
    assert main(["train", "--config", str(tmp_path / "run.toml"), "--run-dir", str(run)]) == 0
    weights = load_run(run)[1].lm_head.weight
    assert torch.equal(weights, load_run(trained)[1].lm_head.weight)


def test_the_tokenizer_comes_along(tmp_path):
    tokenizer = make_tokenizer()
    make_run(tmp_path / "first", tokenizer, make_model(tokenizer.vocab_size))
    (tmp_path / "text.txt").write_text("the cat sat on the mat. " * 40)
    tokenizer.encode_files(tmp_path / "text.txt", tmp_path / "text.npy")
    run = tmp_path / "second"
    start = ["--init-from", str(tmp_path / "first"), "--run-dir", str(run)]
    assert main(["train", *start, "--data.train", str(tmp_path / "text.npy"), *SIZES]) == 0
    assert load_run(run)[2] == tokenizer


def test_weights_of_another_model_are_refused_by_name(trained, tmp_path, capsys):
    start = ["--init-from", str(trained), "--data.train", str(tmp_path / "train.npy"), *SIZES]
    run = tmp_path / "second"
    for change, named in (
        (["--model.d-model", "32"], "'token_embeddings.weight' (40, 16) instead of (40, 32)"),
        (["--model.num-layers", "2"], "missing keys ['layers.1."),
        (["--model.num-heads", "4", "--model.num-kv-heads", "4"], "model.num_heads 2 instead of 4"),
    ):
        assert main(["train", *start, "--run-dir", str(run), *change]) == 1
        assert named in one_line(capsys)
        assert not run.exists()
    no_run = ["--init-from", str(tmp_path / "none"), *start[2:], "--run-dir", str(run)]
    assert main(["train", *no_run]) == 1
    assert f"{tmp_path / 'none'} is not a run directory" in one_line(capsys)
