"""Text jobs in parts, on every launcher: byte for byte what one process writes."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path

import pytest
import reference_bpe
import texts
from cs336lm import Tokenizer
from cs336lm.cli.main import main
from cs336lm.errors import UsageError
from cs336lm.experiments import spread
from cs336lm.experiments.launchers.launcher import Place
from cs336lm.experiments.spread import run_part, spread_counting, spread_encoding
from cs336lm.files import remove_directory
from cs336lm.text.options import EncodeOptions, TextSource
from cs336lm.text.parts import (
    CountingJob,
    EncodingJob,
    do_part,
    is_done,
    plan_parts,
    write_plan,
)
from cs336lm.text.training import count_pretokens
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EOT = texts.SPECIAL
VOCAB, MERGES = reference_bpe.train(
    (texts.MULTILINGUAL + texts.CODE + texts.OVERLAPS).encode(), 360, [EOT]
)
TOKENIZER = Tokenizer(VOCAB, MERGES, [EOT, "<|x|>", "<|x|><|y|>"])
PIECES = [b"the cat sat", b" ", b"\n", b"\n\n  ", EOT.encode(), EOT.encode()[:9], b"<|x|><|y|>"]
PIECES += [b"<|x|>", b"\xff\xfe\x80", "żółć 漢字 ".encode(), b"12345", b"'ll ", b"\r\n", b"aaaa"]

pieces = st.sampled_from(PIECES)
few, many = st.lists(pieces, max_size=4), st.lists(pieces, min_size=12, max_size=50)
contents = st.one_of(many, many, few).map(b"".join)
kinds = st.sampled_from(["txt", "txt", "txt", "jsonl", "txt.gz", "jsonl.gz"])


class HereLauncher:
    """Does tasks in this process, the last one first: their order changes nothing."""

    def __init__(self, folder: Path | None = None) -> None:
        self.done: list[int] = []

    def run(self, function, tasks):
        for task in reversed(list(tasks)):
            here = Path.cwd()
            try:
                do_part(task.folder, task.number)
            finally:
                os.chdir(here)
            self.done.append(task.number)
            yield task, None


def write(folder: Path, files: list[tuple[str, bytes]]) -> list[str]:
    paths = []
    for number, (kind, content) in enumerate(files):
        path = folder / f"{number}.{kind}"
        if kind.startswith("jsonl"):
            records = [record.decode(errors="replace") for record in content.split(b"\n")]
            lines = [json.dumps({"text": record}) for record in records]
            content = "\n".join(lines).encode()
        path.write_bytes(gzip.compress(content) if kind.endswith(".gz") else content)
        paths.append(str(path))
    return paths


def everything_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def both_ways(
    folder: Path, paths: list[str], options: EncodeOptions, part_bytes: int
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """What one process leaves in a folder, and what parts leave in another."""
    (folder / "one").mkdir()
    (folder / "parts").mkdir()
    one = TOKENIZER.encode_files(
        paths,
        folder / "one" / "tokens.npy",
        append_eot=options.append_eot,
        val_fraction=options.val_fraction,
        seed=options.seed,
        shard_tokens=options.shard_tokens,
        skip_errors=options.skip_errors,
        threads=1,
    )
    out = str(folder / "parts" / "tokens.npy")
    job = EncodingJob(TOKENIZER, TextSource(paths), options, threads=1)
    spread = spread_encoding(job, out, HereLauncher, part_bytes=part_bytes)
    assert spread._replace(path="", val=None) == one._replace(path="", val=None)
    return everything_in(folder / "one"), everything_in(folder / "parts")


def test_what_a_longer_set_left_goes_as_after_one_process(tmp_path):
    long, short = write(tmp_path, [("txt", b"the cat sat\n" * 40), ("txt", b"the cat sat\n" * 5)])
    (tmp_path / "parts").mkdir()
    out = tmp_path / "parts" / "tokens.npy"
    TOKENIZER.encode_files([long], out, shard_tokens=20)
    older = len(everything_in(out.parent))
    job = EncodingJob(TOKENIZER, TextSource([short]), EncodeOptions(shard_tokens=20), threads=1)
    spread_encoding(job, str(out), HereLauncher, part_bytes=15)
    TOKENIZER.encode_files([short], tmp_path / "tokens.npy", shard_tokens=20)
    alone = {p.name: p.read_bytes() for p in tmp_path.glob("tokens*")}
    assert everything_in(out.parent) == alone
    assert len(alone) < older


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    files=st.lists(st.tuples(kinds, contents), min_size=1, max_size=3),
    part_bytes=st.sampled_from([15, 40, 150]),
    append_eot=st.booleans(),
    val_fraction=st.sampled_from([0.0, 0.4, 1.0]),
    shard_tokens=st.sampled_from([None, None, 30, 200]),
    seed=st.integers(0, 3),
)
def test_parts_are_one_process_byte_for_byte(
    tmp_path_factory, files, part_bytes, append_eot, val_fraction, shard_tokens, seed
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    paths = write(folder, files)
    options = EncodeOptions(append_eot, val_fraction, seed, shard_tokens)
    one, parts = both_ways(folder, paths, options, part_bytes)
    assert one == parts


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    files=st.lists(st.tuples(kinds, contents), min_size=1, max_size=3),
    part_bytes=st.sampled_from([15, 40, 150]),
    pattern=st.sampled_from(["gpt2", "gpt4", r"\w+|\W"]),
)
def test_counts_in_parts_are_one_process_byte_for_byte(
    tmp_path_factory, files, part_bytes, pattern
) -> None:
    folder = tmp_path_factory.mktemp("counts")
    paths = write(folder, files)
    special = [EOT, "<|x|>"]
    distinct = count_pretokens(paths, folder / "one.bin", special, pattern=pattern)
    job = CountingJob(TextSource(paths), special, pattern, threads=1)
    out = str(folder / "parts.bin")
    assert spread_counting(job, out, HereLauncher, part_bytes=part_bytes) == distinct
    assert (folder / "parts.bin").read_bytes() == (folder / "one.bin").read_bytes()
    assert not (folder / "parts.bin.parts").exists()


def test_a_plan_divides_plain_text_and_gathers_small_files(tmp_path: Path) -> None:
    text = (b"the cat sat on the mat. " * 50, b"a few words")
    paths = write(tmp_path, [("txt", text[0]), *[("txt", text[1])] * 5, ("jsonl", text[0])])
    parts = plan_parts(EncodingJob(TOKENIZER, TextSource(paths), EncodeOptions()), 200)
    ranges = [part.range for part in parts if part.range]
    assert len(ranges) > 4
    assert ranges[0][0] == 0
    assert ranges[-1][1] == len(text[0])
    assert all(one[1] == other[0] for one, other in pairwise(ranges))
    assert [part.files for part in parts if not part.range] == [[1, 2, 3, 4, 5], [6]]


def test_counts_of_many_parts_are_added_in_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process may open few files at once."""
    monkeypatch.setattr("cs336lm.text.parts._MOST_OPEN", 3)
    paths = write(tmp_path, [("txt", b"".join(PIECES) * 6)])
    count_pretokens(paths, tmp_path / "one.bin", [EOT])
    job = CountingJob(TextSource(paths), [EOT], "gpt2", threads=1)
    assert len(plan_parts(job, 20)) > 9
    spread_counting(job, str(tmp_path / "parts.bin"), HereLauncher, part_bytes=20)
    assert (tmp_path / "parts.bin").read_bytes() == (tmp_path / "one.bin").read_bytes()


