"""Token files of nanoGPT, llm.c and Megatron: read as they are, checked against what they say."""

import pickle
import struct

import numpy as np
import pytest
import torch
from cs336lm import TokenDataset
from cs336lm.cli.main import main
from exchanged import one_line
from hypothesis import given, settings
from hypothesis import strategies as st

IDS = np.random.default_rng(0).integers(0, 50, 2000)


def write_llm_c(path, ids, *, magic=20240520, version=1, count=None, dtype="<u2"):
    """As llm.c's data preparation does: 256 int32, of which three are used."""
    header = np.zeros(256, "<i4")
    header[:3] = magic, version, len(ids) if count is None else count
    path.write_bytes(header.tobytes() + np.asarray(ids).astype(dtype).tobytes())
    return path


def write_megatron(path, documents, *, code=8, dtype="<u2", version=1):
    """As Megatron's indexed data set builder does, a document a sequence."""
    path.write_bytes(b"".join(np.asarray(ids).astype(dtype).tobytes() for ids in documents))
    lengths = [len(ids) for ids in documents]
    starts = np.cumsum([0, *lengths])[:-1] * np.dtype(dtype).itemsize
    index = struct.pack("<9sQBQQ", b"MMIDIDX\0\0", version, code, len(lengths), len(lengths) + 1)
    index += np.array(lengths, "<i4").tobytes() + starts.astype("<i8").tobytes()
    index += np.arange(len(lengths) + 1, dtype="<i8").tobytes()
    path.with_suffix(".idx").write_bytes(index)
    return path


def same(path, ids, dtype):
    dataset = TokenDataset(path)
    assert dataset.dtype == dtype
    assert len(dataset) == len(ids)
    assert np.array_equal(dataset[:], ids)
    assert np.array_equal(pickle.loads(pickle.dumps(dataset))[3:9], ids[3:9])
    return dataset


def test_nanogpt(tmp_path):
    path = tmp_path / "train.bin"
    IDS.astype(np.uint16).tofile(path)  # as its prepare.py does
    same(path, IDS, np.uint16)
    path.write_bytes(b"")
    assert len(TokenDataset(path)) == 0
    path.write_bytes(b"abc")
    with pytest.raises(ValueError, match="3 bytes long: uint16 ids fill an even number"):
        TokenDataset(path)


@pytest.mark.parametrize(
    ("magic", "version", "dtype"), [(20240520, 1, "<u2"), (20240801, 7, "<u4")]
)
def test_llm_c(tmp_path, magic, version, dtype):
    path = tmp_path / "train.bin"
    as_is = {"magic": magic, "version": version, "dtype": dtype}
    same(write_llm_c(path, IDS, **as_is), IDS, np.dtype(dtype))
    same(write_llm_c(path, [], **as_is), [], np.dtype(dtype))
    for count in (len(IDS) - 1, len(IDS) + 1, -1):
        write_llm_c(path, IDS, **as_is | {"count": count})
        with pytest.raises(ValueError, match=f"its header promises {count:,} tokens"):
            TokenDataset(path)
    write_llm_c(path, IDS, **as_is | {"version": 2})
    with pytest.raises(ValueError, match=f"in version 2; only version {version} is read"):
        TokenDataset(path)


def test_several_files_of_llm_c_are_one_row(tmp_path):
    for number, part in enumerate(np.array_split(IDS, 3)):
        write_llm_c(tmp_path / f"train_{number:06d}.bin", part)
    dataset = same(tmp_path / "train_*.bin", IDS, np.uint16)
    assert len(dataset.shards) == 3
    write_llm_c(tmp_path / "train_1.bin", IDS, magic=20240801, version=7, dtype="<u4")
    with pytest.raises(ValueError, match=r"train_1\.bin holds uint32, train_000000\.bin does not"):
        TokenDataset(tmp_path / "train_*.bin")
    with pytest.raises(OSError, match="no file matches"):
        TokenDataset(tmp_path / "val_*.bin")


