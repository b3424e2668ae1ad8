"""A flipped bit or a cut, anywhere: noticed before anything is used, and named by `check`."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import texts
import torch
from cs336lm import Tokenizer, count_pretokens
from cs336lm.cli.main import main
from cs336lm.data import TokenDataset
from cs336lm.errors import UsageError
from cs336lm.training.checkpoints.archive import read_state
from cs336lm.training.checkpoints.seal import verify as verify_seal
from cs336lm.training.run_directory import RunDirectory, load_run, verify_checkpoint
from cs336lm.training.trainer import Trainer
from cs336lm.training.verification import verify
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_run import MODEL, make_config

# Many more with CS336LM_DAMAGES=10000.
CASES = int(os.environ.get("CS336LM_DAMAGES", "25"))
EOT = texts.SPECIAL
TEXT = "".join(f"{texts.CODE[:200]} {i} {texts.MULTILINGUAL[:300]}{EOT}" for i in range(12))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of everything that is verified."""
    folder = tmp_path_factory.mktemp("written")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    tokenizer = Tokenizer.train(folder / "text.txt", 300, [EOT])
    tokenizer.save(folder / "tokenizer")
    tokenizer.encode_files(folder / "text.txt", folder / "tokens.npy")
    tokenizer.encode_files(
        folder / "text.txt", folder / "parts.npy", shard_tokens=700, val_fraction=0.3
    )
    (folder / "begun-00002.npy").mkdir()  # in the way of a shard
    with pytest.raises(ValueError, match="begun-00002"):
        tokenizer.encode_files(folder / "text.txt", folder / "begun.npy", shard_tokens=700)
    (folder / "begun-00002.npy").rmdir()
    count_pretokens(folder / "text.txt", folder / "text.counts", [EOT])
    config = make_config(folder, model=replace(MODEL, vocab_size=300))
    config = replace(config, data=replace(config.data, tokenizer=folder / "tokenizer"))
    Trainer(config, folder / "run").train()
    return folder


def check_contents(path: Path) -> None:
    TokenDataset(path).check_contents()


def resume(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder / "tokenizer")
    out = folder / "begun.npy"
    tokenizer.encode_files(folder / "text.txt", out, shard_tokens=700, resume=True)


