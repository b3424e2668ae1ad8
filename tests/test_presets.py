"""Presets are the shapes that they are named after, and give way to what is said."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
from cs336lm.cli.main import main
from cs336lm.cli.train import parse
from cs336lm.errors import UsageError
from cs336lm.model.accounting import forward_flops, total_parameters
from cs336lm.model.presets import depth_tables, preset_model, preset_names
from cs336lm.training.config import Config


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("tinystories", 22_696_448),
        ("gpt2-xl", 2_127_057_600),
        ("gpt2-xl-2026", 1_640_452_800),
    ],
)
def test_parameters_are_the_published_ones(name, parameters):
    assert total_parameters(preset_model(name)) == parameters


def test_operations_are_the_published_ones():
    """Of 1,024 tokens; to the digits that are given."""
    assert sum(forward_flops(preset_model("gpt2-xl")).values()) == pytest.approx(4.513e12, rel=1e-4)
    later = sum(forward_flops(preset_model("gpt2-xl-2026")).values())
    assert later == pytest.approx(3.517e12, rel=2e-4)


@pytest.mark.parametrize(
    ("name", "d_ff"),
    [("small", 2048), ("medium", 2752), ("large", 3392), ("xl", 4288)],
)
def test_the_two_handouts_differ_in_the_feed_forward_network_alone(name, d_ff):
    before, later = preset_model(f"gpt2-{name}"), preset_model(f"gpt2-{name}-2026")
    assert before.ffn_width == 4 * before.d_model
    assert later.ffn_width == d_ff
    assert dataclasses.replace(before, d_ff=None) == later
    assert (before.vocab_size, before.context_length) == (50_257, 1024)
    assert before.d_head == 64


def test_flags_and_files_override_a_preset(tmp_path):
    config = parse(["--preset", "gpt2-medium"])
    assert config.model == preset_model("gpt2-medium")
    for section in ("data", "optim", "train"):
        assert getattr(config, section) == getattr(Config(), section)
    (tmp_path / "run.toml").write_text("[model]\nnum_layers = 3\nd_ff = 128\n[train]\nsteps = 7")
    file = ["--config", f"{tmp_path}/run.toml"]
    for argv in (["--preset", "gpt2-medium", *file], [*file, "--preset=gpt2-medium"]):
        config = parse([*argv, "--model.num-layers", "2"])
        expected = dataclasses.replace(preset_model("gpt2-medium"), num_layers=2, d_ff=128)
        assert config.model == expected
        assert config.train.steps == 7


def test_the_tokenizers_vocabulary_counts(tmp_path):
    tokenizer = ["--data.tokenizer", str(tmp_path)]
    preset = ["--preset", "gpt2-small"]
    assert parse([*preset]).model.vocab_size == 50_257
    assert parse([*preset, *tokenizer]).model.vocab_size is None  # as many as the tokenizer has
    given = ["--model.vocab-size", "300"]
    assert parse([*preset, *tokenizer, *given]).model.vocab_size == 300
    assert parse([*preset, *given]).model.vocab_size == 300


def test_trains_and_goes_on(tmp_path):
    np.save(tmp_path / "tokens.npy", (np.arange(600) % 7).astype(np.uint16))
    run = ["--run-dir", str(tmp_path / "run"), "--train.device", "cpu", "--data.batch-size", "1"]
    sizes = ["--model.d-model", "16", "--model.num-layers", "1", "--model.context-length", "8"]
    data = ["--data.train", str(tmp_path / "tokens.npy"), "--model.vocab-size", "7"]
    argv = ["train", "--preset", "tinystories", *run, *sizes, *data, "--model.num-heads", "2"]
    assert main([*argv, "--train.steps", "1"]) == 0
    assert main(["train", "--resume", *run, "--train.steps", "2"]) == 0


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gpt2-smal", "did you mean gpt2-small?"),
        ("bert", "there are tinystories, gpt2-small, "),
        ("depth-", "depth-N is for N from 1 to 100"),
        ("depth-2.5", "depth-N is for N from 1 to 100"),
    ],
)
def test_an_unknown_name_is_one_line(name, says, capsys):
    assert main(["train", "--preset", name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"there is no preset '{name}'; " in line
    assert says in line
    with pytest.raises(UsageError):
        preset_model(name)


@pytest.mark.parametrize("name", ["depth-0", "depth-101", "depth-999999999"])
def test_a_depth_out_of_range_is_one_line(name, capsys):
    assert main(["train", "--preset", name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"{name} is impossible: depth-N is for N from 1 to 100")


def test_depth_12_is_where_scaling_starts():
    """2^19 tokens a batch, rates and decay as found; 12 tokens a parameter of matrices and head."""
    tables, model = depth_tables(12), preset_model("depth-12")
    assert (model.d_model, model.num_heads, model.d_head) == (768, 6, 128)
    assert tables["data"]["batch_size"] * model.context_length == 2**19
    assert tables["optim"]["matrix_lr"] == 0.02
    assert tables["optim"]["lr"] == 0.008
    assert tables["optim"]["matrix_decay"] == 0.28
    assert tables["train"]["max_tokens"] == 12 * _scaling_parameters("depth-12")


@pytest.mark.parametrize("depth", [1, 2, 3, 8, 20, 26, 100])
def test_all_follows_from_depth(depth):
    tables, model = depth_tables(depth), preset_model(f"depth-{depth}")
    assert 64 * depth <= model.d_model < 64 * depth + 128
    assert model.d_head == 128
    tokens = tables["train"]["max_tokens"]
    assert tokens == 12 * _scaling_parameters(f"depth-{depth}")
    longer = tokens / depth_tables(12)["train"]["max_tokens"]
    batch = tables["data"]["batch_size"] * model.context_length / 2**19
    assert 2**-0.5 <= batch / longer**0.383 <= 2**0.5  # the nearest power of 2
    assert tables["optim"]["matrix_lr"] == pytest.approx(0.02 * batch**0.5)
    assert tables["optim"]["lr"] == pytest.approx(0.008 * (batch * 768 / model.d_model) ** 0.5)
    assert tables["optim"]["matrix_decay"] == pytest.approx(0.28 * batch**0.5 / longer)


def _scaling_parameters(name):
    model = preset_model(name)
    by_kind = {name: math.prod(p.shape) for name, p in _meta(model).named_parameters()}
    is_left_out = ("norm", "token_embeddings", "value_embedding", "residual", "ln")
    return sum(n for name, n in by_kind.items() if not any(part in name for part in is_left_out))


def _meta(model):
    from cs336lm.model import TransformerLM

    return TransformerLM(model, device="meta")


def test_a_depth_says_more_than_a_shape_and_gives_way():
    config = parse(["--preset", "depth-4"])
    tables = depth_tables(4)
    assert config.model == preset_model("depth-4")
    assert config.optim.name == "muon"
    assert config.optim.embedding_betas == (0.8, 0.995)
    assert config.data.batch_size == tables["data"]["batch_size"]
    assert config.train.max_tokens == tables["train"]["max_tokens"]
    config = parse(["--preset", "depth-4", "--train.steps", "7", "--data.batch-size", "2"])
    assert (config.train.steps, config.train.max_tokens) == (7, None)
    assert config.data.batch_size == 2


def test_another_preset_on_resume_is_refused_like_any_other_shape(tmp_path, capsys):
    test_trains_and_goes_on(tmp_path)
    assert main(["train", "--resume", "--preset", "gpt2-xl", "--run-dir", f"{tmp_path}/run"]) == 2
    assert "model.context_length cannot become 1024" in capsys.readouterr().err


def test_the_names_are_in_the_help(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(name in text for name in preset_names())


def test_presets_and_accounting_answer_without_pytorch():
    code = (
        "import sys\n"
        "from cs336lm.model.accounting import forward_products, parameters\n"
        "from cs336lm.model.presets import preset_model\n"
        "forward_products(preset_model('gpt2-xl')), parameters(preset_model('gpt2-xl'))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
