"""Tokenizer files: what is saved is loaded again, here and by others; what is broken is refused."""

import base64
import json
import shutil
from pathlib import Path

import pytest
import reference_bpe
import texts
import tokenizers
from cs336lm import Tokenizer
from tokenizers import models

TEXT = texts.MULTILINGUAL + texts.CODE + texts.EMOJI + texts.SPECIAL + texts.SPACES


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    vocab, merges = reference_bpe.train(TEXT.encode(), 450, [texts.SPECIAL])
    return Tokenizer(vocab, merges, [texts.SPECIAL])


@pytest.fixture
def saved(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    tokenizer.save(tmp_path / "deep" / "tokenizer")
    return tmp_path / "deep" / "tokenizer"


def test_every_way_to_load_what_was_saved(saved: Path, tokenizer: Tokenizer) -> None:
    names = [
        "checksums.json",
        "merges.txt",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    ]
    assert sorted(path.name for path in saved.iterdir()) == names
    assert Tokenizer.load(saved) == tokenizer
    assert Tokenizer.load(str(saved / "tokenizer.json")) == tokenizer
    # The special token is the one that no merge makes; to name it changes nothing.
    vocab, merges = saved / "vocab.json", saved / "merges.txt"
    for special in ([], [texts.SPECIAL]):
        assert Tokenizer.load(vocab, special) == tokenizer
        assert Tokenizer.load(merges, special) == tokenizer
        assert Tokenizer.from_files(vocab, str(merges), special) == tokenizer
    (saved / "tokenizer.json").unlink()
    assert Tokenizer.load(saved) == tokenizer


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4", "gpt4o", r"\w+|\W"])
def test_tokenizer_json_keeps_the_pattern(
    tmp_path: Path, tokenizer: Tokenizer, pattern: str
) -> None:
    other = Tokenizer(tokenizer.vocab, tokenizer.merges, [texts.SPECIAL, "<x>"], pattern=pattern)
    other.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded == other
    assert (loaded.pattern, loaded.special_tokens) == (pattern, [texts.SPECIAL, "<x>"])
    assert loaded.encode(TEXT) == other.encode(TEXT)
    assert Tokenizer.load(tmp_path, pattern="gpt2").pattern == "gpt2"


def test_files_are_those_of_hugging_face(saved: Path, tokenizer: Tokenizer) -> None:
    theirs = tokenizers.Tokenizer.from_file(str(saved / "tokenizer.json"))
    assert theirs.get_vocab_size() == tokenizer.vocab_size
    assert theirs.encode(TEXT).ids == tokenizer.encode(TEXT)
    pair = models.BPE.from_file(str(saved / "vocab.json"), str(saved / "merges.txt"))
    theirs.model = pair
    assert theirs.encode(TEXT).ids == tokenizer.encode(TEXT)


def test_loads_what_hugging_face_saves(tmp_path: Path) -> None:
    """Trained and saved by their library, with their ids, opened here."""
    theirs = tokenizers.ByteLevelBPETokenizer()
    theirs.train_from_iterator(
        [TEXT], vocab_size=500, min_frequency=1, special_tokens=["<s>", "<pad>"]
    )
    theirs.save(str(tmp_path / "tokenizer.json"))
    theirs.save_model(str(tmp_path))  # vocab.json and merges.txt
    text = "<s>" + TEXT + "<pad><s> <pad>"
    ours = Tokenizer.load(tmp_path)
    assert ours.special_tokens == ["<s>", "<pad>"]
    assert ours.token_to_id("<pad>") == theirs.token_to_id("<pad>") == 1
    assert ours.encode(text) == theirs.encode(text).ids
    pair = Tokenizer.from_files(tmp_path / "vocab.json", tmp_path / "merges.txt", ["<s>", "<pad>"])
    assert pair.encode(text) == theirs.encode(text).ids


def test_merges_with_and_without_version_line(saved: Path, tokenizer: Tokenizer) -> None:
    merges = saved / "merges.txt"
    lines = merges.read_text(encoding="utf-8").splitlines()
    lines = lines[1:] if lines[0].startswith("#version") else lines
    assert len(lines) == len(tokenizer.merges)
    for head in ([], ["#version: 0.2"]):
        for end in ("\n", ""):
            merges.write_text("\n".join([*head, *lines]) + end, encoding="utf-8")
            loaded = Tokenizer.from_files(saved / "vocab.json", merges, [texts.SPECIAL])
            assert loaded == tokenizer


def test_tiktoken_file(tmp_path: Path, tokenizer: Tokenizer) -> None:
    ordinary = {id: token for id, token in tokenizer.vocab.items() if id < 449}
    lines = [f"{base64.b64encode(token).decode()} {id}" for id, token in ordinary.items()]
    (tmp_path / "ranks.tiktoken").write_text("\n".join(lines) + "\n")
    loaded = Tokenizer.load(tmp_path / "ranks.tiktoken", [texts.SPECIAL], pattern="gpt2")
    assert loaded == tokenizer
    assert loaded.encode(TEXT) == tokenizer.encode(TEXT)


def test_special_tokens_beside_those_of_the_file(saved: Path, tokenizer: Tokenizer) -> None:
    loaded = Tokenizer.load(saved, [texts.SPECIAL, "<pad>"])
    assert loaded.special_tokens == [texts.SPECIAL, "<pad>"]
    assert loaded.token_to_id("<pad>") == tokenizer.vocab_size


def without_byte(saved: Path) -> None:
    vocab = json.loads((saved / "vocab.json").read_text(encoding="utf-8"))
    del vocab["A"]
    (saved / "vocab.json").write_text(json.dumps(vocab))


def edited(name: str, old: str, new: str) -> object:
    def edit(saved: Path) -> None:
        path = saved / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return edit


@pytest.mark.parametrize(
    ("break_it", "load", "message"),
    [
        (lambda saved: (saved / "vocab.json").write_text("{"), "vocab.json", "vocab.json"),
        (lambda saved: (saved / "vocab.json").write_text("[]"), "vocab.json", "vocab.json"),
        (lambda saved: (saved / "tokenizer.json").write_text("{}"), "", "tokenizer.json"),
        (lambda saved: (saved / "tokenizer.json").write_bytes(b"\xff"), "", "tokenizer.json"),
        (edited("tokenizer.json", '"BPE"', '"Unigram"'), "", "Unigram"),
        (edited("vocab.json", '"A"', '"AAAA A"'), "vocab.json", "0x41"),
        (edited("vocab.json", ": 0,", ": -1,"), "vocab.json", "-1"),
        (without_byte, "vocab.json", "0x41"),
        (
            lambda saved: (saved / "merges.txt").write_text("#version: 0.2\nab\n"),
            "merges.txt",
            "line 2",
        ),
        (lambda saved: (saved / "x.tiktoken").write_text("!!! 0\n"), "x.tiktoken", "x.tiktoken"),
        (lambda saved: (saved / "x.tiktoken").write_text("QQ==\n"), "x.tiktoken", "x.tiktoken"),
        (lambda saved: (saved / "x.bin").write_text(""), "x.bin", "x.bin"),
    ],
)
def test_refuses_broken_files_by_name(saved: Path, break_it, load: str, message: str) -> None:
    (saved / "checksums.json").unlink()  # which would refuse some of them before they are read
    break_it(saved)
    with pytest.raises(ValueError, match=message) as caught:
        Tokenizer.load(saved / load)
    assert "\n" not in str(caught.value)


def test_refuses_what_is_not_there(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        Tokenizer.load(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises((ValueError, OSError), match=r"empty.*tokenizer\.json"):
        Tokenizer.load(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="missing"):
        Tokenizer.from_files(tmp_path / "missing", saved / "merges.txt")
    (saved / "merges.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"merges\.txt"):
        Tokenizer.load(saved / "vocab.json")


def test_save_replaces_and_reports(saved: Path, tokenizer: Tokenizer) -> None:
    other = Tokenizer(tokenizer.vocab, tokenizer.merges, [texts.SPECIAL], pattern="gpt4")
    other.save(saved)
    assert Tokenizer.load(saved) == other
    shutil.rmtree(saved)
    saved.write_text("a file where the directory should be")
    with pytest.raises(OSError, match="tokenizer"):
        other.save(saved)
