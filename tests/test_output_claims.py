"""Outputs replace nothing of the user's; two jobs share none; resuming checks before it trusts."""

import fcntl
import gzip
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import reference_bpe
from cs336lm import Tokenizer, count_pretokens
from cs336lm.cli.main import main

EOT = "<|endoftext|>"
TEXT = EOT.join(f"the cat {number} sat on the mat. " for number in range(3000))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a text and a tokenizer."""
    (tmp_path / "c.txt").write_text(TEXT)
    vocab, merges = reference_bpe.train(TEXT.encode(), 300, [EOT])
    Tokenizer(vocab, merges, [EOT]).save(tmp_path / "tok")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tokenize(*arguments: object) -> int:
    return main(["tokenize", *map(str, arguments), "--tokenizer", "tok"])


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


FOREIGN: dict[str, tuple[str, bytes]] = {
    "an array": ("v.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'"),
    "ids without a sidecar": ("v.npy", b""),  # written by the test
    "no array at all": ("v.npy", b"a thesis"),
    "a sidecar": ("v.json", b'{"a": 1}'),
    "a sidecar of validation": ("v.val.json", b"{}"),
    "an array of validation": ("v.val.npy", b"mine"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_someone_else_wrote_stays(
    folder: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    name, content = FOREIGN[what]
    if content:
        (folder / name).write_bytes(content)
    else:
        np.save(folder / name, np.arange(9, dtype=np.uint16))
    before = contents(folder)
    assert tokenize("c.txt", "--out", "v.npy", "--val-fraction", 0.1) == 1
    error = capsys.readouterr().err
    assert f"{name}: would be written over" in error
    assert error.count("\n") == 1
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["v.resume.json", "v-00007.npy"])
def test_what_stands_in_the_way_of_shards_stays(folder: Path, name: str) -> None:
    (folder / name).write_text("{}")
    before = contents(folder)
    assert tokenize("c.txt", "--out", "v.npy", "--shard-tokens", "1K") == 1
    assert contents(folder) == before
    assert tokenize("c.txt", "--out", "v.npy") == 0
    assert (folder / name).read_text() == "{}"


def test_no_input_is_replaced_by_any_name(folder: Path) -> None:
    os.link("c.txt", "hard.npy")
    os.symlink("c.txt", "soft.npy")
    (folder / "data.json").write_text('{"text": "a"}\n')
    before = contents(folder)
    for out in ("c.txt", str(folder / "c.txt"), "hard.npy", "soft.npy", "tok/../c.txt"):
        assert main(["count-pretokens", "c.txt", "--out", out]) == 1
    for out in ("hard.npy", "soft.npy"):
        assert tokenize("c.txt", "--out", out) == 1
    assert tokenize("data.json", "--out", "data.npy") == 1
    assert tokenize("c.txt", "--out", "tok/tokenizer.npy") == 1
    assert tokenize("c.txt", "--out", "tok/vocab.npy") == 1
    assert main(["train-bpe", "tok/merges.txt", "--vocab-size", "300", "--out", "tok"]) == 1
    assert contents(folder) == before


def test_a_tokenizer_of_others_stays_and_our_own_is_replaced(folder: Path) -> None:
    command = ["train-bpe", "c.txt", "--vocab-size", "280", "--out"]
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"):
        other = folder / f"other-{name}"
        other.mkdir()
        (other / name).write_text('{"version": "1.0"}')
        before = contents(other)
        assert main([*command, str(other)]) == 1
        assert contents(other) == before
    assert main([*command, "tok"]) == 0
    assert len(Tokenizer.load("tok").vocab) == 280
    assert main(["train-bpe", "missing", "--vocab-size", "280", "--out", "new"]) == 1
    assert not (folder / "new").exists()


def test_a_pipe_stays_and_links_are_followed(folder: Path) -> None:
    os.mkfifo("pipe")
    os.symlink("pipe", "pipe.npy")
    assert tokenize("c.txt", "--out", "pipe.npy") == 1
    for out in ("pipe", "pipe.npy"):
        assert main(["count-pretokens", "c.txt", "--out", out]) == 1
    assert stat.S_ISFIFO(os.lstat("pipe").st_mode)
    assert os.readlink("pipe.npy") == "pipe"

    (folder / "disk").mkdir()
    os.symlink("disk/real.npy", "link.npy")
    for _ in range(2):
        assert tokenize("c.txt", "--out", "link.npy") == 0
        assert os.readlink("link.npy") == "disk/real.npy"
    assert sorted(os.listdir("disk")) == ["real.npy"]
    assert np.array_equal(np.load("disk/real.npy"), Tokenizer.load("tok").encode(TEXT))


def test_permissions_stay(folder: Path) -> None:
    for name in ("a.npy", "a.json"):
        assert tokenize("c.txt", "--out", "a.npy") == 0
        os.chmod(name, 0o600)
    assert main(["count-pretokens", "c.txt", "--out", "a.bin"]) == 0
    os.chmod("a.bin", 0o640)
    assert tokenize("c.txt", "--out", "a.npy") == 0
    assert main(["count-pretokens", "c.txt", "--out", "a.bin"]) == 0
    modes = [stat.S_IMODE(os.stat(name).st_mode) for name in ("a.npy", "a.json", "a.bin")]
    assert modes == [0o600, 0o600, 0o640]


COMMANDS = {
    "tokenize": ["tokenize", "-", "--tokenizer", "tok", "--out", "o.npy"],
    "shards": ["tokenize", "-", "--tokenizer", "tok", "--out", "o.npy", "--shard-tokens", "1K"],
    "count": ["count-pretokens", "-", "--out", "o.npy"],
    "train": ["train-bpe", "-", "--vocab-size", "300", "--out", "o"],
}


@pytest.fixture
def waiting(folder: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Jobs that hold their output and wait for their input, started by name."""
    jobs: dict[str, subprocess.Popen[bytes]] = {}
    yield jobs
    for job in jobs.values():
        job.kill()
        job.communicate()