def test_what_cannot_be_read_is_left_out_alike(tmp_path: Path) -> None:
    paths = write(tmp_path, [("txt", b"some words " * 30), ("jsonl", b"a\nb"), ("txt", b"end")])
    Path(paths[1]).write_text('{"text": "good"}\nnot a record\n{"text": "too"}\n')
    (tmp_path / "damaged.txt.gz").write_bytes(gzip.compress(b"words " * 40)[:-20])
    paths[1:1] = [str(tmp_path / "missing.txt"), str(tmp_path / "damaged.txt.gz")]
    options = EncodeOptions(val_fraction=0.3, skip_errors=True)
    one, parts = both_ways(tmp_path, paths, options, 100)
    assert one == parts
    assert len(json.loads(one["tokens.json"])["skipped"]) == 3


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a text, a tokenizer and what one process makes of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(os.path.abspath, sys.path)))
    (tmp_path / "a.txt").write_bytes(b"".join(PIECES) * 40)
    (tmp_path / "b.jsonl").write_text('{"text": "a record"}\n{"text": "another"}\n')
    TOKENIZER.save(tmp_path / "tokenizer")
    assert main(["tokenize", *TOKENIZE, "--out", "one.npy"]) == 0
    return tmp_path


TOKENIZE = ["a.txt", "b.jsonl", "--tokenizer", "tokenizer", "--val-fraction", "0.2", "--threads=1"]


