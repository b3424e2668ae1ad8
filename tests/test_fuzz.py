"""What the Python side reads of others, at random: refused by one line, or read.

Thirty cases each; many more by `make fuzz` (CS336LM_FUZZ=20000), which also runs the fuzzers of the
Rust crate. A failure prints what it takes to see it again.
"""

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cs336lm import Tokenizer
from cs336lm.data import TokenDataset
from cs336lm.exchange.llama_config import read_llama_config
from cs336lm.training.checkpoints.archive import peek_iteration
from cs336lm.training.checkpoints.course import load_checkpoint, save_checkpoint
from cs336lm.training.config import Config, dump_config, load_config
from cs336lm.training.trackers.jsonl import read_metrics
from cs336lm.training.verification import verify
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CASES = int(os.environ.get("CS336LM_FUZZ", "30"))
fuzzed = settings(
    max_examples=CASES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

numbers = st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([0, 1, 2**24, 2**60])
plain = st.none() | st.booleans() | numbers | st.text(max_size=20)
json_values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def read_or_refuse(work: Callable[[], object]) -> None:
    said = ""
    try:
        work()
    except (ValueError, OSError) as error:
        said = str(error).strip()
    assert "\n" not in said


@st.composite
def changed(draw: st.DrawFn, content: bytes) -> bytes:
    """``content`` with some bytes changed, cut out or doubled."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at, length = draw(st.integers(0, max(len(found) - 1, 0))), draw(st.integers(1, 9))
        new = draw(st.binary(max_size=9) | st.just(bytes(found[at : at + length]) * 2))
        found[at : at + length] = new
    return bytes(found)


@fuzzed
@given(data=st.data())
def test_the_pickle_in_a_checkpoint(tmp_path: Path, data: st.DataObject) -> None:
    """With the archive around it made anew, so that no checksum is in the way."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    buffer = io.BytesIO()
    save_checkpoint(model, optimizer, 1, buffer)
    with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(tmp_path / "c.pt", "w") as made:
        for name in whole.namelist():
            content = whole.read(name)
            made.writestr(name, data.draw(changed(content)) if name.endswith(".pkl") else content)
    read_or_refuse(lambda: load_checkpoint(tmp_path / "c.pt", model, optimizer))
    peek_iteration(tmp_path / "c.pt")


@fuzzed
@given(
    sidecar=st.fixed_dictionaries(
        {},
        optional={
            "format": json_values,
            "tokens": json_values | st.just(5),
            "crc32": json_values,
            "vocab_size": json_values,
            "tokenizer_sha256": json_values,
            "shards": json_values
            | st.lists(
                st.dictionaries(st.sampled_from(["file", "tokens", "crc32"]), json_values | plain)
            ),
        },
    )
    | json_values
)
def test_sidecars(tmp_path: Path, sidecar: Any) -> None:
    np.save(tmp_path / "tokens.npy", np.zeros(5, np.uint16))
    (tmp_path / "tokens.json").write_text(json.dumps(sidecar))
    read_or_refuse(lambda: TokenDataset(tmp_path / "tokens.npy").check_contents())
    for finding in verify(tmp_path / "tokens.npy"):
        assert "\n" not in finding.says


@fuzzed
@given(data=st.data())
def test_arrays(tmp_path: Path, data: st.DataObject) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(40, dtype=np.uint16))
    (tmp_path / "tokens.npy").write_bytes(data.draw(changed(buffer.getvalue())))
    read_or_refuse(lambda: TokenDataset(tmp_path / "tokens.npy").max_id())


@fuzzed
@given(data=st.data())
def test_configurations(tmp_path: Path, data: st.DataObject) -> None:
    text = dump_config(Config().resolved(100))
    (tmp_path / "run.toml").write_bytes(data.draw(changed(text.encode())))
    read_or_refuse(lambda: load_config(tmp_path / "run.toml").resolved(100))


LLAMA = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 20,
    "rope_parameters": {"rope_type": "linear", "factor": 2.0},
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "layer_types": ["full_attention"],
    "head_dim": 8,
    "architectures": ["LlamaForCausalLM"],
}


@fuzzed
@given(change=st.dictionaries(st.sampled_from(sorted(LLAMA)), json_values, min_size=1))
def test_models_of_others(tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | change))
    read_or_refuse(lambda: read_llama_config(tmp_path / "config.json"))


@fuzzed
@given(lines=st.lists(json_values.map(json.dumps) | st.text(max_size=9), max_size=4))
def test_records(tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    read_or_refuse(lambda: read_metrics(tmp_path / "metrics.jsonl"))


@fuzzed
@given(data=st.data())
def test_tables(tmp_path: Path, data: st.DataObject) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": ["the cat sat"] * 99}), buffer, compression="zstd")
    (tmp_path / "a.parquet").write_bytes(data.draw(changed(buffer.getvalue())))
    tokenizer = Tokenizer({id: bytes([id]) for id in range(256)}, [])
    read_or_refuse(lambda: tokenizer.count_tokens(tmp_path / "a.parquet", threads=1))


@fuzzed
@given(data=st.data())
@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "merges.txt"])
def test_tokenizers(tmp_path: Path, name: str, data: st.DataObject) -> None:
    good = tmp_path / "good"
    if not good.exists():
        merged = [(b"a", b"b"), (b"ab", b"c")]
        vocab = {id: bytes([id]) for id in range(256)} | {256: b"ab", 257: b"abc"}
        Tokenizer(vocab, merged, ["<|endoftext|>"]).save(good, with_checksums=False)
        for path in good.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    file = tmp_path / name
    file.write_bytes(data.draw(changed((good / name).read_bytes())))
    read_or_refuse(lambda: Tokenizer.load(file).encode("abc abd <|endoftext|>"))
