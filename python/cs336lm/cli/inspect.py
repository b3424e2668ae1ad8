"""``cs336lm inspect``: look into a tokenizer or a token file, or compare tokenizers."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from cs336lm.cli.inspect_compare import add_comparing, compare, compare_is_meant
from cs336lm.cli.options import (
    add_text_fields,
    add_tokenizer,
    load_tokenizer,
    named_files,
    positive,
)
from cs336lm.cli.output import print_json
from cs336lm.cli.parser import parser_for
from cs336lm.cli.progress import megabytes
from cs336lm.text.longest import longest_tokens

if TYPE_CHECKING:
    from cs336lm.data.dataset import TokenDataset
    from cs336lm.text.tokenizer import Tokenizer

_EPILOG = """\
examples:
  cs336lm inspect tokenizer/                              size, pattern, special and longest tokens
  cs336lm inspect tokenizer/ --on corpus.txt              and bytes per token on that text
  cs336lm inspect tokens.npy                              counts
  cs336lm inspect tokens.npy --tokenizer tokenizer/ --at 5000 --window 200     and text
  cs336lm inspect --compare tiny/ web/ gpt2/vocab.json --on tiny.txt web.txt   side by side
  cs336lm inspect --compare tiny/ web/ --on tiny.txt web.txt --documents 10 --plot ratios.svg

A PATH is a token file if it is what data.train may be: an array, the common name of shards or their
sidecar. Any other is a tokenizer. A token file that training would refuse is refused here, too.

