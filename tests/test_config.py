"""A configuration goes through TOML unchanged, and what cannot be is refused by name."""

import dataclasses
import math
import tomllib
import typing
from pathlib import Path

import pytest
from cs336lm.errors import UsageError
from cs336lm.model.config import ModelConfig
from cs336lm.training.config import (
    SECTIONS,
    Config,
    DataConfig,
    TrainConfig,
    dump_config,
    load_config,
    save_config,
)
from hypothesis import given, settings
from hypothesis import strategies as st

names = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0/"), min_size=1)
texts = st.text(st.characters(exclude_categories=("Cs",)))
paths = names.map(lambda name: Path("/data") / name)
rates = st.floats(0, 1)
large = st.floats(0, exclude_min=True)
counts = st.integers(1, 2**63 - 1)
from_zero = st.just(0) | counts
betas = st.tuples(*[st.floats(0, 1, exclude_max=True)] * 2)
ROLES = ("matrix", "embedding", "head", "scalar")


def options(section, field):
    """Any of the values that a ``Literal`` field may have."""
    return st.sampled_from(typing.get_args(typing.get_type_hints(SECTIONS[section])[field]))


sections = {
    "data": dict.fromkeys(("val", "tokenizer"), st.none() | paths)
    | {"train": st.none() | paths | st.dictionaries(paths, large.filter(math.isfinite), min_size=1)}
    | {"batch_size": st.just(12), "sampling": None, "document_token": st.none() | from_zero},
    "model": dict.fromkeys(
        ("context_length", "rope_original_context_length"), st.integers(1, 2**31)
    )
    | dict.fromkeys(("vocab_size", "d_ff"), st.none() | st.integers(1, 2**24))
    | {"num_layers": st.integers(1, 10_000)}
    | {"d_model": st.just(24), "num_heads": st.sampled_from([1, 2, 3, 4, 6, 12])}
    | {"rope_theta": large, "rms_norm_eps": rates, "num_kv_heads": st.just(1) | st.none()}
    | {"logit_softcap": st.just(0.0) | st.floats(0, 1e300, exclude_min=True)}
    | dict.fromkeys(("tie_embeddings", "qk_norm", "zero_init"), st.booleans())
    | dict.fromkeys(("residual_scalars", "value_embeddings"), st.booleans())
    | {"positions": st.just("rope"), "rope_scaling_factor": st.floats(1, 1e300, exclude_min=True)}
    | {"rope_low_freq_factor": st.floats(0, 1, exclude_min=True)}
    | {"rope_high_freq_factor": st.floats(1, 1e300, exclude_min=True)}
    | dict.fromkeys(("norm", "ffn", "rope_scaling"), None),
    "optim": dict.fromkeys(("name", "schedule"), None)
    | dict.fromkeys(("eps", "weight_decay", "grad_clip"), st.just(0.0) | large)
    | {f"{role}_lr": st.none() | large for role in ROLES}
    | {f"{role}_decay": st.none() | st.just(0.0) | large for role in ROLES}
    | {f"{role}_betas": st.none() | betas for role in ROLES}
    | dict.fromkeys(("momentum", "momentum_start"), st.floats(0, 1, exclude_max=True))
    | {"momentum_warmup_steps": from_zero, "decay_share": st.floats(0, 1, exclude_min=True)}
    | {"lr": st.floats(0.5), "min_lr": st.none() | st.floats(0, 0.5)}
    | {"betas": betas}
    | {"warmup_steps": st.none() | from_zero},
    "train": dict.fromkeys(("dtype", "parallel", "on_bad_numbers"), None)
    | dict.fromkeys(
        ("fp8", "compile", "activation_checkpointing", "eval_by_document"), st.booleans()
    )
    | dict.fromkeys(("seed", "eval_every", "checkpoint_every"), from_zero)
    | dict.fromkeys(("monitor_every", "sample_every"), from_zero)
    | {"sample_tokens": counts, "sample_prompts": st.lists(texts, min_size=1).map(tuple)}
    | {"steps": st.none() | from_zero, "max_tokens": st.none() | counts}
    | {"peer_timeout": st.floats(1e-9, 1e9)}
    | dict.fromkeys(("epochs", "max_seconds"), st.none() | st.floats(1e-9, 1e9))
    | dict.fromkeys(("log_every", "keep_checkpoints"), counts)
    | {"eval_batches": st.none() | counts, "eval_tokens": st.none()}
    | {"grad_accumulation": st.sampled_from([1, 2, 3, 4, 6, 12])}
    | {"device": st.sampled_from(["auto", "cpu", "cuda", "cuda:1", "mps"])}
    | {"init_from": st.none() | paths}
    | {"track": st.lists(st.sampled_from(["tensorboard", "trackio", "wandb"])).map(tuple)},
}
configs = st.builds(
    Config,
    **{
        name: st.builds(
            SECTIONS[name],
            **{key: options(name, key) if how is None else how for key, how in fields.items()},
        )
        for name, fields in sections.items()
    },
)


