"""``cs336lm serve`` as a process: what it serves, what it refuses in one line, how it ends."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from cs336lm import generate
from cs336lm.cli.main import main
from cs336lm.training.run_directory import load_run
from exchanged import make_model, make_run, make_tokenizer
from served import ask, connect, until


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer))
    return make_run(tmp_path_factory.mktemp("serve") / "run", tokenizer, model)


@contextlib.contextmanager
def serving(run, *options):
    """A server as a process of its own: the process, its greeting, its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cs336lm", "serve", str(run), "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        greeting = process.stdout.readline().strip()
        assert greeting, process.stderr.read()
        yield process, greeting, greeting.rpartition(" at ")[2]
    finally:
        process.kill()
        process.communicate()


def test_a_run_is_served_until_a_signal(run_dir):
    """What is running is finished, the door is closed, the status is 0."""
    with serving(run_dir, "--max-new-tokens", "5000") as (process, greeting, url):
        assert greeting.startswith("serving run (no chat template: completions only) at http://127")
        fields = {"prompt": "the cat", "max_tokens": 12, "temperature": 0}
        _, model, tokenizer = load_run(run_dir)
        text = generate(model, tokenizer, "the cat", max_new_tokens=12, temperature=0)
        assert ask(url, "/v1/completions", fields).json["choices"][0]["text"] == text
        answers = []
        long = {"prompt": "the", "max_tokens": 400, "stream": True, "ignore_eos": True}
        asking = threading.Thread(target=lambda: answers.append(ask(url, "/v1/completions", long)))
        idle = connect(url)
        asking.start()
        until(lambda: ask(url, "/health").json["running"])
        process.send_signal(signal.SIGTERM)
        asking.join(60)
        assert answers[0].events[-1] == "[DONE]"
        assert process.wait(30) == 0
        assert process.stderr.read() == "stopping: finishing what is running\n"
        assert idle.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            connect(url)


def test_a_llama_of_others_is_served(run_dir, tmp_path):
    assert main(["export", str(run_dir), "--format", "hf", "--out", str(tmp_path / "llama")]) == 0
    (tmp_path / "llama" / "chat_template.jinja").write_text("{{ messages[0].content }}")
    keys = tmp_path / "keys"
    keys.write_text("one\n\ntwo\n")
    options = ["--name", "cat", "--api-key-file", str(keys)]
    with serving(tmp_path / "llama", *options) as (process, greeting, url):
        assert greeting.startswith("serving cat at ")
        own = {"Authorization": "Bearer two"}
        assert ask(url, "/v1/models", headers=own).json["data"][0]["id"] == "cat"
        assert ask(url, "/v1/models").status == 401
        _, model, tokenizer = load_run(run_dir)
        text = generate(model, tokenizer, "the cat", max_new_tokens=12, temperature=0)
        messages = [{"role": "user", "content": "the cat"}]
        fields = {"messages": messages, "max_tokens": 12, "temperature": 0}
        answer = ask(url, "/v1/chat/completions", fields, own)
        assert answer.json["choices"][0]["message"]["content"] == text
        # The first Ctrl-C waits for what is running, the second does not.
        answers = []
        long = {"prompt": "the", "max_tokens": 4000, "ignore_eos": True, "n": 8}
        asking = threading.Thread(
            target=lambda: answers.append(ask(url, "/v1/completions", long, own))
        )
        asking.start()
        until(lambda: ask(url, "/health").json["running"])
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "stopping: finishing what is running\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        asking.join(60)
        assert answers[0].status == 503
        assert answers[0].json["error"]["message"] == "the server is stopping"
        assert process.stderr.read() == ""


def refused(capsys, *arguments):
    status = main(["serve", *map(str, arguments)])
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return status, said


def test_a_port_in_use_is_one_line(run_dir, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, said = refused(capsys, run_dir, "--port", port)
    assert status == 1
    assert f"127.0.0.1:{port}: Address already in use; choose another --port" in said


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid"])
def test_a_host_that_is_not_here_is_one_line(run_dir, capsys, host):
    status = main(["serve", str(run_dir), "--host", host, "--port", "0"])
    said = capsys.readouterr().err
    assert status == 1
    assert host in said.splitlines()[-1]


def test_what_is_no_model_is_one_line(run_dir, tmp_path, capsys):
    assert refused(capsys, tmp_path, "--port", "0")[0] in (1, 2)
    assert refused(capsys, tmp_path / "nowhere", "--port", "0")[0] in (1, 2)
    model = make_model(300)
    ids_alone = make_run(tmp_path / "ids", None, model)
    status, said = refused(capsys, ids_alone, "--port", "0")
    assert (status, "has no tokenizer: there is no text to serve" in said) == (2, True)
    assert main(["export", str(run_dir), "--format", "hf", "--out", str(tmp_path / "llama")]) == 0
    (tmp_path / "llama" / "model.safetensors").write_bytes(b"no")
    assert refused(capsys, tmp_path / "llama", "--port", "0")[0] == 1
    status, said = refused(capsys, run_dir, "--port", "0", "--stop", "the")
    assert (status, "'the' is no special token" in said) == (2, True)
    (tmp_path / "bad.jinja").write_text("{% if %}")
    status, said = refused(
        capsys, run_dir, "--port", "0", "--chat-template", tmp_path / "bad.jinja"
    )
    assert (status, "no Jinja template" in said) == (1, True)


@pytest.mark.parametrize(
    "options",
    [
        ["--port", "65536"],
        ["--port", "http"],
        ["--max-sequences", "0"],
        ["--stop-seconds", "-1"],
        ["--max-body", "large"],
        ["--no-such-flag"],
    ],
)
def test_wrong_flags_are_one_line(run_dir, options, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["serve", str(run_dir), *options])
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_keys(run_dir, tmp_path, capsys, monkeypatch):
    (tmp_path / "empty").write_text("\n")
    for options in (
        ["--api-key", ""],
        ["--api-key", "clé"],
        ["--api-key-file", tmp_path / "empty"],
    ):
        assert refused(capsys, run_dir, *options)[0] == 2
    assert refused(capsys, run_dir, "--api-key-file", tmp_path / "none")[0] == 1
    monkeypatch.setenv("CS336LM_API_KEY", " spaced")
    assert refused(capsys, run_dir)[0] == 2


def test_without_the_extra_it_says_what_to_install(run_dir, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    status, said = refused(capsys, run_dir, "--port", "0")
    assert (status, "pip install 'cs336lm[serve]'" in said) == (1, True)