def start(name: str, lock: Path) -> subprocess.Popen[bytes]:
    job = subprocess.Popen(
        [sys.executable, "-m", "cs336lm", *COMMANDS[name]],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
    )
    while job.poll() is None and not lock.exists():
        time.sleep(0.01)
    time.sleep(0.2)  # from its creation to its locking
    return job


@pytest.mark.parametrize(
    ("name", "lock"),
    [
        ("tokenize", ".o.lock"),
        ("shards", ".o.lock"),
        ("count", ".o.npy.lock"),
        ("train", "o/.tokenizer.lock"),
    ],
)
def test_two_jobs_do_not_share_an_output(
    folder: Path,
    waiting: dict[str, subprocess.Popen[bytes]],
    capsys: pytest.CaptureFixture[str],
    name: str,
    lock: str,
) -> None:
    first = waiting["first"] = start(name, folder / lock)
    assert main(["c.txt" if word == "-" else word for word in COMMANDS[name]]) == 1
    assert "another job is writing it" in capsys.readouterr().err
    first.communicate(b"the cat sat")
    assert first.returncode == 0
    assert not (folder / lock).exists()

    # A killed job locks nobody out, and what it left is removed.
    killed = waiting["killed"] = start(name, folder / lock)
    killed.kill()
    killed.communicate()
    assert main(["c.txt" if word == "-" else word for word in COMMANDS[name]]) == 0
    assert not [path for path in folder.rglob(".*") if path.is_file()]


def interrupted(folder: Path) -> dict[str, bytes]:
    """A job that stopped at its fourth shard."""
    for path in folder.glob("p*"):
        path.unlink()
    (folder / "p-00003.npy").mkdir()
    assert tokenize("c.txt", "--out", "p.npy", "--shard-tokens", "5K", "--threads", 1) == 1
    (folder / "p-00003.npy").rmdir()
    return contents(folder)


