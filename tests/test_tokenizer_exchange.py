"""Tokenizers as live objects and as files of tiktoken and Hugging Face, there and back."""

import base64
import subprocess
import sys
import warnings

import pytest
import texts
import tiktoken
import tokenizers
import transformers
from cs336lm import Tokenizer, _bpe
from cs336lm.cli.main import main
from cs336lm.cli.options import PATTERN_NAMES
from exchanged import END, MERGES, make_tokenizer, one_line
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken.load import load_tiktoken_bpe

HARD = texts.MULTILINGUAL + texts.CODE + texts.EMOJI + texts.SPACES + texts.OVERLAPS
PATTERNS = [
    "gpt2",
    "gpt4",
    "gpt4o",
    "llama3",
    "qwen2",
    "tekken",
    "starcoder",
    r"\p{L}+|[^\p{L}\s]",
    r"\w+(?=\s)|\d|\s",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, Tokenizer]:
    """A tokenizer for each pattern: a real vocabulary, with overlapping special tokens."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(HARD)
    return {
        pattern: Tokenizer.train(path, 600, [END, "<|pad|>"], pattern=pattern)
        for pattern in PATTERNS
    }


def with_pattern(ours: Tokenizer, pattern: str) -> Tokenizer:
    special = {token: ours.token_to_id(token) for token in ours.special_tokens}
    return Tokenizer(ours.vocab, ours.merges, special, pattern=pattern)


def through_files(tokenizer: Tokenizer, format: str, folder) -> Tokenizer:
    """Written by the command in ``format``, opened again with what that leaves open."""
    tokenizer.save(folder / "tokenizer")
    out = folder / ("t.tiktoken" if format == "tiktoken" else "t")
    arguments = [str(folder / "tokenizer"), "--format", format, "--out", str(out)]
    assert main(["export-tokenizer", *arguments]) == 0
    special = {token: tokenizer.token_to_id(token) for token in tokenizer.special_tokens}
    said = {} if format == "hf" else {"special_tokens": special, "pattern": tokenizer.pattern}
    return Tokenizer.load(out, **said)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_trip_gives_the_tokenizer_back(trained, pattern, tmp_path):
    ours = trained[pattern]
    assert Tokenizer.from_tiktoken(ours.to_tiktoken()) == ours
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=ours.to_hf())
    for back in (Tokenizer.from_hf(ours.to_hf()), Tokenizer.from_hf(fast)):
        # Their object holds the pattern as their engine reads it.
        assert back == (ours if pattern != PATTERNS[-1] else with_pattern(ours, back.pattern))
    for format in ("hf", "gpt2", "tiktoken"):
        (tmp_path / format).mkdir()
        back = through_files(ours, format, tmp_path / format)
        assert back == ours
        assert back.special_tokens == ours.special_tokens


@pytest.fixture(scope="module")
def peers(trained):
    """All that should agree with each tokenizer, and what asks it for ids."""

    def asked(ours):
        encoding, theirs = ours.to_tiktoken(), ours.to_hf()
        return [
            lambda text: encoding.encode(text, allowed_special="all"),
            lambda text: theirs.encode(text).ids,
            Tokenizer.from_hf(theirs).encode,
            Tokenizer.from_tiktoken(encoding).encode,
        ]

    return {pattern: asked(ours) for pattern, ours in trained.items()}


pieces = st.sampled_from([END, "<|pad|>", "<|", "'ſ", "'LL", "\r\n", " \n ", "1234", "é", "漢"])


@settings(deadline=None, max_examples=300)
@given(st.lists(st.text(st.characters(exclude_categories=("Cs",))) | pieces).map("".join))
def test_ours_tokenizers_and_tiktoken_agree(trained, peers, text):
    # Where versions of Unicode differ, so may libraries.
    text = "".join(c for c in text if c in HARD or ord(c) < 0x500)
    for pattern, ours in trained.items():
        expected = ours.encode(text)
        for ids in peers[pattern]:
            assert ids(text) == expected, pattern


@pytest.mark.parametrize("pattern", PATTERNS)
def test_they_agree_on_hard_texts(trained, peers, pattern):
    for text in (HARD, HARD[::-1], f"{END}a{END}{END} <|pad|>", ""):
        assert all(ids(text) == trained[pattern].encode(text) for ids in peers[pattern])


def test_star_coders_pre_tokenizer_is_a_known_pattern(trained):
    """Digits one by one, and GPT-2's pattern on what is between them."""
    theirs = trained["gpt2"].to_hf()
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = tokenizers.pre_tokenizers.Digits(individual_digits=True)
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"\p{N}"), "isolated")
    for first in (digits, split):
        theirs.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([first, byte_level])
        ours = Tokenizer.from_hf(theirs)
        assert ours.pattern == "starcoder"
        for text in (HARD, HARD[::-1], "a  1 2\u00b2  b'll3's \n 45\n6 "):
            assert ours.encode(text) == theirs.encode(text).ids == ours.to_hf().encode(text).ids


