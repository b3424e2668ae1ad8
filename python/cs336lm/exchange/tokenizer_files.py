"""``cs336lm export-tokenizer``: a tokenizer in the files that others read.

What a format cannot say is either refused, where ids would differ, or told to the user, where it is
for whoever opens the file to say: ``.tiktoken`` names no special token, and neither it nor GPT-2's
files name the pattern.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from cs336lm.errors import UsageError
from cs336lm.files import atomic_write, new_directory, refuse_if_there
from cs336lm.text.conversions import special_ids, tiktoken_lines, tiktoken_ranks
from cs336lm.text.tokenizer import Tokenizer

_SUFFIX = ".tiktoken"


def export_tokenizer(tokenizer: Tokenizer, out: Path, format: str) -> list[str]:
    """Writes ``tokenizer`` to ``out`` in ``format``, of :data:`TOKENIZER_FORMATS`.

    Returns what the file leaves open, a line each.

    Raises:
        UsageError: something stands under ``out`` already.
        ValueError: the format cannot hold the tokenizer.
        OSError: a file cannot be written.
    """
    refuse_if_there(out)
    return TOKENIZER_FORMATS[format](tokenizer, out)


def _hugging_face(tokenizer: Tokenizer, out: Path) -> list[str]:
    with new_directory(out) as folder:
        tokenizer.save(folder, with_checksums=False)
    return []


def _gpt2(tokenizer: Tokenizer, out: Path) -> list[str]:
    special = special_ids(tokenizer)
    with new_directory(out) as folder:
        tokenizer.save(folder, with_checksums=False)
        for beside in ("tokenizer.json", "tokenizer_config.json"):
            (folder / beside).unlink()
        again = Tokenizer.load(folder, special, pattern=tokenizer.pattern)
        if again != tokenizer:
            raise ValueError(
                "vocab.json and merges.txt cannot say that a word which is a token is taken whole, "
                "whatever the merges make of it: save the tokenizer in Hugging Face's format"
            )
        alone = Tokenizer.load(folder)
    if alone == tokenizer:
        return []
    unsaid = [token for token in special if token not in alone.special_tokens]
    return [_left_open("GPT-2's files", tokenizer, unsaid)]


def _tiktoken(tokenizer: Tokenizer, out: Path) -> list[str]:
    ranks = tiktoken_ranks(tokenizer)
    if out.suffix != _SUFFIX:
        raise UsageError(f"--out {out} must end in {_SUFFIX}: it is one file")
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as file:
        file.write(tiktoken_lines(ranks))
    return [_left_open("the file", tokenizer, list(special_ids(tokenizer)))]


def _left_open(what: str, tokenizer: Tokenizer, unsaid: list[str]) -> str:
    """The flags with which the files are the tokenizer again."""
    ids = special_ids(tokenizer)
    flags = [f"--pattern {shlex.quote(tokenizer.pattern)}"]
    flags += [f"--special-token {shlex.quote(f'{token}={ids[token]}')}" for token in unsaid]
    named = "the pattern" + (" and the special tokens" if unsaid else "")
    return f"{what} cannot name {named}; wherever it is opened, say {' '.join(flags)}"


TOKENIZER_FORMATS: dict[str, Callable[[Tokenizer, Path], list[str]]] = {
    "hf": _hugging_face,
    "gpt2": _gpt2,
    "tiktoken": _tiktoken,
}
