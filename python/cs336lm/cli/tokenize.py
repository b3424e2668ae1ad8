"""``cs336lm tokenize``: text files + tokenizer -> tokens.npy."""

import argparse
import sys
import time
from functools import partial

from cs336lm.cli.options import (
    add_text_fields,
    add_threads,
    add_tokenizer,
    count,
    fraction,
    load_tokenizer,
    named_files,
    read_options,
)
from cs336lm.cli.parser import parser_for
from cs336lm.cli.progress import megabytes, progress_bars, speed
from cs336lm.cli.spreading import SPREADING_HELP, add_spreading, is_spread, text_launcher
from cs336lm.text.options import EncodeOptions, Progress, TextSource
from cs336lm.text.tokenizer import EncodedFile, Tokenizer

_EPILOG = f"""\
examples:
  cs336lm tokenize corpus.txt --tokenizer tokenizer/ --out tokens.npy
  cs336lm tokenize part-*.txt --tokenizer tokenizer/ --threads 8 --out tokens.npy
  cs336lm tokenize corpus.txt --tokenizer gpt2/vocab.json --special-token '<|endoftext|>' \\
      --out tokens.npy
  cs336lm tokenize corpus/ more.jsonl.zst --tokenizer tokenizer/ --append-eot --out tokens.npy
  cs336lm tokenize 'data/*.parquet' --text-column body --append-eot --tokenizer tokenizer/ \\
      --out tokens.npy
  cs336lm tokenize corpus.txt --tokenizer tokenizer/ --val-fraction 0.005 --out train.npy
  cs336lm tokenize huge.txt --tokenizer tokenizer/ --shard-tokens 100M --resume --out tokens.npy
  cs336lm tokenize huge.txt more/ --tokenizer tokenizer/ --jobs 4 --out tokens.npy
  cs336lm tokenize huge.txt --tokenizer tokenizer/ --launcher slurm --jobs 32 \\
      --launcher-option timeout_min=60 --launcher-option cpus_per_task=8 --out tokens.npy

--out becomes a one-dimensional array of uint16 (uint32 if the vocabulary needs it):
np.load('tokens.npy', mmap_mode='r') opens it. tokens.json beside it names the tokenizer, the counts
and the inputs. Inputs are those of train-bpe; they are encoded one after the other, as they are:
nothing is put between them but what --append-eot asks for. No text gives an array of length 0.

A document ends at <|endoftext|> in a file of text, with its record (a line of .jsonl, a row of
.parquet), or with its file. --val-fraction puts some documents, chosen by --seed, into a second
file (tokens.val.npy).
--shard-tokens writes tokens-00000.npy and so on, which tokens.json lists; 'cs336lm train' takes
tokens.npy for all of them. What --out replaces was written by tokenize: any other file stays, and
so does an input, whatever it is called; links are followed and permissions kept. One job at a time
writes an --out: it holds a lock on .tokens.lock beside it, which it removes. Arrays of an older job
of the same --out that the new one does not write are removed at its end. With --resume an
interrupted job goes on after its last finished shard, once it has read those that are finished and
found them as it wrote them; a .gz or .zst file must be unpacked up to there.

{SPREADING_HELP}"""


def main(argv: list[str]) -> int:
    """Encodes files and prints what was written."""
    parser = parser_for("tokenize", "Encode text files into a file of token ids.", _EPILOG)
    parser.add_argument(
        "inputs", nargs="+", metavar="FILE", help="text files or directories; - reads a pipe"
    )
    add_tokenizer(parser, required=True)
    add_text_fields(parser)
    add_threads(parser)
    parser.add_argument("--out", required=True, metavar="FILE.npy", help="file to write")
    parser.add_argument(
        "--append-eot", action="store_true", help="put <|endoftext|> after each file or record"
    )
    parser.add_argument(
        "--special-tokens-in-records",
        action="store_true",
        help="read special tokens in .jsonl and .parquet too; without this what a record says is "
        "plain text, which cannot forge the end of a document",
    )
    parser.add_argument(
        "--val-fraction",
        type=fraction,
        default=0.0,
        metavar="X",
        help="put this much of all documents, e.g. 0.005, into a validation file beside --out",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="chooses those documents (default: 0)"
    )
    parser.add_argument(
        "--shard-tokens", type=count, metavar="N", help="write files of N tokens each, e.g. 100M"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on after the last finished shard, if there is one"
    )
    parser.add_argument(
        "--on-error",
        choices=["stop", "skip"],
        default="stop",
        help="what to do with a file or a record that cannot be read or encoded (default: stop)",
    )
    add_spreading(parser)
    arguments = parser.parse_args(argv)
    in_parts = is_spread(arguments, parser)
    if arguments.resume and in_parts:
        parser.error("--resume is for one process: work in parts goes on by itself; leave it out")
    if arguments.resume and arguments.shard_tokens is None:
        parser.error("--resume needs --shard-tokens: a single file is written whole or not at all")
    if arguments.seed < 0:
        parser.error(f"--seed {arguments.seed} is below 0")
    if not arguments.out.endswith(".npy"):
        parser.error(f"--out {arguments.out} does not end in .npy")

    files = named_files(arguments.inputs, arguments.text_field)
    tokenizer = load_tokenizer(arguments.tokenizer, arguments)
    began = time.perf_counter()
    with progress_bars() as progress:
        if in_parts:
            written = _in_parts(arguments, tokenizer, files, progress)
        else:
            written = tokenizer.encode_files(
                files,
                arguments.out,
                append_eot=arguments.append_eot,
                val_fraction=arguments.val_fraction,
                seed=arguments.seed,
                shard_tokens=arguments.shard_tokens,
                resume=arguments.resume,
                skip_errors=arguments.on_error == "skip",
                special_tokens_in_records=arguments.special_tokens_in_records,
                **read_options(arguments, progress),
            )
    seconds = time.perf_counter() - began

    for line in written.skipped:
        print(f"skipped: {line}", file=sys.stderr)
    ratio = f" ({written.bytes / written.tokens:.3f} bytes/token)" if written.tokens else ""
    print(
        f"{written.tokens:,} tokens of {written.dtype} from {megabytes(written.bytes)}{ratio} in "
        f"{seconds:.2f} s ({speed(written.bytes, seconds)}): {written.path}"
    )
    if written.val is not None:
        print(f"{written.val.tokens:,} tokens more, for validation: {written.val.path}")
    return 0


def _in_parts(
    arguments: argparse.Namespace,
    tokenizer: Tokenizer,
    files: list[str],
    progress: Progress | None,
) -> EncodedFile:
    from cs336lm.cli.experiment import signals_interrupt
    from cs336lm.experiments.spread import spread_encoding
    from cs336lm.text.parts import EncodingJob

    options = EncodeOptions(
        arguments.append_eot,
        arguments.val_fraction,
        arguments.seed,
        arguments.shard_tokens,
        skip_errors=arguments.on_error == "skip",
        special_in_records=arguments.special_tokens_in_records,
    )
    source = TextSource(files, arguments.text_field, arguments.text_column)
    with signals_interrupt():
        return spread_encoding(
            EncodingJob(tokenizer, source, options, arguments.threads),
            arguments.out,
            partial(text_launcher, arguments),
            jobs=arguments.jobs or 1,
            part_bytes=arguments.part_size,
            progress=progress,
        )
