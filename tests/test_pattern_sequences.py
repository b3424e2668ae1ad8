"""Regular expressions that cut one after the other, beside Hugging Face's Sequence of Splits."""

import json
import random

import pytest
import texts
from cs336lm import Tokenizer, train_bpe
from tokenizers import Regex, pre_tokenizers
from tokenizers import Tokenizer as HuggingFaceTokenizer

# As DeepSeek-V3 and -R1 have them: digits, then Chinese and kana, then everything else.
DEEPSEEK = (
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"
    r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
SEQUENCES = {
    "DeepSeek-V3": (DEEPSEEK, False),
    "GPT-2's after three digits": ((r"\p{N}{1,3}",), True),
    "a look-ahead at the end of each piece": ((r"\d", r"\s+(?!\S)|\s+|\S+"), False),
    "nothing matched": (("x", "y"), False),
}
PIECES = [
    *("the", " cat", "x", "yy", "é", "e\u0301", "'s", "_x", "#a", "!", "?!", "€", "🙂"),
    *("  ", " ", "\n", "\r\n", "\t ", "\u3000", "\u2028", "\0", "\u0378"),
    *("1", "23", "4567", "٣", "½", "中", "文字", "かな", "カタ・カナ", "゛", "\u3040", "ー"),
]


def sequence(regexes, use_regex):
    splits = [pre_tokenizers.Split(Regex(regex), "isolated") for regex in regexes]
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    return pre_tokenizers.Sequence([*splits, last])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    (folder / "text.txt").write_text(texts.MULTILINGUAL + texts.CODE, encoding="utf-8")
    # Merges across everything, so that a wrong cut changes ids.
    vocab, merges = train_bpe(folder / "text.txt", 700, [texts.SPECIAL], pattern=r"(?s).{1,12}")
    return Tokenizer(vocab, merges, [texts.SPECIAL])


@pytest.fixture(params=SEQUENCES)
def pair(request, base, tmp_path):
    """Hugging Face's tokenizer and what is read of its file."""
    theirs = base.to_hf()
    theirs.pre_tokenizer = sequence(*SEQUENCES[request.param])
    theirs.save(str(tmp_path / "tokenizer.json"))
    return theirs, Tokenizer.load(tmp_path / "tokenizer.json")


def some_texts(seed):
    chosen = random.Random(seed)
    for _ in range(400):
        yield "".join(chosen.choices(PIECES, k=chosen.randint(1, 30)))
    yield from (texts.MULTILINGUAL, texts.CODE, texts.EMOJI, "")


def ids(theirs, text):
    return theirs.encode(text, add_special_tokens=False).ids


def test_cuts_as_hugging_face_does(pair):
    theirs, ours = pair
    for text in some_texts(1):
        assert ours.encode(text) == ids(theirs, text), repr(text)


def test_is_written_as_it_was(pair, tmp_path):
    theirs, ours = pair
    ours.save(tmp_path / "ours")
    written = json.loads((tmp_path / "ours" / "tokenizer.json").read_text())["pre_tokenizer"]
    given = json.loads(theirs.to_str())["pre_tokenizer"]["pretokenizers"]
    named = ours.pattern.split("(?#then)")
    assert len(named) == len(written["pretokenizers"]) - 1 >= len(given) - 1
    again = HuggingFaceTokenizer.from_file(str(tmp_path / "ours" / "tokenizer.json"))
    reread = Tokenizer.load(tmp_path / "ours")
    assert (reread.pattern, reread.fingerprint) == (ours.pattern, ours.fingerprint)
    for text in some_texts(2):
        assert ids(again, text) == ids(theirs, text)


def test_trains_with_it(tmp_path):
    """Counting cuts as encoding does, with several threads and in parts."""
    pattern = "(?#then)".join(DEEPSEEK)
    (tmp_path / "text.txt").write_text(texts.MULTILINGUAL * 40, encoding="utf-8")
    trained = [
        train_bpe(tmp_path / "text.txt", 400, pattern=pattern, threads=threads)
        for threads in (1, 3)
    ]
    assert trained[0] == trained[1]
    tokenizer = Tokenizer(*trained[0], pattern=pattern)
    assert tokenizer.decode(tokenizer.encode(texts.MULTILINGUAL)) == texts.MULTILINGUAL
    assert not any(b"1" in token and len(token) > 3 for token in tokenizer.vocab.values())


def test_is_not_for_tiktoken():
    tokenizer = Tokenizer({byte: bytes([byte]) for byte in range(256)}, [], pattern=r"\d(?#then)a")
    with pytest.raises(ValueError, match="several that cut one after the other"):
        tokenizer.to_tiktoken()


def test_wrong_ones_are_named(base):
    with pytest.raises(ValueError, match="empty regular expression"):
        Tokenizer(base.vocab, base.merges, pattern=r"\d(?#then)")
    with pytest.raises(ValueError, match="more than 64"):
        Tokenizer(base.vocab, base.merges, pattern="(?#then)".join(["a"] * 65))
