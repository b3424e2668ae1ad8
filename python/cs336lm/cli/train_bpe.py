"""``cs336lm train-bpe``: text files -> tokenizer."""

import os
import time
import warnings

from cs336lm.cli.options import add_threads, parser_for, positive
from cs336lm.cli.progress import megabytes, progress_bars, speed
from cs336lm.tokenizer import Tokenizer

_EPILOG = """\
examples:
  cs336lm train-bpe corpus.txt --vocab-size 10000 --special-token '<|endoftext|>' --out tokenizer/
  cs336lm train-bpe part-*.txt --vocab-size 32000 --pattern gpt4 --threads 8 --out tokenizer/

--out becomes a directory with tokenizer.json (opens in Hugging Face's tokenizers and transformers),
vocab.json and merges.txt. The result does not depend on --threads, nor on whether the text is one
file or several."""


def main(argv: list[str]) -> int:
    """Trains a tokenizer and prints where it is."""
    parser = parser_for("train-bpe", "Train a byte-level BPE tokenizer on text files.", _EPILOG)
    parser.add_argument("inputs", nargs="+", metavar="FILE", help="text files, UTF-8 or any bytes")
    parser.add_argument(
        "--vocab-size",
        type=positive,
        required=True,
        metavar="N",
        help="tokens in all: 256 bytes, merges and special tokens",
    )
    parser.add_argument(
        "--special-token",
        action="append",
        default=[],
        metavar="TEXT",
        help="a text that is one token, such as '<|endoftext|>'; may be given several times",
    )
    parser.add_argument(
        "--pattern",
        default="gpt2",
        help="how text is split into words: gpt2 (default), gpt4, gpt4o, or a regular expression",
    )
    add_threads(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="directory to write")
    arguments = parser.parse_args(argv)

    if os.path.exists(arguments.out) and not os.path.isdir(arguments.out):
        parser.error(f"--out {arguments.out} is a file: name a directory")

    began = time.perf_counter()
    with progress_bars() as progress, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        tokenizer = Tokenizer.train(
            arguments.inputs,
            arguments.vocab_size,
            arguments.special_token,
            pattern=arguments.pattern,
            threads=arguments.threads,
            progress=progress,
        )
        tokenizer.save(arguments.out)
    seconds = time.perf_counter() - began

    for warning in warned:
        print(f"note: {warning.message}")
    special = len(tokenizer.special_tokens)
    size = sum(os.path.getsize(path) for path in arguments.inputs)
    print(
        f"{tokenizer.vocab_size:,} tokens (256 bytes, {tokenizer.vocab_size - 256 - special:,} "
        f"merges, {special} special) from {megabytes(size)} in {seconds:.2f} s "
        f"({speed(size, seconds)}): {arguments.out}"
    )
    return 0
