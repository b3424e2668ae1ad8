"""Tokenizers side by side, against tiktoken and plain counting."""

import gzip
import json
import random
from pathlib import Path

import pytest
import reference_bpe
import texts
import tiktoken
from cs336lm import Tokenizer
from cs336lm.cli.main import main
from cs336lm.experiments.tokenizer_comparison import compare_tokenizers, sampled_documents
from cs336lm.text.longest import longest_tokens

EOT = texts.SPECIAL
DOCUMENTS = [f"story {i} of a cat {'and a dog ' * (i % 7)}{i * i}\n" for i in range(60)]


def trained(text: str, size: int) -> Tokenizer:
    return Tokenizer(*reference_bpe.train(text.encode(), size, [EOT]), [EOT])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    (folder / "stories.txt").write_text(EOT.join(DOCUMENTS), newline="")
    (folder / "code.txt").write_text(texts.CODE, newline="")
    trained("".join(DOCUMENTS), 330).save(folder / "stories")
    trained(texts.CODE + texts.MULTILINGUAL, 400).save(folder / "code")
    trained(texts.CODE, 300).save(folder / "small")
    return folder


def counted(tokenizer: Tokenizer, text: str) -> int:
    """How many tokens tiktoken makes of a text with the same vocabulary."""
    special = {token: tokenizer.token_to_id(token) for token in tokenizer.special_tokens}
    ranks = {token: id for id, token in tokenizer.vocab.items() if id not in special.values()}
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    peer = tiktoken.Encoding("peer", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
    return len(peer.encode(text, allowed_special="all"))


def test_figures_are_those_of_tiktoken_and_of_sets(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    names = ["stories", "code", "small"]
    command = ["inspect", "--compare", *names, "--on", "stories.txt", "code.txt"]
    assert main([*command, "--json", "--longest", "3"]) == 0
    printed = json.loads(capsys.readouterr().out)
    loaded = {name: Tokenizer.load(folder / name) for name in names}
    for one in printed["tokenizers"]:
        tokenizer = loaded[one["path"]]
        for text in one["on"]:
            content = (folder / text["path"]).read_bytes().decode()
            assert text["tokens"] == counted(tokenizer, content)
            assert text["bytes_per_token"] == len(content.encode()) / text["tokens"]
        lengths = sorted((len(token) for token in tokenizer.vocab.values()), reverse=True)
        lengths.remove(len(EOT))
        assert [token["bytes"] for token in one["longest_tokens"]] == lengths[:3]
        rate = one["throughput"]["bytes_per_second"]
        assert one["throughput"]["seconds_for_825_gb"] == 825e9 / rate
        size = sum(len((folder / text["path"]).read_bytes()) for text in one["on"])
        assert one["throughput"]["bytes"] == size
    vocabularies = {name: set(each.vocab.values()) for name, each in loaded.items()}
    pairs = [pair["tokenizers"] for pair in printed["shared"]]
    assert pairs == [["stories", "code"], ["stories", "small"], ["code", "small"]]
    for pair in printed["shared"]:
        one, other = (vocabularies[name] for name in pair["tokenizers"])
        both = sum(token in other for token in one)
        assert pair["tokens"] == both
        assert pair["shares"] == [both / len(one), both / len(other)]
    in_all = [t for t in vocabularies["small"] if all(t in v for v in vocabularies.values())]
    assert printed["shared_by_all"] == len(in_all)


@pytest.mark.parametrize("kind", ["stories.txt", "stories.txt.gz", "stories.jsonl"])
def test_documents_are_drawn_from_every_kind_of_file(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / kind
    content = (folder / "stories.txt").read_bytes()
    if kind.endswith(".gz"):
        content = gzip.compress(content)
    if kind.endswith(".jsonl"):
        content = "".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS).encode()
    path.write_bytes(content)
    drawn = [sampled_documents(str(path), 10, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    there = [text.encode() for text in DOCUMENTS]
    for documents in drawn:
        places = [there.index(document) for document in documents]
        assert len(set(places)) == 10
        assert places == sorted(places)
    assert sampled_documents(str(path), 1000, 0) == there


def test_every_document_may_be_drawn(tmp_path: Path) -> None:
    path = tmp_path / "few.txt"
    path.write_text(EOT.join(["a", "", "b", "c", ""]))
    assert {sampled_documents(str(path), 1, seed)[0] for seed in range(40)} == {b"a", b"b", b"c"}
    path.write_text("")
    assert sampled_documents(str(path), 3, 0) == []


def test_ratios_of_documents_are_those_of_the_drawn_ones(folder: Path) -> None:
    path = str(folder / "stories.txt")
    tokenizer = Tokenizer.load(folder / "code")
    found = compare_tokenizers({"code": tokenizer}, [path], documents=10, seed=3)
    ((text,),) = [one.texts for one in found.tokenizers]
    drawn = sampled_documents(path, 10, 3)
    assert text.bytes == sum(map(len, drawn))
    assert text.tokens == sum(counted(tokenizer, document.decode()) for document in drawn)
    assert found.tokenizers[0].throughput.bytes == len((folder / "stories.txt").read_bytes())


def test_longest_tokens_leave_out_special_ones() -> None:
    tokenizer = Tokenizer(*reference_bpe.train(b"ab abc abc abcd abcd", 262, [EOT]), [EOT])
    longest = longest_tokens(tokenizer, 300)
    assert EOT.encode() not in [token for _, token in longest]
    assert longest == sorted(longest, key=lambda pair: (-len(pair[1]), pair[0]))
    assert len(longest) == len(tokenizer.vocab) - 1


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_tables_and_pictures(
    folder: Path, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizers = [str(folder / "stories"), str(folder / "code"), str(folder / "small")]
    picture = tmp_path / f"ratios.{ending}"
    command = ["inspect", "--compare", *tokenizers, "--on", str(folder / "code.txt")]
    assert main([*command, "--markdown", "--plot", str(picture)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("|---|") + printed.count("---|") > 3
    assert "one process, 1 thread(s)" in printed
    assert "shared by all: " in printed
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    assert picture.read_bytes().startswith(starts[ending])
    assert main([*command, "--plot", str(picture)]) == 0  # its own picture is drawn anew


def test_an_empty_text_is_a_dash(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.txt").write_text("")
    tokenizers = [str(folder / "stories"), str(folder / "code")]
    command = ["inspect", "--compare", *tokenizers, "--on", str(tmp_path / "empty.txt")]
    assert main(command) == 0
    assert "no text, so no throughput" in capsys.readouterr().out
    assert main([*command, "--plot", str(tmp_path / "x.png")]) == 2
    assert "texts are empty" in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--compare", "A"], "two tokenizers or more"),
        (["--compare", "A", "A"], "named twice"),
        (["--compare", "A", "B"], "name files after --on"),
        (["C", "--compare", "A", "B"], "C: name all tokenizers after --compare"),
        (["A", "--documents", "3"], "--documents is for comparing"),
        (["A", "--plot", "x.png"], "--plot is for comparing"),
        ([], "name a tokenizer or a token file"),
        (["--compare", "A", "B", "--on", "t", "--seed", "3"], "--documents"),
        (["--compare", "A", "B", "--on", "t", "--json", "--markdown"], "not both"),
        (["--compare", "A", "B", "--on", "t", "--documents", "0"], "at least 1"),
    ],
)
def test_half_a_call_is_refused(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["inspect", *flags])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_wrong_texts_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tokenizers = [str(folder / "stories"), str(folder / "code")]
    on = str(folder / "code.txt")
    (tmp_path / "notes.png").write_text("mine")
    for flags, message in [
        (["--on", "-"], "-: every tokenizer reads the text"),
        (["--on", "missing.txt"], "missing.txt"),
        (["--on", on, "--plot", "x.bmp"], "x.bmp must end in"),
        (["--on", on, "--plot", str(tmp_path / "notes.png")], "no plot of this command's"),
    ]:
        assert main(["inspect", "--compare", *tokenizers, *flags]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert (tmp_path / "notes.png").read_text() == "mine"


def test_sampling_is_uniform(tmp_path: Path) -> None:
    """Each document about equally often: 600 draws of 2 from 6 give each 200 times or so."""
    path = tmp_path / "six.txt"
    path.write_text(EOT.join("abcdef"))
    seeds = random.Random(5).sample(range(10**6), 600)
    drawn = [one for seed in seeds for one in sampled_documents(str(path), 2, seed)]
    assert all(150 < drawn.count(letter) < 250 for letter in (b"a", b"b", b"c", b"d", b"e", b"f"))
