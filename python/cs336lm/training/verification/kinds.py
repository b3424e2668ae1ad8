"""What a path stands for, and who looks at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cs336lm.errors import UsageError
from cs336lm.training.verification.finding import Finding
from cs336lm.training.verification.runs import verify_one, verify_run
from cs336lm.training.verification.texts import COUNTS_BEGIN, verify_counts, verify_tokenizer
from cs336lm.training.verification.tokens import JOURNAL, verify_journal, verify_tokens

_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt")


def verify(path: str | Path) -> Iterator[Finding]:
    """Looks at a run directory, a checkpoint, a token file, its journal, a tokenizer or counts.

    Raises ``FileNotFoundError`` if nothing is there, and ``UsageError`` if it is a folder
    of something else.
    """
    path = Path(path)
    if path.is_dir():
        if (path / "config.toml").exists() or (path / "checkpoints").is_dir():
            return verify_run(path)
        if (path / "state.json").exists():
            return verify_one(path)
        has_tokenizer = any((path / name).exists() for name in _TOKENIZER_FILES)
        if has_tokenizer or any(path.glob("*.tiktoken")):
            return verify_tokenizer(path)
    if path.is_dir() or not path.exists():
        if _has_sidecar(path):
            return verify_tokens(path)
        if not path.exists():
            raise FileNotFoundError(2, "No such file or directory", str(path))
        raise UsageError(f"{path} is a folder, but no run and no tokenizer: name what is in it")
    if path.name.endswith(JOURNAL):
        return verify_journal(path)
    if path.suffix == ".pt":
        return verify_one(path)
    if path.suffix in (".npy", ".bin"):
        return verify_tokens(path)
    with path.open("rb") as file:
        begin = file.read(len(COUNTS_BEGIN))
    if begin == COUNTS_BEGIN:
        return verify_counts(path)
    if path.name in _TOKENIZER_FILES or path.suffix == ".tiktoken":
        return verify_tokenizer(path)
    if path.suffix == ".json" and _has_arrays(path.with_suffix("")):
        return verify_tokens(path)
    what = (
        "is no checkpoint, token file, tokenizer or counts file, or damaged where it would say so"
    )
    return iter([Finding(str(path), False, what)])


def _has_sidecar(path: Path) -> bool:
    """Whether ``path`` is what the files of a set of shards have in common."""
    stem = path.with_suffix("") if path.suffix == ".npy" else path
    return any(stem.with_name(stem.name + ending).is_file() for ending in (".json", JOURNAL))


def _has_arrays(stem: Path) -> bool:
    return stem.with_name(f"{stem.name}.npy").exists() or bool(
        list(stem.parent.glob(f"{stem.name}-*.npy"))
    )
