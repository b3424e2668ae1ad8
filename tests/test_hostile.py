"""Files from strangers: nothing of theirs runs, nothing crashes, memory and time are bounded.

Each is opened in a process that may take 700 MB and 20 s (``bounded.py``). What is refused is
refused by one line that names the file.
"""

import base64
import copy
import gzip
import io
import json
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bounded import outcome, refused
from cs336lm import Tokenizer
from cs336lm.cli.main import main
from cs336lm.data import TokenDataset
from cs336lm.exchange.hugging_face_import import import_llama
from cs336lm.training.checkpoints.archive import (
    peek_iteration,
    read_state,
    verify_file,
    write_state,
)
from cs336lm.training.checkpoints.course import load_checkpoint
from cs336lm.training.checkpoints.sharded import load_sharded, save_sharded
from cs336lm.training.config import load_config
from cs336lm.training.distributed import World
from cs336lm.training.run_directory import RunDirectory, load_run
from cs336lm.training.trainer import Trainer
from cs336lm.training.verification import verify
from tiny_run import MODEL, make_config

DEEP = 1_000_000
EOT = "<|endoftext|>"


def save(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer({id: bytes([id]) for id in range(256)}, [], [EOT])


# Tokenizers

Change = Callable[[dict[str, Any]], object]


def vocab(**tokens: int) -> Change:
    return lambda content: content["model"]["vocab"].update(tokens)


def merges(*pairs: list[str], **tokens: int) -> Change:
    def change(content: dict[str, Any]) -> None:
        content["model"]["vocab"].update(tokens)
        content["model"]["merges"] = list(pairs)

    return change


def regex(pattern: str) -> Change:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    steps = [split | {"invert": False}, level | {"use_regex": False}]
    return lambda content: content.update(
        pre_tokenizer={"type": "Sequence", "pretokenizers": steps}
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (vocab(zz=2**32 - 1), "ids above 16777215 are not supported"),
        (vocab(zz=2**24), "ids above 16777215"),
        (vocab(zz=2**32), "invalid value"),
        (vocab(zz=5), "id 5 belongs to two tokens"),
        (merges(["qq", "rr"]), '"qq" is not in the vocabulary'),
        (merges(["abab", "ab"], ["ab", "ab"], ab=257, abab=258), '"ababab" is not in the voc'),
        (regex("(" * 200_000 + "a" + ")" * 200_000), "pattern"),
        (regex("[" * 200_000 + "a" + "]" * 200_000), "pattern"),
        (regex("((((a{1000}){1000}){1000}){1000}){1000}"), "not a valid regular expression"),
    ],
    ids=["2^32-1", "2^24", "2^32", "twice", "nothing", "itself", "parens", "classes", "repeats"],
)  # fmt: skip
def test_tokenizers(tmp_path: Path, tokenizer: Tokenizer, change: Change, says: str) -> None:
    tokenizer.save(tmp_path, with_checksums=False)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    change(content)
    save(tmp_path / "tokenizer.json", json.dumps(content))
    said = refused(lambda: Tokenizer.load(tmp_path))
    assert says in said
    assert "tokenizer.json" in said


def test_an_expression_that_backtracks_gives_up(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(tmp_path, with_checksums=False)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    regex("(?=(a+)+$)(a+)+$")(content)
    save(tmp_path / "tokenizer.json", json.dumps(content))
    assert "gave up" in refused(lambda: Tokenizer.load(tmp_path).encode("a" * 5000 + "b"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "[" * DEEP),
        ("tokenizer.json", '{"model":' * DEEP),
        ("vocab.json", '{"a":' * DEEP),
        ("tokenizer.json", b"\xff\xfe" * 99),
        ("ranks.tiktoken", "QQ== 99999999999999999999\n"),
        ("ranks.tiktoken", "QQ== 4294967295\n"),
        ("ranks.tiktoken", "A" * DEEP),
    ],
)
def test_tokenizer_files_that_are_none(tmp_path: Path, name: str, content: bytes | str) -> None:
    save(tmp_path / "merges.txt", "")
    file = save(tmp_path / name, content)
    pattern = "gpt2" if name == "ranks.tiktoken" else None
    assert name in refused(lambda: Tokenizer.load(file, pattern=pattern))


def test_ranks_that_belong_to_two_tokens(tmp_path: Path) -> None:
    ranks = [(bytes([id]), id) for id in range(256)] + [(b"AA", 7)]
    lines = "".join(f"{base64.b64encode(token).decode()} {id}\n" for token, id in ranks)
    file = save(tmp_path / "ranks.tiktoken", lines)
    assert "id 7 belongs to two tokens" in refused(lambda: Tokenizer.load(file, pattern="gpt2"))


