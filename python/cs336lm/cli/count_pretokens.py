"""``cs336lm count-pretokens``: text files -> a counts file, to train on later."""

import argparse
import os
import time
from functools import partial

from cs336lm.cli.options import add_counting, add_threads, named_files, train_options
from cs336lm.cli.parser import parser_for
from cs336lm.cli.progress import megabytes, progress_bars, shown, speed
from cs336lm.cli.spreading import SPREADING_HELP, add_spreading, is_spread, text_launcher
from cs336lm.text.options import Progress, TextSource
from cs336lm.text.training import check_savable, count_pretokens

_EPILOG = f"""\
examples:
  cs336lm count-pretokens shard-0.txt --special-token '<|endoftext|>' --out 0.bin    (one machine)
  cs336lm count-pretokens shard-1.txt --special-token '<|endoftext|>' --out 1.bin    (another)
  cs336lm train-bpe --counts 0.bin 1.bin --vocab-size 32000 --out tokenizer/
  cs336lm count-pretokens huge.txt --special-token '<|endoftext|>' --launcher slurm --jobs 32 \\
      --launcher-option timeout_min=60 --out huge.bin

Training on counts files makes the tokenizer that training on all their texts at once would make.
The files must have been counted with the same pattern and the same special tokens. --out replaces
a counts file, but no other file and no input.

{SPREADING_HELP}"""


def main(argv: list[str]) -> int:
    """Counts files and prints what was written."""
    parser = parser_for("count-pretokens", "Count the pretokens of text files.", _EPILOG)
    parser.add_argument(
        "inputs", nargs="+", metavar="FILE", help="text files or directories; - reads a pipe"
    )
    add_counting(parser)
    add_threads(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="counts file to write")
    add_spreading(parser)
    arguments = parser.parse_args(argv)
    in_parts = is_spread(arguments, parser)

    check_savable(arguments.special_token, arguments.pattern)
    files = named_files(arguments.inputs, arguments.text_field)
    began = time.perf_counter()
    with progress_bars() as progress:
        if in_parts:
            distinct = _in_parts(arguments, files, progress)
        else:
            distinct = count_pretokens(
                files,
                arguments.out,
                arguments.special_token,
                pattern=arguments.pattern,
                **train_options(arguments, progress),
            )
    seconds = time.perf_counter() - began
    size = sum(os.path.getsize(path) for path in files if os.path.isfile(path))
    print(
        f"{distinct:,} distinct pretokens from {megabytes(size)} in {seconds:.2f} s "
        f"({speed(size, seconds)}): {shown(arguments.out)}"
    )
    return 0


def _in_parts(arguments: argparse.Namespace, files: list[str], progress: Progress | None) -> int:
    from cs336lm.cli.experiment import signals_interrupt
    from cs336lm.experiments.spread import spread_counting
    from cs336lm.text.parts import CountingJob

    with signals_interrupt():
        return spread_counting(
            CountingJob(
                TextSource(files, arguments.text_field, arguments.text_column),
                arguments.special_token,
                arguments.pattern,
                arguments.max_memory,
                arguments.threads,
            ),
            arguments.out,
            partial(text_launcher, arguments),
            jobs=arguments.jobs or 1,
            part_bytes=arguments.part_size,
            progress=progress,
        )
