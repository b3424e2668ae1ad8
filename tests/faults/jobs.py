"""The commands that faults are put into, each so small that it takes a second."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from .contents import broken, contents, digest
from .process import Place, run, warm_up

EOT = "<|endoftext|>"

_CONFIG = """\
[data]
train = "tokens.npy"
val = "val.npy"
tokenizer = "tok"
batch_size = 4
[model]
context_length = 16
d_model = 16
num_layers = 1
num_heads = 2
[optim]
lr = 1e-2
[train]
device = "cpu"
log_every = 1
eval_every = 4
eval_batches = 2
checkpoint_every = 3
keep_checkpoints = 2
"""
_CONFIGS = {
    "run": "steps = 10",
    "base": "steps = 4",
    "sampled": "steps = 10\nsample_every = 5",
    "endless": "",
}


@dataclass
class Job:
    """A command, what it needs, and what it leaves."""

    name: str
    command: str
    """Given again as it is after a fault; paths are relative to ``work``."""
    before: str | None = None
    """A command whose output stands there already, and is to be replaced."""
    changing: tuple[str, ...] = ()
    """Ends of names of files that change while the job goes on: only looked at, not compared."""
    once: bool = False
    """Whether an output that is whole stays, and the command given again says so."""
    reference: dict[str, str] = field(default_factory=dict)
    older: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    calls: dict[str, int] = field(default_factory=dict)
    """How many calls of each kind it makes."""

    @property
    def argv(self) -> list[str]:
        """The command's arguments."""
        return self.command.split()

    def prepare(self, place: Place) -> None:
        """Runs it undisturbed, twice: to import, and to see what it leaves."""
        self._begin(place)
        warm_up(self.argv, place)
        self.restart(place)
        ended = run(self.argv, place)
        assert ended.status == 0, ended.said
        self.seconds, self.reference = ended.seconds, contents(place.out)
        self.calls = json.loads((place.said / "case.counts").read_text())

    def restart(self, place: Place) -> None:
        """The outputs as they are before the command."""
        place.clear()
        kept = place.base / f"{self.name}-before"
        if self.before is not None:
            shutil.copytree(kept, place.out, dirs_exist_ok=True)

    def _begin(self, place: Place) -> None:
        place.clear()
        if self.before is not None:
            ended = run(self.before.split(), place)
            assert ended.status == 0, ended.said
            self.older = contents(place.out)
            kept = place.base / f"{self.name}-before"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(place.out, kept)
            place.clear()

    def incomplete(self, place: Place) -> str | None:
        """What a user would see that is not whole: after any fault there must be nothing."""
        for path in sorted(place.out.rglob("*")):
            name = path.relative_to(place.out)
            if path.is_dir() or any(part.startswith(".") for part in name.parts):
                continue
            why = broken(path)
            if why is not None:
                return f"{name} is incomplete: {why}"
            if _changes(path, self.changing):
                continue
            known = {self.reference.get(str(name)), self.older.get(str(name))}
            if known != {None} and digest(path) not in known:
                return f"{name} is neither what an undisturbed run leaves nor what was there before"
        return self._mixed(place.out)

    def _mixed(self, out: Path) -> str | None:
        """Whether a sidecar stands beside an array that it is not about."""
        for side in ("t", "t.val"):
            sidecar = out / f"{side}.json"
            if not sidecar.exists():
                continue
            versions = [
                version
                for version in (self.reference, self.older)
                if version.get(sidecar.name) == digest(sidecar)
            ]
            for array in sorted([*out.glob(f"{side}.npy"), *out.glob(f"{side}-*.npy")]):
                known = [version[array.name] for version in versions if array.name in version]
                if known and digest(array) not in known:
                    return f"{sidecar.name} is about another {array.name}"
        return None

    def difference(self, place: Place, *, hidden: bool = True) -> str | None:
        """How the outputs differ from those of an undisturbed run."""
        try:
            found = contents(place.out, hidden=hidden)
        except ValueError as error:
            return f"something is broken: {error}"
        wanted = {
            name: what
            for name, what in self.reference.items()
            if hidden or not any(part.startswith(".") for part in Path(name).parts)
        }
        how = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
        how += [f"{name} is left over" for name in sorted(found.keys() - wanted.keys())]
        both = sorted(found.keys() & wanted.keys())
        how += [f"{name} differs" for name in both if found[name] != wanted[name]]
        left = [
            str(path.relative_to(place.work))
            for path in place.tmp.rglob("*")
            if "torchinductor" not in str(path)  # PyTorch's own
        ]
        how += [f"{name} is left over" for name in left if hidden]
        return "; ".join(how) or None


