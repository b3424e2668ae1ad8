"""Token files: which files a name stands for, opened and checked against the sidecar beside them.

``cs336lm tokenize`` writes an array ``tokens.npy`` or, in parts, ``tokens-00000.npy``, ...; and
``tokens.json``, which says what they are. An array may also stand alone, without a sidecar.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cs336lm.data.foreign_files import open_bin
from cs336lm.json_files import is_sealed, parse_json, read_bounded

TokenArray = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
Sidecar = dict[str, Any]

_SEALED = 2  # the format that has checksums
_MAGIC = b"\x93NUMPY"
_DTYPES = (np.dtype(np.uint16), np.dtype(np.uint32))
_MADE_BY = "a token file is made by `cs336lm tokenize`"
_WRITE_AGAIN = "write them again with `cs336lm tokenize`"


def open_token_files(path: Path) -> tuple[list[TokenArray], Sidecar | None]:
    """The memory-mapped arrays that ``path`` stands for, in order, and their sidecar if any.

    ``path`` is an array; or a sidecar; or what both have in common, with or without ``.npy``, where
    there is a sidecar that lists shards; or a ``.bin`` of another program's, see
    :mod:`cs336lm.data.foreign_files`.

    Raises:
        OSError: a file cannot be opened.
        ValueError: a file is not a row of uint16 or uint32, or not what the sidecar says.
    """
    if path.suffix == ".bin":
        return _open_bins(path), None
    stem = path.with_suffix("") if path.suffix in (".npy", ".json") else path
    beside = stem.with_name(stem.name + ".json")
    sidecar = _read_sidecar(beside)
    if path.suffix == ".json" and sidecar is None:
        raise FileNotFoundError(2, "No such file or directory", str(path))
    shards = _shards(sidecar or {}, beside)
    if sidecar is None or not shards:
        by_name = path.suffix == ".json" or (sidecar is not None and not path.exists())
        array = _open_array(stem.with_name(stem.name + ".npy") if by_name else path)
        _check_length(beside, path, len(array), (sidecar or {}).get("tokens"))
        return [array], sidecar
    if path.suffix != ".json" and path.exists():
        raise ValueError(
            f"{path} is not among the shards that {beside} lists: delete it, or name {beside}"
        )
    return _open_shards(beside, shards), sidecar


def _open_bins(path: Path) -> list[TokenArray]:
    """One file of another program's, or all of a pattern (``train_*.bin``) in order of name."""
    paths = [path]
    if "*" in path.name and not path.exists():
        paths = sorted(path.parent.glob(path.name))
        if not paths:
            raise FileNotFoundError(2, "no file matches", str(path))
    arrays = [open_bin(each) for each in paths]
    for each, array in zip(paths, arrays, strict=True):
        if array.dtype != arrays[0].dtype:
            raise ValueError(f"{each} holds {array.dtype}, {paths[0].name} does not")
    return arrays


def checksums(path: Path, sidecar: Sidecar | None) -> list[tuple[Path, int | None]]:
    """The arrays that a sidecar is about, in order, each with its CRC-32 if the sidecar knows it.

    ``path`` is what was opened. There are none without a sidecar.
    """
    if sidecar is None or path.suffix == ".bin":
        return []
    stem = path.with_suffix("") if path.suffix in (".npy", ".json") else path
    whole = {"file": f"{stem.name}.npy", "crc32": sidecar.get("crc32")}
    listed = sidecar.get("shards") or [whole]
    return [(stem.with_name(one["file"]), one.get("crc32")) for one in listed]


def has_header(path: Path, array: TokenArray) -> bool:
    """Whether a file begins as ``cs336lm tokenize`` begins one that holds ``array``."""
    said = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': ({len(array)},), }}"
    begin = _MAGIC + b"\x01\x00\x76\x00" + said.encode().ljust(117) + b"\n"
    with path.open("rb") as file:
        return file.read(len(begin)) == begin


def _shards(sidecar: Sidecar, path: Path) -> list[dict[str, Any]]:
    """The shards that a sidecar lists: files beside it, each with its number of tokens."""
    shards = sidecar.get("shards") or []
    if not (isinstance(shards, list) and all(isinstance(shard, dict) for shard in shards)):
        raise ValueError(f"{path} does not list shards as it should; {_WRITE_AGAIN}")
    for shard in shards:
        name = shard.get("file")
        if not (isinstance(name, str) and name == Path(name).name and "\\" not in name):
            raise ValueError(f"{path} lists a shard {name!r}, which is no file beside it")
        if not isinstance(shard.get("tokens"), int):
            raise ValueError(f"{path} does not say how many tokens {name} holds; {_WRITE_AGAIN}")
    return shards


def _open_shards(sidecar: Path, shards: list[dict[str, Any]]) -> list[TokenArray]:
    arrays = []
    for shard in shards:
        path = sidecar.with_name(shard["file"])
        arrays.append(_open_array(path))
        _check_length(sidecar, path, len(arrays[-1]), shard["tokens"])
        if arrays[-1].dtype != arrays[0].dtype:
            raise ValueError(f"{path} holds {arrays[-1].dtype}, {shards[0]['file']} does not")
    return arrays


def _check_length(sidecar: Path, path: Path, tokens: int, expected: int | None) -> None:
    if expected is not None and tokens != expected:
        raise ValueError(
            f"{path} holds {tokens:,} tokens, but {sidecar} says {expected:,}: they are not "
            f"of the same job; {_WRITE_AGAIN}"
        )


def _open_array(path: Path) -> TokenArray:
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
    if start.startswith(b"PK"):
        raise ValueError(f"{path} is an archive of arrays, not one .npy; {_MADE_BY}")
    if start != _MAGIC:
        raise ValueError(f"{path} is not a .npy file; {_MADE_BY}")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # NumPy reads a header as Python code: any error of its parser
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not a complete .npy file ({reason}); {_MADE_BY}") from None
    if array.dtype not in _DTYPES or array.ndim != 1:
        raise ValueError(
            f"{path} holds {array.dtype} of shape {array.shape}, not one row of uint16 or uint32; "
            f"{_MADE_BY}"
        )
    assert isinstance(array, np.memmap)
    if array.offset + array.nbytes != path.stat().st_size:
        raise ValueError(f"{path} is longer than its header says; {_MADE_BY}")
    return np.asarray(array)  # still mapped, but slicing skips memmap's bookkeeping


def _read_sidecar(path: Path) -> Sidecar | None:
    try:
        content = read_bounded(path)
        sidecar = parse_json(content.decode())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}); delete it, or {_WRITE_AGAIN}"
        ) from None
    if not isinstance(sidecar, dict):
        return None
    for name in ("tokens", "crc32"):
        if not isinstance(sidecar.get(name, 0), int):
            raise ValueError(f"{path} says {name} = {sidecar[name]!r}, no number; {_WRITE_AGAIN}")
    try:
        if not is_sealed(content) and ("checksum" in sidecar or sidecar.get("format") == _SEALED):
            raise ValueError("it has lost its checksum")
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it, or {_WRITE_AGAIN}") from None
    return sidecar
