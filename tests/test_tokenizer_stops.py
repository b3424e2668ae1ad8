"""A tokenizer stops when it is asked to, and no panic and no deadlock reaches Python."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import reference_bpe
import texts
from cs336lm import Tokenizer
from cs336lm.cli.main import main

EOT = "<|endoftext|>"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    vocab, merges = reference_bpe.train(texts.MULTILINGUAL.encode(), 300, [EOT])
    return Tokenizer(vocab, merges, [EOT])


def slow(tokenizer: Tokenizer) -> Tokenizer:
    """One that gives up on a text of many a and b."""
    pattern = r"(?i)(a|b|ab)*(?>c)"
    return Tokenizer(tokenizer.vocab, tokenizer.merges, [EOT], pattern=pattern)


def test_a_batch_fails_with_its_first_text_that_fails(tokenizer: Tokenizer) -> None:
    bad = "ab" * 500
    for threads in (1, 2, 8):
        with pytest.raises(ValueError, match="gave up"):
            slow(tokenizer).encode_batch(["c", bad, *["c"] * 50, bad], threads=threads)


def test_a_stream_may_be_used_by_a_finalizer(tokenizer: Tokenizer) -> None:
    """Making the list of ids may run the garbage collector, and that any code."""
    program = """
import gc
from cs336lm import Tokenizer
vocab = {i: bytes([i]) for i in range(256)}
stream = Tokenizer(vocab, []).encode_stream()

class Cycle:
    def __init__(self): self.itself = self
    def __del__(self): stream.push("b ")

gc.set_threshold(1)
for _ in range(200):
    for _ in range(20): Cycle()
    stream.push("a " * 20_000)
stream.finish()
print("done")
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.stdout == "done\n", ran.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_batch_stops_at_ctrl_c(tokenizer: Tokenizer) -> None:
    """Work for minutes, stopped at its start; the alarm is sent again in case it came too early."""
    batch = [texts.MULTILINGUAL * 100] * 20_000
    stop = threading.Event()

    def interrupt() -> None:
        while not stop.wait(0.2):
            os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            sender.start()
            tokenizer.encode_batch(batch, threads=1)
    finally:
        stop.set()
        sender.join()


@pytest.mark.parametrize("token", ["č", "Ġthe", "Ã©", "ä¸"])
@pytest.mark.parametrize("command", ["train-bpe", "count-pretokens"])
def test_a_token_that_files_cannot_hold_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, token: str
) -> None:
    size = ["--vocab-size", "300"] if command == "train-bpe" else []
    out = tmp_path / "out"
    # There is no such file: what is wrong with the call comes first.
    status = main(
        [command, str(tmp_path / "missing.txt"), *size, "--special-token", token, "--out", str(out)]
    )
    assert status == 2
    assert f'special token "{token}"' in capsys.readouterr().err
    assert not out.exists()


def test_a_pattern_that_files_cannot_hold_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing, out = str(tmp_path / "missing.txt"), str(tmp_path / "out")
    status = main(
        ["train-bpe", missing, "--vocab-size", "300", "--pattern", r"(a)\1", "--out", out]
    )
    assert status == 2
    assert "cannot be written" in capsys.readouterr().err


def test_the_flag_takes_an_id(
    tmp_path: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    for flag, id in (
        ("<|x|>=500", "500"),
        ("<|x=5|>", str(tokenizer.vocab_size)),
        ("x=5=700", "700"),
    ):
        status = main(["inspect", str(tmp_path / "tokenizer"), "--special-token", flag, "--json"])
        assert status == 0
        assert f": {id}" in capsys.readouterr().out.partition('"special_tokens"')[2]