def _changes(path: Path, ends: tuple[str, ...]) -> bool:
    return any(path.name.endswith(end) or end in path.parts for end in ends)


def make_inputs(place: Place) -> None:
    """Texts, tokenizers, token files, a run and configurations, in ``work/in``."""
    if (place.inputs / "done").exists():
        return
    commands = [
        "stories --megabytes 0.06 --seed 1 --out in/a.txt",
        "stories --megabytes 0.03 --seed 2 --out in/b.txt",
        f"train-bpe in/a.txt --vocab-size 300 --special-token {EOT} --out in/tok",
        f"train-bpe in/b.txt --vocab-size 290 --special-token {EOT} --out in/tok-older",
        "tokenize in/a.txt --tokenizer in/tok --out in/tokens.npy",
        "tokenize in/b.txt --tokenizer in/tok --out in/val.npy",
        "train --config in/run.toml --run-dir in/run",
    ]
    for name, more in _CONFIGS.items():
        (place.inputs / f"{name}.toml").write_text(_CONFIG + more)
    for command in commands:
        ended = run(command.split(), place)
        assert ended.status == 0, f"{command}: {ended.said}"
    (place.inputs / "done").touch()


_GROWS = (".jsonl", ".pt", "config.toml")
_TOKENIZE = "tokenize in/a.txt in/b.txt --tokenizer in/tok --threads 2 --out out/t.npy"
_SPLIT = f"{_TOKENIZE} --val-fraction 0.2"
_SHARDS = f"{_SPLIT} --shard-tokens 8000 --resume"
_OLDER = "tokenize in/b.txt --tokenizer in/tok-older --out out/t.npy --val-fraction 0.3"
_TRAIN_BPE = f"train-bpe in/a.txt --vocab-size 320 --special-token {EOT} --threads 2 --out out/tok"

_JOBS = [
    Job("tokenize", _SPLIT),
    Job("tokenize-over", _SPLIT, before=_OLDER),
    Job("tokenize-shards", _SHARDS, changing=(".resume.json",)),
    Job(
        "tokenize-shards-over",
        _SHARDS,
        before=f"{_OLDER} --shard-tokens 3000",
        changing=(".resume.json",),
    ),
    Job("tokenize-jobs", f"{_TOKENIZE} --jobs 2 --part-size 30KB", changing=("t.parts",)),
    Job("train-bpe", f"{_TRAIN_BPE} --max-memory 100KB"),
    Job(
        "train-bpe-over",
        _TRAIN_BPE,
        before=f"train-bpe in/b.txt --vocab-size 290 --special-token {EOT} --out out/tok",
    ),
    Job(
        "count-pretokens",
        f"count-pretokens in/a.txt --special-token {EOT} --threads 2 --max-memory 100KB "
        "--out out/c.counts",
    ),
    Job("stories", "stories --megabytes 0.05 --seed 3 --out out/s.txt"),
    Job(
        "stories-over",
        "stories --megabytes 0.05 --seed 3 --out out/s.txt",
        before="stories --megabytes 0.02 --seed 4 --out out/s.txt",
    ),
    Job("train", "train --config in/run.toml --run-dir out/run --resume", changing=_GROWS),
    Job(
        "train-samples",
        "train --config in/sampled.toml --run-dir out/run --resume",
        changing=_GROWS,
    ),
    Job("export-hf", "export in/run --format hf --out out/hf", once=True),
    Job(
        "export-safetensors",
        "export in/run --format safetensors --out out/m.safetensors",
        once=True,
    ),
    Job("export-gguf", "export in/run --format gguf --out out/m.gguf", once=True),
    Job(
        "sweep",
        "sweep --config in/base.toml --grid optim.lr=1e-2,3e-2 --out out/sweep --jobs 2",
        changing=_GROWS,
    ),
]

JOBS: dict[str, Job] = {job.name: job for job in _JOBS}
