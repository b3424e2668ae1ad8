"""Text files to token files: equal to ``encode`` for any number of threads, whole or not at all."""

import json
import os
import resource
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import reference_bpe
import texts
from cs336lm import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    data = (texts.MULTILINGUAL + texts.CODE + texts.SPECIAL).encode()
    vocab, merges = reference_bpe.train(data, 500, [texts.SPECIAL])
    return Tokenizer(vocab, merges, [texts.SPECIAL])


def wide(tokenizer: Tokenizer) -> Tokenizer:
    """The same with one id that 16 bits do not hold."""
    vocab = tokenizer.vocab | {65_536: b"far away"}
    return Tokenizer(vocab, tokenizer.merges, [texts.SPECIAL])


@pytest.mark.parametrize("name", texts.ANY)
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_equals_encode(tmp_path: Path, tokenizer: Tokenizer, name: str, threads: int) -> None:
    (tmp_path / "text").write_bytes(texts.ANY[name])
    stats = tokenizer.encode_files(tmp_path / "text", tmp_path / "out.npy", threads=threads)
    ids = np.load(tmp_path / "out.npy", mmap_mode="r")
    assert ids.tolist() == tokenizer.encode(texts.ANY[name])
    assert tokenizer.decode_bytes(ids) == texts.ANY[name]
    assert (ids.dtype, ids.ndim) == (np.uint16, 1)
    assert (stats.tokens, stats.bytes) == (len(ids), len(texts.ANY[name]))
    assert (stats.dtype, stats.path) == ("uint16", str(tmp_path / "out.npy"))


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_text_of_many_chunks_equals_encode(
    tmp_path: Path, tokenizer: Tokenizer, threads: int
) -> None:
    """Chunks fall anywhere: the text's parts have lengths that no chunk's size divides."""
    data = b"".join(
        part[index % 5 :] for index in range(1500) for part in (texts.ANY["all of them"], b"a" * 97)
    )
    (tmp_path / "text").write_bytes(data)
    tokenizer.encode_files(tmp_path / "text", tmp_path / "out.npy", threads=threads)
    ids = np.load(tmp_path / "out.npy")
    assert np.array_equal(ids, tokenizer.encode_batch([data])[0])


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_files_one_after_the_other(tmp_path: Path, tokenizer: Tokenizer, threads: int) -> None:
    contents = [b"the the", b"", b"the", *texts.ANY.values(), texts.SPECIAL.encode()[:5], b"text|>"]
    paths = [str(tmp_path / f"{index}.txt") for index in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        Path(path).write_bytes(content)
    stats = tokenizer.encode_files(paths, tmp_path / "out.npy", threads=threads)
    expected = [id for content in contents for id in tokenizer.encode(content)]
    assert np.load(tmp_path / "out.npy").tolist() == expected
    assert stats.bytes == sum(map(len, contents))


def test_dtype_follows_the_vocabulary(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "text").write_bytes(b"far away")
    edge = Tokenizer(tokenizer.vocab | {65_535: b"near"}, tokenizer.merges)
    assert edge.encode_files(tmp_path / "text", tmp_path / "16.npy").dtype == "uint16"
    assert wide(tokenizer).encode_files(tmp_path / "text", tmp_path / "32.npy").dtype == "uint32"
    assert np.load(tmp_path / "16.npy").dtype == np.uint16
    assert np.load(tmp_path / "32.npy").dtype == np.uint32


def test_sidecar(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "a.txt").write_bytes(b"some text")
    (tmp_path / "b.txt").write_bytes(b"more")
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    tokenizer.encode_files(paths, tmp_path / "tokens.npy")
    sidecar = json.loads((tmp_path / "tokens.json").read_text())
    ids = np.load(tmp_path / "tokens.npy")
    assert sidecar["format"] == 2
    assert sidecar["crc32"] == zlib.crc32(ids.tobytes())
    assert sidecar["tokenizer_sha256"] == tokenizer.fingerprint
    assert sidecar["vocab_size"] == tokenizer.vocab_size
    assert (sidecar["dtype"], sidecar["tokens"], sidecar["bytes"]) == ("uint16", len(ids), 13)
    assert [source["bytes"] for source in sidecar["inputs"]] == [9, 4]
    assert [Path(source["path"]).name for source in sidecar["inputs"]] == ["a.txt", "b.txt"]


def test_replaces_an_older_file(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "text").write_bytes(b"some text")
    (tmp_path / "longer").write_bytes(b"something else, and longer than what comes" * 100)
    tokenizer.encode_files(tmp_path / "longer", tmp_path / "out.npy")
    tokenizer.encode_files(tmp_path / "text", tmp_path / "out.npy")
    assert np.load(tmp_path / "out.npy").tolist() == tokenizer.encode("some text")


def test_progress_counts_bytes(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "text").write_bytes(b"some text " * 1000)
    seen: list[tuple[str, int, int]] = []
    tokenizer.encode_files(
        tmp_path / "text", tmp_path / "out.npy", progress=lambda *report: seen.append(report)
    )
    assert seen[-1] == ("encoding", 10_000, 10_000)


def everything_in(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_failures_leave_nothing(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "text").write_bytes(b"some text")
    (tmp_path / "folder.npy").mkdir()
    before = everything_in(tmp_path)

    with pytest.raises(FileNotFoundError) as missing:
        tokenizer.encode_files([tmp_path / "text", tmp_path / "missing"], tmp_path / "out.npy")
    assert missing.value.filename == str(tmp_path / "missing")
    with pytest.raises(ValueError, match="is a directory"):
        tokenizer.encode_files(tmp_path, tmp_path / "out.npy")
    with pytest.raises(ValueError, match=r"folder\.npy: is a directory"):
        tokenizer.encode_files(tmp_path / "text", tmp_path / "folder.npy")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        tokenizer.encode_files(tmp_path / "text", tmp_path / "nowhere" / "out.npy")
    with pytest.raises(ValueError, match="no file"):
        tokenizer.encode_files([], tmp_path / "out.npy")
    with pytest.raises(ValueError, match="text"):
        tokenizer.encode_files(tmp_path / "text", tmp_path / "text")  # itself, no .npy either
    assert everything_in(tmp_path) == before
    assert (tmp_path / "text").read_bytes() == b"some text"


def run(*arguments: object, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """``cs336lm ARGUMENTS``, where no file may grow beyond ``limit`` bytes: a full disk."""

    def limit_files() -> None:
        if limit is not None:
            # The signal's default is to kill; ignored, the write fails as on a full disk.
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [sys.executable, "-m", "cs336lm", *map(str, arguments)],
        preexec_fn=limit_files,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_what_the_progress_callback_raises_leaves_nothing(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    (tmp_path / "text").write_text(different_words(500_000))
    before = everything_in(tmp_path)

    def refuse(phase: str, done: int, total: int) -> None:
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        tokenizer.encode_files(
            [tmp_path / "text"] * 8, tmp_path / "out.npy", threads=1, progress=refuse
        )
    assert everything_in(tmp_path) == before


def different_words(count: int) -> str:
    """What takes longest to encode and to train on."""
    return " ".join(f"{index * 2_654_435_761 % 10**12:x}" for index in range(count))


def test_a_full_disk_leaves_nothing(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    (tmp_path / "text").write_bytes(texts.ANY["all of them"] * 100)
    before = everything_in(tmp_path)
    arguments = ["tokenize", tmp_path / "text", "--tokenizer", tmp_path / "tokenizer"]
    ended = run(*arguments, "--out", tmp_path / "out.npy", limit=100_000)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert str(tmp_path / "out.npy") in ended.stderr
    assert "File too large" in ended.stderr
    assert everything_in(tmp_path) == before


def test_a_full_disk_leaves_no_half_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(texts.ANY["all of them"])
    arguments = ["train-bpe", tmp_path / "text", "--vocab-size", "600"]
    ended = run(*arguments, "--out", tmp_path / "tokenizer", limit=2_000)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "File too large" in ended.stderr
    assert not (tmp_path / "tokenizer").exists() or not os.listdir(tmp_path / "tokenizer")


@pytest.mark.parametrize("command", ["train-bpe", "tokenize"])
def test_ctrl_c_leaves_nothing(tmp_path: Path, tokenizer: Tokenizer, command: str) -> None:
    """Interrupted on a terminal once the progress bar is there."""
    tokenizer.save(tmp_path / "tokenizer")
    (tmp_path / "text").write_text(different_words(500_000))
    before = everything_in(tmp_path)
    options = {
        "train-bpe": ["--vocab-size", "1000000", "--out", tmp_path / "trained"],
        "tokenize": ["--tokenizer", tmp_path / "tokenizer", "--out", tmp_path / "out.npy"],
    }[command]
    inputs = [tmp_path / "text"] * 8
    terminal, end = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "cs336lm", command, *inputs, *options, "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=end,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
        # A shell ignores Ctrl-C for what it starts in the background, the tests for instance.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(end)
    shown = b""
    while b"counting" not in shown and b"encoding" not in shown:
        shown += os.read(terminal, 4096)
    process.send_signal(signal.SIGINT)
    while True:
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # the other end is closed: the process has ended
            break
    assert process.wait(timeout=20) == 130, shown
    assert b"stopped on request" in shown
    assert process.stdout is not None
    assert process.stdout.read() == b""
    assert everything_in(tmp_path) == before
