"""The command line of train and evaluate: what it takes, and one line for what it refuses."""

import json
import math

import numpy as np
import pytest
import torch
from cs336lm.cli.main import main
from cs336lm.cli.train import parse
from cs336lm.data import TokenDataset
from cs336lm.errors import Note, UsageError
from cs336lm.evaluation import evaluate
from cs336lm.text.tokenizer import Tokenizer
from cs336lm.training.config import SECTIONS, load_config, save_config
from cs336lm.training.data import open_data
from cs336lm.training.run_directory import RunDirectory, load_run
from tiny_run import CONTEXT_LENGTH, VOCAB_SIZE, make_config, write_tokens


@pytest.fixture
def config_file(tmp_path):
    save_config(make_config(tmp_path), tmp_path / "run.toml")
    return tmp_path / "run.toml"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run, which tests only read."""
    folder = tmp_path_factory.mktemp("trained")
    save_config(make_config(folder), folder / "run.toml")
    assert (
        main(["train", "--config", str(folder / "run.toml"), "--run-dir", str(folder / "a")]) == 0
    )
    return folder / "a"


def test_flags_override_the_file(config_file, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    flags = ["--train.compile", "--model.d-model", "32", "--optim.betas", "0.8", "0.9"]
    arguments = parse(["--config", "run.toml", *flags, "--data.val", "other.npy"])
    assert arguments.train.compile is True
    assert arguments.model.d_model == 32
    assert arguments.optim.betas == (0.8, 0.9)
    assert arguments.optim.lr == 1e-2
    assert arguments.data.train == tmp_path / "train.npy"
    resolved = arguments.resolved(vocab_size=VOCAB_SIZE)
    assert resolved.data.val == tmp_path / "other.npy"
    assert parse(["--train.no-compile"]).train.compile is False


@pytest.mark.parametrize(
    ("flags", "table"),
    [
        ("--model.d_model=64 --model.d-ff 100", "[model]\nd_model = 64\nd_ff = 100"),
        ("--optim.lr 1 --optim.lr 2e-3 --optim.betas 0.8 0.9", "[optim]\nlr=2e-3\nbetas=[0.8,0.9]"),
        ("--train.track tensorboard wandb", "[train]\ntrack = ['tensorboard', 'wandb']"),
        ("--train.track", "[train]\ntrack = []"),
        ("--train.compile --train.fp8 --train.no-fp8", "[train]\ncompile = true\nfp8 = false"),
        (
            "--train.dtype float16 --train.device cuda:1",
            "[train]\ndtype='float16'\ndevice='cuda:1'",
        ),
        ("--train.steps 1_000 --train.seed 0", "[train]\nsteps = 1_000\nseed = 0"),
    ],
)
def test_a_flag_means_what_the_same_line_of_a_file_means(tmp_path, flags, table):
    (tmp_path / "run.toml").write_text(table)
    arguments, config = parse(flags.split()), load_config(tmp_path / "run.toml")
    for section in SECTIONS:
        assert getattr(arguments, section) == getattr(config, section)


def test_none_leaves_a_field_open_again(tmp_path):
    (tmp_path / "run.toml").write_text("[data]\nval = 'v.npy'\n[optim]\nmin_lr = 1e-5\nlr = 1e-4")
    flags = ["--data.val", "None", "--optim.min-lr", "none", "--optim.lr", "1e-6"]
    arguments = parse(["--config", str(tmp_path / "run.toml"), *flags])
    assert (arguments.data.val, arguments.optim.min_lr, arguments.optim.lr) == (None, None, 1e-6)
    with pytest.raises(UsageError, match=r"train\.seed='None' is impossible"):
        parse(["--train.seed", "None"])


@pytest.mark.parametrize("argv", [["train"], ["tokenize"], ["generate"], ["plot"], ["demo"]])
def test_an_unknown_flag_is_one_line_with_a_guess(argv, capsys):
    required = {"tokenize": ["a", "--tokenizer", "t"], "generate": ["run"], "plot": ["run"]}
    close = {"train": "--resum", "generate": "--propmt", "demo": "--seize"}.get(argv[0], "--oout")
    try:
        status = main([*argv, *required.get(argv[0], []), close, "3"])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"there is no flag {close}; did you mean --" in line


def test_help_shows_every_field(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--help"])
    assert not stop.value.code
    text = capsys.readouterr().out
    for section, fields in SECTIONS.items():
        for field in fields.__dataclass_fields__:
            assert f"--{section}.{field.replace('_', '-')}" in text
    assert "examples:" in text
    assert "Learning rate at its highest. (default: 0.001)" in " ".join(text.split())


def test_help_shows_the_values_of_the_file(config_file, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--config", str(config_file), "--help"])
    assert not stop.value.code
    assert "Learning rate at its highest. (default: 0.01)" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.parametrize(
    ("flags", "status", "says"),
    [
        (
            ["--model.d-modle", "3"],
            2,
            "flag --model.d-modle; did you mean --model.d-model?",
        ),
        (
            ["--model.d-model", "many"],
            2,
            "model.d_model='many' is impossible: it must be a",
        ),
        (["--model.d-model", "15"], 2, "d_model"),
        (
            ["--train.dtype", "int8"],
            2,
            "train.dtype='int8' is impossible: it must be one of",
        ),
        (["--train.steps", "-3"], 2, "train.steps=-3"),
        (["--train.device", "cuda:77"], 2, "train.device='cuda:77'"),
        (["--data.train", "missing.npy"], 1, "missing.npy: No such file"),
        (["--config", "missing.toml"], 1, "missing.toml: No such file"),
        (["--model.vocab-size", "30"], 1, "outside a vocabulary of 30"),
        (["--resume"], 2, "--resume needs --run-dir"),
        (["--config"], 2, "--config"),
        ([], 2, "data.train is missing"),
    ],
)
def test_refuses_in_one_line(config_file, monkeypatch, tmp_path, capsys, flags, status, says):
    monkeypatch.chdir(tmp_path)
    if flags and "--config" not in flags and flags != ["--resume"]:
        flags = ["--config", str(config_file), *flags]
    assert main(["train", *flags]) == status
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert says in lines[0]
    assert not (tmp_path / "runs").exists()


def test_names_a_run_by_the_time_of_day(config_file, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", str(config_file), "--train.steps", "1"]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert capsys.readouterr().out.strip().endswith(f"runs/{run.name}")
    assert RunDirectory(run).load_config().train.steps == 1


def test_resume_needs_nothing_else_and_may_go_further(config_file, tmp_path, capsys):
    run = str(tmp_path / "a")
    assert main(["train", "--config", str(config_file), "--run-dir", run]) == 0
    assert main(["train", "--run-dir", run, "--config", str(config_file)]) == 2
    assert main(["train", "--resume", "--run-dir", run]) == 0
    assert "at step 12 already" in capsys.readouterr().out
    assert main(["train", "--resume", "--run-dir", run, "--train.steps", "15"]) == 0
    assert "step 15: train loss" in capsys.readouterr().out
    assert RunDirectory(run).load_config().train.steps == 15
    assert main(["train", "--resume", "--run-dir", run, "--model.d-model", "32"]) == 2
    assert "model.d_model cannot become 32 on --resume" in capsys.readouterr().err
    # The line that started a run may also go on with it, which job schedulers like.
    again = ["--config", str(config_file), "--run-dir", run, "--resume", "--train.steps", "16"]
    assert main(["train", *again]) == 0
    assert main(["train", "--resume", "--run-dir", str(tmp_path / "none")]) == 2
    assert "data.train is missing" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(config_file, tmp_path, capsys):
    run = RunDirectory(tmp_path / "a")
    assert main(["train", "--config", str(config_file), "--run-dir", str(run.path)]) == 0
    capsys.readouterr()
    *_, before, last = run.step_checkpoints()
    metrics, content = run.metrics_file.read_text(), last.read_bytes()
    last.write_bytes(content[: len(content) // 2])
    with pytest.warns(Note, match=rf"{last} is truncated.*; {before.name} is used instead"):
        assert main(["evaluate", str(run.path), "--checkpoint", "last"]) == 0
    step = str(int(last.stem.removeprefix("step-")))
    assert main(["evaluate", str(run.path), "--checkpoint", step]) == 1
    assert f"{last} is truncated" in capsys.readouterr().err
    assert main(["train", "--resume", "--run-dir", str(run.path)]) == 0
    assert f"{last} is truncated" in capsys.readouterr().err
    # It goes on from the one before, to the very same end.
    losses = [
        [json.loads(line).get("train_loss") for line in text.splitlines()]
        for text in (metrics, run.metrics_file.read_text())
    ]
    assert losses[0] == losses[1]
    assert last.with_name(f"{last.name}.damaged").read_bytes() == content[: len(content) // 2]
    assert torch.load(last)["model"].keys() == torch.load(before)["model"].keys()
    for path in run.step_checkpoints():
        path.write_bytes(b"no")
    assert main(["train", "--resume", "--run-dir", str(run.path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"no checkpoint is as it was written: {last} is truncated" in line


def test_evaluates_every_token_once(trained, capsys):
    assert main(["evaluate", str(trained), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    config, model, _ = load_run(trained)
    tokens = np.load(config.data.val)
    assert figures["tokens"] == len(tokens) - 1
    assert figures["perplexity"] == pytest.approx(math.exp(figures["loss"]))
    assert figures["bits_per_byte"] is None
    # The obvious way: window after window, token after token.
    nats = 0.0
    for start in range(0, len(tokens) - 1, CONTEXT_LENGTH):
        window = torch.tensor(tokens[start : start + CONTEXT_LENGTH + 1].astype(np.int64))
        log_probs = model(window[None, :-1]).log_softmax(-1)[0]
        nats -= log_probs.gather(1, window[1:, None]).sum().item()
    assert figures["loss"] == pytest.approx(nats / (len(tokens) - 1), rel=1e-5)
    assert main(["evaluate", str(trained)]) == 0
    assert "nats/token" in capsys.readouterr().out


@pytest.mark.parametrize("count", [2, CONTEXT_LENGTH, CONTEXT_LENGTH + 1, CONTEXT_LENGTH + 2, 41])
def test_evaluates_files_of_any_length(trained, tmp_path, count):
    _, model, _ = load_run(trained)
    figures = evaluate(model, TokenDataset(write_tokens(tmp_path / "t.npy", count)))
    assert figures.tokens == count - 1
    assert 0 < figures.loss < 10


def test_bits_per_byte_by_the_tokenizer_and_by_the_sidecar(trained, tmp_path):
    _, model, _ = load_run(trained)
    tokenizer = Tokenizer({i: bytes([i]) for i in range(256)} | {256: b"ab"}, [(b"a", b"b")])
    path = write_tokens(tmp_path / "t.npy", 100)
    plain = evaluate(model, TokenDataset(path), tokenizer=tokenizer)
    assert plain.bytes == 99  # ids below 40 are one byte each
    assert plain.bits_per_byte == pytest.approx(plain.loss / math.log(2))
    path.with_suffix(".json").write_text(json.dumps({"bytes": 200}))
    assert evaluate(model, TokenDataset(path)).bytes == 198
    sidecar = {"bytes": 200, "tokenizer_sha256": "0" * 64}
    path.with_suffix(".json").write_text(json.dumps(sidecar))
    with pytest.raises(ValueError, match="made with another tokenizer"):
        evaluate(model, TokenDataset(path), tokenizer=tokenizer)


def test_evaluate_refuses_in_one_line(trained, tmp_path, capsys):
    np.save(tmp_path / "large.npy", np.full(100, VOCAB_SIZE, dtype=np.uint16))
    np.save(tmp_path / "one.npy", np.zeros(1, dtype=np.uint16))
    for arguments, says in (
        ([str(tmp_path)], "is not a run directory"),
        ([str(trained), "--data", str(tmp_path / "large.npy")], "the id 40 at position 0"),
        ([str(trained), "--data", str(tmp_path / "one.npy")], "holds 1 tokens, too few"),
        ([str(trained), "--data", str(tmp_path / "none.npy")], "No such file"),
    ):
        assert main(["evaluate", *arguments]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert says in line


def test_a_run_with_a_tokenizer_keeps_it(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat, the cat sat on the hat. " * 40)
    tokenizer = Tokenizer.train(text, 270, ["<|endoftext|>"])
    tokenizer.save(tmp_path / "tokenizer")
    tokenizer.encode_files(text, tmp_path / "text.npy")
    flags = f"--data.train {tmp_path}/text.npy --data.tokenizer {tmp_path}/tokenizer".split()
    shape = ["--model.d-model", "16", "--model.num-heads", "2", "--model.num-layers", "1"]
    size = ["--model.context-length", "8", "--train.steps", "3", "--data.batch-size", "4"]
    run = tmp_path / "run"
    assert main(["train", *flags, *shape, *size, "--run-dir", str(run)]) == 0
    config, _, kept = load_run(run)
    assert kept == tokenizer
    assert config.model.vocab_size == 270
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data", f"{tmp_path}/text.npy", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    ids = np.load(tmp_path / "text.npy")
    assert figures["bytes"] == len(tokenizer.decode_bytes(ids[1:]))
    other = Tokenizer.train(text, 270)
    other.save(tmp_path / "other")
    flags[-1] = f"{tmp_path}/other"
    assert main(["train", *flags, *shape, *size, "--run-dir", str(tmp_path / "b")]) == 1
    assert "was made with another tokenizer than" in capsys.readouterr().err
    flags[-1] = f"{tmp_path}/tokenizer"
    small = parse([*flags, *shape, *size, "--model.vocab-size", "269"])
    with pytest.raises(UsageError, match=r"model.vocab_size=269 is less than the tokenizer's 270"):
        open_data(small)
