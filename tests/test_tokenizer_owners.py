"""Tokenizer files are read as their owners read them, or refused by name.

Owners are Hugging Face's `tokenizers` and OpenAI's `tiktoken`, both installed: no published
vocabulary is needed, as small ones in the same formats show the same.
"""

import base64
import json
import pickle
import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import reference_bpe
import texts
import tiktoken
import tiktoken_ext.openai_public
import tokenizers
from cs336lm import Tokenizer
from tokenizers import pre_tokenizers

TEXT = texts.MULTILINGUAL + texts.CODE + texts.EMOJI + texts.SPACES
EOT = "<|endoftext|>"
BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": False,
}


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    vocab, merges = reference_bpe.train(TEXT.encode(), 420, [EOT])
    return Tokenizer(vocab, merges, [EOT])


@pytest.fixture
def saved(tmp_path: Path, trained: Tokenizer) -> Path:
    trained.save(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def change(file: Path, **fields: Any) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content | fields), encoding="utf-8")


def split(regex: str, behavior: str = "Isolated", invert: bool = False) -> dict[str, Any]:
    step = {
        "type": "Split",
        "pattern": {"Regex": regex},
        "behavior": behavior,
        "invert": invert,
    }
    return {"type": "Sequence", "pretokenizers": [step, BYTE_LEVEL]}


def added(id: int, content: str, **flags: bool) -> dict[str, Any]:
    usual = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": id, "content": content, **usual, **flags}


def theirs_and_ours(folder: Path) -> tuple[tokenizers.Tokenizer, Tokenizer]:
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    return theirs, Tokenizer.load(folder)


# ---- .tiktoken


def owners_special_tokens(monkeypatch: pytest.MonkeyPatch, name: str) -> dict[str, int]:
    """What tiktoken says about an encoding, without its vocabulary, which it would download."""
    public = tiktoken_ext.openai_public
    monkeypatch.setattr(public, "load_tiktoken_bpe", lambda *_, **__: {})
    monkeypatch.setattr(public, "data_gym_to_mergeable_bpe_ranks", lambda *_, **__: {})
    special: dict[str, int] = public.ENCODING_CONSTRUCTORS[name]()["special_tokens"]
    return special


def write_ranks(path: Path, tokenizer: Tokenizer) -> dict[bytes, int]:
    ranks = {token: id for id, token in tokenizer.vocab.items() if id < tokenizer.vocab_size - 1}
    lines = (f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items())
    path.write_text("".join(lines))
    return ranks


