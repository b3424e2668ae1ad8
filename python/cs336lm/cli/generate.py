"""``cs336lm generate``: continues prompts with the model of a run directory."""

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from cs336lm.cli.options import add_checkpoint, add_placement, spin_briefly
from cs336lm.cli.output import print_json
from cs336lm.cli.parser import parser_for
from cs336lm.errors import UsageError

if TYPE_CHECKING:
    from cs336lm.generation.engine import Piece

_EPILOG = """\
examples:
  cs336lm generate runs/a --prompt "Once upon a time" --max-new-tokens 256 --temperature 0.8
  cs336lm generate runs/a --prompt "A cat" --prompt "A dog" --top-p 0.9 --seed 1
  cs336lm generate runs/a --temperature 0            (a document from its beginning, greedily)
  cs336lm generate runs/a --prompt "Q: Why?" --stop "Q:" --stop "<|endoftext|>"
  head -c 2000 story.txt | cs336lm generate runs/a --prompt - --json

The text is printed as it is generated; with several prompts, that of the first one, and the others
at the end. With --json there is one object per line: {"prompt": .., "text": .., "tokens": ..}.
Characters that the terminal's encoding lacks are written as \\u20ac, so that none is lost."""


def main(argv: list[str]) -> int:
    """Loads the run, writes the continuations."""
    parser = parser_for("generate", "Continue prompts with the model of a run.", _EPILOG)
    add = parser.add_argument
    add("run_dir", metavar="RUN_DIR", type=Path, help="run directory, made by 'cs336lm train'")
    add(
        "--prompt",
        action="append",
        metavar="TEXT",
        help="text to continue, '-' for standard input; may be repeated (default: a new document)",
    )
    add(
        "--prompt-special",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="take special tokens such as <|endoftext|> in a prompt for what they are (default); "
        "with --no-prompt-special they are text like any other: for prompts from strangers",
    )
    add(
        "--stop",
        action="append",
        metavar="TEXT",
        help="end before this text: a special token, or any other text; may be repeated (default: "
        "<|endoftext|>, if the tokenizer has that token)",
    )
    add(
        "--max-new-tokens",
        type=int,
        default=256,
        metavar="N",
        help="stop after this many tokens, if the text does not end before (default: 256)",
    )
    add(
        "--temperature",
        type=float,
        default=1.0,
        metavar="T",
        help="below 1 more predictable, above 1 more random; 0, or next to nothing, always takes "
        "the likeliest token (default: 1)",
    )
    add(
        "--top-p",
        type=float,
        default=1.0,
        metavar="P",
        help="nucleus sampling: draw among the likeliest tokens that together have this "
        "probability (default: 1, all)",
    )
    add("--top-k", type=int, metavar="K", help="draw among the K likeliest tokens (default: all)")
    add("--seed", type=int, metavar="N", help="seed of the draws (default: a new one each time)")
    add_checkpoint(parser)
    add_placement(parser, "the weights")
    add(
        "--compile",
        action="store_true",
        help="compile the model first: slow to start, then faster; worth it for long texts",
    )
    add("--json", action="store_true", help="one JSON object per line instead of plain text")
    arguments = parser.parse_args(argv)
    if (arguments.prompt or []).count("-") > 1:
        parser.error("only one prompt can be read from standard input")
    prompts = [_prompt(text) for text in arguments.prompt or [""]]
    spin_briefly()

    from cs336lm.generation import SamplingParams, continue_prompts
    from cs336lm.training.devices import choose_device, choose_dtype
    from cs336lm.training.run_directory import load_run

    params = SamplingParams(arguments.temperature, arguments.top_p, arguments.top_k, arguments.seed)
    device = choose_device(arguments.device)
    _, model, tokenizer = load_run(arguments.run_dir, device, arguments.checkpoint)
    if tokenizer is None:
        raise ValueError(
            f"{arguments.run_dir} has no tokenizer/: the run was trained on ids alone, so there "
            "is no text to generate; train with --data.tokenizer"
        )
    pieces = continue_prompts(
        model.to(choose_dtype(arguments.dtype, device)),
        tokenizer,
        prompts,
        arguments.max_new_tokens,
        params,
        stop=arguments.stop,
        parse_special=arguments.prompt_special,
        compile=arguments.compile,
    )
    started = time.perf_counter()
    texts, tokens = _collect(pieces, prompts, None if arguments.json else sys.stdout)
    if arguments.json:
        for prompt, text, count in zip(prompts, texts, tokens, strict=True):
            print_json({"prompt": prompt, "text": text, "tokens": count})
    if sys.stderr.isatty():
        seconds, total = time.perf_counter() - started, sum(tokens)
        print(
            f"{total} tokens in {seconds:.1f} s: {total / seconds:.0f} per second", file=sys.stderr
        )
    return 0


def _prompt(text: str) -> str:
    """The prompt itself; for '-' what standard input holds, less one newline at its end."""
    try:
        if text == "-":
            return sys.stdin.buffer.read().decode().removesuffix("\n")
        text.encode()  # fails where the command line held bytes that are not UTF-8
    except UnicodeError as error:
        where = "on standard input" if text == "-" else repr(text)
        raise UsageError(f"the prompt {where} is not UTF-8: {error}") from None
    return text


def _collect(
    pieces: Iterable["Piece"], prompts: list[str], out: TextIO | None
) -> tuple[list[str], list[int]]:
    """Each prompt's continuation and how many tokens it took; written to ``out`` as it comes.

    The first prompt's text is written at once; the others' have grown meanwhile and follow.
    """
    texts, tokens = [""] * len(prompts), [0] * len(prompts)
    if out is not None:
        print(prompts[0], end="", file=out, flush=True)
    for piece in pieces:
        texts[piece.row] += piece.text
        tokens[piece.row] += piece.tokens
        if out is not None and piece.row == 0:
            print(piece.text, end="", file=out, flush=True)
    if out is not None:
        print(file=out)
        for prompt, text in zip(prompts[1:], texts[1:], strict=True):
            print(f"\n{'-' * 40}\n{prompt}{text}", file=out)
    return texts, tokens