@pytest.mark.parametrize(
    ("code", "stored", "dtype"),
    [(8, "<u2", np.uint16), (4, "<i4", np.uint32), (3, "<i2", np.uint16)],
)
def test_megatron(tmp_path, code, stored, dtype):
    documents = np.split(IDS, [5, 700, 701])
    path = write_megatron(tmp_path / "my_text_document.bin", documents, code=code, dtype=stored)
    same(path, IDS, dtype)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_what_megatron_itself_writes(tmp_path, dtype):
    """By its own builder, where megatron-core is installed."""
    theirs = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    builder = theirs.IndexedDatasetBuilder(str(tmp_path / "text_document.bin"), dtype=dtype)
    for ids in np.split(IDS, [5, 700, 701]):
        builder.add_document(torch.tensor(ids), [len(ids)])
    builder.finalize(str(tmp_path / "text_document.idx"))
    same(tmp_path / "text_document.bin", IDS, np.uint16 if dtype == np.uint16 else np.uint32)


def test_what_megatrons_index_says_is_checked(tmp_path):
    path = tmp_path / "t.bin"
    index = path.with_suffix(".idx")

    def refused(says):
        with pytest.raises(ValueError, match=says):
            TokenDataset(path)

    write_megatron(path, [IDS], code=5, dtype="<i8")
    refused("stored as int64; only 16 and 32 bits")
    write_megatron(path, [IDS], code=9)
    refused("stored as dtype 9")
    write_megatron(path, [IDS], version=2)
    refused("of version 2")
    write_megatron(path, [IDS[:1000], IDS[1000:]])
    whole = index.read_bytes()
    index.write_bytes(whole[:-1])
    refused("bytes long, not")
    index.write_bytes(b"XX" + whole[2:])
    refused("is not an index of Megatron's")
    moved = bytearray(whole)
    moved[struct.calcsize("<9sQBQQ") + 8 + 8] ^= 2
    index.write_bytes(bytes(moved))
    refused(r"do not follow each other in t\.bin")
    index.write_bytes(whole)
    path.write_bytes(path.read_bytes()[:-2])
    refused(r"but t\.idx promises 2,000 tokens of uint16")
    write_megatron(path, [])
    assert len(TokenDataset(path)) == 0


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.integers(0, 65_535), max_size=9), max_size=5),
    st.sampled_from(["nanogpt", "llm.c", "megatron"]),
)
def test_any_ids_in_any_of_them(tmp_path_factory, documents, program):
    path = tmp_path_factory.mktemp("bin") / "t.bin"
    ids = np.array([id for ids in documents for id in ids], dtype=np.uint16)
    if program == "megatron":
        write_megatron(path, documents)
    elif program == "llm.c":
        write_llm_c(path, ids)
    else:
        ids.tofile(path)
    assert np.array_equal(TokenDataset(path)[:], ids)


def test_training_and_evaluation_take_them(tmp_path, capsys):
    train = write_llm_c(tmp_path / "train.bin", IDS)
    val = write_megatron(tmp_path / "val.bin", [IDS[:300]])
    run = tmp_path / "run"
    shape = ["--model.d-model", "16", "--model.num-heads", "2", "--model.num-layers", "1"]
    sizes = ["--model.context-length", "8", "--data.batch-size", "4", "--train.steps", "2"]
    data = ["--data.train", str(train), "--data.val", str(val), "--train.device", "cpu"]
    assert main(["train", "--run-dir", str(run), *data, *shape, *sizes]) == 0
    assert main(["evaluate", str(run), "--data", str(train)]) == 0
    assert main(["inspect", str(train)]) == 0
    capsys.readouterr()
    write_llm_c(train, IDS, count=7)
    assert main(["train", "--run-dir", str(tmp_path / "b"), *data, *shape, *sizes]) == 1
    assert "its header promises 7 tokens" in one_line(capsys)