@pytest.mark.parametrize("name", ["gpt2", "r50k_base", "p50k_base", "cl100k_base", "o200k_base"])
def test_special_tokens_of_published_files_have_their_owners_ids(
    tmp_path: Path, trained: Tokenizer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    special = owners_special_tokens(monkeypatch, name)
    ranks = write_ranks(tmp_path / f"{name}.tiktoken", trained)
    pattern = tiktoken_ext.openai_public.ENCODING_CONSTRUCTORS[name]()["pat_str"]
    owner = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
    for tokens in (list(special), list(special)[::-1], [EOT]):
        ours = Tokenizer.load(tmp_path / f"{name}.tiktoken", tokens)
        assert {token: ours.token_to_id(token) for token in tokens} == {
            token: special[token] for token in tokens
        }
        text = TEXT + "".join(tokens) + "x"
        assert ours.encode(text) == owner.encode(
            text, allowed_special=set(tokens), disallowed_special=()
        )
        assert ours.decode(ours.encode(text)) == text
    # A token of the user's own takes nobody's id.
    ours = Tokenizer.load(tmp_path / f"{name}.tiktoken", ["<|x|>", EOT])
    assert ours.token_to_id("<|x|>") not in special.values()
    assert ours.token_to_id(EOT) == special[EOT]


def test_p50k_has_its_token_in_the_gap_of_its_ranks(tmp_path: Path) -> None:
    """Its ranks are 0 to 50,255 and 50,257 to 50,280."""
    ids = [*range(256), *range(50_257, 50_281)]
    tokens = [bytes([i]) for i in range(256)] + [b"  " + b" " * i for i in range(24)]
    lines = (f"{base64.b64encode(t).decode()} {i}\n" for t, i in zip(tokens, ids, strict=True))
    (tmp_path / "p50k_base.tiktoken").write_text("".join(lines))
    ours = Tokenizer.load(tmp_path / "p50k_base.tiktoken", [EOT, "<|fim_prefix|>"])
    assert ours.encode(f"a{EOT}<|fim_prefix|>    b") == [97, 50_256, 50_281, 50_258, 32, 98]


def test_an_id_can_be_said(tmp_path: Path, saved: Path, trained: Tokenizer) -> None:
    write_ranks(tmp_path / "cl100k_base.tiktoken", trained)
    ours = Tokenizer.load(tmp_path / "cl100k_base.tiktoken", {"<|x|>": 100_300, EOT: None})
    assert ours.encode(f"<|x|>{EOT}") == [100_300, 100_257]
    assert pickle.loads(pickle.dumps(ours)) == ours
    vocab, merges = saved / "vocab.json", saved / "merges.txt"
    for other in (
        Tokenizer.from_files(vocab, merges, {"<|x|>": 500, "<|y|>": None}),
        Tokenizer(trained.vocab, trained.merges, {EOT: None, "<|x|>": 500, "<|y|>": None}),
        Tokenizer.load(saved, {"<|x|>": 500, "<|y|>": None}),
    ):
        assert other.encode("<|x|><|y|>") == [500, 501]
    for wrong in ({EOT: 500}, {"<|x|>": 97}):
        with pytest.raises(ValueError, match="two"):
            Tokenizer.load(saved, wrong)


def test_other_names_need_the_pattern(tmp_path: Path, trained: Tokenizer) -> None:
    for name in ("qwen", "cl100k_base (1)", "tokenizer"):
        path = tmp_path / f"{name}.tiktoken"
        write_ranks(path, trained)
        with pytest.raises(ValueError, match="--pattern"):
            Tokenizer.load(path)
        assert Tokenizer.load(path, pattern="gpt4").pattern == "gpt4"
        path.unlink()


@pytest.mark.parametrize("seed", range(8))
def test_any_ranks_give_tiktokens_ids(tmp_path: Path, seed: int) -> None:
    """Tokens of any bytes in any order, most of which no two others make."""
    draw = random.Random(seed)
    tokens = {bytes([i]) for i in range(256)}
    while len(tokens) < 300:
        tokens.add(bytes(draw.choices(b"ab c", k=draw.randint(2, 5))))
    order = sorted(tokens, key=lambda token: (len(token) > 1, draw.random()))
    ranks = {token: rank for rank, token in enumerate(order)}
    lines = (f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items())
    (tmp_path / "x.tiktoken").write_text("".join(lines))
    pattern = r" ?[abc]+| +"
    owner = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    ours = Tokenizer.load(tmp_path / "x.tiktoken", pattern=pattern)
    for _ in range(200):
        text = "".join(draw.choices("ab c", k=draw.randint(1, 30)))
        assert ours.encode(text) == owner.encode(text)


# ---- tokenizer.json: regular expressions


ALIKE_TEXT = "".join(
    [
        "a\na\n", "½x²_é\u0301 ١٢ 12345678 Ⅷ", "ab  cd\r\n\t\u00a0\u2028x\u200dy", "don't WE'LL ſK",
        "中文\u3000日本。", "a-b.c{2}$^ #x", "\n\n ", "Ab9 f00 +<>=", "ßs ﬁ", "end\n",
    ]
)  # fmt: skip

PATTERNS = [
    r"\p{N}{1,3}+", r"\p{N}{1,3}", r"\p{N}{2}?", r"\p{N}{2}+", r"\p{N}{,2}", r"\p{N}{2,}?",
    r"a{x", r"a{,}", r"a$", r"^a", r"^", r"$", r"(?m).+", r".+", r"(?m:.)+?a", r"a\Z|\n\z",
    r"\Aa", r"(?x) a # c" "\n | b", r"\w+", r"\W+", r"[\w]+", r"[^\w]+", r"[\W]+", r"\b",
    r"\B.", r"\bx", r"[\w&&[^a]]+", r"\h+", r"\H+", r"\d+|\D", r"\s+(?!\S)|\s+",
    r"[[:alpha:]]+", r"[[:^alpha:]]+", r"[[:punct:]]+", r"[[:space:][:digit:]]+", r"\p{^L}+",
    r"\P{^L}+", r"\p{Alpha}+", r"\p{Punct}+", r"\p{Han}+", r"\p{Greek}", r"a(?i)B|c",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", r"(?i)k", r"(?i:[a-z])+", r"(?i)(?-i:a)b", r"(a|b)+",
    r"(?<n>a)b", r"(?>a+)b", r"a++", r"a?+b", r"a**", r"a+?+", r"(?<=a)b", r"(?<!a)b",
    r"(?=\p{Lu})", r"\x41|\x{62}|\u0063", r"[a\-b]+", r"[-a]+", r"[a-]+", r"\.|\$|\{",
    r"(?#comment)a", r"é|½", r"[^\r\n\p{L}\p{N}]+", r"[\p{Lu}\p{Lt}]+|\p{M}", r"[a-c&&[b-d]]",
    r"[^a-c&&b]", r"\e|\a|\f|\v|\t", r"\ |\#|\-|\/", r"(?:)a|b|",
]  # fmt: skip


def their_cuts(regex: str, text: str) -> list[str]:
    step = pre_tokenizers.Split(tokenizers.Regex(regex), "isolated")
    return [piece for piece, _ in step.pre_tokenize_str(text)]


def ours_of(folder: Path, regex: str) -> Tokenizer:
    change(folder / "tokenizer.json", pre_tokenizer=split(regex))
    return Tokenizer.load(folder)


@pytest.mark.parametrize("regex", PATTERNS)
def test_expressions_mean_what_they_mean_to_hugging_face(saved: Path, regex: str) -> None:
    theirs = their_cuts(regex, ALIKE_TEXT)
    ours = ours_of(saved, regex)
    expected = [id for piece in theirs for id in ours_of_whole(ours).encode(piece)]
    assert ours.encode(ALIKE_TEXT) == expected, ours.pattern


def ours_of_whole(tokenizer: Tokenizer) -> Tokenizer:
    """The same merges, and the text one pretoken."""
    return Tokenizer(tokenizer.vocab, tokenizer.merges, [EOT], pattern=r"(?s).+")


@pytest.mark.parametrize("regex", [
    r"x|\G", r"(a)\1", r"(?<n>a)\k<n>", r"\R", r"\X", r"a\Kb", r"(?i)ss", r"(?i)é", r"(?i)\p{L}",
    r"(?i)s+", r"\p{IsX}", r"a{3,1}", r"(?~a)", r"[[:graph:]]", r"\xE9", r"(?i)f(?i)i|ſt",
])  # fmt: skip
def test_what_may_be_read_otherwise_is_refused_by_name(saved: Path, regex: str) -> None:
    with pytest.raises(ValueError, match=r"tokenizer\.json: the pre-tokenizer's pattern") as caught:
        ours_of(saved, regex)
    assert "\n" not in str(caught.value)
    # The way out is to say the pattern.
    assert Tokenizer.load(saved, pattern="gpt4").pattern == "gpt4"


@pytest.mark.parametrize("pattern", [
    r"\w+|\W", r"\p{N}{1,3}+|.", r"a$|^b", r"(?m)^a$", r"(?s).+", r"(?i:'s)|\pL+",
    r"[[:alpha:]]+", r"\bx|\B.", r"(?x) a  b", r"(?s:.)(?i)k|b", r"\h+", r"[\w-]+|\x41",
    r"a{2}?|b{2,}+",
])  # fmt: skip
def test_own_patterns_mean_the_same_to_hugging_face(
    tmp_path: Path, trained: Tokenizer, pattern: str
) -> None:
    ours = Tokenizer(trained.vocab, trained.merges, [EOT], pattern=pattern)
    ours.save(tmp_path)
    theirs, loaded = theirs_and_ours(tmp_path)
    assert theirs.encode(ALIKE_TEXT).ids == ours.encode(ALIKE_TEXT)
    assert (loaded.pattern, loaded) == (pattern, ours)
    # Also after a round through their library, which drops what it does not know.
    theirs.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.load(tmp_path).encode(ALIKE_TEXT) == ours.encode(ALIKE_TEXT)


@pytest.mark.parametrize("pattern", [r"(a)\1", r"a\Kb", r"[\w--a]", r"(?i)straße"])
def test_a_pattern_that_files_cannot_hold_is_refused(
    tmp_path: Path, trained: Tokenizer, pattern: str
) -> None:
    ours = Tokenizer(trained.vocab, trained.merges, [EOT], pattern=pattern)
    with pytest.raises(ValueError, match="cannot be written"):
        ours.save(tmp_path / "tokenizer")
    assert not (tmp_path / "tokenizer").exists()


CL100K_OF_HUGGING_FACE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def test_removed_and_inverted_needs_a_pattern_without_gaps(saved: Path) -> None:
    file = saved / "tokenizer.json"
    change(file, pre_tokenizer=split(CL100K_OF_HUGGING_FACE, "Removed", invert=True))
    theirs, ours = theirs_and_ours(saved)
    assert ours.encode(TEXT) == theirs.encode(TEXT).ids
    for gaps in (
        r"\w+",
        r"\w+|\s+",
        r"\p{L}+|[^\s\p{L}]+|\s+(?!\S)",
        r"\w+|\W*",
        r".+",
        r"\w+|(?!x)\W",
    ):
        change(file, pre_tokenizer=split(gaps, "Removed", invert=True))
        with pytest.raises(ValueError, match="Removed"):
            Tokenizer.load(saved)


# ---- tokenizer.json: what stands around texts, and added tokens


def test_what_is_put_around_texts_is_said_and_kept(saved: Path, trained: Tokenizer) -> None:
    file = saved / "tokenizer.json"
    theirs = tokenizers.Tokenizer.from_file(str(file))
    theirs.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{EOT} $A", pair=f"{EOT} $A $B", special_tokens=[(EOT, trained.token_to_id(EOT))]
    )
    theirs.enable_truncation(512)
    theirs.enable_padding(length=4)
    theirs.save(str(file))
    with pytest.warns(UserWarning, match=r"tokenizer\.json") as warned:
        ours = Tokenizer.load(file)
    said = " ".join(str(warning.message) for warning in warned)
    assert f"post-processor adds {EOT}" in said
    assert "truncation (to 512 ids)" in said
    assert "padding" in said
    assert ours.encode("a b") == theirs.encode("a b", add_special_tokens=False).ids[:3]
    pickle.loads(pickle.dumps(ours)).save(saved / "again")
    again = tokenizers.Tokenizer.from_file(str(saved / "again" / "tokenizer.json"))
    assert again.encode("a b").ids == theirs.encode("a b").ids
    change(file, post_processor={"type": "Strange"})
    with pytest.raises(ValueError, match=r"post-processor.*Strange"):
        Tokenizer.load(file)


