"""Training by every way in: packed, in records, in folders, through a pipe, in counts files, in
little memory. Each must give what training on the plain files gives."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import texts
from cs336lm import Tokenizer, count_pretokens, train_bpe
from cs336lm.cli.main import main
from cs336lm.errors import UsageError
from cs336lm.text.inputs import input_files

SPECIALS = [texts.SPECIAL]
DOCUMENTS = [texts.MULTILINGUAL, texts.CODE, texts.EMOJI, texts.MULTILINGUAL[::-1]]


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{index}.txt" for index in range(len(DOCUMENTS))]
    for path, text in zip(paths, DOCUMENTS, strict=True):
        path.write_text(text, encoding="utf-8")
    return paths


@pytest.fixture
def expected(shards: list[Path]) -> tuple[dict[int, bytes], list[tuple[bytes, bytes]]]:
    return train_bpe(shards, 320, SPECIALS)


def test_packed_files(tmp_path: Path, shards: list[Path], expected: object) -> None:
    packed = [path.with_suffix(".txt.gz") for path in shards]
    for path, source in zip(packed, shards, strict=True):
        path.write_bytes(gzip.compress(source.read_bytes()))
    assert train_bpe(packed, 320, SPECIALS) == expected


def test_json_lines(tmp_path: Path, expected: object) -> None:
    path = tmp_path / "all.jsonl.gz"
    lines = "\n".join(json.dumps({"id": 1, "body": text}) for text in DOCUMENTS)
    path.write_bytes(gzip.compress(lines.encode()))
    assert train_bpe(path, 320, SPECIALS, text_field="body") == expected
    with pytest.raises(ValueError, match=r"all\.jsonl\.gz: line 1.*\"text\""):
        train_bpe(path, 320, SPECIALS)


def test_little_memory(shards: list[Path], expected: object) -> None:
    assert train_bpe(shards, 320, SPECIALS, max_memory=1, threads=3) == expected


def test_rare_words_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("ab ab ab\nxyz\n")
    with pytest.warns(UserWarning, match="no more pairs"):
        _, merges = train_bpe(path, 300, min_count=2)
    assert merges == [(b" ", b"a"), (b" a", b"b")] or merges == [(b"a", b"b"), (b" ", b"ab")]


@pytest.mark.parametrize("max_memory", [None, 1])
def test_counts_files(
    tmp_path: Path, shards: list[Path], expected: object, max_memory: int | None
) -> None:
    counted = [path.with_suffix(".bin") for path in shards]
    for path, source in zip(counted, shards, strict=True):
        assert count_pretokens(source, path, SPECIALS, max_memory=max_memory) > 0
    tokenizer = Tokenizer.train_counts(counted, 320, max_memory=max_memory)
    assert (tokenizer.vocab, tokenizer.merges) == expected


def test_counts_files_of_another_pattern_are_refused(tmp_path: Path, shards: list[Path]) -> None:
    count_pretokens(shards, tmp_path / "a.bin")
    count_pretokens(shards, tmp_path / "b.bin", pattern="gpt4")
    with pytest.raises(ValueError, match=r"b\.bin: was counted with the pattern \"gpt4\""):
        Tokenizer.train_counts([tmp_path / "a.bin", tmp_path / "b.bin"], 300)
    with pytest.raises(ValueError, match=r"0\.txt: is not a counts file"):
        Tokenizer.train_counts(shards[0], 300)


def test_commands(tmp_path: Path, shards: list[Path], expected: tuple[object, object]) -> None:
    counts = [str(tmp_path / name) for name in ("one.bin", "other.bin")]
    special = ["--special-token", texts.SPECIAL]
    assert main(["count-pretokens", *map(str, shards[:2]), *special, "--out", counts[0]]) == 0
    one_by_one = [*map(str, shards[2:]), *special, "--max-memory", "1MB", "--out", counts[1]]
    assert main(["count-pretokens", *one_by_one]) == 0
    size = ["--vocab-size", "320"]
    assert main(["train-bpe", "--counts", *counts, *size, "--out", str(tmp_path / "a")]) == 0
    assert Tokenizer.load(tmp_path / "a").vocab == expected[0]
    with pytest.raises(SystemExit, match="2"):
        main(["train-bpe", "--counts", *counts, "--pattern", "gpt4", *size, "--out", "x"])
    with pytest.raises(SystemExit, match="2"):
        main(["train-bpe", *size, "--out", "x"])


def test_a_pipe(tmp_path: Path, shards: list[Path]) -> None:
    command = ["train-bpe", "-", "--vocab-size", "300", "--out", str(tmp_path / "piped")]
    subprocess.run(
        [sys.executable, "-m", "cs336lm", *command],
        input=shards[0].read_bytes(),
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert Tokenizer.load(tmp_path / "piped").merges == train_bpe(shards[0], 300)[1]


def test_folders_and_patterns_stand_for_files(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "deep/c.txt", "e.npy", ".f.txt", ".git/d.txt"):
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text")
    (tmp_path / "empty").mkdir()
    root = str(tmp_path / "corpus")
    below = [f"{root}/{name}" for name in ("a.txt", "b.txt", "deep/c.txt")]
    assert input_files([root]) == below
    assert input_files([f"{root}/*.txt", "-"]) == [*below[:2], "-"]
    assert input_files([f"{root}/*.npy"]) == [f"{root}/e.npy"]
    assert input_files([f"{root}/**/c.txt"]) == below[2:]
    assert input_files(["no such file"]) == ["no such file"]
    for nothing in ([tmp_path / "empty"], [f"{root}/*.md"], []):
        with pytest.raises(UsageError):
            input_files(nothing)
