"""``cs336lm train-bpe``: text files -> tokenizer."""

import argparse
import os
import time
import warnings

from cs336lm._bpe import FolderClaim
from cs336lm.cli.options import (
    add_counting,
    add_threads,
    named_files,
    positive,
    train_options,
)
from cs336lm.cli.parser import parser_for
from cs336lm.cli.progress import megabytes, progress_bars, shown, speed
from cs336lm.text.tokenizer import Tokenizer
from cs336lm.text.training import check_savable

_EPILOG = """\
examples:
  cs336lm train-bpe corpus.txt --vocab-size 10000 --special-token '<|endoftext|>' --out tokenizer/
  cs336lm train-bpe part-*.txt --vocab-size 32000 --pattern gpt4 --threads 8 --out tokenizer/
  cs336lm train-bpe corpus/ extra.jsonl.zst --vocab-size 32000 --max-memory 2GB --out tokenizer/
  cs336lm train-bpe 'data/*.parquet' --text-column body --vocab-size 32000 --out tokenizer/
  zcat huge.gz | cs336lm train-bpe - --vocab-size 32000 --out tokenizer/
  cs336lm train-bpe --counts 0.bin 1.bin --vocab-size 32000 --out tokenizer/

A directory is all texts in it (.txt, .md, .jsonl, .ndjson, .parquet, and .json with a record a
line); a note says what else there is. .gz and .zst are unpacked; each line of a .jsonl file and
each row of a .parquet file is a document.

A --pattern of your own is matched by a general engine, which is far slower and is sure of no place
where a word ends: threads share such work only where there are several files, or special tokens
between the documents.

--out becomes a directory with tokenizer.json (opens in Hugging Face's tokenizers and transformers),
vocab.json and merges.txt. Files of these names that train-bpe did not write are not replaced, nor
is an input, and one job at a time writes there. The result does not depend on --threads, nor on
whether the text is one file or several."""


def main(argv: list[str]) -> int:
    """Trains a tokenizer and prints where it is."""
    parser = parser_for("train-bpe", "Train a byte-level BPE tokenizer on text files.", _EPILOG)
    parser.add_argument(
        "inputs", nargs="*", metavar="FILE", help="text files or directories; - reads a pipe"
    )
    parser.add_argument(
        "--counts",
        nargs="+",
        metavar="FILE",
        help="train on what 'cs336lm count-pretokens' wrote, not on text; these files know their "
        "pattern and special tokens",
    )
    parser.add_argument(
        "--vocab-size",
        type=positive,
        required=True,
        metavar="N",
        help="tokens in all: 256 bytes, merges and special tokens",
    )
    parser.add_argument(
        "--min-count",
        type=positive,
        default=1,
        metavar="N",
        help="leave out words that occur less than N times",
    )
    add_counting(parser)
    add_threads(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="directory to write")
    arguments = parser.parse_args(argv)

    if os.path.exists(arguments.out) and not os.path.isdir(arguments.out):
        parser.error(f"--out {arguments.out} is a file: name a directory")

    if bool(arguments.counts) == bool(arguments.inputs):
        parser.error("name text files, or counts files after --counts; one of the two")
    if arguments.counts and (arguments.special_token or arguments.pattern != "gpt2"):
        parser.error("--counts files know their pattern and special tokens: leave these flags out")

    if not arguments.counts:
        check_savable(arguments.special_token, arguments.pattern)
    files = arguments.counts or named_files(arguments.inputs, arguments.text_field)
    claim = FolderClaim(arguments.out, files)
    try:
        return _train(arguments, files)
    finally:
        claim.release()


def _train(arguments: argparse.Namespace, files: list[str]) -> int:
    began = time.perf_counter()
    with progress_bars() as progress, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        if arguments.counts:
            tokenizer = Tokenizer.train_counts(
                files,
                arguments.vocab_size,
                min_count=arguments.min_count,
                max_memory=arguments.max_memory,
                threads=arguments.threads,
                progress=progress,
            )
        else:
            tokenizer = Tokenizer.train(
                files,
                arguments.vocab_size,
                arguments.special_token,
                pattern=arguments.pattern,
                min_count=arguments.min_count,
                **train_options(arguments, progress),
            )
        tokenizer.save(arguments.out)
    seconds = time.perf_counter() - began

    for warning in warned:
        print(f"note: {warning.message}")
    special = len(tokenizer.special_tokens)
    size = sum(os.path.getsize(path) for path in files if os.path.isfile(path))
    print(
        f"{tokenizer.vocab_size:,} tokens (256 bytes, {tokenizer.vocab_size - 256 - special:,} "
        f"merges, {special} special) from {megabytes(size)} in {seconds:.2f} s "
        f"({speed(size, seconds)}): {shown(arguments.out)}"
    )
    return 0