# Token files


def npy(shape: str, descr: str = "<u2") -> bytes:
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header = header.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 64


@pytest.mark.parametrize(
    "content",
    [
        npy(f"({2**60},)"),
        npy(f"({2**64},)"),
        npy("(-1,)"),
        npy("(8,)"),
        npy("(1,)", "|O"),
        npy("(8, 4)"),
        npy("(" * 60 + "1" + ")" * 60),
        npy("__import__('os')"),
        b"\x93NUMPY\x02\x00" + struct.pack("<I", DEEP) + b"(" * DEEP,
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{" * 100,
    ],
    ids=["2^60", "2^64", "-1", "longer", "objects", "2d", "deep", "code", "deeper", "4 GB"],
)
def test_arrays(tmp_path: Path, content: bytes) -> None:
    file = save(tmp_path / "tokens.npy", content)
    assert "tokens.npy" in refused(lambda: TokenDataset(file))


@pytest.mark.parametrize(
    "sidecar",
    [
        "[" * DEEP,
        json.dumps({"shards": [{"file": "../../etc/passwd", "tokens": 1}]}),
        json.dumps({"shards": [{"file": "/etc/passwd", "tokens": 1}]}),
        json.dumps({"shards": [{"file": "..", "tokens": 1}]}),
        json.dumps({"shards": [{"file": 7, "tokens": 1}]}),
        json.dumps({"shards": [{"file": "other-00000.npy"}]}),
        json.dumps({"shards": 7}),
        json.dumps({"tokens": "many"}),
        json.dumps({"format": 2}),
    ],
)
def test_sidecars(tmp_path: Path, sidecar: str) -> None:
    np.save(tmp_path / "tokens.npy", np.zeros(5, np.uint16))
    save(tmp_path / "tokens.json", sidecar)
    assert "tokens.json" in refused(lambda: TokenDataset(tmp_path / "tokens.npy"))


def test_token_files_of_other_programs(tmp_path: Path) -> None:
    file = save(tmp_path / "a.bin", struct.pack("<iii", 20240520, 1, 2**31 - 1) + b"\0" * 2000)
    assert "promises" in refused(lambda: TokenDataset(file))
    save(tmp_path / "m.bin", b"\0" * 8)
    index = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, 2**60, 2**60)
    save(tmp_path / "m.idx", index)
    assert "m.idx" in refused(lambda: TokenDataset(tmp_path / "m.bin"))


# Text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"text":' + "[" * DEEP),
        ("a.jsonl", "x" * 10_000_000),
        ("a.txt.gz", b"\x1f\x8b" + bytes(range(256)) * 4),
        ("a.txt.zst", b"\x28\xb5\x2f\xfd" + bytes(range(256)) * 4),
        ("a.txt.zst", b"\x28\xb5\x2f\xfd\x00\xff\x01\x00\x00"),
        ("a.parquet", b"PAR1" + b"\xff" * 500 + struct.pack("<I", 2**31 - 1) + b"PAR1"),
        ("a.parquet", b"PAR1" + b"\x15\xff" * 300 + struct.pack("<I", 600) + b"PAR1"),
    ],
)
def test_text(tmp_path: Path, tokenizer: Tokenizer, name: str, content: bytes | str) -> None:
    file = save(tmp_path / name, content)
    assert name in refused(lambda: tokenizer.encode_files(file, tmp_path / "out.npy"))
    assert not (tmp_path / "out.npy").exists()


