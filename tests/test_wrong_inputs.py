"""What a newcomer gets wrong about models, in every command that opens one: a line, and no output.

A directory that is no model, a tensor too few or of another shape, a tokenizer of another size, a
port in use.
"""

import json
import shutil
import socket

import numpy as np
import pytest
from cs336lm.cli.main import main
from exchanged import make_model, make_run, make_tokenizer, one_line
from safetensors.torch import load_file, save_file

COMMANDS = {
    "evaluate": ["--data", "{val}"],
    "generate": ["--prompt", "the", "--max-new-tokens", "1"],
    "export": ["--format", "hf", "--out", "{out}"],
    "serve": ["--port", "0"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a run, the same as a Llama, and a token file."""
    folder = tmp_path_factory.mktemp("made")
    tokenizer = make_tokenizer()
    make_run(folder / "run", tokenizer, make_model(tokenizer.vocab_size))
    out = ["--format", "hf", "--out", str(folder / "llama")]
    assert main(["export", str(folder / "run"), *out]) == 0
    np.save(folder / "val.npy", np.zeros(100, np.uint16))
    return folder


@pytest.fixture
def llama(made, tmp_path):
    """A copy to be broken."""
    return shutil.copytree(made / "llama", tmp_path / "llama")


def refused(command, path, made, tmp_path, capsys):
    """The one line of a command that was given ``path``; it must leave nothing behind."""
    flags = [flag.format(val=made / "val.npy", out=tmp_path / "out") for flag in COMMANDS[command]]
    capsys.readouterr()
    assert main([command, str(path), *flags]) in (1, 2)
    assert not (tmp_path / "out").exists()
    return one_line(capsys)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("nothing", "there is nothing of that name"),
        ("empty", "there is no config.toml in it; `cs336lm train --run-dir ...` makes one"),
        ("file", "it is a file"),
        ("llama", "it holds a model in Hugging Face's format: `cs336lm import` makes a run of it"),
    ],
)
def test_no_run(made, tmp_path, capsys, command, what, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("text")
    if what == "llama" and command == "serve":
        pytest.skip("it serves those, too")
    path = made / "llama" if what == "llama" else tmp_path / what
    assert refused(command, path, made, tmp_path, capsys) == (
        f"cs336lm: {path} is not a run directory: {says}"
    )


@pytest.mark.parametrize("command", ["import", "serve"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda tensors: tensors.pop("lm_head.weight"), "lacks lm_head.weight"),
        (lambda tensors: tensors.update(more=tensors["lm_head.weight"].clone()), "holds more"),
        (
            lambda tensors: tensors.update({"model.norm.weight": tensors["model.norm.weight"][:5]}),
            "model.norm.weight has the shape (5,), but by config.json it is",
        ),
    ],
)
def test_other_tensors(llama, made, tmp_path, capsys, command, change, says):
    file = llama / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    capsys.readouterr()
    flags = ["--out", str(tmp_path / "out")] if command == "import" else ["--port", "0"]
    assert main([command, str(llama), *flags]) == 1
    assert says in one_line(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["import", "serve"])
def test_a_tokenizer_of_another_size(llama, tmp_path, capsys, command):
    file = llama / "tokenizer.json"
    whole = json.loads(file.read_text())
    largest = max(whole["model"]["vocab"].values())
    whole["added_tokens"].append({**whole["added_tokens"][0], "id": largest + 1, "content": "<x>"})
    file.write_text(json.dumps(whole))
    flags = ["--out", str(tmp_path / "out")] if command == "import" else ["--port", "0"]
    capsys.readouterr()
    assert main([command, str(llama), *flags]) == 1
    assert f"the tokenizer has ids up to {largest + 1}" in one_line(capsys)
    assert not (tmp_path / "out").exists()


def test_a_run_is_no_llama(made, tmp_path, capsys):
    capsys.readouterr()
    assert main(["import", str(made / "run"), "--out", str(tmp_path / "out")]) == 1
    assert "it is a run already, which needs no import" in one_line(capsys)


def test_a_port_in_use(made, capsys):
    capsys.readouterr()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["serve", str(made / "run"), "--port", port]) == 1
    assert f"127.0.0.1:{port}: Address already in use; choose another --port" in one_line(capsys)


def test_resuming_what_never_began(tmp_path, capsys):
    assert main(["train", "--resume", "--run-dir", str(tmp_path / "no")]) == 2
    assert f"there is no run in {tmp_path / 'no'} yet, and data.train is missing" in one_line(
        capsys
    )
