"""Encoding equals three others that were given the same merges, and loses nothing."""

import array
import pickle
import random
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from multiprocessing import get_context

import numpy as np
import pytest
import reference_bpe
import texts
import tiktoken
import tokenizers
import torch
from cs336lm import Tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

PATTERNS = list(reference_bpe.PATTERNS)


@cache
def trained(pattern: str) -> Tokenizer:
    """Trained by the reference on texts of every kind: its merges reach into all of them."""
    text = texts.MULTILINGUAL + texts.CODE + texts.EMOJI + texts.OVERLAPS + texts.SPACES[:900]
    data = (text + texts.SPECIAL).encode() + texts.NO_UTF8
    vocab, merges = reference_bpe.train(data, 256 + 1 + 350, [texts.SPECIAL], pattern)
    return Tokenizer(vocab, merges, [texts.SPECIAL], pattern=pattern)


@cache
def in_tiktoken(pattern: str) -> tiktoken.Encoding:
    vocab = trained(pattern).vocab
    special = {texts.SPECIAL: max(vocab)}
    ranks = {token: id for id, token in vocab.items() if id not in special.values()}
    return tiktoken.Encoding(
        pattern,
        pat_str=reference_bpe.PATTERNS[pattern],
        mergeable_ranks=ranks,
        special_tokens=special,
    )


def reference(pattern: str, data: bytes) -> list[int]:
    tokenizer = trained(pattern)
    return reference_bpe.encode(data, tokenizer.vocab, tokenizer.merges, [texts.SPECIAL], pattern)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", texts.ANY)
def test_equals_the_reference(name: str, pattern: str) -> None:
    tokenizer = trained(pattern)
    ids = tokenizer.encode(texts.ANY[name])
    assert ids == reference(pattern, texts.ANY[name])
    as_array = tokenizer.encode_array(texts.ANY[name])
    assert as_array.dtype == np.uint32
    assert as_array.tolist() == ids
    assert tokenizer.decode_bytes(ids) == texts.ANY[name]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", texts.VALID)