def test_resuming_trusts_nothing_that_it_has_not_seen(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused() -> str:
        before = contents(folder)
        capsys.readouterr()
        assert tokenize("c.txt", "--out", "p.npy", "--shard-tokens", "5K", "--resume") == 1
        assert contents(folder) == before
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    interrupted(folder)
    (folder / "p-00000.npy").unlink()
    assert "p-00000.npy: is missing" in refused()
    interrupted(folder)
    os.truncate("p-00001.npy", 1000)
    assert "p-00001.npy: has 1000 bytes" in refused()
    interrupted(folder)
    np.save("p-00001.npy", np.arange(5000, dtype=np.int16))
    assert "p-00001.npy" in refused()
    interrupted(folder)
    journal = json.loads((folder / "p.resume.json").read_text())
    journal["position"]["place"]["offset"] = 10**12
    (folder / "p.resume.json").write_text(json.dumps(journal))
    assert "p.resume.json: is damaged" in refused()
    interrupted(folder)
    with open("p-00001.npy", "r+b") as shard:  # the right size, and other ids
        shard.seek(5000)
        byte = shard.read(1)
        shard.seek(5000)
        shard.write(bytes([byte[0] ^ 1]))
    assert "p-00001.npy: was changed since" in refused()
    interrupted(folder)
    os.utime("c.txt", ns=(1, 1))
    assert "the input c.txt was changed" in refused()
    interrupted(folder)
    assert tokenize("c.txt", "--out", "p.npy", "--shard-tokens", "5K", "--resume") == 0
    shards = [np.load(path) for path in sorted(folder.glob("p-*.npy"))]
    assert np.array_equal(np.concatenate(shards), Tokenizer.load("tok").encode(TEXT))


@pytest.mark.parametrize("threads", [1, 3])
def test_what_an_older_set_leaves_over_is_removed(folder: Path, threads: int) -> None:
    """A longer set, one with validation too; shards where one file was, and one where shards were;
    after an interruption. What another job wrote under its own name stays."""

    def write(*flags: object) -> set[str]:
        assert tokenize("c.txt", "--out", "s.npy", "--threads", threads, *flags) == 0
        return {path.name for path in folder.glob("s*.npy")}

    assert tokenize("c.txt", "--out", "s-more.npy") == 0
    other = {"s-more.npy"}
    assert write() == other | {"s.npy"}
    many = write("--shard-tokens", "5K", "--val-fraction", 0.2)
    assert "s.npy" not in many
    few = write("--shard-tokens", "20K", "--val-fraction", 0.2)
    assert few < many
    listed = {shard["file"] for name in ("s.json", "s.val.json")
              for shard in json.loads((folder / name).read_text())["shards"]}  # fmt: skip
    assert few == other | listed
    write("--shard-tokens", "5K", "--val-fraction", 0.2)
    (folder / "s-00001.npy").unlink()
    (folder / "s-00001.npy").mkdir()
    flags = ["--shard-tokens", "20K", "--val-fraction", 0.2]
    assert tokenize("c.txt", "--out", "s.npy", "--threads", threads, *flags) == 1
    (folder / "s-00001.npy").rmdir()
    assert write(*flags, "--resume") == few
    whole = write("--val-fraction", 0.2)
    assert whole == other | {"s.npy", "s.val.npy"}


def test_only_what_a_dead_job_left_is_removed(folder: Path) -> None:
    for name in (".o.npy.999-0.part", ".o.json.999-0.part", ".other.npy.999-0.part"):
        (folder / name).touch()
    with (folder / ".o.npy.999-1.part").open("w") as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        assert tokenize("c.txt", "--out", "o.npy") == 0
    left = sorted(path.name for path in folder.glob(".*"))
    assert left == [".o.npy.999-1.part", ".other.npy.999-0.part"]


def test_names_that_are_not_utf8(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"n\xff.txt")
    os.rename("c.txt", name)
    assert tokenize(name, "--out", "o.npy") == 0
    assert json.loads((folder / "o.json").read_text())["inputs"][0]["path"] == "n\ufffd.txt"
    assert tokenize(name, "--out", "o.npy", "--shard-tokens", "10K") == 0
    assert main(["count-pretokens", name, "--out", os.fsdecode(b"\xff")]) == 0
    assert main(["train-bpe", name, "--vocab-size", "300", "--out", os.fsdecode(b"\xfe")]) == 0
    before = contents(folder)
    assert tokenize(name, "--out", os.fsdecode(b"\xff.npy")) == 1
    assert "is not UTF-8" in capsys.readouterr().err
    assert contents(folder) == before


def test_counts_whose_sum_does_not_fit_are_refused(folder: Path) -> None:
    (folder / "one").write_text("ab")
    count_pretokens("one", folder / "1.bin")
    whole = (folder / "1.bin").read_bytes()
    head = whole[: whole.index(b"\n") + 1] + b"\x02ab"
    from hashlib import sha256

    for number in (b"\xff" * 9 + b"\x01", b"\xff" * 9 + b"\x02"):  # 2^64 - 1, and more
        (folder / "2.bin").write_bytes(head + number + sha256(head + number).digest())
        with pytest.raises(ValueError, match=r"2\^64|too large"):
            Tokenizer.train_counts("2.bin", 257)


def test_a_bomb_is_refused_in_bounded_memory(folder: Path) -> None:
    with gzip.open("bomb.gz", "wb") as bomb:
        for _ in range(300):
            bomb.write(b"a" * (1 << 20))
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (3 << 29, 3 << 29));"
        "from cs336lm import Tokenizer; Tokenizer.load('tok').count_tokens('bomb.gz', threads=1)"
    )
    result = subprocess.run(
        [sys.executable, "-c", limited],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        capture_output=True,
        text=True,
    )
    assert "unpacks to 128 MiB without a place to cut" in result.stderr, result.stderr