# What is damaged -> the path to check, and what uses it.
USES = {
    "tokens.npy": ("tokens.npy", lambda folder: check_contents(folder / "tokens.npy")),
    "tokens.json": ("tokens.npy", lambda folder: TokenDataset(folder / "tokens.npy")),
    "parts-00001.npy": ("parts.npy", lambda folder: check_contents(folder / "parts")),
    "parts.val.json": ("parts.val.npy", lambda folder: TokenDataset(folder / "parts.val")),
    "begun.resume.json": ("begun.npy", resume),
    "begun-00001.npy": ("begun.resume.json", resume),
    "tokenizer/tokenizer.json": ("tokenizer", lambda folder: Tokenizer.load(folder / "tokenizer")),
    "tokenizer/merges.txt": ("tokenizer", lambda folder: Tokenizer.load(folder / "tokenizer")),
    "tokenizer/vocab.json": ("tokenizer", lambda folder: Tokenizer.load(folder / "tokenizer")),
    "tokenizer/checksums.json": (
        "tokenizer/merges.txt",
        lambda folder: Tokenizer.load(folder / "tokenizer" / "merges.txt"),
    ),
    "text.counts": (
        "text.counts",
        lambda folder: Tokenizer.train_counts(folder / "text.counts", 300),
    ),
    "run/checkpoints/step-00000008.pt": (
        "run",
        lambda folder: load_run(folder / "run", which=8),
    ),
    "run/checkpoints/best.pt": (
        "run/checkpoints/best.pt",
        lambda folder: read_state(folder / "run" / "checkpoints" / "best.pt"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", USES)
def test_all_is_well_before_it_is_damaged(written: Path, name: str) -> None:
    path, use = USES[name]
    findings = list(verify(written / path))
    assert findings
    assert all(finding.is_good for finding in findings), findings
    if use is not resume:  # which would finish the job
        use(written)


@pytest.mark.parametrize("name", USES)
@settings(
    max_examples=CASES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damage_is_noticed(written: Path, name: str, data: st.DataObject) -> None:
    path, use = USES[name]
    whole = (written / name).read_bytes()
    if data.draw(st.booleans(), label="cut"):
        # The last newline of a text alone changes nothing.
        most = len(whole) - (2 if whole.endswith(b"\n") else 1)
        damaged = whole[: data.draw(st.integers(0, most), label="to")]
    else:
        bit = data.draw(st.integers(0, 8 * len(whole) - 1), label="bit")
        flipped = whole[bit // 8] ^ (1 << bit % 8)
        damaged = whole[: bit // 8] + bytes([flipped]) + whole[bit // 8 + 1 :]
    (written / name).write_bytes(damaged)
    try:
        wrong = [finding for finding in verify(written / path) if not finding.is_good]
        assert wrong
        with pytest.raises((ValueError, OSError)) as caught:
            use(written)
        assert "\n" not in str(caught.value)
        stem = Path(name).name.partition(".")[0]
        assert stem in wrong[0].path + wrong[0].says, wrong[0]
        assert stem in str(caught.value)
    finally:
        (written / name).write_bytes(whole)


def test_check_prints_a_line_a_thing_and_exits_with_one(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(written / "run", tmp_path / "run")
    assert main(["check", str(tmp_path / "run"), str(written / "tokens.npy")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    checkpoints = len(list((tmp_path / "run" / "checkpoints").glob("*.pt")))
    assert len(lines) == 4 + checkpoints + 1 + 1 - 1  # no samples were asked for
    step = tmp_path / "run" / "checkpoints" / "step-00000008.pt"
    step.write_bytes(step.read_bytes()[:-1])
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 2}\n{"step": 1}\n')
    assert main(["check", str(tmp_path / "run"), "--json"]) == 1
    found = {one["path"]: one for one in json.loads(capsys.readouterr().out)}
    wrong = {Path(path).name: one["says"] for path, one in found.items() if not one["ok"]}
    assert wrong.keys() == {"step-00000008.pt", "metrics.jsonl"}
    assert wrong["metrics.jsonl"] == "line 2: step 1 comes after step 2"
    assert main(["check", str(tmp_path / "none")]) == 1
    assert "none: No such file" in capsys.readouterr().err
    assert main(["check", str(tmp_path)]) == 2


def test_what_is_of_before_there_were_checksums_is_read_and_said_to_be(
    written: Path, tmp_path: Path
) -> None:
    def says(path: Path) -> str:
        (finding,) = verify(path)
        assert finding.is_good, finding
        return finding.says

    state = read_state(written / "run" / "checkpoints" / "step-00000012.pt")
    torch.save(state, tmp_path / "step-00000012.pt")
    assert not verify_checkpoint(tmp_path / "step-00000012.pt")
    assert read_state(tmp_path / "step-00000012.pt").keys() == state.keys()
    assert "of before there were checksums" in says(tmp_path / "step-00000012.pt")
    np.save(tmp_path / "alone.npy", np.load(written / "tokens.npy"))
    assert "no checksums are known" in says(tmp_path / "alone.npy")
    sidecar = json.loads((written / "tokens.json").read_text())
    del sidecar["checksum"], sidecar["crc32"]
    (tmp_path / "alone.json").write_text(json.dumps(sidecar | {"format": 1}))
    assert "no checksums are known" in says(tmp_path / "alone.npy")
    (tmp_path / "alone.json").write_text(json.dumps(sidecar))
    with pytest.raises(ValueError, match="it has lost its checksum"):
        TokenDataset(tmp_path / "alone.npy")
    shutil.copytree(written / "tokenizer", tmp_path / "old")
    (tmp_path / "old" / "checksums.json").unlink()
    assert "no checksums are known" in says(tmp_path / "old")


def test_others_open_what_is_sealed(written: Path, tmp_path: Path) -> None:
    path = written / "run" / "checkpoints" / "best.pt"
    assert torch.load(path, weights_only=True)["iteration"] > 0
    assert torch.load(path, weights_only=True, mmap=True)["iteration"] > 0
    with path.open("rb") as file:
        assert verify_seal(file, "best.pt")


def test_a_tokenizers_checksums_are_not_somebody_elses(written: Path, tmp_path: Path) -> None:
    (tmp_path / "checksums.json").write_text("{}")
    with pytest.raises(UsageError, match="cs336lm did not write what is in it"):
        Tokenizer.load(written / "tokenizer").save(tmp_path)
    assert (tmp_path / "checksums.json").read_text() == "{}"
    assert os.listdir(tmp_path) == ["checksums.json"]


def test_a_tokenizer_may_be_saved_by_somebody_else(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    shutil.copytree(written / "tokenizer", folder)
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()), indent=3))
    assert Tokenizer.load(folder) == Tokenizer.load(written / "tokenizer")
    (finding,) = verify(folder)
    assert finding.is_good
    assert "tokenizer.json was written again" in finding.says


def test_a_bad_last_checkpoint_costs_one_interval(written: Path, tmp_path: Path) -> None:
    """The damaged one is set aside, and the run ends as if nothing had happened."""
    shutil.copytree(written / "run", tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    last = run.step_checkpoints()[-1]
    whole = last.read_bytes()
    last.write_bytes(whole[:-9] + b"\0" + whole[-8:])
    trainer = Trainer(run.load_config(), run.path, resume=True)
    assert list(trainer.damaged) == [last]
    assert trainer.progress.step == 8
    trainer.train()
    ours, theirs = read_state(last)["model"], read_state(written / "run/checkpoints" / last.name)
    assert all(torch.equal(ours[name], weight) for name, weight in theirs["model"].items())
    assert last.with_name(f"{last.name}.damaged").stat().st_size == len(whole)
    assert all(finding.is_good for finding in verify(run.path))


def test_check_needs_no_gpu_library_for_a_tokenizer_to_be_read(written: Path) -> None:
    command = [sys.executable, "-m", "cs336lm", "check", str(written / "text.counts")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ok ")
