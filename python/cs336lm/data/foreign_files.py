"""Token files that other programs write, mapped into memory as they are.

* nanoGPT's ``.bin``: uint16 ids and nothing else.
* llm.c's ``.bin``: a header of 256 int32 (magic, version, count), then the ids: uint16 for GPT-2's
  (magic 20240520, version 1), uint32 for Llama 3's (20240801, version 7).
* Megatron's ``.bin`` with an ``.idx`` beside it, which says the dtype and where each sequence lies.

Which of them a ``.bin`` is follows from the ``.idx`` beside it, else from its first number.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_HEADER_BYTES = 256 * 4
_LLM_C_HEAD = struct.Struct("<iii")  # magic, version, count; what follows is not used
# (magic, version) of llm.c -> the dtype of ids.
_LLM_C = {(20240520, 1): np.uint16, (20240801, 7): np.uint32}

_MEGATRON_MAGIC = b"MMIDIDX\x00\x00"
_MEGATRON_HEAD = struct.Struct("<9sQBQQ")  # magic, version, dtype, sequences, documents
# Megatron's numbers for dtypes; signed ones hold ids that are never negative.
_MEGATRON_DTYPES = {3: np.uint16, 4: np.uint32, 8: np.uint16}
_MEGATRON_OTHERS = {1: "uint8", 2: "int8", 5: "int64", 6: "float64", 7: "float32"}


def open_bin(path: Path) -> npt.NDArray[Any]:
    """The ids in a ``.bin`` file, memory-mapped: one row of uint16 or uint32.

    Raises ``OSError`` if a file cannot be opened and ``ValueError`` if it is cut short, or not what
    its header says.
    """
    size = path.stat().st_size
    index = path.with_suffix(".idx")
    if index.is_file():
        return _open_megatron(path, size, index)
    with path.open("rb") as file:
        head = file.read(_LLM_C_HEAD.size)
    if len(head) == _LLM_C_HEAD.size:
        magic, version, count = _LLM_C_HEAD.unpack(head)
        if magic in {known for known, _ in _LLM_C}:
            return _open_llm_c(path, size, magic, version, count)
    if size % 2:
        raise ValueError(f"{path} is {size:,} bytes long: uint16 ids fill an even number; {_CUT}")
    return _mapped(path, np.uint16, 0, size // 2)


_CUT = "was it cut short?"


def _open_llm_c(path: Path, size: int, magic: int, version: int, count: int) -> npt.NDArray[Any]:
    dtype = _LLM_C.get((magic, version))
    if dtype is None:
        known = [known for number, known in _LLM_C if number == magic]
        raise ValueError(
            f"{path} is a token file of llm.c in version {version}; only version {known[0]} is read"
        )
    expected = _HEADER_BYTES + count * np.dtype(dtype).itemsize
    if count < 0 or size != expected:
        raise ValueError(
            f"{path} is {size:,} bytes long, but its header promises {count:,} tokens: "
            f"{expected:,} bytes; {_CUT}"
        )
    return _mapped(path, dtype, _HEADER_BYTES, count)


def _open_megatron(path: Path, size: int, index: Path) -> npt.NDArray[Any]:
    content = index.read_bytes()
    if len(content) < _MEGATRON_HEAD.size or content[:9] != _MEGATRON_MAGIC:
        raise ValueError(f"{index} is not an index of Megatron's, but stands beside {path}")
    _, version, code, sequences, documents = _MEGATRON_HEAD.unpack_from(content)
    if version != 1:
        raise ValueError(f"{index} is of version {version}; only version 1 is read")
    if code not in _MEGATRON_DTYPES:
        what = _MEGATRON_OTHERS.get(code, f"dtype {code}")
        raise ValueError(f"{index}: ids are stored as {what}; only 16 and 32 bits are read")
    dtype = np.dtype(_MEGATRON_DTYPES[code])
    # A mode for each sequence may follow, in files for several kinds of data.
    expected = _MEGATRON_HEAD.size + 12 * sequences + 8 * documents
    if len(content) not in (expected, expected + sequences):
        raise ValueError(f"{index} is {len(content):,} bytes long, not {expected:,}; {_CUT}")
    lengths = np.frombuffer(content, "<i4", sequences, _MEGATRON_HEAD.size).astype(np.int64)
    starts = np.frombuffer(content, "<i8", sequences, _MEGATRON_HEAD.size + 4 * sequences)
    ends = np.cumsum(lengths) * dtype.itemsize
    if sequences and not np.array_equal(starts, np.concatenate([[0], ends[:-1]])):
        raise ValueError(f"{index}: the sequences do not follow each other in {path.name}")
    count = int(lengths.sum())
    if size != count * dtype.itemsize:
        raise ValueError(
            f"{path} is {size:,} bytes long, but {index.name} promises {count:,} tokens of "
            f"{dtype}: {count * dtype.itemsize:,} bytes; {_CUT}"
        )
    return _mapped(path, dtype, 0, count)


def _mapped(path: Path, dtype: npt.DTypeLike, offset: int, count: int) -> npt.NDArray[Any]:
    dtype = np.dtype(dtype).newbyteorder("<")
    if not count:
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, mode="r", offset=offset, shape=(count,)))
