"""``cs336lm data get``: downloads the course's corpora."""

import argparse
import re
from pathlib import Path

from cs336lm.cli.parser import parser_for
from cs336lm.cli.progress import megabytes, progress_bars
from cs336lm.data.corpora import CORPORA, CorpusFile
from cs336lm.data.download import download
from cs336lm.errors import UsageError

_EPILOG = """\
examples:
  cs336lm data get tinystories --out data/       TinyStoriesV2-GPT4-train.txt, -valid.txt
  cs336lm data get owt --out data/               owt_train.txt.gz, owt_valid.txt.gz
  cs336lm data get tinystories --only valid --sha256 HEX
  cs336lm data get https://example.org/corpus.txt.gz --out data/

train-bpe and tokenize read .gz files as they are. A download that was interrupted goes on where it
was when the command is given again; a file that is there is not fetched again. No hash of these
files is known here: each one's SHA-256 is printed, and --sha256 demands one."""


def main(argv: list[str]) -> int:
    """Fetches files, one after the other."""
    parser = parser_for("data", "Download the course's corpora, or any file.", _EPILOG)
    add = parser.add_argument
    add("action", choices=("get",), metavar="get", help="what to do: get")
    add(
        "corpus",
        type=_files,
        metavar="CORPUS",
        help=f"{', '.join(CORPORA)}, or the address of a file (https://...)",
    )
    add("--out", type=Path, default=Path("data"), metavar="DIR", help="where (default: data/)")
    add("--only", choices=("train", "valid"), help="one of a corpus's two files")
    add(
        "--sha256",
        type=_sha256,
        metavar="HEX",
        help="what the file's SHA-256 must be; for one file alone (see --only)",
    )
    add(
        "--timeout",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="a connection that brings nothing for so long is tried again (default: 60)",
    )
    arguments = parser.parse_args(argv)
    files = [file for file in arguments.corpus if arguments.only is None or _is(file, arguments)]
    if not files:
        raise UsageError(f"--only {arguments.only}: no such file is in {argv[1]}")
    if arguments.sha256 is not None and len(files) > 1:
        raise UsageError("--sha256 is of one file: say which with --only train or --only valid")
    for file in files:
        place = arguments.out / file.name
        was_there = place.exists()
        with progress_bars() as progress:
            found = download(
                file.url,
                place,
                sha256=arguments.sha256 or file.sha256,
                progress=progress,
                timeout=arguments.timeout,
            )
        how = "is there already" if was_there else megabytes(place.stat().st_size)
        print(f"{place}: {how}, SHA-256 {found}")
    return 0


def _is(file: CorpusFile, arguments: argparse.Namespace) -> bool:
    return arguments.only in file.name


def _files(text: str) -> tuple[CorpusFile, ...]:
    """The type of ``CORPUS``."""
    if text in CORPORA:
        return CORPORA[text]
    if re.match(r"https?://", text) and CorpusFile(text).name:
        return (CorpusFile(text),)
    known = ", ".join(CORPORA)
    raise argparse.ArgumentTypeError(f"{text!r} is not {known} or the address of a file")


def _sha256(text: str) -> str:
    """The type of ``--sha256``."""
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a SHA-256: 64 hexadecimal digits")
    return text.lower()