def test_equals_tiktoken(name: str, pattern: str) -> None:
    text, tokenizer, other = texts.VALID[name], trained(pattern), in_tiktoken(pattern)
    assert tokenizer.encode(text) == other.encode(text, allowed_special="all")
    assert tokenizer.encode_ordinary(text) == other.encode_ordinary(text)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_equals_tokenizers(pattern: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The file that is written, opened by Hugging Face's library, gives the same ids."""
    directory = tmp_path_factory.mktemp("saved")
    trained(pattern).save(directory)
    other = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    for text in texts.VALID.values():
        ids = other.encode(text, add_special_tokens=False).ids
        assert trained(pattern).encode(text) == ids
        assert other.decode(ids, skip_special_tokens=False) == text


@settings(max_examples=300, deadline=None)
@given(text=texts.text, pattern=st.sampled_from(PATTERNS))
def test_any_text_equals_tiktoken(text: str, pattern: str) -> None:
    tokenizer, other = trained(pattern), in_tiktoken(pattern)
    assert tokenizer.encode(text) == other.encode(text, allowed_special="all")
    assert tokenizer.encode_ordinary(text) == other.encode_ordinary(text)


@settings(max_examples=300, deadline=None)
@given(data=texts.any_bytes, pattern=st.sampled_from(PATTERNS))
def test_any_bytes_equal_the_reference(data: bytes, pattern: str) -> None:
    tokenizer = trained(pattern)
    ids = tokenizer.encode(data)
    assert ids == reference(pattern, data)
    assert tokenizer.decode_bytes(ids) == data
    assert tokenizer.decode(ids) == data.decode("utf-8", "replace")


@settings(max_examples=300, deadline=None)
@given(data=texts.any_bytes, cuts=st.lists(st.integers(0, 300)), pattern=st.sampled_from(PATTERNS))
def test_any_cut_of_a_stream(data: bytes, cuts: list[int], pattern: str) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in pairwise(edges)]
    assert list(trained(pattern).encode_iterable(pieces)) == trained(pattern).encode(data)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_stream_of_characters_lines_and_a_long_piece(pattern: str) -> None:
    tokenizer, text = trained(pattern), texts.ANY["all of them"].decode("utf-8", "replace")
    expected = tokenizer.encode(text)
    assert list(tokenizer.encode_iterable(text)) == expected
    assert list(tokenizer.encode_iterable(text.splitlines(keepends=True))) == expected
    long = text * (2_500_000 // len(text))  # several times what is encoded at once
    assert list(tokenizer.encode_iterable([long])) == tokenizer.encode(long)


def test_a_stream_is_lazy() -> None:
    """Ids come before the input ends, and an endless input is no obstacle."""

    def endless() -> Iterator[str]:
        while True:
            yield "some words and "

    stream = trained("gpt2").encode_iterable(endless())
    ids = [next(stream) for _ in range(1000)]
    whole = trained("gpt2").encode("some words and " * 1000)
    assert ids == whole[:1000]


def test_batch_equals_one_by_one() -> None:
    tokenizer = trained("gpt2")
    batch = [*texts.ANY.values(), *texts.VALID.values()] * 3
    # As much as several threads share.
    batch += [text * (1 + 100_000 // len(text)) for text in (texts.MULTILINGUAL, texts.CODE)] * 3
    expected = [tokenizer.encode(text) for text in batch]
    for threads in (None, 1, 2, 7):
        arrays = tokenizer.encode_batch(batch, threads=threads)
        assert [array.dtype for array in arrays] == [np.uint32] * len(batch)
        assert [array.tolist() for array in arrays] == expected
    assert tokenizer.encode_batch([]) == []


def test_decodes_whatever_holds_integers() -> None:
    tokenizer = trained("gpt2")
    ids = tokenizer.encode(texts.MULTILINGUAL)
    strided = np.repeat(np.array(ids, dtype=np.uint16), 2)[::2]
    for held in (
        tuple(ids),
        iter(ids),
        array.array("l", ids),
        strided,
        *(np.array(ids, dtype=kind) for kind in ("u2", "u4", "i4", "i8", "u8", ">i4")),
        list(np.array(ids)),
        torch.tensor(ids),
        torch.tensor(ids, dtype=torch.int32),
    ):
        assert tokenizer.decode(held) == texts.MULTILINGUAL
        held = iter(ids) if isinstance(held, Iterator) else held
        assert tokenizer.decode_bytes(held) == texts.MULTILINGUAL.encode()
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("length", [4095, 4096, 4097, 8192, 10_000])
def test_decodes_lists_of_several_blocks(length: int) -> None:
    """Lists are read 4,096 ids at a time; tokens of all lengths, and mistakes counted from 0."""
    tokenizer = trained("gpt2")
    vocab = tokenizer.vocab
    ids = (list(vocab) * (length // len(vocab) + 1))[:length]
    expected = b"".join(vocab[id] for id in ids)
    assert tokenizer.decode_bytes(ids) == expected
    assert tokenizer.decode(ids) == expected.decode(errors="replace")
    with pytest.raises(ValueError, match=f"99999 .number {length} of {length + 1}"):
        tokenizer.decode([*ids, 99999])
    with pytest.raises(TypeError):
        tokenizer.decode([*ids, "a"])  # type: ignore[list-item]


def test_decode_replaces_cut_characters() -> None:
    tokenizer = trained("gpt2")
    assert tokenizer.decode(list("a€b".encode())) == "a€b"
    assert tokenizer.decode([*b"a\xe2\x82", *b"b\xff"]) == "a\ufffdb\ufffd"
    assert tokenizer.decode_bytes([*b"a\xe2\x82"]) == b"a\xe2\x82"


@pytest.mark.parametrize("ids", [[607], [-1], [2**32], [2**70], np.array([1, -5]), np.array([607])])
def test_decode_refuses_unknown_ids_by_name(ids: list[int]) -> None:
    with pytest.raises(ValueError, match=str(ids[-1])):
        trained("gpt2").decode(ids)


@pytest.mark.parametrize(("wrong", "error"), [(99999, ValueError), ("a", TypeError)])
def test_decode_refuses_what_an_iterator_holds(wrong: object, error: type[Exception]) -> None:
    """It can be read only once: a second look would find it empty, and nothing wrong with it."""
    for ids in (iter([1, wrong]), (id for id in [1, wrong])):
        with pytest.raises(error):
            trained("gpt2").decode(ids)  # type: ignore[arg-type]


@pytest.mark.parametrize("ids", ["text", [1.5], [[1]], np.ones((2, 2), int), torch.ones(2, 2), 7])
def test_decode_refuses_what_holds_no_ids(ids: object) -> None:
    with pytest.raises(TypeError):
        trained("gpt2").decode(ids)  # type: ignore[arg-type]


def test_refuses_what_is_no_text() -> None:
    tokenizer = trained("gpt2")
    with pytest.raises(ValueError, match="lone surrogate at character 2"):
        tokenizer.encode("ab\ud800c")
    with pytest.raises(ValueError, match="lone surrogate"):
        list(tokenizer.encode_iterable(["ab", "\udfff"]))
    with pytest.raises(ValueError, match="lone surrogate"):
        tokenizer.encode_batch(["ab", "\udfff"])
    with pytest.raises(TypeError, match="int"):
        tokenizer.encode(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="batch"):
        tokenizer.encode_batch("a text is no batch of texts")


def test_longest_special_token_wins() -> None:
    specials = ["<a>", "<a><b>", "<b>", "<a><b><c"]
    tokenizer = Tokenizer({id: bytes([id]) for id in range(256)}, [], specials)
    assert tokenizer.special_tokens == specials
    assert tokenizer.encode("<a><b><a><b><c><a>") == [257, 259, ord(">"), 256]
    assert tokenizer.decode([257, 259]) == "<a><b><a><b><c"
    assert tokenizer.encode_ordinary("<a>") == list(b"<a>")


def test_vocabulary_with_gaps_in_any_order() -> None:
    """Ids are the files' own: here bytes count downwards, the merge comes first."""
    vocab = {0: b"ab", **{1000 - byte: bytes([byte]) for byte in range(256)}, 5000: b"<s>"}
    tokenizer = Tokenizer(vocab, [(b"a", b"b")], ["<s>", "<t>"])
    assert tokenizer.encode("abc<s><t>") == [0, 1000 - ord("c"), 5000, 5001]
    assert tokenizer.vocab == {**vocab, 5001: b"<t>"}
    assert tokenizer.vocab_size == len(tokenizer) == 5002
    assert tokenizer.token_to_id("ab") == tokenizer.token_to_id(b"ab") == 0
    assert tokenizer.token_to_id("<t>") == 5001
    assert tokenizer.token_to_id("abc") is None


@pytest.mark.parametrize(
    ("change", "merges", "specials", "message"),
    [
        ({65: None}, [], [], "A|65|41"),
        ({256: b"A"}, [], [], "A|65|41"),
        ({}, [(b"a", b"b")], [], "ab"),
        ({256: b"xab"}, [(b"x", b"ab")], [], "ab"),
        ({-1: b"xy"}, [], [], "-1"),
        ({}, [], ["<a>", "<a>"], "<a>"),
        ({}, [], [""], "empty"),
    ],
)
def test_refuses_vocabularies_that_make_no_sense(
    change: dict[int, bytes | None],
    merges: list[tuple[bytes, bytes]],
    specials: list[str],
    message: str,
) -> None:
    changed = {id: bytes([id]) for id in range(256)} | change
    vocab = {id: token for id, token in changed.items() if token is not None}
    with pytest.raises(ValueError, match=message) as caught:
        Tokenizer(vocab, merges, specials)
    assert "\n" not in str(caught.value)


def test_refuses_a_broken_pattern() -> None:
    with pytest.raises(ValueError, match=r"\(unclosed"):
        Tokenizer({id: bytes([id]) for id in range(256)}, [], pattern="(unclosed")


def test_content_decides_equality() -> None:
    tokenizer = trained("gpt2")
    twin = Tokenizer(tokenizer.vocab, tokenizer.merges, [texts.SPECIAL])
    assert twin == tokenizer
    assert hash(twin) == hash(tokenizer)
    assert len(tokenizer.fingerprint) == 64
    others = [
        Tokenizer(tokenizer.vocab, tokenizer.merges, [texts.SPECIAL], pattern="gpt4"),
        Tokenizer(tokenizer.vocab, tokenizer.merges),
        Tokenizer(tokenizer.vocab, tokenizer.merges[:-1], [texts.SPECIAL]),
        Tokenizer(tokenizer.vocab, tokenizer.merges, [texts.SPECIAL, "<x>"]),
    ]
    assert len({tokenizer, twin, *others}) == 5
    assert tokenizer != "a string"
    assert repr(tokenizer) == (
        "Tokenizer(vocab_size=607, special_tokens=['<|endoftext|>'], pattern='gpt2')"
    )


def test_pickles_into_other_processes() -> None:
    tokenizer = trained("gpt4")
    assert pickle.loads(pickle.dumps(tokenizer)) == tokenizer
    with get_context("spawn").Pool(1) as pool:
        assert pool.map(tokenizer.encode, [texts.CODE]) == [tokenizer.encode(texts.CODE)]


def test_long_words_take_no_quadratic_time() -> None:
    """At a few hundred nanoseconds a byte this is nothing; quadratic, it would take hours."""
    tokenizer, shuffle = trained("gpt2"), random.Random(1)
    for alphabet in ("a", "ab", "你", " ", "\U0001f9ff"):
        text = "".join(shuffle.choices(alphabet, k=1_000_000))
        assert tokenizer.decode(tokenizer.encode(text)) == text
