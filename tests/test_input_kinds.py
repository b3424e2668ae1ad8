"""Every text that is named is read, whatever it comes through; what is no text is refused."""

import bz2
import codecs
import gzip
import io
import json
import lzma
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from cs336lm import Tokenizer
from cs336lm.cli.main import main

TEXT = "the cat sat on the mat.\n" * 20


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a tokenizer of bytes: an id is a byte."""
    Tokenizer({byte: bytes([byte]) for byte in range(256)}, []).save(tmp_path / "tok")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tokenize(*arguments: object) -> int:
    return main(["tokenize", *map(str, arguments), "--tokenizer", "tok", "--out", "o.npy"])


def written() -> str:
    return bytes(np.load("o.npy").astype(np.uint8)).decode()


def tar_of(text: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("a.txt")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    return buffer.getvalue()


def zip_of(text: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", text)
    return buffer.getvalue()


NO_TEXT = {
    "bzip2": bz2.compress(TEXT.encode()),
    "xz": lzma.compress(TEXT.encode()),
    "gzip": gzip.compress(TEXT.encode()),
    "tar": tar_of(TEXT.encode()),
    "zip": zip_of(TEXT.encode()),
    "UTF-16": codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
    "UTF-16BE": TEXT.encode("utf-16-be"),
    "UTF-32": codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"),
}


@pytest.mark.parametrize("kind", NO_TEXT)
def test_what_is_no_text_is_refused_with_advice(
    folder: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    (folder / "a.txt").write_bytes(NO_TEXT[kind])
    (folder / "a.gz").write_bytes(gzip.compress(NO_TEXT[kind]))
    for name in ("a.txt", "a.gz"):
        assert tokenize(name) == 1
        error = capsys.readouterr().err
        assert f"{name}: is " in error
        assert kind in error
        assert error.count("\n") == 1
        assert main(["train-bpe", name, "--vocab-size", "300", "--out", "new"]) == 1
        capsys.readouterr()
    (folder / "good.txt").write_text(TEXT)
    assert tokenize("a.txt", "good.txt", "--on-error", "skip") == 0
    assert written() == TEXT


@pytest.mark.parametrize("name", ["a.bz2", "a.txt.xz", "a.tar.gz", "a.tgz", "a.zip", "a.tar"])
def test_endings_that_no_text_has(folder: Path, name: str) -> None:
    (folder / name).write_text("x")
    assert tokenize(name) == 1


def test_pipes_and_files_that_the_system_makes_up(folder: Path) -> None:
    os.mkfifo("pipe")

    def feed() -> None:
        Path("pipe").write_text(TEXT)

    feeder = threading.Thread(target=feed)
    feeder.start()
    assert tokenize("pipe") == 0
    feeder.join()
    assert written() == TEXT
    assert tokenize("/proc/self/cmdline") == 0
    assert len(written()) > 10
    command = [sys.executable, "-m", "cs336lm", "tokenize", "--tokenizer", "tok"]
    path = {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    for name in ("-", "/dev/stdin"):
        more = [name, "--on-error", "skip", "--out", "o.npy"]
        subprocess.run([*command, *more], input=TEXT.encode(), check=True, env=os.environ | path)
        assert written() == TEXT


def test_zeros_after_a_gzip_member_are_no_text(folder: Path) -> None:
    packed = gzip.compress(b"one ") + bytes(70_000) + gzip.compress(b"two") + bytes(3)
    (folder / "a.gz").write_bytes(packed)
    assert tokenize("a.gz") == 0
    assert written() == "one two"
    (folder / "a.gz").write_bytes(packed + b"junk")
    assert tokenize("a.gz") == 1


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_json_lines_by_another_name(folder: Path, name: str) -> None:
    pack = gzip.compress if name.endswith(".gz") else bytes

    def text_of(content: str, *flags: str) -> str:
        (folder / name).write_bytes(pack(content.encode()))
        assert tokenize(name, *flags) == 0
        return written()

    assert text_of('{"text": "one"}\n{"text": "two"}\n') == "onetwo"
    assert text_of('{"text": "one"}') == "one"
    assert text_of('{"body": "one"}\n', "--text-field", "body") == "one"
    for plain in ('[{"text": "one"}]', '{\n  "text": "one"\n}\n', '{"name": "one"}', "no JSON"):
        assert text_of(plain) == plain
    (folder / name).write_bytes(pack(b'{"body": "one"}\n{"body": "two"}\n'))
    assert tokenize(name) == 1


def test_what_only_python_writes_drops_no_document(folder: Path) -> None:
    rows = [
        {"text": "a\ud83db\udc00", "score": float("nan")},
        {"\udfff": [float("inf"), -float("inf")], "text": 'NaN "Infinity" \\'},
        {"text": float("nan")},
        {"text": "last"},
    ]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert tokenize("a.jsonl") == 0
    assert written() == 'a\ufffdb\ufffdNaN "Infinity" \\last'
    (folder / "a.jsonl").write_text('{"text": "a", "b": NaNs}')
    assert tokenize("a.jsonl") == 1


def test_a_folder_says_what_it_leaves_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = folder / "corpus"
    (corpus / "sub").mkdir(parents=True)
    (corpus / "a.json").write_text('{"text": "one "}\n{"text": "two "}\n')
    (corpus / "b.json.gz").write_bytes(gzip.compress(b'{"text": "three "}\n'))
    (corpus / "c.txt").write_text("four")
    (corpus / ".hidden.csv").write_text("no")
    assert tokenize("corpus") == 0
    assert written() == "one two three four"
    assert capsys.readouterr().err == ""
    (corpus / "package.json").write_text('{"name": "no lines"}')
    for name in ("table.csv", "page.html", "sub/picture.png"):
        (corpus / name).write_text("no")
    inspect = ["inspect", "tok", "--on", "corpus"]
    count = ["count-pretokens", "corpus", "--out", "c.bin"]
    train = ["train-bpe", "corpus", "--vocab-size", "257", "--out", "new"]
    for command in (None, inspect, count, train):
        assert (tokenize("corpus") if command is None else main(command)) == 0
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("note: corpus: 4 files are left out")
        assert "package.json, page.html, sub/picture.png, ..." in line
    assert written() == "one two three four"
    # Another field's records are lines, and its lack is said.
    (corpus / "d.json").write_text('{"body": "one"}\n{"body": "two"}\n')
    assert tokenize("corpus") == 1
    assert "d.json: line 1: no field" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.skipif(not os.path.exists("/sys/kernel/mm"), reason="Linux")
def test_a_file_that_is_shorter_than_it_says(folder: Path) -> None:
    """Those of /sys have the size of a page and hold a line."""
    name = "/sys/kernel/mm/transparent_hugepage/enabled"
    name = name if os.path.exists(name) else "/sys/kernel/profiling"
    assert os.path.getsize(name) > len(Path(name).read_bytes())
    assert tokenize(name) == 0
    assert written() == Path(name).read_text()


def test_a_pattern_of_ones_own_can_be_interrupted(folder: Path) -> None:
    (folder / "a.txt").write_text("the cat " * 4_000_000)
    command = [sys.executable, "-m", "cs336lm", "count-pretokens", "a.txt", "--out", "a.bin"]
    job = subprocess.Popen(
        [*command, "--pattern", r"(?:(?=\w)\w+|\s(?=\w)|\W)"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        stderr=subprocess.PIPE,
    )
    while job.poll() is None and not (folder / ".a.bin.lock").exists():
        time.sleep(0.01)
    time.sleep(0.2)
    job.send_signal(signal.SIGINT)
    _, error = job.communicate()
    assert (job.returncode, error) == (130, b"cs336lm: stopped on request\n")