def test_the_help_names_the_known_patterns():
    assert [name for name, _ in _bpe.known_patterns()] == PATTERN_NAMES.split(", ")


def test_text_that_a_pattern_leaves_out_is_not_lost_in_tiktoken():
    tokenizer = make_tokenizer(pattern=r"\p{L}+")
    encoding = tokenizer.to_tiktoken()
    text = "the 12, cat  "
    assert encoding.encode(text) == tokenizer.encode(text)
    assert encoding.decode(encoding.encode(text)) == text
    assert Tokenizer.from_tiktoken(encoding).pattern == r"\p{L}+"


def test_published_encodings_keep_their_ids():
    ranks = {bytes([i]): i for i in range(256)} | {b"th": 256, b"the": 257, b" a": 300}
    encoding = tiktoken.Encoding(
        "like_cl100k",
        pat_str=tiktoken_pattern("cl100k_base"),
        mergeable_ranks=ranks,
        special_tokens={"<|fim|>": 500, END: 400},
    )
    ours = Tokenizer.from_tiktoken(encoding)
    assert ours.pattern == "gpt4"
    assert ours.special_tokens == [END, "<|fim|>"]
    text = f"the a{END} theatre<|fim|>"
    assert ours.encode(text) == encoding.encode(text, allowed_special="all")
    assert ours.to_tiktoken()._special_tokens == encoding._special_tokens


def tiktoken_pattern(name: str) -> str:
    """The pattern of one of tiktoken's own encodings, without the vocabulary that it downloads."""
    from tiktoken_ext import openai_public

    openai_public.load_tiktoken_bpe = lambda *_, **__: {}
    openai_public.data_gym_to_mergeable_bpe_ranks = lambda *_, **__: {}
    return openai_public.ENCODING_CONSTRUCTORS[name]()["pat_str"]


@pytest.mark.parametrize(
    ("name", "pattern"),
    [("gpt2", "gpt2"), ("r50k_base", "gpt2"), ("cl100k_base", "gpt4"), ("o200k_base", "gpt4o")],
)
def test_tiktoken_knows_our_patterns_by_its_own_spelling(name, pattern):
    ours = make_tokenizer(pattern=pattern).to_tiktoken()._pat_str
    assert ours == tiktoken_pattern(name)


def test_what_tiktoken_cannot_hold_is_refused(tmp_path, capsys):
    tokens = [bytes([i]) for i in range(256)] + [b"bc", b"ab", b"abc"]
    # The ids rise otherwise than the merges: tiktoken would merge "bc" first.
    twisted = Tokenizer(dict(enumerate(tokens)), [(b"a", b"b"), (b"b", b"c"), (b"ab", b"c")])
    with pytest.raises(ValueError, match="do not follow from its ids"):
        twisted.to_tiktoken()
    twisted.save(tmp_path / "t")
    out = tmp_path / "t.tiktoken"
    arguments = [str(tmp_path / "t"), "--format", "tiktoken", "--out", str(out)]
    assert main(["export-tokenizer", *arguments]) == 1
    assert "do not follow from its ids" in one_line(capsys)
    assert not out.exists()
    nested = make_tokenizer(special=("<|a|>", "<|a|><|b|>"))
    with pytest.raises(ValueError, match="cannot tell the special token"):
        nested.to_tiktoken()


def test_a_vocabulary_whose_words_are_taken_whole(tmp_path, capsys):
    """As tiktoken does, and tokenizers with ignore_merges; GPT-2's files cannot say it."""
    ranks = {bytes([i]): i for i in range(256)} | {b"abc": 256, b"ab": 257}
    encoding = tiktoken.Encoding("x", pat_str=r"\w+|\W", mergeable_ranks=ranks, special_tokens={})
    ours = Tokenizer.from_tiktoken(encoding)
    for text in ("abc", "abcd ab", "zabc"):
        expected = encoding.encode(text)
        assert ours.encode(text) == ours.to_hf().encode(text).ids == expected
        assert Tokenizer.from_hf(ours.to_hf()).encode(text) == expected
    ours.save(tmp_path / "t")
    arguments = [str(tmp_path / "t"), "--format", "gpt2", "--out", str(tmp_path / "g")]
    assert main(["export-tokenizer", *arguments]) == 1
    assert "taken whole" in one_line(capsys)
    assert not (tmp_path / "g").exists()


