"""``cs336lm stories``: the built-in corpus, with its exact entropy."""

import math
import os
import sys
from collections.abc import Iterator

from cs336lm.cli.options import above_zero
from cs336lm.cli.parser import parser_for
from cs336lm.cli.progress import megabytes, progress_bars
from cs336lm.errors import UsageError
from cs336lm.text.stories.reading import Reading

_EPILOG = """\
examples:
  cs336lm stories --megabytes 20 --seed 1 --out stories.txt
  cs336lm stories --megabytes 1 --seed 2 --out val.txt      other stories, of the same grammar
  cs336lm stories --out - | head -20                        just to read some
  cs336lm stories --read generated.txt                      which of these are such stories?

Stories are drawn from a grammar, independently of each other, with <|endoftext|> on a line of its
own after each. The same seed gives the same bytes on every machine. A file that holds anything but
such stories is not replaced. The entropy is computed from the grammar, not estimated: no model,
however large, has a lower loss on average. Compare it in bits per byte of text, which 'cs336lm
evaluate' prints too and which do not depend on the tokenizer; windows that begin in the middle of a
story keep a model somewhat above it."""


def main(argv: list[str]) -> int:
    """Writes a corpus, or reads a file as one, and says what it holds."""
    parser = parser_for("stories", "Write the built-in corpus of children's stories.", _EPILOG)
    parser.add_argument(
        "--megabytes",
        type=above_zero,
        default=20.0,
        metavar="X",
        help="size in millions of bytes: as many whole stories as fit, at least one (default: 20)",
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="seed of the draws (default: 1)"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", metavar="FILE", help="file to write; - is the standard output")
    what.add_argument(
        "--read",
        metavar="FILE",
        help="read FILE instead, and say which of its texts are such stories and how probable",
    )
    arguments = parser.parse_args(argv)
    if arguments.read is not None:
        return _read(arguments.read)
    return _write(arguments.out, round(arguments.megabytes * 1e6), arguments.seed)


def _write(out: str, size: int, seed: int) -> int:
    from cs336lm.files import atomic_write
    from cs336lm.text.stories import END_OF_TEXT, corpus, entropy, holds_stories

    if os.path.isfile(out) and not holds_stories(out):
        raise UsageError(
            f"--out {out} exists and does not hold such stories: delete it, or name another file"
        )
    count = written = 0

    def counted() -> Iterator[bytes]:
        nonlocal count, written
        for block in corpus(size, seed):
            yield block
            count += block.count(END_OF_TEXT.encode())
            written += len(block)

    if out == "-":
        for block in counted():
            sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()
    elif os.path.isdir(out):
        raise UsageError(f"--out {out} is a directory: name a file")
    else:
        with progress_bars() as progress, atomic_write(out) as file:
            for block in counted():
                file.write(block)
                if progress:
                    progress("telling stories", written, size)
    floor = entropy()
    print(
        f"{count:,} {'story' if count == 1 else 'stories'}, {megabytes(written)}: {out}\n"
        f"entropy: {floor.nats_per_story:.3f} nats in a story of {floor.bytes_per_story:.1f} bytes "
        f"on average, {floor.bits_per_byte:.5f} bits per byte "
        f"({floor.bits_per_text_byte:.5f} per byte of text, which {END_OF_TEXT} is not)",
        file=sys.stderr if out == "-" else sys.stdout,
    )
    return 0


def _read(path: str) -> int:
    from cs336lm.text.stories import END_OF_TEXT, SEPARATOR, entropy, read_story

    with open(path, encoding="utf-8", errors="replace") as file:
        texts = [text.strip("\n") for text in file.read().split(END_OF_TEXT)]
    readings = [read_story(text) for text in texts if text]
    if not readings:
        raise ValueError(f"{path} holds no text")
    whole = [reading for reading in readings if reading.whole]
    print(f"{len(whole):,} of {len(readings):,} texts are stories of the grammar")
    for number, reading in enumerate(readings, 1):
        if not reading.whole:
            print(f"text {number} is none: {_first_difference(reading)}")
            break
    if whole:
        nats = -math.fsum(reading.log_probability for reading in whole)
        size = sum(len(reading.text) + len(SEPARATOR) for reading in whole)
        print(
            f"they hold {nats / len(whole):.3f} nats each, {nats / math.log(2) / size:.5f} bits "
            f"per byte; the grammar's expectation is {entropy().bits_per_byte:.5f}"
        )
    return 0


def _first_difference(reading: Reading) -> str:
    read, rest = reading.text[: reading.furthest], reading.text[reading.furthest :]
    if not rest:
        return "it ends too early"
    return f"after {read[-40:]!r} no story goes on with {rest[:40]!r}"
