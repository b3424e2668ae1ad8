"""Token files in parts: validation beside training, shards, and a job that goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference_bpe
from cs336lm import Tokenizer
from cs336lm.data import TokenDataset

EOT = "<|endoftext|>"
DOCUMENTS = [f"the cat {index} sat on the mat {index * index}.\n" for index in range(400)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text of many documents and a tokenizer."""
    folder = tmp_path_factory.mktemp("shards")
    (folder / "text").write_text(EOT.join(DOCUMENTS))
    data = "".join(DOCUMENTS).encode()
    vocab, merges = reference_bpe.train(data, 400, [EOT])
    Tokenizer(vocab, merges, [EOT]).save(folder / "tokenizer")
    return folder


def tokenize(folder: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    command = ["tokenize", "text", *map(str, flags), "--tokenizer", "tokenizer"]
    return subprocess.run(
        [sys.executable, "-m", "cs336lm", *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_validation_takes_whole_documents(folder: Path) -> None:
    flags = ["--val-fraction", 0.25, "--out", "split.npy"]
    result = tokenize(folder, *flags)
    assert result.returncode == 0, result.stderr
    assert "split.val.npy" in result.stdout
    tokenizer = Tokenizer.load(folder / "tokenizer")
    train, val = (
        tokenizer.decode(np.load(folder / name)).split(EOT)
        for name in ("split.npy", "split.val.npy")
    )
    train, val = ([text for text in side if text] for side in (train, val))
    assert sorted(train + val) == sorted(DOCUMENTS)
    assert 60 < len(val) < 140
    for side, name in ((train, "split.json"), (val, "split.val.json")):
        sidecar = json.loads((folder / name).read_text())
        assert sidecar["documents"] == len(side)

    before = np.load(folder / "split.val.npy")
    tokenize(folder, *flags, "--threads", 1)
    assert np.array_equal(np.load(folder / "split.val.npy"), before)
    tokenize(folder, *flags, "--seed", 1)
    assert not np.array_equal(np.load(folder / "split.val.npy"), before)


def test_shards_are_the_array_in_pieces_and_a_job_goes_on(folder: Path) -> None:
    assert tokenize(folder, "--out", "whole.npy").returncode == 0
    flags = ["--shard-tokens", "1K", "--out", "parts.npy"]
    (folder / "parts-00002.npy").mkdir()
    stopped = tokenize(folder, *flags)
    assert stopped.returncode == 1
    assert "parts-00002.npy: is a directory" in stopped.stderr
    assert not (folder / "parts.json").exists()
    (folder / "parts-00002.npy").rmdir()
    first = (folder / "parts-00000.npy").stat()

    other = tokenize(folder, *flags[:1], "2K", *flags[2:], "--resume")
    assert other.returncode == 1
    assert "a different shard_tokens" in other.stderr
    result = tokenize(folder, *flags, "--resume")
    assert result.returncode == 0, result.stderr
    shards = json.loads((folder / "parts.json").read_text())["shards"]
    arrays = [np.load(folder / shard["file"]) for shard in shards]
    assert [len(array) for array in arrays] == [shard["tokens"] for shard in shards]
    assert {len(array) for array in arrays[:-1]} == {1000}
    assert np.array_equal(np.concatenate(arrays), np.load(folder / "whole.npy"))
    assert (folder / "parts-00000.npy").stat().st_ino == first.st_ino
    assert not (folder / "parts.resume.json").exists()


def test_no_sidecar_speaks_of_arrays_of_another_job(folder: Path) -> None:
    """Interrupted, a job leaves no sidecar of the one before beside its own shards."""
    flags = ["--out", "again.npy", "--shard-tokens"]
    assert tokenize(folder, *flags, "1K").returncode == 0
    before = TokenDataset(folder / "again.npy")
    assert len(before.shards) > 3
    (folder / "again-00002.npy").unlink()
    (folder / "again-00002.npy").mkdir()
    assert tokenize(folder, *flags, "2K").returncode == 1
    assert not (folder / "again.json").exists()
    with pytest.raises(FileNotFoundError):
        TokenDataset(folder / "again.npy")
    (folder / "again-00002.npy").rmdir()
    assert tokenize(folder, *flags, "2K", "--resume").returncode == 0
    after = TokenDataset(folder / "again.npy")
    assert len(after.shards) == (len(before) + 1999) // 2000
    assert np.array_equal(after[:], np.concatenate(after.shards))
    # And one file in their place: the sidecar lists no shards any more.
    assert tokenize(folder, *flags[:2]).returncode == 0
    assert np.array_equal(TokenDataset(folder / "again.npy")[:], after[:])


def test_end_of_text_after_each_file(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder / "tokenizer")
    (folder / "a").write_text("the cat")
    (folder / "b").write_text("the mat")
    out = folder / "appended.npy"
    tokenizer.encode_files([folder / "a", folder / "b"], out, append_eot=True)
    assert tokenizer.decode(np.load(out)) == f"the cat{EOT}the mat{EOT}"
    bare = Tokenizer(tokenizer.vocab, tokenizer.merges)
    vocab = {id: token for id, token in bare.vocab.items() if token != EOT.encode()}
    with pytest.raises(ValueError, match="append_eot"):
        Tokenizer(vocab, tokenizer.merges).encode_files(folder / "a", out, append_eot=True)


def test_a_missing_file_is_skipped_if_wished(folder: Path) -> None:
    result = tokenize(folder, "missing", "--on-error", "skip", "--out", "skipped.npy")
    assert result.returncode == 0, result.stderr
    assert "skipped: missing: " in result.stderr
    assert "missing" in json.loads((folder / "skipped.json").read_text())["skipped"][0]
    assert tokenize(folder, "missing", "--out", "stopped.npy").returncode == 1


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--resume"], "--shard-tokens"),
        (["--val-fraction", "1.5"], "--val-fraction"),
        (["--shard-tokens", "0M"], "--shard-tokens"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_flags_that_make_no_sense(folder: Path, flags: list[str], named: str) -> None:
    result = tokenize(folder, *flags, "--out", "refused.npy")
    assert result.returncode == 2
    assert named in result.stderr
