"""``cs336lm inspect --compare``: tokenizers side by side."""

from __future__ import annotations

import argparse

from cs336lm.cli.options import load_tokenizer, positive
from cs336lm.cli.output import print_json, refuse_foreign_picture
from cs336lm.cli.parser import Parser
from cs336lm.errors import UsageError

_ONLY_HERE = ("documents", "threads", "seed", "markdown", "plot")


def add_comparing(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of a comparison."""
    add = parser.add_argument
    add("--compare", nargs="+", metavar="PATH", help="tokenizers to compare on the files of --on")
    add(
        "--documents",
        type=positive,
        metavar="N",
        help="with --compare: bytes per token of N documents of each file, drawn at random",
    )
    add("--seed", type=int, metavar="N", help="with --documents: which ones (default: 0)")
    add(
        "--threads",
        type=positive,
        metavar="N",
        help="with --compare: how many the throughput is measured with (default: 1)",
    )
    add("--markdown", action="store_true", help="with --compare: print tables for a document")
    add("--plot", metavar="FILE", help="with --compare: draw bytes per token (.png, .svg, .pdf)")


def compare_is_meant(arguments: argparse.Namespace, parser: Parser) -> bool:
    """Whether tokenizers are to be compared; a call that says half of it is refused."""
    if not arguments.compare:
        for name in _ONLY_HERE:
            if getattr(arguments, name) not in (None, False):
                parser.error(f"--{name} is for comparing: name tokenizers after --compare")
        return False
    if len(arguments.compare) < 2:
        parser.error("--compare needs two tokenizers or more")
    if len(set(arguments.compare)) < len(arguments.compare):
        parser.error("--compare: one tokenizer is named twice")
    if arguments.path is not None or arguments.tokenizer:
        named = arguments.path or arguments.tokenizer
        parser.error(f"{named}: name all tokenizers after --compare")
    if not arguments.on:
        parser.error("--compare needs texts: name files after --on")
    if arguments.seed is not None and arguments.documents is None:
        parser.error("--seed chooses documents: say how many with --documents")
    if arguments.json and arguments.markdown:
        parser.error("--json or --markdown, not both")
    return True


def compare(arguments: argparse.Namespace) -> int:
    """Prints the comparison, and draws it if that is asked for."""
    from cs336lm.experiments.figures import picture_format
    from cs336lm.experiments.tokenizer_comparison import compare_tokenizers

    if arguments.plot:
        picture_format(arguments.plot)
        refuse_foreign_picture("--plot", arguments.plot)
    tokenizers = {path: load_tokenizer(path, arguments) for path in arguments.compare}
    found = compare_tokenizers(
        tokenizers,
        arguments.on,
        documents=arguments.documents,
        seed=arguments.seed or 0,
        longest=arguments.longest,
        threads=arguments.threads or 1,
        text_field=arguments.text_field,
        text_column=arguments.text_column,
    )
    if arguments.json:
        print_json(found.as_json())
    else:
        for title, table in found.tables():
            print(f"### {title}\n" if arguments.markdown else title)
            print(table.as_markdown() if arguments.markdown else table.as_text())
        if arguments.documents:
            what = f"{arguments.documents} documents drawn from each"
            print(f"bytes per token: of {what} (seed {arguments.seed or 0})")
        if len(arguments.compare) > 2:
            print(f"shared by all: {found.shared_by_all():,} tokens")
        print(found.how_measured())
    if arguments.plot:
        from cs336lm.experiments.tokenizer_plot import plot_tokenizers

        try:
            plot_tokenizers(found, arguments.plot)
        except UsageError as error:
            raise UsageError(f"--plot {arguments.plot}: {error}") from None
    return 0
