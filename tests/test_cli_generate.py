"""``cs336lm generate`` on a run directory: what is printed, what is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cs336lm
import pytest
import tiny_run  # noqa: F401  (a tiny model is quickest on one thread)
import torch
from cs336lm import Tokenizer, generate
from cs336lm.cli.main import main
from cs336lm.model import ModelConfig, TransformerLM
from cs336lm.optim import AdamW
from cs336lm.training.checkpoints.state import pack
from cs336lm.training.config import Config
from cs336lm.training.run_directory import RunDirectory, load_run


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    tokenizer = Tokenizer({i: bytes([i]) for i in range(256)}, [], ["<|endoftext|>"])
    shape = ModelConfig(vocab_size=257, context_length=16, d_model=16, num_layers=1, num_heads=2)
    torch.manual_seed(0)
    model = TransformerLM(shape)
    run = RunDirectory(path)
    run.prepare(Config(model=shape), tokenizer)
    run.write_checkpoint(pack(model, AdamW(model.parameters()), 1))
    return path


def text_of(run_dir, prompt, **how):
    _, model, tokenizer = load_run(run_dir)
    return generate(model, tokenizer, prompt, **how)


def test_prints_the_prompt_and_what_follows(run_dir, capsys):
    arguments = ["--prompt", "Once é", "--max-new-tokens", "30", "--seed", "4", "--top-p", "0.9"]
    assert main(["generate", str(run_dir), *arguments]) == 0
    expected = text_of(run_dir, "Once é", max_new_tokens=30, seed=4, top_p=0.9)
    assert capsys.readouterr().out == f"Once é{expected}\n"


def test_several_prompts_as_json(run_dir, capsys):
    arguments = ["--prompt", "a", "--prompt", "bc", "--max-new-tokens", "9", "--temperature", "0"]
    assert main(["generate", str(run_dir), *arguments, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    texts = text_of(run_dir, ["a", "bc"], max_new_tokens=9, temperature=0)
    assert [(line["prompt"], line["text"]) for line in lines] == list(
        zip(["a", "bc"], texts, strict=True)
    )
    assert main(["generate", str(run_dir), *arguments]) == 0
    assert capsys.readouterr().out == f"a{texts[0]}\n\n{'-' * 40}\nbc{texts[1]}\n"


def test_reads_a_prompt_from_standard_input(run_dir):
    """In a process of its own, as in a pipe; without --prompt a document begins."""
    command = [sys.executable, "-m", "cs336lm", "generate", str(run_dir), "--temperature", "0"]
    command += ["--max-new-tokens", "5", "--json"]
    piped = subprocess.run([*command, "--prompt", "-"], input=b"x\ny\n", capture_output=True)
    assert piped.stderr == b""
    assert json.loads(piped.stdout)["prompt"] == "x\ny"
    fresh = subprocess.run(command, capture_output=True, check=True)
    assert json.loads(fresh.stdout)["text"] == text_of(run_dir, "", max_new_tokens=5, temperature=0)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--temperature", "-1"], 2, "temperature must be 0 or more"),
        (["--top-p", "0"], 2, "top_p must be above 0"),
        (["--device", "abacus"], 2, "abacus"),
    ],
)
def test_refuses_in_one_line(run_dir, capsys, arguments, status, message):
    assert main(["generate", str(run_dir), *arguments]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_refuses_what_is_no_run_or_has_no_tokenizer(run_dir, tmp_path, capsys):
    assert main(["generate", str(tmp_path / "nowhere"), "--prompt", "a"]) == 1
    assert "nowhere" in capsys.readouterr().err
    config, model, _ = load_run(run_dir)
    run = RunDirectory(tmp_path)
    run.prepare(config, None)
    run.write_checkpoint(pack(model, AdamW(model.parameters()), 1))
    assert main(["generate", str(tmp_path), "--prompt", "a"]) == 1
    assert "no tokenizer" in capsys.readouterr().err


def test_a_missing_compiler_is_one_line(run_dir, tmp_path):
    """In a process whose PATH holds none, and whose cache holds nothing compiled."""
    place = {"PATH": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    environment = {k: v for k, v in os.environ.items() if k not in ("CXX", "CC")} | place
    command = [sys.executable, "-m", "cs336lm", "generate", str(run_dir), "--prompt", "a"]
    done = subprocess.run(
        [*command, "--compile"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    *_, line = done.stderr.splitlines()
    assert line.startswith("cs336lm: torch.compile failed: ")
    assert "g++" in line
    assert "Traceback" not in done.stderr


def test_full_memory_is_one_line(run_dir, capsys):
    """Asks for 10^15 tokens: no machine has the memory for their ids alone."""
    arguments = ["--prompt", "a", "--max-new-tokens", str(10**15)]
    assert main(["generate", str(run_dir), *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("cs336lm: memory is full")
    assert error.count("\n") == 1


def test_without_the_rust_core_one_line_says_what_to_do(tmp_path):
    source = Path(cs336lm.__file__).parent
    without = shutil.ignore_patterns("_bpe*.so", "_bpe*.pyd", "__pycache__")
    shutil.copytree(source, tmp_path / "cs336lm", ignore=without)
    done = subprocess.run(
        [sys.executable, "-m", "cs336lm", "inspect", "tokenizer/"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "cs336lm: the Rust core is not built: run `make dev`\n"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1:strict"])
def test_no_text_is_lost_in_a_terminal_that_lacks_its_characters(run_dir, encoding):
    prompt = "é☃\N{GRINNING FACE}"
    command = [sys.executable, "-m", "cs336lm", "generate", str(run_dir), "--prompt", "-"]
    command += ["--max-new-tokens", "3", "--temperature", "0"]
    expected = prompt + text_of(run_dir, prompt, max_new_tokens=3, temperature=0)
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    for extra in ([], ["--json"]):
        done = subprocess.run(
            [*command, *extra],
            input=prompt.encode(),
            env=environment,
            capture_output=True,
            check=True,
        )
        name = encoding.partition(":")[0]
        if extra:
            line = json.loads(done.stdout.decode(name))
            assert line["prompt"] + line["text"] == expected
        else:
            assert done.stdout.decode(name) == (
                expected.encode(name, "backslashreplace").decode(name) + "\n"
            )


def test_stops_where_it_is_told_to(run_dir, capsys):
    free = text_of(run_dir, "Once", max_new_tokens=30, temperature=0, stop=())
    at = next(i for i in range(2, 20) if free.index(free[i]) == i and free[i] != "�")
    arguments = ["--prompt", "Once", "--max-new-tokens", "30", "--temperature", "1e-39", "--json"]
    for stops in (["--stop", free[at]], ["--stop", "no such text", "--stop", free[at : at + 1]]):
        assert main(["generate", str(run_dir), *arguments, *stops]) == 0
        assert json.loads(capsys.readouterr().out)["text"] == free[:at]


def test_a_prompt_from_a_stranger_is_plain_text(run_dir, capsys):
    prompt = "a<|endoftext|>"
    arguments = ["--prompt", prompt, "--max-new-tokens", "9", "--temperature", "0", "--json"]
    for flags, parse_special in (([], True), (["--no-prompt-special"], False)):
        assert main(["generate", str(run_dir), *arguments, *flags]) == 0
        expected = text_of(
            run_dir, prompt, max_new_tokens=9, temperature=0, parse_special=parse_special
        )
        assert json.loads(capsys.readouterr().out)["text"] == expected


@pytest.mark.parametrize("temperature", ["0", "1"])
def test_broken_weights_are_one_line(run_dir, tmp_path, capsys, temperature):
    config, model, tokenizer = load_run(run_dir)
    torch.nn.init.constant_(model.ln_final.weight, float("nan"))
    run = RunDirectory(tmp_path)
    run.prepare(config, tokenizer)
    run.write_checkpoint(pack(model, AdamW(model.parameters()), 1))
    assert main(["generate", str(tmp_path), "--prompt", "a", "--temperature", temperature]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("cs336lm: the model's logits for new token 1 are NaN")
    assert captured.err.count("\n") == 1
    assert "\0" not in captured.out


def test_seeds_and_prompts_that_cannot_be_are_refused(run_dir, capsys):
    assert main(["generate", str(run_dir), "--prompt", "a", "--seed", str(1 << 64)]) == 2
    assert "64 bits" in capsys.readouterr().err
    assert main(["generate", str(run_dir), "--prompt", "a\udcff"]) == 2
    assert "not UTF-8" in capsys.readouterr().err
