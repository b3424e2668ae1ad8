"""``cs336lm export-tokenizer``: a tokenizer -> the formats of others."""

import sys
from pathlib import Path

from cs336lm.cli.options import add_tokenizer_options, load_tokenizer
from cs336lm.cli.parser import parser_for

_EPILOG = """\
examples:
  cs336lm export-tokenizer tokenizer/ --format tiktoken --out t.tiktoken
  cs336lm export-tokenizer runs/a/tokenizer --format hf --out for-transformers/
  cs336lm export-tokenizer old/vocab.json --pattern gpt4 --special-token '<|endoftext|>' \\
      --format hf --out settled/

hf        tokenizer.json, tokenizer_config.json, vocab.json, merges.txt: says everything
gpt2      vocab.json and merges.txt alone; they name no pattern
tiktoken  one .tiktoken file; it names neither pattern nor special tokens

Where a format leaves something open, a note says what to give whoever opens it."""


def main(argv: list[str]) -> int:
    """Writes a tokenizer in another format."""
    parser = parser_for("export-tokenizer", "Write a tokenizer in a format of others.", _EPILOG)
    parser.add_argument(
        "tokenizer",
        metavar="TOKENIZER",
        help="a tokenizer's directory, tokenizer.json, vocab.json, merges.txt or .tiktoken file",
    )
    parser.add_argument(
        "--format", required=True, choices=("hf", "gpt2", "tiktoken"), help="see below"
    )
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="PATH",
        help="where: a folder (hf, gpt2) or a file that ends in .tiktoken; must not be there yet",
    )
    add_tokenizer_options(parser)
    arguments = parser.parse_args(argv)

    from cs336lm.exchange.tokenizer_files import export_tokenizer

    tokenizer = load_tokenizer(arguments.tokenizer, arguments)
    for note in export_tokenizer(tokenizer, arguments.out, arguments.format):
        print(f"note: {note}", file=sys.stderr)
    print(f"{arguments.out}: {tokenizer.vocab_size:,} tokens")
    return 0
