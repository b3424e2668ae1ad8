"""Where the system allows few threads, or none beside the first, everything is done all the same.

Linux does not limit the threads of root, so the commands run as a user that owns nothing: as root
they are run once first, since that user may not read what they import.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference_bpe
from cs336lm import Tokenizer

resource = pytest.importorskip("resource")

TEXT = "the cat sat on the mat. " * 2000
EOT = "<|endoftext|>"

PROGRAM = """
import contextlib, io, os, resource, sys, threading
import numpy
from cs336lm import Tokenizer
from cs336lm.cli.main import main

def run(out):
    for command in (
        ["train-bpe", "c.txt", "--vocab-size", "280", "--threads", "4", "--out", f"{out}tok"],
        ["count-pretokens", "c.txt", "--threads", "4", "--out", f"{out}c.bin"],
        ["train-bpe", "--counts", f"{out}c.bin", "--vocab-size", "280", "--out", f"{out}tok2"],
        ["tokenize", "c.txt", "--tokenizer", "tok", "--threads", "4", "--out", f"{out}c.npy"],
        ["tokenize", "c.txt", "--tokenizer", "tok", "--threads", "4", "--out", f"{out}s.npy",
         "--shard-tokens", "1K"],
        ["inspect", "tok", "--on", "c.txt"],
    ):
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            status = main(command)
        assert status == 0, (command, said.getvalue())
    tokenizer = Tokenizer.load("tok")
    text = open("c.txt").read()
    ids = tokenizer.encode(text * 30)  # more than a megabyte, for which there would be a thread
    assert tokenizer.decode(ids) == text * 30
    for encoded in tokenizer.encode_batch([text * 20, text * 20], threads=4):
        assert tokenizer.decode(encoded) == text * 20
    assert list(tokenizer.encode_iterable([text] * 30)) == ids

run("first-")
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
# To the end.
try:
    for _ in range(limit + 1):
        threading.Thread(target=threading.Event().wait, args=(60,), daemon=True).start()
except RuntimeError:
    print("refused")
"""

CHECKED = PROGRAM.partition("# To the end.")[0] + 'run("again-")\nprint("done")\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The working directory of a user that owns nothing."""
    (tmp_path / "c.txt").write_text(TEXT)
    vocab, merges = reference_bpe.train(TEXT.encode(), 280, [EOT])
    Tokenizer(vocab, merges, [EOT]).save(tmp_path / "tok")
    tmp_path.chmod(0o777)
    return tmp_path


def run(folder: Path, program: str, limit: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, str(limit)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the limit counts processes")
@pytest.mark.parametrize("limit", [0, 1, 2, 3, 5])
def test_few_threads_are_enough(folder: Path, limit: int) -> None:
    ran = run(folder, CHECKED, limit)
    assert (ran.stdout, ran.stderr) == ("done\n", "")
    whole = np.load(folder / "first-c.npy")
    assert np.array_equal(np.load(folder / "again-c.npy"), whole)
    shards = [np.load(path) for path in sorted(folder.glob("again-s-*.npy"))]
    assert np.array_equal(np.concatenate(shards), whole)
    for name in ("tok", "tok2"):
        trained = [(folder / f"{run}-{name}" / "tokenizer.json").read_bytes()
                   for run in ("first", "again")]  # fmt: skip
        assert trained[0] == trained[1]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the limit counts processes")
def test_the_limit_is_one(folder: Path) -> None:
    """Or the test above would show nothing."""
    assert run(folder, PROGRAM, 2).stdout == "refused\n"
