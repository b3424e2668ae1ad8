"""One very long text: its ids are those of any other, and Ctrl-C stops it."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest
import reference_bpe
import texts
from cs336lm import Tokenizer

EOT = texts.SPECIAL
SLOW = r"(?:(?=\w)\w+|\s(?=\w)|\W)"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    vocab, merges = reference_bpe.train(texts.MULTILINGUAL.encode(), 400, [EOT])
    return Tokenizer(vocab, merges, [EOT])


def with_pattern(tokenizer: Tokenizer, pattern: str) -> Tokenizer:
    return Tokenizer(tokenizer.vocab, tokenizer.merges, [EOT], pattern=pattern)


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4", "gpt4o"])
def test_a_long_text_has_the_ids_of_its_documents(tokenizer: Tokenizer, pattern: str) -> None:
    """Without special tokens it is one segment, which is encoded in parts of four megabytes."""
    tokenizer = with_pattern(tokenizer, pattern)
    document = texts.MULTILINGUAL + texts.CODE + "a" * 999 + "\n\nX"
    repeats = (9 << 20) // len(document.encode())
    ids = tokenizer.encode(document * repeats)
    streamed = tokenizer.encode_iterable(document for _ in range(repeats))
    assert ids == list(streamed)
    assert ids == tokenizer.encode_ordinary(document * repeats)
    assert tokenizer.decode(ids) == document * repeats


class Stop(Exception):
    """What the handler raises in the end."""


JOBS: dict[str, Callable[[Tokenizer, str], object]] = {
    "encode": lambda tokenizer, text: tokenizer.encode(text),
    "encode_ordinary": lambda tokenizer, text: tokenizer.encode_ordinary(text),
    "encode_batch": lambda tokenizer, text: tokenizer.encode_batch([text], threads=1),
    "encode_iterable": lambda tokenizer, text: list(tokenizer.encode_iterable([text])),
}


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("pattern", ["gpt4", SLOW])
def test_a_signal_is_handled_while_a_long_text_is_encoded(
    tokenizer: Tokenizer, job: str, pattern: str
) -> None:
    """Three of them, one after the other was handled. Handled only at the end, the first would be
    the last."""
    tokenizer = with_pattern(tokenizer, pattern)
    letters = np.random.default_rng(0).integers(0, 27, 12_000_000, dtype=np.uint8)
    text = (letters + ord("a")).tobytes().replace(b"{", b" ").decode()
    handled, count = threading.Event(), 0

    def handle(*_: object) -> None:
        nonlocal count
        count += 1
        handled.set()
        if count == 3:
            raise Stop

    def send() -> None:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGUSR1)
            if not handled.wait(60):
                return
            handled.clear()

    before = signal.signal(signal.SIGUSR1, handle)
    sender = threading.Thread(target=send)
    try:
        with pytest.raises(Stop):  # noqa: PT012
            sender.start()
            JOBS[job](tokenizer, text)
    finally:
        while count < 3:
            sender.join(0.01)
        sender.join()
        signal.signal(signal.SIGUSR1, before)
    assert tokenizer.decode(tokenizer.encode("and goes on")) == "and goes on"


FIRST_ARRAY = """
import numpy as np
from cs336lm import Tokenizer

class Stop(Exception):
    pass

def interrupted(version):
    raise Stop

tokenizer = Tokenizer({i: bytes([i]) for i in range(256)}, [])
there, np.lib.NumpyVersion = np.lib.NumpyVersion, interrupted
for _ in range(2):
    try:
        tokenizer.encode_array("ab")
    except Stop:
        print("stopped")
np.lib.NumpyVersion = there
print(tokenizer.encode_array("ab").tolist())
"""


def test_a_signal_during_the_first_array_is_an_exception() -> None:
    """Which asks NumPy for its version, in Python code: a handler may raise there."""
    done = subprocess.run([sys.executable, "-c", FIRST_ARRAY], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("stopped\nstopped\n[97, 98]\n", "")
