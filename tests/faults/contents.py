"""What a folder holds, so that two runs compare: times and host names left out, all else in it."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

TIMED = {"seconds", "tokens_per_second", "validation_seconds", "warmup_seconds", "mfu"}
"""What depends on the clock, wherever it stands."""

_UNTOLD = ("environment.jsonl",)
"""Files that differ between any two runs."""
_OF_PROCESSES = (".log",)


def contents(folder: Path, *, hidden: bool = True) -> dict[str, str]:
    """A digest of each file below ``folder``, by its name there; folders that are empty too."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not hidden and any(part.startswith(".") for part in name.parts):
            continue
        if path.name in _UNTOLD or path.suffix in _OF_PROCESSES or path.name == ".lock":
            continue
        if path.is_dir():
            if not any(path.iterdir()):
                found[f"{name}/"] = "empty"
        else:
            found[str(name)] = digest(path)
    return found


def digest(path: Path) -> str:
    """Of a file's content, without times. Raises ``ValueError`` if it is incomplete."""
    if path.suffix == ".jsonl":
        records = [_timeless(json.loads(line)) for line in path.read_bytes().splitlines()]
        if path.name == "results.jsonl":  # in the order in which trials ended
            records.sort(key=lambda record: record["trial"])
        return _hash(json.dumps(records).encode())
    if path.suffix == ".pt":
        from cs336lm.training.checkpoints.archive import read_state

        return _hash(_flat(read_state(path)))
    return _hash(path.read_bytes())


def broken(path: Path) -> str | None:
    """What is wrong with a visible file, as far as it can be told from itself."""
    try:
        if path.suffix == ".jsonl":
            return _broken_lines(path)
        if path.suffix == ".json":
            json.loads(path.read_bytes())
        elif path.suffix == ".toml":
            tomllib.loads(path.read_text("utf-8"))
        elif path.suffix == ".npy":
            import numpy as np

            np.load(path, mmap_mode="r")
        elif path.suffix == ".pt":
            digest(path)
    except (ValueError, OSError, EOFError) as error:
        return str(error)
    return None


def _broken_lines(path: Path) -> str | None:
    """A file that grows by lines: they are whole, but for what is torn at its end."""
    *whole, _ = path.read_bytes().split(b"\n")
    torn = next((i for i, line in enumerate(whole) if b"\0" in line), len(whole))
    for number, line in enumerate(whole[:torn], 1):
        try:
            json.loads(line)
        except ValueError:
            return f"line {number} is {line[:80]!r}"
    return None


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(each) for key, each in value.items() if key not in TIMED}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def _flat(value: Any) -> bytes:
    """Bytes that two states share exactly if they are equal, bit for bit."""
    import torch

    if isinstance(value, torch.Tensor):
        array = value.detach().cpu().contiguous()
        head = f"{array.dtype} {tuple(array.shape)} ".encode()
        return (
            head + bytes(array.reshape(-1).view(torch.uint8).numpy())
            if array.ndim
            else (head + repr(array.item()).encode())
        )
    if isinstance(value, dict):
        items = ((repr(key).encode(), each) for key, each in value.items() if key not in TIMED)
        return b"{" + b",".join(key + b":" + _flat(each) for key, each in items) + b"}"
    if isinstance(value, list | tuple):
        return b"[" + b",".join(map(_flat, value)) + b"]"
    return repr(value).encode()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:20]