def test_a_tiktoken_file_is_read_by_tiktoken_and_the_note_says_the_rest(tmp_path, capsys):
    tokenizer = make_tokenizer(pattern="gpt4")
    tokenizer.save(tmp_path / "t")
    out = tmp_path / "new" / "t.tiktoken"
    arguments = [str(tmp_path / "t"), "--format", "tiktoken", "--out", str(out)]
    assert main(["export-tokenizer", *arguments]) == 0
    note = one_line(capsys)
    assert note.endswith("say --pattern gpt4 --special-token '<|endoftext|>=262'")
    ranks = load_tiktoken_bpe(str(out))
    assert ranks == {t: i for i, t in tokenizer.vocab.items() if t != END.encode()}
    lines = out.read_bytes().splitlines()
    assert [base64.b64decode(line.split()[0]) for line in lines[256:]] == [a + b for a, b in MERGES]


def test_a_folder_of_vocab_json_alone_is_settled(tmp_path, capsys):
    tokenizer = make_tokenizer(pattern="gpt4", special=(END, "<|x|>"))
    tokenizer.save(tmp_path / "t")
    arguments = [str(tmp_path / "t"), "--format", "gpt2", "--out", str(tmp_path / "bare")]
    assert main(["export-tokenizer", *arguments]) == 0
    assert "say --pattern gpt4" in one_line(capsys)
    assert sorted(p.name for p in (tmp_path / "bare").iterdir()) == ["merges.txt", "vocab.json"]
    assert Tokenizer.load(tmp_path / "bare") != tokenizer
    settle = ["--pattern", "gpt4", "--special-token", "<|x|>", "--special-token", "<|new|>"]
    out = tmp_path / "settled"
    arguments = [str(tmp_path / "bare"), "--format", "hf", "--out", str(out)]
    assert main(["export-tokenizer", *arguments, *settle]) == 0
    settled = Tokenizer.load(out)
    assert settled.pattern == "gpt4"
    assert set(settled.special_tokens) == {END, "<|x|>", "<|new|>"}
    assert settled.token_to_id("<|x|>") == tokenizer.token_to_id("<|x|>")


def test_gpt2s_own_pattern_needs_no_note(tmp_path, capsys):
    make_tokenizer().save(tmp_path / "t")
    arguments = [str(tmp_path / "t"), "--format", "gpt2", "--out", str(tmp_path / "g")]
    assert main(["export-tokenizer", *arguments]) == 0
    assert capsys.readouterr().err == ""
    assert Tokenizer.load(tmp_path / "g") == make_tokenizer()


def test_wrong_calls_are_one_line(tmp_path, capsys):
    make_tokenizer().save(tmp_path / "t")
    export = ["export-tokenizer", str(tmp_path / "t"), "--format"]
    assert main([*export, "hf", "--out", str(tmp_path / "t")]) == 2
    assert "is there already" in one_line(capsys)
    assert main([*export, "tiktoken", "--out", str(tmp_path / "x")]) == 2
    assert "must end in .tiktoken" in one_line(capsys)
    assert main(["export-tokenizer", str(tmp_path), *export[2:], "hf", "--out", "x"]) == 1
    assert "holds no tokenizer" in one_line(capsys)
    with pytest.raises(TypeError, match=r"expected a tokenizers\.Tokenizer"):
        Tokenizer.from_hf("gpt2")


def test_what_hugging_face_alone_does_is_said(tmp_path):
    theirs = make_tokenizer().to_hf()
    theirs.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{END} $A", special_tokens=[(END, 262)]
    )
    with pytest.warns(UserWarning, match="the Tokenizer: its post-processor adds"):
        ours = Tokenizer.from_hf(theirs)
    assert ours == make_tokenizer()
    theirs.normalizer = tokenizers.normalizers.Lowercase()
    with pytest.raises(ValueError, match=r"the Tokenizer: .*Lowercase"):
        Tokenizer.from_hf(theirs)


def test_the_command_needs_no_torch(tmp_path):
    make_tokenizer().save(tmp_path / "t")
    arguments = ["export-tokenizer", str(tmp_path / "t"), "--format", "hf", "--out"]
    code = f"""import sys; from cs336lm.cli.main import main
assert main({[*arguments, str(tmp_path / "out")]!r}) == 0
print('torch' in sys.modules)"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "False"


def test_no_package_is_imported_before_it_is_needed():
    code = "import sys, cs336lm; cs336lm.Tokenizer; from cs336lm.text import conversions;"
    code += "print([n for n in ('tiktoken', 'tokenizers', 'torch') if n in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


@pytest.mark.parametrize("package", ["tiktoken", "tokenizers"])
def test_a_package_that_is_missing_is_named(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with warnings.catch_warnings(), pytest.raises(ValueError, match="pip install"):
        make_tokenizer().to_tiktoken() if package == "tiktoken" else make_tokenizer().to_hf()
