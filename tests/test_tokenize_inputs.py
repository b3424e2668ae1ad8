"""Every way in, for training and for encoding alike, against the plain-Python oracle: one file,
several, packed, in records, in tables, folders, patterns and pipes, with any number of threads."""

import gzip
import io
import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import reference_bpe
import texts
from cs336lm import Tokenizer, count_pretokens, train_bpe
from cs336lm.cli.main import main
from cs336lm.errors import UsageError

EOT = texts.SPECIAL
VOCAB_SIZE = 300
# What would be cut otherwise if two were joined, an empty one, and special tokens in halves.
RECORDS = [
    "the cat",
    " sat on the mat",
    "",
    texts.MULTILINGUAL[:400],
    f"two{EOT}documents",
    "<|endof",
    "text|> no special",
    texts.CODE[:300],
    texts.EMOJI,
    "   ",
]


DELTA = {"body": "DELTA_LENGTH_BYTE_ARRAY"}


def lines(records: list[str], field: str = "text") -> bytes:
    rows = (json.dumps({"id": 7, field: text, "more": {"text": None}}) for text in records)
    return ("\n".join(rows) + "\n\n").encode()


def table(records: list[str | None], column: str = "text", **options: object) -> bytes:
    buffer = io.BytesIO()
    columns = {"id": range(len(records)), column: pa.array(records, pa.string())}
    pq.write_table(pa.table(columns), buffer, **options)
    return buffer.getvalue()