def test_the_strategy_covers_every_field():
    assert sections.keys() == SECTIONS.keys()
    for name, fields in sections.items():
        assert fields.keys() == SECTIONS[name].__dataclass_fields__.keys()


@settings(deadline=None)
@given(configs)
def test_toml_gives_back_the_same_configuration(tmp_path_factory, config):
    path = tmp_path_factory.getbasetemp() / "run.toml"
    save_config(config, path)
    assert load_config(path) == config


def test_every_field_is_written_once_resolved():
    data = DataConfig(*map(Path, ("/a", "/b", "/c")))
    config = Config(data=data, train=TrainConfig(init_from=Path("/d"))).resolved(vocab_size=300)
    written = tomllib.loads(dump_config(config))
    # As another field says in any case; and other budgets than the run's.
    left_open = {
        "optim": {f"{role}_{what}" for role in ROLES for what in ("lr", "decay", "betas")},
        "train": {"max_tokens", "epochs", "max_seconds", "eval_tokens"},
        "data": {"document_token"},
    }
    for section in dataclasses.fields(config):
        fields = vars(getattr(config, section.name)).keys()
        assert fields - written[section.name].keys() == left_open.get(section.name, set())
    assert written["model"]["vocab_size"] == 300
    assert written["optim"]["min_lr"] == pytest.approx(1e-4)
    assert written["optim"]["warmup_steps"] == 100
    assert written["train"]["eval_batches"] == 20


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
    (folder / "run.toml").write_text('[data]\ntrain = {"a.npy" = 0.7, "/b.npy" = 2}')
    config = load_config("project/run.toml")
    assert config.data.train == {folder / "a.npy": 0.7, Path("/b.npy"): 2.0}


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
        ('[train]\ntrack = ["x"]', "train.track='x'.*one of tensorboard, trackio, wandb"),
        ("[train]\nmonitor_every = -1", "train.monitor_every=-1"),
        ("[train]\nsample_every = -1", "train.sample_every=-1"),
        ("[train]\nsample_tokens = 0", "train.sample_tokens=0"),
        ("[train]\nsample_every = 5\nsample_prompts = []", "needs train.sample_prompts"),
        ("[data]\ntrain = {}", "data.train names no file"),
        ('[data]\ntrain = {"a.npy" = 0}', "the weight 0.0 of a.npy is impossible.*above 0"),
        ('[data]\ntrain = {"a.npy" = inf}', "the weight inf of a.npy is impossible"),
        ('[data]\ntrain = {"a.npy" = "x"}', r"data.train\['a.npy'\]='x'.*must be a number"),
        ('[data]\nval = {"a.npy" = 1}', "data.val=.* is impossible: it must be a path"),
        ('[data]\nsampling = "all"', "data.sampling='all'.*one of uniform, epochs, documents"),
        ("[train]\neval_tokens = 0", "train.eval_tokens=0"),
        (
            "[train]\neval_tokens = 100\neval_batches = 20",
            "eval_batches=20 and train.eval_tokens=100 both say .*: give one of them, and None",
        ),
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


def test_refuses_what_is_not_toml(tmp_path):
    with pytest.raises(ValueError, match=r"run\.toml is not valid TOML: Expected"):
        load(tmp_path, "[model")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"bad\.toml is not valid TOML"):
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
