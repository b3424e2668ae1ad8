"""``cs336lm generate``: run directory + prompt -> text, on the terminal while it is written."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cs336lm.cli.options import parser_for
from cs336lm.errors import UsageError

if TYPE_CHECKING:
    from cs336lm.generation import Piece

_EPILOG = """\
examples:
  cs336lm generate runs/a --prompt 'Once upon a time' --max-new-tokens 256
  cs336lm generate runs/a --prompt 'Once upon a time' --temperature 0.8 --top-p 0.9 --seed 1
  cs336lm generate runs/a --prompt 'A dog' --prompt 'A cat' --temperature 0 --json
  cs336lm generate runs/a --prompt - < beginning.txt

The text ends at <|endoftext|>, where the model ends the document, or after --max-new-tokens.
--temperature 0 always takes the likeliest token; --top-p and --top-k cut off unlikely ones. Without
--prompt the model begins a document of its own. Texts longer than the model's context go on in a
sliding window."""


def main(argv: list[str]) -> int:
    """Continues one prompt as it is written, or several at once."""
    parser = parser_for("generate", "Let a trained model write.", _EPILOG)
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="made by `cs336lm train`")
    parser.add_argument(
        "--prompt",
        action="append",
        metavar="TEXT",
        help="what to continue; - reads it from standard input; may be given several times",
    )
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="default: 256")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="default: 1.0")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="default: 1.0")
    parser.add_argument("--top-k", type=int, metavar="K", help="default: no limit")
    parser.add_argument("--seed", type=int, metavar="N", help="default: another text every time")
    parser.add_argument(
        "--checkpoint",
        choices=("best", "last"),
        default="best",
        help="best by validation loss (default), or last",
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    parser.add_argument("--json", action="store_true", help="print a JSON list: prompt, text")
    arguments = parser.parse_args(argv)
    prompts = [_read(prompt) for prompt in arguments.prompt or [""]]

    from cs336lm.devices import choose_device
    from cs336lm.generation import stream
    from cs336lm.run_directory import load_run

    device = choose_device(arguments.device)
    _, model, tokenizer = load_run(arguments.run_dir, device, arguments.checkpoint)
    if tokenizer is None:
        raise UsageError(
            f"{arguments.run_dir} holds no tokenizer: train with --data.tokenizer, or copy the "
            f"tokenizer of its token files to {arguments.run_dir / 'tokenizer'}"
        )
    pieces = stream(
        model,
        tokenizer,
        prompts,
        arguments.max_new_tokens,
        arguments.temperature,
        arguments.top_p,
        arguments.top_k,
        arguments.seed,
    )
    if len(prompts) == 1 and not arguments.json:
        _show_while_written(prompts[0], pieces)
    else:
        _show_when_done(prompts, pieces, as_json=arguments.json)
    return 0


def _read(prompt: str) -> str:
    return sys.stdin.read() if prompt == "-" else prompt


def _show_while_written(prompt: str, pieces: Iterator["Piece"]) -> None:
    _write(prompt)
    for piece in pieces:
        _write(piece.text)
    _write("\n")


def _show_when_done(prompts: list[str], pieces: Iterator["Piece"], *, as_json: bool) -> None:
    texts = [""] * len(prompts)
    for piece in pieces:
        texts[piece.row] += piece.text
    if as_json:
        rows = zip(prompts, texts, strict=True)
        print(json.dumps([{"prompt": prompt, "text": text} for prompt, text in rows]))
        return
    for number, (prompt, text) in enumerate(zip(prompts, texts, strict=True), start=1):
        _write(f"--- {number}\n{prompt}{text}\n")


def _write(text: str) -> None:
    """To the terminal at once; what its encoding lacks becomes a question mark."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()
