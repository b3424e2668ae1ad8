"""``cs336lm inspect``: look into a tokenizer or a token file."""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING, Any

from cs336lm.cli.options import (
    add_text_fields,
    add_tokenizer,
    load_tokenizer,
    parser_for,
    positive,
)
from cs336lm.cli.progress import megabytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cs336lm.data.batches import TokenDataset
    from cs336lm.text.tokenizer import Tokenizer

    TokenIds = NDArray[np.unsignedinteger[Any]]

_EPILOG = """\
examples:
  cs336lm inspect tokenizer/                              size, pattern, special and longest tokens
  cs336lm inspect tokenizer/ --on corpus.txt              and bytes per token on that text
  cs336lm inspect tokens.npy                              counts
  cs336lm inspect tokens.npy --tokenizer tokenizer/ --at 5000 --window 200     and text

A PATH that ends in .npy is a token file, or the name that shards have in common; any other is a
tokenizer."""

# Ids are counted this many at a time, so that memory stays small.
_PART = 1 << 20


def main(argv: list[str]) -> int:
    """Prints what there is to know about a tokenizer or a token file."""
    parser = parser_for("inspect", "Look into a tokenizer or a token file.", _EPILOG)
    parser.add_argument("path", metavar="PATH", help="a tokenizer or a .npy of token ids")
    add_tokenizer(parser, required=False)
    parser.add_argument(
        "--on", metavar="FILE", help="text to measure the tokenizer on: any input of 'tokenize'"
    )
    add_text_fields(parser)
    parser.add_argument(
        "--longest", type=positive, default=10, metavar="N", help="longest tokens to show (10)"
    )
    parser.add_argument("--at", type=int, default=0, metavar="N", help="first token to decode (0)")
    parser.add_argument(
        "--window", type=positive, default=100, metavar="N", help="tokens to decode (100)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    arguments = parser.parse_args(argv)

    if arguments.path.endswith(".npy"):
        if arguments.on:
            parser.error("--on measures a tokenizer; this is a token file")
        facts = _token_file(arguments)
    else:
        if arguments.tokenizer:
            parser.error("--tokenizer is for token files; this is a tokenizer")
        facts = _tokenizer(arguments)
    if arguments.json:
        print(json.dumps(facts, ensure_ascii=False))
    elif arguments.path.endswith(".npy"):
        _print_token_file(facts)
    else:
        _print_tokenizer(facts)
    return 0


def _tokenizer(arguments: argparse.Namespace) -> dict[str, Any]:
    tokenizer = load_tokenizer(arguments.path, arguments)
    vocab = tokenizer.vocab
    special = {token: tokenizer.token_to_id(token) for token in tokenizer.special_tokens}
    ordinary = vocab.keys() - set(special.values())
    longest = sorted(ordinary, key=lambda id: (-len(vocab[id]), id))[: arguments.longest]
    facts: dict[str, Any] = {
        "path": arguments.path,
        "vocab_size": tokenizer.vocab_size,
        "tokens": len(vocab),
        "merges": len(tokenizer.merges),
        "special_tokens": special,
        "pattern": tokenizer.pattern,
        "sha256": tokenizer.fingerprint,
        "longest_tokens": [
            {
                "id": id,
                "bytes": len(vocab[id]),
                "text": vocab[id].decode("utf-8", "backslashreplace"),
            }
            for id in longest
        ],
    }
    if arguments.on:
        facts["on"] = _measure(tokenizer, arguments)
    return facts


def _measure(tokenizer: Tokenizer, arguments: argparse.Namespace) -> dict[str, Any]:
    tokens, size = tokenizer.count_tokens(
        arguments.on, text_field=arguments.text_field, text_column=arguments.text_column
    )
    ratio = size / tokens if tokens else None
    return {"path": arguments.on, "bytes": size, "tokens": tokens, "bytes_per_token": ratio}


def _print_tokenizer(facts: dict[str, Any]) -> None:
    print(f"tokenizer       {facts['path']}")
    special = facts["special_tokens"]
    print(
        f"tokens          {facts['tokens']:,} ({facts['merges']:,} merges, {len(special)} special)"
    )
    if facts["vocab_size"] != facts["tokens"]:
        print(f"largest id      {facts['vocab_size'] - 1:,}")
    for token, id in special.items():
        print(f"special token   {id:>7}  {token!r}")
    print(f"pattern         {facts['pattern']}")
    print(f"sha256          {facts['sha256']}")
    for token in facts["longest_tokens"]:
        print(f"long token      {token['id']:>7}  {token['text']!r} ({token['bytes']} bytes)")
    if on := facts.get("on"):
        ratio = f": {on['bytes_per_token']:.3f} bytes/token" if on["tokens"] else ""
        print(f"on {on['path']}: {megabytes(on['bytes'])}, {on['tokens']:,} tokens{ratio}")


def _token_file(arguments: argparse.Namespace) -> dict[str, Any]:
    ids = _open_tokens(arguments.path)
    sidecar = _read_sidecar(arguments.path)
    facts: dict[str, Any] = {
        "path": arguments.path,
        "tokens": len(ids),
        "dtype": ids.dtype.name,
        **_count_ids(ids),
    }
    for key in ("bytes", "vocab_size", "tokenizer_sha256", "inputs"):
        if key in sidecar:
            facts[key] = sidecar[key]
    if sidecar.get("tokens", len(ids)) != len(ids):
        raise ValueError(
            f"{arguments.path}: holds {len(ids):,} tokens, but the sidecar beside it says "
            f"{sidecar['tokens']:,}: write both again with 'cs336lm tokenize'"
        )
    if arguments.tokenizer:
        tokenizer = load_tokenizer(arguments.tokenizer, arguments)
        _check_tokenizer(arguments, tokenizer, facts)
        facts["window"] = _decode_window(ids, tokenizer, arguments.at, arguments.window)
    return facts


def _open_tokens(path: str) -> TokenIds | TokenDataset:
    import numpy as np

    if not os.path.exists(path):  # the name of a set of shards, or of nothing
        from cs336lm.data.batches import TokenDataset

        return TokenDataset(path)
    try:
        ids = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: no .npy file, or cut short ({error})") from None
    if ids.ndim != 1 or ids.dtype.kind != "u":
        raise ValueError(
            f"{path}: holds {ids.dtype} of shape {ids.shape}, not a row of token ids (uint16 or "
            "uint32)"
        )
    return ids


def _read_sidecar(path: str) -> dict[str, Any]:
    sidecar = os.path.splitext(path)[0] + ".json"
    try:
        with open(sidecar, encoding="utf-8") as file:
            facts = json.load(file)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{sidecar}: no JSON ({error})") from None
    if not isinstance(facts, dict):
        raise ValueError(f"{sidecar}: not the sidecar of a token file")
    return facts


def _count_ids(ids: TokenIds | TokenDataset) -> dict[str, int | None]:
    """The largest id and how many distinct ones there are, in bounded memory."""
    import numpy as np

    if not len(ids):
        return {"largest_id": None, "distinct_ids": 0}
    parts = range(0, len(ids), _PART)
    largest = max(int(ids[start : start + _PART].max()) for start in parts)
    if largest >= 1 << 28:  # no tokenizer's ids; a table of them would fill the memory
        return {"largest_id": largest, "distinct_ids": None}
    seen = np.zeros(largest + 1, dtype=bool)
    for start in parts:
        seen[ids[start : start + _PART]] = True
    return {"largest_id": largest, "distinct_ids": int(seen.sum())}


def _check_tokenizer(
    arguments: argparse.Namespace, tokenizer: Tokenizer, facts: dict[str, Any]
) -> None:
    recorded = facts.get("tokenizer_sha256", tokenizer.fingerprint)
    if recorded != tokenizer.fingerprint:
        raise ValueError(
            f"{arguments.path}: written with another tokenizer (sha256 {recorded[:12]}...) than "
            f"{arguments.tokenizer} ({tokenizer.fingerprint[:12]}...): name the one it was "
            "written with"
        )
    largest = facts["largest_id"]
    if largest is not None and largest >= tokenizer.vocab_size:
        raise ValueError(
            f"{arguments.path}: holds the id {largest}, but {arguments.tokenizer} ends at "
            f"{tokenizer.vocab_size - 1}: name the tokenizer it was written with"
        )


def _decode_window(
    ids: TokenIds | TokenDataset, tokenizer: Tokenizer, at: int, window: int
) -> dict[str, Any]:
    """Text of ``window`` tokens from ``at``; a negative ``at`` counts from the end."""
    start = max(at + len(ids), 0) if at < 0 else at
    if start > len(ids) or (start == len(ids) and start > 0):
        raise ValueError(f"--at {at} is beyond the last of {len(ids):,} tokens")
    chosen = ids[start : start + window]
    return {"start": start, "tokens": len(chosen), "text": tokenizer.decode(chosen)}


def _print_token_file(facts: dict[str, Any]) -> None:
    print(f"token file      {facts['path']}")
    print(f"tokens          {facts['tokens']:,} of {facts['dtype']}")
    if facts["tokens"]:
        distinct = facts["distinct_ids"]
        counted = "" if distinct is None else f" ({distinct:,} distinct ids)"
        print(f"largest id      {facts['largest_id']:,}{counted}")
    if "bytes" in facts:
        ratio = f": {facts['bytes'] / facts['tokens']:.3f} bytes/token" if facts["tokens"] else ""
        print(f"text            {megabytes(facts['bytes'])}{ratio}")
    for source in facts.get("inputs", []):
        print(f"from            {source['path']} ({megabytes(source['bytes'])})")
    if "tokenizer_sha256" in facts:
        print(f"tokenizer       sha256 {facts['tokenizer_sha256']}")
    if window := facts.get("window"):
        last = window["start"] + max(window["tokens"] - 1, 0)
        print(f"tokens {window['start']:,} to {last:,}:")
        print(window["text"])