def same_as_one(folder: Path, stem: str) -> bool:
    endings = [".npy", ".json", ".val.npy", ".val.json"]
    made = [(folder / f"{stem}{ending}").read_bytes() for ending in endings]
    return made == [(folder / f"one{ending}").read_bytes() for ending in endings]


def test_processes_of_this_machine(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    flags = ["--jobs", "2", "--part-size", "2000", "--out", "parts.npy"]
    assert main(["tokenize", *TOKENIZE, *flags]) == 0
    assert "for validation: parts.val.npy" in capsys.readouterr().out
    assert same_as_one(corpus, "parts")
    count = ["count-pretokens", "a.txt", "b.jsonl", "--special-token", EOT]
    assert main([*count, "--out", "one.bin"]) == 0
    assert main([*count, "--launcher", "local", "--part-size", "2000", "--out", "two.bin"]) == 0
    assert (corpus / "one.bin").read_bytes() == (corpus / "two.bin").read_bytes()
    assert not list(corpus.glob("*.parts"))


def test_a_folder_of_parts_that_another_removes_is_made_again(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one has joined its parts when this one is about to take their folder."""
    lock = spread.exclusive_lock
    times = []

    def late(path: Path, thing: str) -> AbstractContextManager[None]:
        if not times:
            remove_directory(path.parent)
        times.append(path)
        return lock(path, thing)

    monkeypatch.setattr(spread, "exclusive_lock", late)
    flags = ["--jobs", "2", "--part-size", "2000", "--out", "parts.npy"]
    assert main(["tokenize", *TOKENIZE, *flags]) == 0
    assert len(times) == 2
    assert same_as_one(corpus, "parts")
    assert not list(corpus.glob("*parts*/"))


def test_a_killed_task_is_run_again(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process of part 1 kills itself."""
    python = corpus / "python"
    python.write_text(
        "#!/bin/sh\n"
        f'if [ "$4" = 1 ] && [ ! -e {corpus}/killed ]; then : > {corpus}/killed; kill -9 $$; fi\n'
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    flags = ["--jobs", "2", "--part-size", "3000", "--out", "parts.npy"]
    assert main(["tokenize", *TOKENIZE, *flags]) == 0
    assert (corpus / "killed").exists()
    assert same_as_one(corpus, "parts")


def test_a_task_that_always_dies_is_one_line(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python = corpus / "python"
    python.write_text("#!/bin/sh\nkill -9 $$\n")
    python.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(python))
        assert main(["tokenize", *TOKENIZE, "--jobs", "1", "--out", "parts.npy"]) == 1
    assert "killed by signal 9 again and again" in capsys.readouterr().err
    assert not (corpus / "parts.npy").exists()
    assert main(["tokenize", *TOKENIZE, "--jobs", "1", "--out", "parts.npy"]) == 0
    assert same_as_one(corpus, "parts")


def test_a_killed_driver_goes_on(corpus: Path) -> None:
    flags = ["--jobs", "2", "--part-size", "300", "--out", "parts.npy"]
    command = [sys.executable, "-m", "cs336lm", "tokenize", *TOKENIZE, *flags]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE)
    folder = corpus / "parts.parts"
    deadline = time.monotonic() + 60
    while len(list(folder.glob("*.json"))) < 3 + 1:  # the plan is one
        assert time.monotonic() < deadline
        assert driver.poll() is None, "it ended before it could be killed: make the text longer"
        time.sleep(0.01)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.npy")}
    assert not (corpus / "parts.npy").exists()
    again = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0, again.stderr
    assert again.stderr.startswith("going on: ")
    assert before
    assert same_as_one(corpus, "parts")
    assert not folder.exists()


def test_only_what_is_left_is_done_again(tmp_path: Path) -> None:
    paths = write(tmp_path, [("txt", b"the cat sat on the mat. " * 50)])

    class Interrupted(HereLauncher):
        def run(self, function, tasks):
            for number, ended in enumerate(super().run(function, tasks)):
                if number == 3:
                    raise KeyboardInterrupt
                yield ended

    job = EncodingJob(TOKENIZER, TextSource(paths), EncodeOptions(), threads=1)
    out = str(tmp_path / "tokens.npy")
    first, second = Interrupted(), HereLauncher()
    with pytest.raises(KeyboardInterrupt):
        spread_encoding(job, out, lambda _: first, part_bytes=100)
    told: list[tuple[str, int, int]] = []
    spread_encoding(job, out, lambda _: second, progress=lambda *one: told.append(one))
    assert not set(first.done) & set(second.done)
    assert sorted(first.done + second.done) == list(range(12))
    assert told[-1] == ("encoding", 1200, 1200)


def test_slurm_does_it_too(corpus: Path) -> None:
    """The scripts that Slurm would run, as processes of this machine."""
    from cs336lm.experiments.launchers.slurm import SlurmLauncher

    source = TextSource(["a.txt", "b.jsonl"])
    options = EncodeOptions(val_fraction=0.2)
    spread_encoding(
        EncodingJob(TOKENIZER, source, options, 1),
        "slurm.npy",
        lambda folder: SlurmLauncher(folder, 2, {"timeout_min": 5}, cluster="local"),
        part_bytes=4000,
    )
    assert same_as_one(corpus, "slurm")


def test_ray_does_it_too(corpus: Path) -> None:
    ray = pytest.importorskip("ray")
    from cs336lm.experiments.launchers.ray import RayLauncher

    try:
        ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
        source = TextSource(["a.txt", "b.jsonl"])
        options = EncodeOptions(val_fraction=0.2)
        job = EncodingJob(TOKENIZER, source, options, 1)
        spread_encoding(job, "ray.npy", lambda _: RayLauncher(2), part_bytes=4000)
    finally:
        ray.shutdown()
    assert same_as_one(corpus, "ray")


def test_another_job_does_not_take_over_parts(corpus: Path) -> None:
    class Interrupted(HereLauncher):
        def run(self, function, tasks):
            yield next(super().run(function, tasks))
            raise KeyboardInterrupt

    def job(eot: bool) -> EncodingJob:
        return EncodingJob(TOKENIZER, TextSource(["a.txt"]), EncodeOptions(append_eot=eot), 1)

    with pytest.raises(KeyboardInterrupt):
        spread_encoding(job(False), "x.npy", Interrupted, part_bytes=1000)
    with pytest.raises(UsageError, match=r"parts of another job .append_eot differ"):
        spread_encoding(job(True), "x.npy", HereLauncher)
    (corpus / "a.txt").write_text("changed")
    with pytest.raises(UsageError, match=r"parts of another job .inputs differ"):
        spread_encoding(job(False), "x.npy", HereLauncher)


def test_a_damaged_part_is_refused(corpus: Path) -> None:
    job = EncodingJob(TOKENIZER, TextSource(["a.txt"]), EncodeOptions(), 1)

    class Damaging(HereLauncher):
        def run(self, function, tasks):
            for task, ended in super().run(function, tasks):
                if task.number == 0:
                    array = task.folder / "00000.npy"
                    array.write_bytes(array.read_bytes()[:-2])
                yield task, ended

    with pytest.raises((OSError, ValueError), match=r"00000\.npy"):
        spread_encoding(job, "x.npy", Damaging, part_bytes=1000)
    assert not (corpus / "x.npy").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-", "--jobs", "2", "--out", "x.npy"], "-: is no regular file"),
        (["a.txt", "--part-size", "1M", "--out", "x.npy"], "are for parts"),
        (["a.txt", "--jobs", "2", "--resume", "--shard-tokens", "9", "--out", "x.npy"], "--resume"),
        (["a.txt", "--jobs", "2", "--out", "mine.npy"], "mine.npy"),
        (["a.txt", "--jobs", "2", "--out", "held.npy"], "held.parts exists and holds no parts"),
        (["a.txt", "--jobs", "2", "--launcher-option", "a=1", "--out", "x.npy"], "slurm and ray"),
        (["missing.txt", "--jobs", "2", "--out", "x.npy"], "missing.txt"),
    ],
)
def test_wrong_calls_are_one_line_and_leave_nothing(
    corpus: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np

    np.save(corpus / "mine.npy", np.arange(3.0))
    (corpus / "held.parts").mkdir()
    (corpus / "held.parts" / "letter.txt").write_text("mine")
    before = sorted(corpus.rglob("*"))
    capsys.readouterr()
    try:
        status = main(["tokenize", *flags, "--tokenizer", "tokenizer"])
    except SystemExit as ended:
        status = ended.code
    assert status in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(corpus.rglob("*")) == before


def test_a_failing_part_says_why(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (corpus / "bad.jsonl").write_text('{"text": "good"}\nno record\n')
    command = ["tokenize", "bad.jsonl", "--tokenizer", "tokenizer", "--out", "x.npy"]
    capsys.readouterr()
    assert main(command) == 1
    alone = capsys.readouterr().err
    assert main([*command, "--jobs", "1"]) == 1
    assert capsys.readouterr().err == alone


def test_two_tasks_at_one_part_do_it_once(corpus: Path) -> None:
    """A task that a dead driver left behind, and the same task of the next driver."""
    from cs336lm.files import exclusive_lock

    folder = corpus / "folder"
    folder.mkdir()
    job = EncodingJob(TOKENIZER, TextSource(["a.txt"]), EncodeOptions(), 1)
    write_plan(folder, job, plan_parts(job, 1000))
    command = [sys.executable, "-m", "cs336lm.text.parts", str(folder), "0"]
    with exclusive_lock(folder / "00000.lock", "the part"):
        second = subprocess.Popen(command)
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(1.5)
        assert not is_done(folder, job.kind, 0)
    assert second.wait(60) == 0
    assert is_done(folder, job.kind, 0)
    before = (folder / "00000.npy").stat().st_mtime_ns
    do_part(folder, 0)
    assert (folder / "00000.npy").stat().st_mtime_ns == before


def test_an_interrupted_task_is_killed(corpus: Path) -> None:
    from cs336lm.experiments.launchers.launcher import TaskDied
    from cs336lm.experiments.spread import PartTask

    with pytest.raises(TaskDied, match="stopped"):
        run_part(PartTask(corpus, 0), Place(stopping=lambda: True))


def test_nothing_heavy_is_imported(corpus: Path) -> None:
    flags = ["--jobs", "2", "--part-size", "9000", "--out", "parts.npy"]
    code = (
        "import sys; from cs336lm.cli.main import main; "
        f"status = main({['tokenize', *TOKENIZE, *flags]!r}); "
        "sys.exit(status or [m for m in ('torch', 'pandas', 'rich') if m in sys.modules] or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr


def test_no_file_beside_an_output_is_touched(corpus: Path) -> None:
    """Lengths of documents are written for parts alone."""
    (corpus / "x.documents").write_text("mine")
    assert main(["tokenize", *TOKENIZE, "--out", "x.npy"]) == 0
    assert main(["tokenize", *TOKENIZE, "--jobs", "1", "--out", "x.npy"]) == 0
    assert same_as_one(corpus, "x")
    assert (corpus / "x.documents").read_text() == "mine"
