"""Presets are the shapes that they are named after, and give way to what is said."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from cs336lm.cli.main import main
from cs336lm.cli.train import parse
from cs336lm.errors import UsageError
from cs336lm.model.accounting import forward_flops, total_parameters
from cs336lm.model.presets import PRESETS, preset_model
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
    [("gpt2-smal", "did you mean gpt2-small?"), ("bert", "there are tinystories, gpt2-small, ")],
)
def test_an_unknown_name_is_one_line(name, says, capsys):
    assert main(["train", "--preset", name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"there is no preset '{name}'; " in line
    assert says in line
    with pytest.raises(UsageError):
        preset_model(name)


def test_another_preset_on_resume_is_refused_like_any_other_shape(tmp_path, capsys):
    test_trains_and_goes_on(tmp_path)
    assert main(["train", "--resume", "--preset", "gpt2-xl", "--run-dir", f"{tmp_path}/run"]) == 2
    assert "model.context_length cannot become 1024" in capsys.readouterr().err


def test_the_names_are_in_the_help(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(name in text for name in PRESETS)


def test_presets_and_accounting_answer_without_pytorch():
    code = (
        "import sys\n"
        "from cs336lm.model.accounting import forward_products, parameters\n"
        "from cs336lm.model.presets import preset_model\n"
        "forward_products(preset_model('gpt2-xl')), parameters(preset_model('gpt2-xl'))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
