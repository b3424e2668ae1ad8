"""Training equals the obvious trainer of ``reference_bpe``, whatever the text and the threads."""

from pathlib import Path

import pytest
import reference_bpe
import texts
from cs336lm import Tokenizer, train_bpe
from cs336lm.errors import UsageError
from hypothesis import given, settings
from hypothesis import strategies as st

# For small texts, "all merges that there are" is what is asked for most often here.
pytestmark = pytest.mark.filterwarnings("ignore:the text holds no more pairs")

SPECIALS = {
    "none": [],
    "one": [texts.SPECIAL],
    "overlapping": ["<|end|>", texts.SPECIAL, "<|endoftext|><|endoftext|>", "the", "  "],
}


def written(directory: Path, *contents: bytes) -> list[Path]:
    paths = [directory / f"{index}.txt" for index in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


@pytest.mark.parametrize("specials", SPECIALS.values(), ids=SPECIALS.keys())
@pytest.mark.parametrize("name", [name for name in texts.ANY if name != "empty"])
def test_equals_the_reference(tmp_path: Path, name: str, specials: list[str]) -> None:
    [path] = written(tmp_path, texts.ANY[name])
    size = 256 + len(specials) + 60
    expected = reference_bpe.train(texts.ANY[name], size, specials)
    for threads in (1, 2, 7):
        assert train_bpe(path, size, specials, threads=threads) == expected


@pytest.mark.parametrize("pattern", ["gpt4", "gpt4o", r"\w+|\s+", r"[^\n]+"])
def test_equals_the_reference_with_other_patterns(tmp_path: Path, pattern: str) -> None:
    text = (texts.MULTILINGUAL + texts.CODE + texts.EMOJI).encode()
    [path] = written(tmp_path, text)
    expected = reference_bpe.train(text, 330, [texts.SPECIAL], pattern)
    assert train_bpe(path, 330, [texts.SPECIAL], pattern=pattern) == expected


@settings(max_examples=150, deadline=None)
@given(
    documents=st.lists(
        st.text("ab ", max_size=40).map(str.encode)
        | st.lists(st.sampled_from([b"aa", b"ab", b"\xff", b"\xc3\xa9", b"<s>", b" ", b"\n"])).map(
            b"".join
        ),
        min_size=1,
        max_size=3,
    ).map(lambda documents: [b"a", *documents]),
    merges=st.integers(0, 30),
    threads=st.sampled_from([1, 2, 7]),
)
def test_equals_the_reference_on_ties(
    tmp_path_factory: pytest.TempPathFactory, documents: list[bytes], merges: int, threads: int
) -> None:
    paths = written(tmp_path_factory.mktemp("ties"), *documents)
    expected = reference_bpe.train(documents, 257 + merges, ["<s>"])
    assert train_bpe(paths, 257 + merges, ["<s>"], threads=threads) == expected


def test_text_of_many_chunks_equals_a_copy_of_it(tmp_path: Path) -> None:
    """n copies of a text have n times its counts, hence its merges: so chunks lose nothing."""
    text = texts.ANY["all of them"] + f"\n{texts.SPECIAL}".encode()
    [path] = written(tmp_path, text * (24_000_000 // len(text)))
    expected = reference_bpe.train(text, 300, [texts.SPECIAL])
    for threads in (1, 2, 7):
        assert train_bpe(path, 300, [texts.SPECIAL], threads=threads) == expected


def test_files_end_documents(tmp_path: Path) -> None:
    """Between two files there is no pretoken, and an empty one changes nothing."""
    paths = written(tmp_path, b"aaa", b"", b"aaa", b"b")
    expected = reference_bpe.train([b"aaa", b"", b"aaa", b"b"], 300)
    assert train_bpe(paths, 300) == expected
    assert expected != reference_bpe.train(b"aaaaaab", 300)


def test_paths_may_be_strings_and_one_or_several(tmp_path: Path) -> None:
    [path] = written(tmp_path, texts.CODE.encode())
    expected = train_bpe(path, 300)
    assert train_bpe(str(path), 300) == train_bpe((str(path),), 300) == expected


def test_ids_are_bytes_then_merges_then_special_tokens(tmp_path: Path) -> None:
    [path] = written(tmp_path, b"low low lower<pad>low")
    vocab, merges = train_bpe(path, 261, ["<s>", "<pad>"])
    assert merges == [(b"o", b"w"), (b"l", b"ow"), (b" ", b"low")]
    assert [vocab[id] for id in range(256)] == [bytes([byte]) for byte in range(256)]
    assert [vocab[id] for id in range(256, 261)] == [b"ow", b"low", b" low", b"<s>", b"<pad>"]


def test_says_when_the_text_holds_fewer_merges(tmp_path: Path) -> None:
    [path] = written(tmp_path, b"abc abc")
    with pytest.warns(UserWarning, match="vocab_size is 260, not 1000"):
        vocab, merges = train_bpe(path, 1000, [texts.SPECIAL])
    assert len(merges) == 3
    assert vocab[259] == texts.SPECIAL.encode()


def test_progress_counts_bytes_then_merges(tmp_path: Path) -> None:
    [path] = written(tmp_path, texts.ANY["all of them"] * 50)
    seen: list[tuple[str, int, int]] = []
    train_bpe(path, 400, progress=lambda *report: seen.append(report))
    assert {phase for phase, _, _ in seen} <= {"counting", "merging"}
    assert all(0 <= done <= total for _, done, total in seen)
    assert seen[-1] == ("merging", 144, 144)


def test_what_the_progress_callback_raises_stops_training(tmp_path: Path) -> None:
    [path] = written(tmp_path, b"abc")

    def refuse(phase: str, done: int, total: int) -> None:
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        train_bpe(path, 300, progress=refuse)


@pytest.mark.parametrize(
    ("vocab_size", "specials", "pattern", "message"),
    [
        (300, ["<a>", "<a>"], "gpt2", "'?<a>'?"),
        (300, [""], "gpt2", "empty"),
        (300, ["a"], "gpt2", '"a".*single byte'),
        (300, [], "(unclosed", "unclosed"),
        (300, ["\ud800"], "gpt2", "surrogate"),
    ],
)
def test_refuses_by_name(
    tmp_path: Path, vocab_size: int, specials: list[str], pattern: str, message: str
) -> None:
    [path] = written(tmp_path, b"some text")
    with pytest.raises(ValueError, match=message) as caught:
        train_bpe(path, vocab_size, specials, pattern=pattern)
    assert "\n" not in str(caught.value)


def test_refuses_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        train_bpe(tmp_path / "missing.txt", 300)
    assert missing.value.filename == str(tmp_path / "missing.txt")
    with pytest.raises(ValueError, match="is a directory"):
        train_bpe(tmp_path, 300)
    with pytest.raises(ValueError, match="no text to train on"):
        train_bpe(written(tmp_path, b"", b""), 300)
    with pytest.raises(ValueError, match="no file"):
        train_bpe([], 300)
    with pytest.raises(TypeError, match="list of strings"):
        train_bpe(tmp_path / "missing.txt", 300, texts.SPECIAL)


def test_vocab_size_too_small_is_asked_wrongly(tmp_path: Path) -> None:
    [path] = written(tmp_path, b"some text")
    with pytest.raises(UsageError, match=r"vocab_size 255 .* 256"):
        train_bpe(path, 255)
    with pytest.raises(UsageError, match=r"vocab_size 257 .* 258"):
        train_bpe(path, 257, ["<a>", "<b>"])


def test_a_trained_tokenizer_is_what_train_bpe_returns(tmp_path: Path) -> None:
    [path] = written(tmp_path, texts.MULTILINGUAL.encode())
    tokenizer = Tokenizer.train(path, 400, [texts.SPECIAL])
    assert (tokenizer.vocab, tokenizer.merges) == train_bpe(path, 400, [texts.SPECIAL])
    assert tokenizer == Tokenizer(tokenizer.vocab, tokenizer.merges, [texts.SPECIAL])
