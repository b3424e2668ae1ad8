"""What was asked for is kept apart from what followed from it, from one run to the next."""

import dataclasses
import tomllib

import pytest
import tomli_w
from cs336lm.cli.main import main
from cs336lm.cli.train import parse
from cs336lm.errors import UsageError
from cs336lm.model.config import default_d_ff
from cs336lm.training.config import Config, OptimConfig, TrainConfig, load_config, save_config
from cs336lm.training.run_directory import RunDirectory
from cs336lm.training.trainer import Trainer
from tiny_run import MODEL, make_config

OPEN_MODEL = dataclasses.replace(MODEL, vocab_size=None, d_ff=None)


@pytest.fixture
def finished(tmp_path):
    """A run of which nothing was said that could be left open."""
    config = make_config(tmp_path, model=OPEN_MODEL, steps=40, eval_every=0)
    Trainer(config, tmp_path / "a").train()
    return tmp_path / "a"


def stored(run):
    return tomllib.loads((run / "config.toml").read_text())


def train(*flags):
    assert main(["train", *map(str, flags)]) == 0


def test_the_file_holds_the_values_and_says_which_were_derived(finished):
    tables = stored(finished)
    assert tables["model"]["d_ff"] == default_d_ff(16)
    assert tables["optim"]["min_lr"] == pytest.approx(1e-3)
    assert tables["optim"]["warmup_steps"] == 2
    assert tables["derived"] == {
        "model": {"vocab_size": 40, "d_ff": default_d_ff(16), "num_kv_heads": 2},
        "optim": {"min_lr": tables["optim"]["min_lr"], "warmup_steps": 2},
        "train": {"eval_batches": 20},
    }
    assert RunDirectory(finished).load_config().model.d_ff == default_d_ff(16)
    assert RunDirectory(finished).load_asked().model.d_ff is None
    assert load_config(finished / "config.toml").optim.min_lr is None


def test_another_run_from_the_file_derives_anew(finished, tmp_path):
    flags = ["--model.d-model", 48, "--optim.lr", 1e-4, "--train.steps", 60]
    train("--config", finished / "config.toml", "--run-dir", tmp_path / "b", *flags)
    tables = stored(tmp_path / "b")
    assert tables["model"]["d_ff"] == default_d_ff(48) == 128
    assert tables["optim"]["min_lr"] == pytest.approx(1e-5)
    assert tables["optim"]["warmup_steps"] == 3
    # And one from that, copied to where only the file is, and edited by hand.
    text = (tmp_path / "b" / "config.toml").read_text()
    before, end = text.split("[derived", 1)
    before = before.replace("d_model = 48", "d_model = 64").replace("lr = 0.0001", "lr = 1e-06")
    (tmp_path / "copied.toml").write_text(f"{before}[derived{end}")
    config = load_config(tmp_path / "copied.toml")
    assert (config.optim.lr, config.optim.min_lr, config.model.ffn_width) == (1e-6, None, 192)
    # A value that was edited is one that was asked for.
    (tmp_path / "copied.toml").write_text(
        f"{before.replace('d_ff = 128', 'd_ff = 96')}[derived{end}"
    )
    config = load_config(tmp_path / "copied.toml")
    assert config.model.ffn_width == 96


def test_what_was_asked_for_stays(tmp_path):
    optim = OptimConfig(lr=1e-2, min_lr=1e-3, warmup_steps=0)  # min_lr as it would be derived
    asked = dataclasses.replace(MODEL, d_ff=64, num_kv_heads=2)
    said = {"optim": optim, "steps": 2, "eval_batches": 20}
    Trainer(make_config(tmp_path, model=asked, **said), tmp_path / "a").train()
    assert "derived" not in stored(tmp_path / "a")
    arguments = parse(
        ["--config", f"{tmp_path}/a/config.toml", "--model.d-model", "48", "--optim.lr", "1e-1"]
    )
    assert (arguments.model.d_ff, arguments.optim.min_lr) == (64, 1e-3)


def test_a_resumed_run_follows_what_it_is_told(finished):
    resume = ["--resume", "--run-dir", finished]
    train(*resume, "--optim.lr", 1e-4)  # below the old min_lr
    assert stored(finished)["optim"]["min_lr"] == pytest.approx(1e-5)
    train(*resume, "--train.steps", 100)
    assert stored(finished)["optim"]["warmup_steps"] == 5
    train(*resume, "--train.steps", 60, "--optim.warmup-steps", 4)
    assert stored(finished)["optim"]["warmup_steps"] == 4
    train(*resume, "--train.steps", 80)
    assert stored(finished)["optim"]["warmup_steps"] == 4
    train(*resume, "--optim.warmup-steps", "None")
    assert stored(finished)["optim"]["warmup_steps"] == 4 == 80 // 20


def test_going_on_forgets_nothing(finished, tmp_path):
    before = stored(finished)
    train("--resume", "--run-dir", finished)
    train("--resume", "--run-dir", finished, "--train.steps", 41)
    assert stored(finished)["derived"] == before["derived"]
    train("--config", finished / "config.toml", "--run-dir", tmp_path / "b", "--model.d-model", 48)
    assert stored(tmp_path / "b")["model"]["d_ff"] == 128


def test_another_model_is_refused_by_what_it_would_be(finished, capsys):
    resume = ["train", "--resume", "--run-dir", str(finished)]
    assert main([*resume, "--model.d-ff", "128"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "model.d_ff cannot become 128 on --resume: the run's weights were made with 64" in line
    assert main([*resume, "--model.d-ff", "64"]) == 0
    assert main([*resume, "--model.d-ff", "None"]) == 0


def test_a_run_of_an_earlier_version_keeps_its_values(finished):
    """Its file does not say what was derived: all of it counts as asked for."""
    tables = stored(finished)
    del tables["derived"]
    (finished / "config.toml").write_text(tomli_w.dumps(tables))
    train("--resume", "--run-dir", finished, "--train.steps", 50)
    assert stored(finished)["optim"]["warmup_steps"] == 2


@pytest.mark.parametrize(
    "derived",
    [
        "[derived.modle]\nd_ff = 64",
        "[derived]\nmodel = 3",
        "[derived.model]\nd_model = 256\nnone = 1",
        "[derived.optim]\nmin_lr = 0.5",
    ],
)
def test_a_strange_table_changes_nothing(tmp_path, derived):
    (tmp_path / "run.toml").write_text(f"[model]\nd_model = 256\n{derived}")
    assert load_config(tmp_path / "run.toml") == Config()


def test_a_warm_up_longer_than_the_run_is_refused(tmp_path, capsys):
    optim = OptimConfig(warmup_steps=13)
    with pytest.raises(UsageError, match=r"^optim.warmup_steps=13 is more than train.steps=12: "):
        Trainer(make_config(tmp_path, optim=optim), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    Trainer(make_config(tmp_path, optim=OptimConfig(warmup_steps=12)), tmp_path / "run").train()
    save_config(make_config(tmp_path), tmp_path / "run.toml")
    flags = ["--train.steps", "5", "--optim.warmup-steps", "6"]
    assert main(["train", "--config", f"{tmp_path}/run.toml", *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "optim.warmup_steps=6 is more than train.steps=5" in line


def test_seeds_have_64_bits(tmp_path):
    Trainer(make_config(tmp_path, seed=2**64 - 1, steps=1), tmp_path / "run").train()
    for seed in (2**64, 2**200):
        with pytest.raises(UsageError, match=f"^train.seed={seed} is impossible: .*64 bits$"):
            TrainConfig(seed=seed)