def zst(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


OTHERS = [f"another {text}" for text in RECORDS]
TEXT = "".join(RECORDS).encode() + texts.NO_UTF8
# name -> the files of that kind, and the documents in them
WAYS: dict[str, tuple[dict[str, bytes], list[bytes]]] = {
    "text": ({"a.txt": TEXT}, [TEXT]),
    "several": ({f"{i}.txt": text.encode() for i, text in enumerate(RECORDS)},
                [text.encode() for text in RECORDS if text]),
    "gz": ({"a.txt.gz": gzip.compress(TEXT[:99]) + gzip.compress(TEXT[99:])}, [TEXT]),
    "zst": ({"a.zst": zst(TEXT)}, [TEXT]),
    "jsonl": ({"a.jsonl": lines(RECORDS)}, [text.encode() for text in RECORDS]),
    "jsonl.gz": ({"a.ndjson.gz": gzip.compress(lines(RECORDS))},
                 [text.encode() for text in RECORDS]),
    "jsonl.zst": ({"a.jsonl.zst": zst(lines(RECORDS))}, [text.encode() for text in RECORDS]),
    "parquet": ({"a.parquet": table(RECORDS)}, [text.encode() for text in RECORDS]),
    "mixed": ({"a.parquet": table(OTHERS), "b.txt": TEXT, "c.jsonl": lines(RECORDS)},
              [*(text.encode() for text in OTHERS), TEXT, *(text.encode() for text in RECORDS)]),
}  # fmt: skip


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[list[Path], list[bytes]]:
    files, documents = WAYS[request.param]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    return [tmp_path / name for name in files], documents


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    vocab, merges = reference_bpe.train([TEXT], VOCAB_SIZE, [EOT])
    return Tokenizer(vocab, merges, [EOT])


def expected_ids(tokenizer: Tokenizer, document: bytes, special: list[str]) -> list[int]:
    return reference_bpe.encode(document, tokenizer.vocab, tokenizer.merges, special)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_training(way: tuple[list[Path], list[bytes]], threads: int) -> None:
    paths, documents = way
    expected = reference_bpe.train(documents, VOCAB_SIZE, [EOT])
    assert train_bpe(paths, VOCAB_SIZE, [EOT], threads=threads) == expected
    assert train_bpe(paths, VOCAB_SIZE, [EOT], threads=threads, max_memory=1) == expected
    counts = [path.with_suffix(".bin") for path in paths]
    for path, out in zip(paths, counts, strict=True):
        count_pretokens(path, out, [EOT], threads=threads)
    trained = Tokenizer.train_counts(counts, VOCAB_SIZE, threads=threads)
    assert (trained.vocab, trained.merges) == expected


@pytest.mark.parametrize(("threads", "trusted"), [(1, False), (2, False), (7, False), (2, True)])
def test_encoding(
    tmp_path: Path,
    tokenizer: Tokenizer,
    way: tuple[list[Path], list[bytes]],
    threads: int,
    trusted: bool,
) -> None:
    """Special tokens count in files of text; in records only if they are asked for."""
    paths, documents = way
    has_records = any("jso" in path.name or "parquet" in path.name for path in paths)
    special = [[] if has_records and text != TEXT and not trusted else [EOT] for text in documents]
    ids = [expected_ids(tokenizer, *each) for each in zip(documents, special, strict=True)]
    out = tmp_path / "tokens.npy"
    trust = {"threads": threads, "special_tokens_in_records": trusted}
    stats = tokenizer.encode_files(paths, out, **trust)
    assert np.load(out).tolist() == list(chain(*ids))
    assert stats.bytes == sum(map(len, documents))
    if not trusted:
        assert tokenizer.count_tokens(paths, threads=threads) == (stats.tokens, stats.bytes)

    eot = tokenizer.token_to_id(EOT)
    tokenizer.encode_files(paths, out, append_eot=True, **trust)
    appended = [[*document, eot] for document in ids]
    assert np.load(out).tolist() == list(chain(*appended))

    flags = {**trust, "append_eot": True, "val_fraction": 0.4, "seed": 3}
    stats = tokenizer.encode_files(paths, out, **flags, shard_tokens=50)
    shards = json.loads((tmp_path / "tokens.json").read_text())["shards"]
    train = np.concatenate([np.load(tmp_path / shard["file"]) for shard in shards]).tolist()
    shards = json.loads((tmp_path / "tokens.val.json").read_text())["shards"]
    val = np.concatenate([np.load(tmp_path / shard["file"]) for shard in shards]).tolist()
    assert stats.val is not None
    assert (stats.tokens, stats.val.tokens) == (len(train), len(val))
    # Each document is whole on one side, in order; one with a special token inside is two.
    for document in appended:
        while document:
            end = document.index(eot) + 1
            side = train if train[:end] == document[:end] else val
            assert side[:end] == document[:end]
            del side[:end], document[:end]
    assert train == val == []


@pytest.mark.parametrize(
    "options",
    [
        {"compression": codec, "row_group_size": rows, "data_page_version": version, **plain}
        for codec, rows, version, plain in [
            ("none", 1, "1.0", {}),
            ("snappy", 3, "1.0", {"use_dictionary": False}),
            ("gzip", 100, "2.0", {}),
            (
                "zstd",
                4,
                "2.0",
                {"use_dictionary": False, "column_encoding": {"body": "DELTA_BYTE_ARRAY"}},
            ),
            ("lz4", 9, "2.0", {"use_dictionary": False, "column_encoding": DELTA}),
        ]
    ],
    ids=lambda options: options["compression"],
)
def test_parquet_of_another_writer(
    tmp_path: Path, tokenizer: Tokenizer, options: dict[str, object]
) -> None:
    """Codecs, pages, encodings; nulls are no documents."""
    rows = [None, *RECORDS, None, "x" * 70_000, None] * 3
    (tmp_path / "a.parquet").write_bytes(table(rows, "body", **options))
    out = tmp_path / "tokens.npy"
    tokenizer.encode_files(tmp_path / "a.parquet", out, text_column="body", append_eot=True)
    eot = tokenizer.token_to_id(EOT)
    documents = [tokenizer.encode_ordinary(text) for text in rows if text is not None]
    assert np.load(out).tolist() == [id for ids in documents for id in (*ids, eot)]


def test_parquet_columns_are_refused_by_name(tmp_path: Path, tokenizer: Tokenizer) -> None:
    columns = {
        "body": pa.array(["text"], pa.large_string()),
        "id": [7],
        "image": pa.array([b"no text"]),
        "tags": [["a", "b"]],
        "meta": [{"title": "the title"}],
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")

    def encode(column: str) -> None:
        out = tmp_path / "tokens.npy"
        tokenizer.encode_files(tmp_path / "a.parquet", out, text_column=column)

    with pytest.raises(ValueError, match=r"a\.parquet: no column \"text\"; it has \"body\", \"id"):
        encode("text")
    for column in ("id", "image"):
        with pytest.raises(ValueError, match=rf"{column}.*not strings.*\"body\", \"meta\.title\""):
            encode(column)
    encode("meta.title")
    assert tokenizer.decode(np.load(tmp_path / "tokens.npy")) == "the title"
    assert not (tmp_path / "missing.json").exists()


def test_damaged_files_are_one_line(
    tmp_path: Path, tokenizer: Tokenizer, capfd: pytest.CaptureFixture[str]
) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": [f"text {index}" for index in range(1000)]}), buffer)
    whole = buffer.getvalue()
    damaged = {
        "cut.parquet": whole[: len(whole) // 2],
        "zeros.parquet": whole[:20] + bytes(200) + whole[220:],
        "ones.parquet": whole[:20] + b"\xff" * 200 + whole[220:],
        "empty.parquet": b"",
        "text.parquet": b"no table at all",
        "cut.gz": gzip.compress(TEXT)[:-20],
        "cut.zst": zst(TEXT)[:-20],
        "bad.jsonl": b'{"text": "fine"}\n{"text": ',
        "other.jsonl": b'{"body": "fine"}\n',
        "list.jsonl": b'{"text": ["no string"]}\n',
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        arguments = [str(tmp_path / name), "--tokenizer", str(tmp_path / "tokenizer")]
        out = str(tmp_path / "tokens.npy")
        assert main(["tokenize", *arguments, "--out", out]) == 1, name
        printed = capfd.readouterr()
        assert printed.err.count("\n") == 1, printed.err
        assert name in printed.err
        assert not os.path.exists(out)
        assert main(["tokenize", *arguments, "--on-error", "skip", "--out", out]) == 0
        printed = capfd.readouterr()
        assert f"skipped: {tmp_path / name}: " in printed.err
        os.unlink(out)


def test_folders_patterns_and_pipes(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    folder = tmp_path / "corpus"
    (folder / "deep").mkdir(parents=True)
    (folder / "b.txt").write_text("the mat")
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines(["the cat", "sat"], "body")))
    (folder / "deep" / "c.parquet").write_bytes(table(["on", "the mat"], "body"))
    (folder / "deep" / "notes.pdf").write_bytes(b"no text")
    out = tmp_path / "tokens.npy"

    def tokenize(*inputs: str, stdin: str = "") -> str:
        flags = ["--text-field", "body", "--text-column", "body", "--append-eot"]
        command = ["tokenize", *inputs, *flags, "--tokenizer", "tokenizer", "--out", "tokens.npy"]
        path = os.pathsep.join(map(os.path.abspath, sys.path))
        ended = subprocess.run(
            [sys.executable, "-m", "cs336lm", *command],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": path},
            input=stdin,
            capture_output=True,
            text=True,
        )
        left_out = (
            "deep/notes.pdf" if "corpus" in inputs else ""
        )  # a folder says what it leaves out
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr.count("\n") == bool(left_out)
        assert left_out in ended.stderr
        return tokenizer.decode(np.load(out)).replace(EOT, "|")

    assert tokenize("corpus") == "the cat|sat|the mat|on|the mat|"
    assert tokenize("corpus/*.txt", "corpus/**/*.parquet") == "the mat|on|the mat|"
    assert tokenize("corpus/b.txt", "-", stdin="the cat") == "the mat|the cat|"
    tokenizer.encode_files(folder / "deep", out, text_column="body")
    assert tokenizer.decode(np.load(out)) == "onthe mat"


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl", "a.jsonl.zst", "a.parquet"])
def test_a_job_goes_on_inside_a_file(tmp_path: Path, tokenizer: Tokenizer, name: str) -> None:
    """More than one chunk (a megabyte), so that it goes on where another one begins."""
    words = [f"{index * 2_654_435_761 % 10**9:x} the cat" for index in range(70_000)]
    content = {
        "a.txt": " ".join(words).encode(),
        "a.txt.gz": gzip.compress(" ".join(words).encode(), 1),
        "a.jsonl": lines(words),
        "a.jsonl.zst": zst(lines(words)),
        "a.parquet": table(words),
    }[name]
    (tmp_path / name).write_bytes(content)
    out = tmp_path / "parts.npy"
    tokenizer.encode_files(tmp_path / name, tmp_path / "whole.npy")
    whole = np.load(tmp_path / "whole.npy")
    size = len(whole) // 5
    (tmp_path / "parts-00004.npy").mkdir()
    with pytest.raises(ValueError, match=r"parts-00004\.npy: is a directory"):
        tokenizer.encode_files(tmp_path / name, out, shard_tokens=size)
    (tmp_path / "parts-00004.npy").rmdir()
    kept = (tmp_path / "parts-00002.npy").stat().st_ino
    seen: list[int] = []
    tokenizer.encode_files(
        tmp_path / name,
        out,
        shard_tokens=size,
        resume=True,
        progress=lambda phase, done, total: seen.append(done),
    )
    assert (tmp_path / "parts-00002.npy").stat().st_ino == kept
    assert seen[-1] == len(content)
    shards = sorted(tmp_path.glob("parts-*.npy"))
    assert np.array_equal(np.concatenate([np.load(shard) for shard in shards]), whole)


def test_standard_input_cannot_be_resumed(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="standard input cannot be read a second time"):
        tokenizer.encode_files("-", tmp_path / "tokens.npy", shard_tokens=10, resume=True)


def test_numbers_that_make_no_sense_are_refused_by_name(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    (tmp_path / "a.txt").write_text("the cat")
    source, out = tmp_path / "a.txt", tmp_path / "tokens.npy"
    for name in ("max_memory", "min_count", "threads"):
        for value in (0, -1, 1 << 64):
            with pytest.raises(UsageError, match=f"{name} {value}: "):
                train_bpe(source, 300, **{name: value})
    for name, value in (("threads", 0), ("shard_tokens", 0), ("shard_tokens", -5), ("seed", -1)):
        with pytest.raises(UsageError, match=f"{name} {value}: "):
            tokenizer.encode_files(source, out, **{name: value})
    for fraction in (-0.1, 1.5, float("nan")):
        with pytest.raises(UsageError, match=f"val_fraction {fraction}: "):
            tokenizer.encode_files(source, out, val_fraction=fraction)
    for pattern in ("(", "[a"):
        with pytest.raises(UsageError, match="pattern"):
            train_bpe(source, 300, pattern=pattern)
    with pytest.raises(UsageError, match="given twice"):
        train_bpe(source, 300, [EOT, EOT])
    assert not out.exists()
