"""Token files and the journals of unfinished ones, verified."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from cs336lm.data.dataset import TokenDataset
from cs336lm.data.token_files import has_header
from cs336lm.json_files import read_json
from cs336lm.training.verification.finding import Finding, looked_at

JOURNAL = ".resume.json"

_SIDES = ("", ".val")  # training, validation


def verify_tokens(path: Path) -> Iterator[Finding]:
    """An array or a set of shards: its sidecar, counts, checksums, and that its ids are in range.

    What an interrupted job has finished is verified by its journal.
    """
    stem = path.with_suffix("") if path.suffix in (".npy", ".json") else path
    journal = stem.with_name(stem.name + JOURNAL)
    if journal.exists():
        yield from verify_journal(journal)
        if not stem.with_name(stem.name + ".json").exists():
            return
    yield looked_at(path, lambda: _look(path))


def _look(path: Path) -> str:
    ids = TokenDataset(path)
    has_checksums = ids.check_contents()
    limit = (ids.sidecar or {}).get("vocab_size")
    largest = ids.max_id()
    if isinstance(limit, int):
        ids.check_ids(limit)
    shards = f" in {len(ids.shards)} shards" if len(ids.shards) > 1 else ""
    what = f"{len(ids):,} ids of {ids.dtype.name}{shards}"
    if has_checksums:
        return f"{what}: checksums match, and all are below {limit:,}"
    known = f"all below the {limit:,} of the sidecar" if limit else f"the largest {largest:,}"
    return f"{what}, {known}; no checksums are known of it"


def verify_journal(path: Path) -> Iterator[Finding]:
    """The journal of an unfinished job, and the shards that it says are finished."""
    found: list[tuple[Path, int, int]] = []

    def look() -> str:
        journal = read_json(path)
        content = [journal["settings"], journal["shards"], journal["position"]]
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        if hashlib.sha256(text.encode()).hexdigest() != journal["checksum"]:
            raise ValueError("its checksum does not match; to start over, do not resume")
        found.extend(_finished(path, journal["shards"]))
        return f"its checksum matches; {len(journal['shards'])} shards are finished"

    yield looked_at(path, look)
    for shard, tokens, crc in found:
        yield looked_at(shard, partial(_shard, shard, tokens, crc))


def _finished(journal: Path, shards: list[dict[str, Any]]) -> Iterator[tuple[Path, int, int]]:
    """The arrays of finished shards: file, ids, CRC-32."""
    stem = journal.name.removesuffix(JOURNAL)
    for number, shard in enumerate(shards):
        for side, tokens, crc in zip(_SIDES, shard["sizes"], shard["crc32"], strict=True):
            if tokens:
                yield journal.with_name(f"{stem}{side}-{number:05}.npy"), tokens, crc


def _shard(path: Path, tokens: int, crc: int) -> str:
    ids = TokenDataset(path)
    if len(ids) != tokens:
        raise ValueError(f"holds {len(ids):,} ids, not the {tokens:,} of the journal")
    found = 0
    for _, block in ids.blocks():
        found = zlib.crc32(block.data, found)
    if found != crc or not has_header(path, ids.shards[0]):
        raise ValueError("its checksum does not match the journal's")
    return f"{tokens:,} ids: the checksum matches the journal's"