--compare measures each tokenizer on each file: bytes per token (of the whole file, or of
--documents drawn from it), the throughput of one process that reads and encodes the whole files and
writes nothing (the median of up to five passes), how long 825 GB (the Pile) would take at that,
which tokens the vocabularies share, and the longest ones."""


def main(argv: list[str]) -> int:
    """Prints what there is to know about a tokenizer or a token file."""
    parser = parser_for("inspect", "Look into a tokenizer or a token file.", _EPILOG)
    parser.add_argument(
        "path", nargs="?", metavar="PATH", help="a tokenizer, or a token file (.npy, .bin)"
    )
    add_tokenizer(parser, required=False)
    parser.add_argument(
        "--on",
        nargs="+",
        default=[],
        metavar="FILE",
        help="text to measure the tokenizer on: any input of 'tokenize'",
    )
    add_comparing(parser)
    add_text_fields(parser)
    parser.add_argument(
        "--longest",
        type=positive,
        default=10,
        metavar="N",
        help="how many of the longest tokens to show (default: 10)",
    )
    parser.add_argument(
        "--at",
        type=int,
        default=0,
        metavar="N",
        help="first token to decode; negative counts from the end (default: 0)",
    )
    parser.add_argument(
        "--window",
        type=positive,
        default=100,
        metavar="N",
        help="how many tokens to decode (default: 100)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    arguments = parser.parse_args(argv)
    if compare_is_meant(arguments, parser):
        return compare(arguments)
    if arguments.path is None and len(arguments.on) > 1:
        arguments.path = arguments.on.pop()  # inspect --on corpus.txt tokenizer/
    if arguments.path is None:
        parser.error("name a tokenizer or a token file, or tokenizers after --compare")

    is_token_file = _is_token_file(arguments.path)
    if is_token_file:
        if arguments.on:
            parser.error("--on measures a tokenizer; this is a token file")
        facts = _token_file(arguments)
    else:
        if arguments.tokenizer:
            parser.error("--tokenizer is for token files; this is a tokenizer")
        facts = _tokenizer(arguments)
    if arguments.json:
        print_json(facts)
    elif is_token_file:
        _print_token_file(facts)
    else:
        _print_tokenizer(facts)
    return 0


def _is_token_file(path: str) -> bool:
    """Whether ``path`` is an array, what shards have in common, or the sidecar of either."""
    stem, ending = os.path.splitext(path)
    if ending in (".npy", ".bin"):
        return True
    if os.path.isfile(path) and ending != ".json":
        with open(path, "rb") as file:
            return file.read(6) == b"\x93NUMPY"
    stem = stem if ending == ".json" else path
    has_arrays = os.path.exists(f"{stem}.npy") or os.path.exists(f"{stem}-00000.npy")
    return has_arrays and os.path.isfile(f"{stem}.json") and not os.path.isdir(path)


def _tokenizer(arguments: argparse.Namespace) -> dict[str, Any]:
    tokenizer = load_tokenizer(arguments.path, arguments)
    special = {token: tokenizer.token_to_id(token) for token in tokenizer.special_tokens}
    facts: dict[str, Any] = {
        "path": arguments.path,
        "vocab_size": tokenizer.vocab_size,
        "tokens": len(tokenizer.vocab),
        "merges": len(tokenizer.merges),
        "special_tokens": special,
        "pattern": tokenizer.pattern,
        "sha256": tokenizer.fingerprint,
        "longest_tokens": [
            {"id": id, "bytes": len(token), "text": token.decode("utf-8", "backslashreplace")}
            for id, token in longest_tokens(tokenizer, arguments.longest)
        ],
    }
    if arguments.on:
        facts["on"] = _measure(tokenizer, arguments)
    return facts


def _measure(tokenizer: Tokenizer, arguments: argparse.Namespace) -> dict[str, Any]:
    files = named_files(arguments.on, arguments.text_field)
    tokens, size = tokenizer.count_tokens(
        files, text_field=arguments.text_field, text_column=arguments.text_column
    )
    ratio = size / tokens if tokens else None
    return {
        "path": ", ".join(arguments.on),
        "bytes": size,
        "tokens": tokens,
        "bytes_per_token": ratio,
    }


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
    from cs336lm.data.dataset import TokenDataset

    ids = TokenDataset(arguments.path)
    ids.check_contents()
    sidecar = ids.sidecar or {}
    if isinstance(sidecar.get("vocab_size"), int):
        ids.check_ids(sidecar["vocab_size"])
    facts: dict[str, Any] = {
        "path": arguments.path,
        "tokens": len(ids),
        "dtype": ids.dtype.name,
        **_count_ids(ids),
    }
    for key in ("bytes", "documents", "vocab_size", "tokenizer_sha256", "inputs"):
        if key in sidecar:
            facts[key] = sidecar[key]
    if arguments.tokenizer:
        tokenizer = load_tokenizer(arguments.tokenizer, arguments)
        ids.check_tokenizer(tokenizer.fingerprint, arguments.tokenizer)
        ids.check_ids(tokenizer.vocab_size)
        facts["window"] = _decode_window(ids, tokenizer, arguments.at, arguments.window)
    return facts


def _count_ids(ids: TokenDataset) -> dict[str, int | None]:
    """The largest id and how many distinct ones there are, in bounded memory."""
    import numpy as np

    if not len(ids):
        return {"largest_id": None, "distinct_ids": 0}
    largest = ids.max_id()
    if largest >= 1 << 28:  # not ids of any tokenizer; a table of them would fill the memory
        return {"largest_id": largest, "distinct_ids": None}
    seen = np.zeros(largest + 1, dtype=bool)
    for _, block in ids.blocks():
        seen[block] = True
    return {"largest_id": largest, "distinct_ids": int(seen.sum())}


def _decode_window(ids: TokenDataset, tokenizer: Tokenizer, at: int, window: int) -> dict[str, Any]:
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
    if "documents" in facts:
        print(f"documents       {facts['documents']:,}")
    for source in facts.get("inputs", []):
        print(f"from            {source['path']} ({megabytes(source['bytes'])})")
    if "tokenizer_sha256" in facts:
        print(f"tokenizer       sha256 {facts['tokenizer_sha256']}")
    if window := facts.get("window"):
        last = window["start"] + max(window["tokens"] - 1, 0)
        print(f"tokens {window['start']:,} to {last:,}:")
        print(window["text"])
