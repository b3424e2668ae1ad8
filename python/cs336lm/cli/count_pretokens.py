"""``cs336lm count-pretokens``: text files -> a counts file, to train on later."""

import os
import time

from cs336lm.cli.options import add_counting, add_threads, named_files, train_options
from cs336lm.cli.parser import parser_for
from cs336lm.cli.progress import megabytes, progress_bars, shown, speed
from cs336lm.text.training import check_savable, count_pretokens

_EPILOG = """\
examples:
  cs336lm count-pretokens shard-0.txt --special-token '<|endoftext|>' --out 0.bin    (one machine)
  cs336lm count-pretokens shard-1.txt --special-token '<|endoftext|>' --out 1.bin    (another)
  cs336lm train-bpe --counts 0.bin 1.bin --vocab-size 32000 --out tokenizer/

Training on counts files makes the tokenizer that training on all their texts at once would make.
The files must have been counted with the same pattern and the same special tokens. --out replaces
a counts file, but no other file and no input."""


def main(argv: list[str]) -> int:
    """Counts files and prints what was written."""
    parser = parser_for("count-pretokens", "Count the pretokens of text files.", _EPILOG)
    parser.add_argument(
        "inputs", nargs="+", metavar="FILE", help="text files or directories; - reads a pipe"
    )
    add_counting(parser)
    add_threads(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="counts file to write")
    arguments = parser.parse_args(argv)

    check_savable(arguments.special_token, arguments.pattern)
    files = named_files(arguments.inputs, arguments.text_field)
    began = time.perf_counter()
    with progress_bars() as progress:
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