def test_no_warning_where_nothing_is_left_out(saved: Path) -> None:
    change(saved / "tokenizer.json", post_processor=BYTE_LEVEL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Tokenizer.load(saved)


def test_added_tokens_keep_their_flags(saved: Path, trained: Tokenizer) -> None:
    """Hugging Face's decode leaves out those that are special, and no others."""
    size = trained.vocab_size
    tokens = [
        added(size - 1, EOT, special=True),
        added(size, "<think>"),
        added(size + 1, "<tool>", normalized=True),
    ]
    change(saved / "tokenizer.json", added_tokens=tokens)
    theirs, ours = theirs_and_ours(saved)
    text = f"a<think>b<tool>c{EOT}"
    pickle.loads(pickle.dumps(ours)).save(saved / "again")
    again, loaded = theirs_and_ours(saved / "again")
    assert loaded == ours
    assert again.encode(text).ids == theirs.encode(text).ids == ours.encode(text)
    assert again.decode(ours.encode(text)) == theirs.decode(ours.encode(text)) == "a<think>b<tool>c"
    saved_tokens = json.loads((saved / "again" / "tokenizer.json").read_text())["added_tokens"]
    assert saved_tokens == tokens


def test_an_id_that_hugging_face_would_not_give_is_refused(saved: Path, trained: Tokenizer) -> None:
    file, size = saved / "tokenizer.json", trained.vocab_size
    last = added(size - 1, EOT, special=True)
    for tokens in (
        [last, added(size + 5, "<x>")],
        [last, added(size + 1, "<y>"), added(size, "<x>")],
    ):
        change(file, added_tokens=tokens)
        theirs = tokenizers.Tokenizer.from_file(str(file))
        assert theirs.token_to_id(tokens[1]["content"]) != tokens[1]["id"]
        with pytest.raises(ValueError, match="Hugging Face"):
            Tokenizer.load(file)


# ---- files beside vocab.json


def bare(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def test_added_tokens_json_is_read(saved: Path, trained: Tokenizer) -> None:
    size = trained.vocab_size
    (saved / "added_tokens.json").write_text(json.dumps({"<b>": size + 4, "<a>": size}))
    whole = Tokenizer.load(saved)
    bare(saved)
    for path in (saved, saved / "vocab.json", saved / "merges.txt"):
        ours = Tokenizer.load(path)
        assert ours == whole
        assert ours.encode(f"<b><a>{EOT}") == [size + 4, size, size - 1]
    (saved / "added_tokens.json").write_text(json.dumps({"<b>": "x"}))
    with pytest.raises(ValueError, match=r"added_tokens\.json.*<b>"):
        Tokenizer.load(saved)


def test_a_folder_of_vocab_json_keeps_its_special_tokens(
    tmp_path: Path, trained: Tokenizer
) -> None:
    """Also one that a merge makes, and one that reads like bytes."""
    merged = trained.decode([300])
    special = [EOT, "<é>", merged]
    ours = Tokenizer(trained.vocab, trained.merges, special)
    ours.save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    loaded = Tokenizer.load(tmp_path)
    assert sorted(loaded.special_tokens) == sorted(special)
    assert loaded == ours


@pytest.mark.parametrize("name", ["special_tokens_map.json", "tokenizer_config.json"])
def test_special_tokens_are_named_beside_vocab_json(
    saved: Path, trained: Tokenizer, name: str
) -> None:
    merged = trained.decode([300])
    bare(saved)
    roles = {"eos_token": EOT, "pad_token": {"content": merged, "special": True}}
    (saved / name).write_bytes(b"\xef\xbb\xbf" + json.dumps(roles).encode())
    assert sorted(Tokenizer.load(saved).special_tokens) == sorted([EOT, merged])
    (saved / name).write_text(json.dumps({"mask_token": {"content": EOT, "lstrip": True}}))
    with pytest.raises(ValueError, match=f"{name}.*lstrip"):
        Tokenizer.load(saved)
    (saved / name).write_text(json.dumps({"additional_special_tokens": ["<new>"]}))
    with pytest.warns(UserWarning, match="<new>"):
        Tokenizer.load(saved)


def test_switches_beside_vocab_json_are_said(saved: Path) -> None:
    bare(saved)
    (saved / "tokenizer_config.json").write_text('{"add_prefix_space": true}')
    with pytest.warns(UserWarning, match=r"tokenizer_config\.json.*add_prefix_space"):
        Tokenizer.load(saved)


def test_a_byte_order_mark_is_no_part_of_a_file(saved: Path, trained: Tokenizer) -> None:
    ranks = saved / "gpt2.tiktoken"
    write_ranks(ranks, trained)
    for path in set(saved.iterdir()) - {saved / "checksums.json"}:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert Tokenizer.load(saved) == trained
    assert Tokenizer.load(ranks).encode(TEXT) == trained.encode(TEXT)
    bare(saved)
    assert Tokenizer.load(saved) == trained
    (saved / "vocab.json").write_bytes("{}".encode("utf-16"))
    with pytest.raises(ValueError, match="UTF-16"):
        Tokenizer.load(saved / "vocab.json")
