"""A configuration goes through TOML unchanged, and what cannot be is refused by name."""

import dataclasses
import tomllib
from pathlib import Path

import pytest
from cs336lm.errors import UsageError
from cs336lm.model.config import ModelConfig
from cs336lm.training.config import (
    Config,
    DataConfig,
    OptimConfig,
    TrainConfig,
    dump_config,
    load_config,
    save_config,
)
from hypothesis import given, settings
from hypothesis import strategies as st

names = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0/"), min_size=1)
rates = st.floats(0, 1, allow_nan=False)
counts = st.integers(1, 10**6)
configs = st.builds(
    Config,
    data=st.builds(
        DataConfig,
        train=names.map(lambda name: Path("/data") / name),
        val=st.none() | names.map(lambda name: Path("/data") / name),
    ),
    optim=st.builds(
        OptimConfig,
        lr=st.floats(0.5, 10),
        min_lr=st.none() | st.floats(0, 0.5),
        betas=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
        eps=rates,
    ),
    train=st.builds(
        TrainConfig,
        steps=counts,
        compile=st.booleans(),
        dtype=st.sampled_from(["auto", "float16"]),
        track=st.sampled_from([(), ("wandb",), ("wandb", "tensorboard")]),
    ),
)


@settings(deadline=None)
@given(configs)
def test_toml_gives_back_the_same_configuration(tmp_path_factory, config):
    path = tmp_path_factory.getbasetemp() / "run.toml"
    save_config(config, path)
    assert load_config(path) == config


def test_every_field_is_written_once_resolved():
    config = Config(data=DataConfig(*map(Path, ("/a", "/b", "/c")))).resolved(vocab_size=300)
    written = tomllib.loads(dump_config(config))
    for section in dataclasses.fields(config):
        assert written[section.name].keys() == vars(getattr(config, section.name)).keys()
    assert written["model"]["vocab_size"] == 300
    assert written["optim"]["min_lr"] == pytest.approx(1e-4)
    assert written["optim"]["warmup_steps"] == 100


def load(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_text(text)
    return load_config(path)


def test_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    folder.mkdir()
    text = '[data]\ntrain = "train.npy"\nval = "/abs/val.npy"'
    (folder / "run.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    config = load_config("project/run.toml")
    assert config.data.train == folder / "train.npy"
    assert config.data.val == Path("/abs/val.npy")
    assert config.data.tokenizer is None


def test_numbers_may_be_written_as_people_do(tmp_path):
    config = load(tmp_path, "[optim]\nlr = 1\nbetas = [0, 0.5]\n[train]\nsteps = 1_000")
    assert config.optim.lr == 1.0
    assert config.optim.betas == (0.0, 0.5)
    assert config.train.steps == 1000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[model]\nd_modle = 512", "no field model.d_modle; did you mean d_model"),
        ("[modle]\nd_model = 512", r"no section \[modle\]; did you mean model"),
        ("[train]\nzzz = 1", "no field train.zzz; there are steps, seed"),
        ("d_model = 512", r"no section \[d_model\]"),
        ("model = 3", "model must be a section"),
        ("[model]\nd_model = 100\nnum_heads = 3", "d_model.*num_heads"),
        ("[model]\nd_model = 6\nnum_heads = 2", "odd|even"),
        ("[model]\nd_model = 1.5", "model.d_model=1.5 is impossible: it must be a whole number"),
        ("[model]\nd_model = true", "model.d_model=True.*whole number"),
        ('[optim]\nlr = "high"', "optim.lr='high' is impossible: it must be a number"),
        ("[optim]\nlr = -1", "optim.lr=-1.0 is impossible"),
        ("[optim]\nlr = nan", "optim.lr=nan is impossible"),
        ("[optim]\nmin_lr = 1", "optim.min_lr=1.0 is above optim.lr"),
        ("[optim]\nbetas = [0.9]", "optim.betas=.*a list of 2, each a number"),
        ("[optim]\nbetas = [0.9, 1.0]", "optim.betas"),
        ("[train]\nsteps = -1", "train.steps=-1"),
        ("[train]\nlog_every = 0", "train.log_every=0"),
        ("[train]\ncompile = 1", "train.compile=1 is impossible: it must be true or false"),
        ('[train]\ndtype = "int8"', "train.dtype='int8'.*one of auto, float32"),
        ('[train]\ndevice = "tpu"', "train.device='tpu'"),
        ('[train]\ntrack = ["x"]', "train.track='x'.*one of tensorboard, wandb"),
        ("[data]\ntrain = 3", "data.train=3 is impossible: it must be a path"),
        (
            "[data]\nbatch_size = 10\n[train]\ngrad_accumulation = 4",
            "data.batch_size=10.*train.grad_accumulation=4",
        ),
    ],
)
def test_refuses_by_name(tmp_path, text, says):
    with pytest.raises(UsageError, match=says) as caught:
        load(tmp_path, text)
    assert "run.toml: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_refuses_what_is_no_toml(tmp_path):
    with pytest.raises(ValueError, match=r"run\.toml is no valid TOML: Expected"):
        load(tmp_path, "[model")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"bad\.toml is no valid TOML"):
        load_config(tmp_path / "bad.toml")
    with pytest.raises(FileNotFoundError):
        load_config(tmp_path / "missing.toml")


def test_a_file_overrides_only_what_it_says(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("[train]\nsteps = 7")
    base = Config(model=ModelConfig(d_model=64, num_heads=2))
    config = load_config(path, base)
    assert config.train.steps == 7
    assert config.model == base.model
