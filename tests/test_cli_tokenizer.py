"""The tokenizer commands as a shell sees them: statuses, one line for what went wrong, results."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import texts
from cs336lm import Tokenizer, train_bpe
from cs336lm.cli.main import main

CORPUS = texts.MULTILINGUAL + texts.CODE + texts.SPECIAL + "\n" + texts.OVERLAPS


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text(CORPUS, encoding="utf-8", newline="")
    return path


@pytest.fixture
def tokenizer(tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    out = tmp_path / "tokenizer"
    arguments = ["--vocab-size", "400", "--special-token", texts.SPECIAL, "--out", str(out)]
    assert main(["train-bpe", str(corpus), *arguments]) == 0
    capsys.readouterr()
    return out


def test_train_bpe(tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "trained"
    arguments = ["--vocab-size", "400", "--special-token", texts.SPECIAL, "--pattern", "gpt4"]
    assert main(["train-bpe", str(corpus), *arguments, "--threads", "2", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("400 tokens (256 bytes, 143 merges, 1 special) from ")
    assert printed.out.endswith(f"{out}\n")
    assert printed.err == ""
    trained = Tokenizer.load(out)
    expected = train_bpe(corpus, 400, [texts.SPECIAL], pattern="gpt4")
    assert (trained.vocab, trained.merges) == expected
    assert (trained.pattern, trained.special_tokens) == ("gpt4", [texts.SPECIAL])


def test_train_bpe_says_when_it_stops_early(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "short.txt").write_text("abc abc")
    arguments = ["--vocab-size", "1000", "--out", str(tmp_path / "out")]
    assert main(["train-bpe", str(tmp_path / "short.txt"), *arguments]) == 0
    assert "no more pairs to merge: vocab_size is 259, not 1000" in capsys.readouterr().out


def test_tokenize(
    tmp_path: Path, corpus: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tokens.npy"
    arguments = ["--tokenizer", str(tokenizer), "--threads", "2", "--out", str(out)]
    assert main(["tokenize", str(corpus), *arguments]) == 0
    printed = capsys.readouterr()
    ids = np.load(out)
    assert ids.tolist() == Tokenizer.load(tokenizer).encode(CORPUS)
    assert printed.out.startswith(f"{len(ids):,} tokens of uint16 from ")
    assert printed.out.endswith(f"{out}\n")
    assert printed.err == ""


def test_tokenize_an_empty_file(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "empty.txt").touch()
    out = tmp_path / "tokens.npy"
    arguments = ["--tokenizer", str(tokenizer), "--out", str(out)]
    assert main(["tokenize", str(tmp_path / "empty.txt"), *arguments]) == 0
    assert np.load(out, mmap_mode="r").shape == (0,)
    assert json.loads((tmp_path / "tokens.json").read_text())["tokens"] == 0
    assert main(["inspect", str(out), "--tokenizer", str(tokenizer)]) == 0


def test_inspect_tokenizer(
    corpus: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(tokenizer), "--on", str(corpus), "--longest", "3", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    loaded = Tokenizer.load(tokenizer)
    ids = loaded.encode(CORPUS)
    assert facts["vocab_size"] == facts["tokens"] == 400
    assert facts["special_tokens"] == {texts.SPECIAL: 399}
    assert (facts["pattern"], facts["sha256"]) == ("gpt2", loaded.fingerprint)
    sizes = sorted((len(token) for id, token in loaded.vocab.items() if id < 399), reverse=True)
    assert [token["bytes"] for token in facts["longest_tokens"]] == sizes[:3]
    size = len(CORPUS.encode())
    assert facts["on"]["bytes_per_token"] == pytest.approx(size / len(ids))
    assert main(["inspect", str(tokenizer), "--on", str(corpus)]) == 0
    printed = capsys.readouterr().out
    assert f"{size / len(ids):.3f} bytes/token" in printed
    assert "400 (143 merges, 1 special)" in printed


def test_inspect_measures_on_any_input(
    tmp_path: Path, corpus: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = Tokenizer.load(tokenizer)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(CORPUS.encode()))
    (tmp_path / "b.jsonl").write_text(json.dumps({"body": CORPUS}))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "c.txt").write_bytes(CORPUS.encode())
    for name in ("a.txt.gz", "b.jsonl", "folder"):
        on = ["--on", str(tmp_path / name), "--text-field", "body"]
        assert main(["inspect", str(tokenizer), *on, "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)["on"]
        # In records special tokens are plain text, as for tokenize.
        encode = loaded.encode_ordinary if name == "b.jsonl" else loaded.encode
        assert (facts["tokens"], facts["bytes"]) == (len(encode(CORPUS)), len(CORPUS.encode()))


def test_inspect_a_set_of_shards(
    tmp_path: Path, corpus: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, whole = tmp_path / "parts.npy", tmp_path / "tokens.npy"
    arguments = ["tokenize", str(corpus), "--tokenizer", str(tokenizer)]
    assert main([*arguments, "--out", str(whole)]) == 0
    assert main([*arguments, "--shard-tokens", "100", "--out", str(out)]) == 0
    capsys.readouterr()
    window = ["--tokenizer", str(tokenizer), "--at", "90", "--window", "250", "--json"]
    facts = []
    for path in (whole, out):
        assert main(["inspect", str(path), *window]) == 0
        facts.append(json.loads(capsys.readouterr().out) | {"path": None})
    assert facts[0] == facts[1]


def test_inspect_token_file(
    tmp_path: Path, corpus: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tokens.npy"
    main(["tokenize", str(corpus), "--tokenizer", str(tokenizer), "--out", str(out)])
    loaded, ids = Tokenizer.load(tokenizer), np.load(out)
    capsys.readouterr()
    window = ["--tokenizer", str(tokenizer), "--at", "50", "--window", "20"]
    assert main(["inspect", str(out), *window, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["tokens"], facts["dtype"]) == (len(ids), "uint16")
    assert (facts["largest_id"], facts["distinct_ids"]) == (ids.max(), len(np.unique(ids)))
    assert facts["window"] == {"start": 50, "tokens": 20, "text": loaded.decode(ids[50:70])}
    assert main(["inspect", str(out), *window]) == 0
    assert loaded.decode(ids[50:70]) in capsys.readouterr().out
    assert main(["inspect", str(out), "--tokenizer", str(tokenizer), "--at", "-3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["window"]["start"] == len(ids) - 3


def test_inspect_refuses_another_tokenizer(
    tmp_path: Path, corpus: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, other = tmp_path / "tokens.npy", tmp_path / "other"
    main(["tokenize", str(corpus), "--tokenizer", str(tokenizer), "--out", str(out)])
    main(["train-bpe", str(corpus), "--vocab-size", "300", "--out", str(other)])
    capsys.readouterr()
    assert main(["inspect", str(out), "--tokenizer", str(other)]) == 1
    assert "was made with another tokenizer than" in capsys.readouterr().err
    (tmp_path / "tokens.json").unlink()  # without the sidecar the ids still tell
    assert main(["inspect", str(out), "--tokenizer", str(other)]) == 1
    assert "outside a vocabulary of 300" in capsys.readouterr().err


def damaged(path: Path) -> Path:
    """The same token file, cut short."""
    path.with_name("cut.npy").write_bytes(path.read_bytes()[:-10])
    return path.with_name("cut.npy")


def test_failures_are_one_line(
    tmp_path: Path, corpus: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "tokens.npy")
    main(["tokenize", str(corpus), "--tokenizer", str(tokenizer), "--out", out])
    (tmp_path / "empty.txt").touch()
    np.save(tmp_path / "floats.npy", np.ones(3))
    capsys.readouterr()
    missing, empty, to = str(tmp_path / "missing"), str(tmp_path / "empty.txt"), ["--out", out]
    train = ["--vocab-size", "300", "--out", str(tmp_path / "new")]
    folder = tmp_path / "folder"
    folder.mkdir()
    for arguments, status, message in [
        (["train-bpe", missing, *train], 1, f"{missing}: No such file or directory"),
        (["train-bpe", empty, *train], 1, f"{empty}: no text to train on"),
        (["train-bpe", str(folder), *train], 2, f"{folder}: is a directory without .txt"),
        (["train-bpe", str(corpus), "--vocab-size", "99", "--out", missing], 2, "256"),
        (["train-bpe", str(corpus), *train, "--pattern", "("], 2, "("),
        (["tokenize", str(corpus), "--tokenizer", str(tokenizer), "--pattern", "(", *to], 2, "("),
        (["tokenize", str(folder), "--tokenizer", str(tokenizer), *to], 2, f"{folder}: is a"),
        (["tokenize", missing, "--tokenizer", str(tokenizer), *to], 1, missing),
        (["tokenize", str(corpus), "--tokenizer", missing, *to], 1, missing),
        (["tokenize", str(corpus), "--tokenizer", str(corpus), *to], 1, "corpus.txt"),
        (["inspect", missing], 1, f"{missing}: No such file or directory"),
        (["inspect", missing + ".npy"], 1, f"{missing}.npy: No such file or directory"),
        (["inspect", str(tmp_path / "floats.npy")], 1, "floats.npy holds float64"),
        (["inspect", str(damaged(Path(out)))], 1, "cut.npy is not a complete .npy file"),
        (["inspect", str(tokenizer), "--on", missing], 1, missing),
        (["inspect", out, "--tokenizer", str(tokenizer), "--at", "9999999"], 1, "--at 9999999"),
    ]:
        assert main(arguments) == status, arguments
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("cs336lm: ")
        assert printed.err.count("\n") == 1
        assert message in printed.err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["train-bpe"],
        ["train-bpe", "corpus.txt", "--vocab-size", "many", "--out", "x"],
        ["train-bpe", "corpus.txt", "--vocab-size", "300", "--threads", "0", "--out", "x"],
        ["train-bpe", "corpus.txt", "--vocab-size", "300", "--max-memory", "5x", "--out", "x"],
        ["tokenize", "corpus.txt", "--out", "x.npy"],
        ["tokenize", "corpus.txt", "--tokenizer", "t", "--out", "x.txt"],
        ["inspect", "x.npy", "--on", "corpus.txt"],
        ["inspect", "tokenizer/", "--tokenizer", "tokenizer/"],
    ],
)
def test_asked_wrongly_is_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert f"cs336lm {arguments[0]}: error: " in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train-bpe", "tokenize", "inspect"])
def test_help_shows_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"  cs336lm {command} " in capsys.readouterr().out


def test_help_is_as_wide_as_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def width_of_help(columns: str) -> int:
        monkeypatch.setenv("COLUMNS", columns)
        with pytest.raises(SystemExit):
            main(["tokenize", "--help"])
        usage = capsys.readouterr().out.partition("\n\n")[0]
        return max(map(len, usage.splitlines()))

    assert [60 < width_of_help(columns) <= 78 for columns in ("80", "0", "wide")] == [True] * 3
    assert 100 < width_of_help("140") <= 138


def test_nothing_heavy_is_imported(tmp_path: Path, corpus: Path, tokenizer: Path) -> None:
    """``tokenize`` is back at once because neither PyTorch nor NumPy nor rich is on its way.

    Nor are the modules of Python that take a millisecond or more each.
    """
    script = """
import sys
from cs336lm.cli.main import main
status = main(sys.argv[1:])
heavy = {"torch", "numpy", "rich", "matplotlib"} & set(sys.modules)
heavy |= {"dataclasses", "hashlib", "json", "pathlib", "shutil"} & set(sys.modules)
sys.exit(status or ", ".join(heavy) or 0)
"""
    arguments = ["--tokenizer", str(tokenizer), "--out", str(tmp_path / "tokens.npy")]
    command = [sys.executable, "-c", script, "tokenize", str(corpus), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
