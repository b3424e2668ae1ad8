"""Tokenizers and counts files, verified."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from pathlib import Path

from cs336lm.json_files import parse_json
from cs336lm.training.verification.finding import Finding, looked_at

COUNTS_BEGIN = b'{"format":"cs336lm pretoken counts"'

_DIGEST = 32
_MOST_HEADER = 1 << 24
_BLOCK = 1 << 22


def verify_tokenizer(path: Path) -> Iterator[Finding]:
    """A tokenizer's folder or file: its checksums, and that it can be read."""
    from cs336lm import _bpe
    from cs336lm.text.tokenizer import Tokenizer

    def look() -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Nothing but ids is asked for, so any pattern will do for a file that names none.
            pattern = "gpt2" if path.suffix == ".tiktoken" else None
            tokenizer = Tokenizer.load(path, pattern=pattern)
        changed = _bpe.verify_checksums(path)
        how = "as checksums.json says"
        if changed:
            how = f"readable; {', '.join(changed)} was written again after it was saved"
        elif changed is None:
            how = "readable; no checksums are known of it"
        return f"{how}; {tokenizer.vocab_size:,} tokens, SHA-256 {tokenizer.fingerprint[:12]}..."

    yield looked_at(path, look)


def verify_counts(path: Path) -> Iterator[Finding]:
    """A counts file: the SHA-256 at its end, of all that stands before it."""

    def look() -> str:
        size = path.stat().st_size - _DIGEST
        digest = hashlib.sha256()
        with path.open("rb") as file:
            header = parse_json(file.readline(_MOST_HEADER))
            file.seek(0)
            while (left := size - file.tell()) > 0 and (block := file.read(min(left, _BLOCK))):
                digest.update(block)
            if size < 0 or file.read() != digest.digest():
                raise ValueError("its checksum does not match; count again")
        return f"its checksum matches; {header['pretokens']:,} distinct pretokens"

    yield looked_at(path, look)