def test_what_unpacks_to_two_hundred_times_as_much(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Memory is bounded by chunks, not by what comes out; deeply nested fields are passed over."""
    bomb = save(tmp_path / "bomb.txt.gz", gzip.compress(b"the cat " * (25 << 20), 1))
    assert 150 * bomb.stat().st_size < 8 * (25 << 20)
    kind, said = outcome(lambda: tokenizer.count_tokens(bomb, threads=1), megabytes=150)
    assert (kind, said) == ("returned", str((8 * (25 << 20), 8 * (25 << 20))))
    deep = '{"a":' + "[" * DEEP + "]" * DEEP + ',"text":"x"}'
    file = save(tmp_path / "deep.jsonl", deep)
    assert outcome(lambda: tokenizer.count_tokens(file))[1] == "(1, 1)"


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_record_cannot_forge_a_document_boundary(
    tmp_path: Path, tokenizer: Tokenizer, kind: str
) -> None:
    pa = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    forged = f"one{EOT}two"
    file = tmp_path / f"a.{kind}"
    if kind == "jsonl":
        file.write_text(json.dumps({"text": forged}) + "\n")
    else:
        pa.write_table(pyarrow.table({"text": [forged]}), file)
    stats = tokenizer.encode_files(file, tmp_path / "out.npy", append_eot=True)
    assert np.load(tmp_path / "out.npy").tolist() == [*forged.encode(), 256]
    assert stats.documents == 1
    flags = ["--tokenizer", str(tmp_path / "t"), "--append-eot", "--out", str(tmp_path / "b.npy")]
    tokenizer.save(tmp_path / "t")
    assert main(["tokenize", str(file), *flags, "--special-tokens-in-records"]) == 0
    assert np.load(tmp_path / "b.npy").tolist() == [*b"one", 256, *b"two", 256]
    text = save(tmp_path / "a.txt", forged)  # the course's files are of this kind
    tokenizer.encode_files(text, tmp_path / "c.npy")
    assert np.load(tmp_path / "c.npy").tolist() == [*b"one", 256, *b"two"]


# Configurations


@pytest.mark.parametrize(
    "content",
    [
        "a = '" + "x" * 10**8 + "'",
        "a = " + "[" * 100_000,
        "[" + ".".join(["a"] * 10_000) + "]",
        "[model]\nnum_layers = 1000000000000\n",
        "[model]\nd_model = 1152921504606846976\n",
        "[train]\nsteps = 1" + "0" * 5000,
        b"\xff\xfe\x00",
    ],
    ids=["100 MB", "deep", "tables", "layers", "wide", "digits", "bytes"],
)
def test_configurations(tmp_path: Path, content: bytes | str) -> None:
    file = save(tmp_path / "run.toml", content)
    assert "run.toml" in refused(lambda: load_config(file))


def test_an_error_that_quotes_a_stranger_stays_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = save(tmp_path / "text.txt", "text")
    pattern = "(" * 100_000
    flags = ["--vocab-size", "260", "--pattern", pattern, "--out", str(tmp_path / "t")]
    assert main(["train-bpe", str(file), *flags]) == 2
    assert len(capsys.readouterr().err) < 1100


# Checkpoints and runs


class RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("a stranger's code ran",)


def archive(pickled: bytes, how: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as file:
        file.writestr("a/data.pkl", pickled)
        file.writestr("a/version", "3\n")
    return buffer.getvalue()


DOUBLING = b"".join(b"]q%c(h%ch%ce" % (n + 1, n, n) for n in range(60))


@pytest.mark.parametrize(
    "content",
    [
        archive(b"\0" * (200 << 20), zipfile.ZIP_DEFLATED),
        archive(b"\x80\x02" + b"]" * 100_000 + b"a" * 100_000 + b"."),
        archive(b"\x80\x02X\xff\xff\xff\xffa."),
        archive(b"\x80\x02]q\0" + DOUBLING + b"."),
        archive(b"cos\nsystem\n(S'exit 1'\ntR."),
        pickle.dumps(RunsCode()),
        b"PK\x05\x06" + b"\0" * 18,
        b"PK\x03\x04" + b"\xff" * 9999,
    ],
    ids=["bomb", "deep", "string", "doubling", "code", "pickle", "empty", "cut"],
)
def test_checkpoints(tmp_path: Path, content: bytes) -> None:
    file = save(tmp_path / "c.pt", content)
    assert "c.pt" in refused(lambda: read_state(file), megabytes=150)
    assert outcome(lambda: peek_iteration(file), megabytes=150) == ("returned", "None")


class LeavesAMark:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("reader", [read_state, peek_iteration, verify_file])
def test_no_checkpoint_runs_code(tmp_path: Path, reader: Callable[[Path], Any]) -> None:
    """Not even one that is whole otherwise, and whose reader wants but a number of it."""
    mark = tmp_path / "mark"
    state = {"model": {}, "optimizer": {"state": {}}, "iteration": 7, "more": LeavesAMark(mark)}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    mark.rmdir()  # so it would have come to that
    with suppress(ValueError):
        assert reader(save(tmp_path / "c.pt", buffer.getvalue())) != 7
    assert not mark.exists()


def test_checkpoints_of_strange_content(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    good = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "iteration": 1}
    sparse = {"weight": torch.zeros(2, 2).to_sparse(), "bias": torch.zeros(2)}
    for change in (
        {"model": None},
        {"model": {1: torch.zeros(2)}},
        {"model": sparse},
        {"model": {"weight": torch.zeros(1).expand(1 << 40), "bias": torch.zeros(2)}},
        {"optimizer": [1]},
        {"optimizer": {"state": {0: 5}, "param_groups": 3}},
        {"iteration": "x"},
        {"optimizer_name": ["SGD"]},
        {"format": {}},
    ):
        write_state(good | change, tmp_path / "c.pt")
        fresh = copy.deepcopy(model)
        said = refused(
            lambda fresh=fresh: load_checkpoint(
                tmp_path / "c.pt", fresh, torch.optim.AdamW(fresh.parameters())
            )
        )
        assert "c.pt" in said


def test_the_index_of_a_sharded_checkpoint_runs_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    save_sharded(tmp_path / "c", model, optimizer, {"iteration": 1}, World())
    load_sharded(tmp_path / "c", model)
    about = json.loads((tmp_path / "c" / "state.json").read_text())
    del about["crc32"], about["checksum"]  # as of before there were checksums

    def load_with(index: bytes, **more: Any) -> str:
        (tmp_path / "c" / ".metadata").write_bytes(index)
        about["sizes"][".metadata"] = len(index)
        save(tmp_path / "c" / "state.json", json.dumps(about | more))
        return refused(lambda: load_sharded(tmp_path / "c", model))

    good = (tmp_path / "c" / ".metadata").read_bytes()
    assert "asks for builtins.print" in load_with(pickle.dumps(RunsCode()))
    assert "damaged" in load_with(good.replace(b"__0_0.distcp", b"../../../etc"))
    assert "not the name of a file" in load_with(good, sizes={"../../x": 1})
    assert "ran" not in capfd.readouterr().out


def test_a_run_of_a_stranger(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    config = make_config(tmp_path, steps=2, eval_every=0)
    Trainer(config, run.path).train()
    text = run.config_file.read_text()
    for field, value in (
        ("num_layers = 1", f"num_layers = {10**12}"),
        ("d_model = 16", f"d_model = {2**62}"),
        ("d_model = 16", "d_model = -16"),
    ):
        run.config_file.write_text(text.replace(field, value))
        assert "config.toml" in refused(lambda: load_run(run.path))
    run.config_file.write_text(text)
    path = run.step_checkpoints()[-1]
    state = read_state(path)
    for progress in ({"step": "x"}, {"nope": 1}, 7, None):
        write_state(state | {"progress": progress}, path)
        assert path.name in refused(lambda: Trainer(config, run.path, resume=True))
    write_state(state, path)
    save(run.metrics_file, "[" * DEEP + "\n")
    wrong = [finding for finding in verify(run.path) if not finding.is_good]
    assert [finding.path for finding in wrong] == [str(run.metrics_file)]


# Others' models


def test_models_of_others(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    folder = tmp_path / "hf"
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 20}
    llama = {"model_type": "llama", "num_attention_heads": 2, **shape}
    weights = folder / "model.safetensors"

    def said() -> str:
        return refused(lambda: import_llama(folder, None, tmp_path / "out"))

    save(weights, b"")
    for change in (
        {"num_hidden_layers": 10**12},
        {"hidden_size": 2**60},
        {"vocab_size": -5},
        {"hidden_size": "x"},
        {"num_attention_heads": 0},
        {"rope_parameters": []},
    ):
        save(folder / "config.json", json.dumps(llama | change))
        assert "hf" in said(), change
    save(folder / "config.json", "[" * DEEP)
    assert "nested too deeply" in said()
    save(folder / "config.json", json.dumps(llama))
    huge = {"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}
    for header in (json.dumps(huge).encode(), b"[" * DEEP, b"{}"):
        length = len(header) if header != b"{}" else 2**60
        save(weights, struct.pack("<Q", length) + header + b"\0" * 8)
        assert "model.safetensors" in said()
    weights.unlink()
    save(folder / "pytorch_model.bin", pickle.dumps(RunsCode()))
    assert "could run code" in said()
    for places in ({"a": "../../x"}, {"a": "/etc/passwd"}, {"a": 7}, 7):
        save(folder / "model.safetensors.index.json", json.dumps({"weight_map": places}))
        assert "index" in said()
    save(folder / "model.safetensors.index.json", '{"weight_map":' * DEEP)
    assert "nested too deeply" in said()
    assert not (tmp_path / "out").exists()
    assert re.search("config", str(sorted(folder.iterdir())))
    assert replace(MODEL, num_layers=10_000).num_layers == 10_000
