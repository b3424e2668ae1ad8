"""``cs336lm evaluate``: run directory + tokens -> loss, perplexity, bits per byte."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cs336lm.cli.options import above_zero, add_checkpoint, add_placement, positive, spin_briefly
from cs336lm.cli.output import print_json, refuse_foreign_picture
from cs336lm.cli.parser import parser_for
from cs336lm.errors import UsageError

if TYPE_CHECKING:
    from cs336lm.evaluation import DocumentEvaluation, DocumentLoss, Evaluation, Floor
    from cs336lm.evaluation.by_position import PositionLosses

_EPILOG = """\
examples:
  cs336lm evaluate runs/a --data val.npy
  cs336lm evaluate runs/a --data val.npy --json
  cs336lm evaluate runs/a --checkpoint last --device cuda
  cs336lm evaluate runs/a --stride 64                     more context for each token, more work
  cs336lm evaluate runs/a --by-document                   each document from its beginning
  cs336lm evaluate runs/a --by-position --plot positions.png

Every token of the file but the first is predicted once, in windows of the model's context length
side by side. loss is in nats per token. bits per byte compares models with different tokenizers:
the bits of all tokens over the bytes of text; a special token such as <|endoftext|> has bits, but
no bytes. The products are in --dtype, never in eight bits, whatever the run was trained in.

--stride N: the windows are N tokens apart, and what is new in each counts: every token but those of
the first window is predicted from more than context length - N tokens. N = context length is the
default; figures of different strides do not compare.

--by-document: each document by itself, from the end-of-text token before it to the one after it.
All of its tokens are predicted, the first (from the end-of-text token alone) and the end-of-text
token too, so that the sum over a document is -log p of it. Documents longer than the context are
read in windows --stride apart (default: half the context). If all documents are stories of 'cs336lm
stories', the sum is compared with their exact entropy, which no model is below on average, and with
what a perfect model would pay for these very stories; --floor is for other texts of known entropy.
Tokens after the last end-of-text token count as tokens, but are no document.

--by-position: the loss by how many tokens came before in the window (or in the document)."""


def main(argv: list[str]) -> int:
    """Evaluates a run on a whole file and prints the figures."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    _check(arguments)
    spin_briefly()

    from cs336lm.data import TokenDataset
    from cs336lm.evaluation import evaluate, evaluate_documents
    from cs336lm.training.devices import choose_device, choose_dtype, keep_freed_memory
    from cs336lm.training.run_directory import load_run

    device = choose_device(arguments.device)
    config, model, tokenizer = load_run(arguments.run_dir, device, arguments.checkpoint)
    path = arguments.data or config.data.val
    if path is None:
        raise UsageError(f"{arguments.run_dir} has no data.val: name a token file with --data")
    how: dict[str, Any] = {
        "tokenizer": tokenizer,
        "dtype": choose_dtype(arguments.dtype, device, model.config.d_model),
        "batch_size": arguments.batch_size,
        "stride": arguments.stride,
        "by_position": arguments.by_position,
    }
    if device.type == "cpu":
        keep_freed_memory()
    figures: Evaluation | DocumentEvaluation
    if arguments.by_document:
        token = arguments.document_token
        with _documents_file(arguments.documents_out) as on_document:
            figures = evaluate_documents(
                model,
                TokenDataset(path),
                document_token=config.data.document_token if token is None else token,
                floor=arguments.floor,
                on_document=on_document,
                **how,
            )
    else:
        figures = evaluate(model, TokenDataset(path), **how)
    if arguments.plot is not None:
        _plot(arguments, figures.by_position)
    if arguments.json:
        print_json(_as_json(figures))
        return 0
    _print_figures(figures, config.model.context_length)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = parser_for("evaluate", "Measure how well a model predicts a token file.", _EPILOG)
    add = parser.add_argument
    add("run_dir", metavar="RUN_DIR", type=Path, help="run directory, made by 'cs336lm train'")
    add("--data", type=Path, metavar="FILE.npy", help="token file (default: the run's data.val)")
    add_checkpoint(parser)
    add(
        "--stride",
        type=positive,
        metavar="N",
        help="how far windows are apart (default: the context length, or with --by-document half "
        "of it)",
    )
    add(
        "--by-document",
        action="store_true",
        help="read each document from its beginning, rather than windows anywhere",
    )
    add(
        "--document-token",
        type=_id,
        metavar="ID",
        help="with --by-document: the token that ends a document (default: the run's "
        "data.document_token, else its tokenizer's <|endoftext|>)",
    )
    add(
        "--floor",
        type=above_zero,
        metavar="NATS",
        help="with --by-document: the entropy of a document, to compare with (default: that of "
        "'stories', if they are such)",
    )
    add(
        "--documents-out",
        type=Path,
        metavar="FILE.jsonl",
        help="with --by-document: also write what each document costs, an object a line",
    )
    add(
        "--by-position",
        action="store_true",
        help="also the loss by how many tokens of context there were",
    )
    add(
        "--plot",
        type=Path,
        metavar="FILE",
        help="with --by-position: draw that, as a .png, .svg or .pdf",
    )
    add(
        "--batch-size",
        type=positive,
        metavar="N",
        help="windows at once: less needs less memory, the figures are the same (default: as many "
        "as keep the device busy)",
    )
    add_placement(parser, "the matrix products")
    add("--json", action="store_true", help="print one JSON object")
    return parser


def _id(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not the id of a token")
    return int(text)


def _check(arguments: argparse.Namespace) -> None:
    """Refuses flags that would do nothing, and outputs that would replace what is not ours."""
    for name in ("document_token", "floor", "documents_out"):
        if getattr(arguments, name) is not None and not arguments.by_document:
            raise UsageError(f"--{name.replace('_', '-')} belongs to --by-document: say that too")
    if arguments.plot is not None:
        from cs336lm.experiments.figures import picture_format

        if not arguments.by_position:
            raise UsageError("--plot draws what --by-position measures: say that too")
        picture_format(arguments.plot)
        refuse_foreign_picture("--plot", arguments.plot)
    out = arguments.documents_out
    if out is not None and os.path.isfile(out) and not _is_documents_file(out):
        raise UsageError(
            f"--documents-out {out} exists and is no file of this command's: delete it, or name "
            "another file"
        )


def _is_documents_file(path: Path) -> bool:
    """Whether a file is empty or begins as one that was written here does."""
    with path.open("rb") as file:
        line = file.readline(1000)
    try:
        return not line or {"document", "nats"} <= json.loads(line).keys()
    except (ValueError, AttributeError):
        return False


@contextmanager
def _documents_file(path: Path | None) -> Iterator[Callable[[DocumentLoss], None] | None]:
    """What writes a line for each document, if there is a file to write to."""
    if path is None:
        yield None
        return
    from cs336lm.files import atomic_write

    with atomic_write(path) as file:
        yield lambda document: _write_line(file.write, document)


def _write_line(write: Callable[[bytes], Any], document: DocumentLoss) -> None:
    write(json.dumps(document._asdict()).encode() + b"\n")


def _plot(arguments: argparse.Namespace, positions: PositionLosses | None) -> None:
    from cs336lm.experiments.position_plot import plot_positions

    assert positions is not None
    plot_positions({arguments.run_dir.resolve().name: positions}, arguments.plot)


def _as_json(figures: Evaluation | DocumentEvaluation) -> dict[str, Any]:
    positions = figures.by_position
    facts = asdict(replace(figures, by_position=None))
    del facts["by_position"]
    if positions is not None:
        facts["by_position"] = positions.as_json()
        facts["position_bins"] = [asdict(one) for one in positions.bins()]
    return facts


def _print_figures(figures: Evaluation | DocumentEvaluation, context: int) -> None:
    from cs336lm.evaluation import DocumentEvaluation

    if isinstance(figures, DocumentEvaluation):
        _print_documents(figures, context)
    elif figures.stride != context:
        print(f"windows        of {context:,} tokens, {figures.stride:,} apart")
    print(f"loss           {figures.loss:.4f} nats/token")
    print(f"perplexity     {figures.perplexity:.3f}")
    if figures.bits_per_byte is not None:
        print(f"bits per byte  {figures.bits_per_byte:.4f} ({figures.bytes:,} bytes of text)")
    print(f"tokens         {figures.tokens:,}")
    if isinstance(figures, DocumentEvaluation):
        print(f"a document     {figures.nats_per_document:.3f} nats")
        if figures.floor is not None:
            _print_floor(figures.floor)
    if figures.by_position is not None:
        print("\nloss by tokens of context     (standard error, tokens)")
        for one in figures.by_position.bins():
            at = f"{one.first:,}" if one.first == one.last else f"{one.first:,}-{one.last:,}"
            error = "-" if one.standard_error is None else f"{one.standard_error:.4f}"
            print(f"  {at:>13}  {one.loss:.4f}  ({error}, {one.tokens:,})")


def _print_documents(figures: DocumentEvaluation, context: int) -> None:
    long = ""
    if figures.longer_than_context:
        long = (
            f"; {figures.longer_than_context:,} longer than {context:,}, in windows "
            f"{figures.stride:,} apart"
        )
    each = f"{figures.tokens_per_document:,.1f} tokens each"
    print(f"documents      {figures.documents:,}, {each} on average{long}")


def _print_floor(floor: Floor) -> None:
    what = "of a story" if floor.source == "stories" else "as given"
    print(
        f"entropy        {floor.nats_per_document:.3f} nats {what}: the model is "
        f"{floor.excess_per_document:+.3f} nats ({floor.excess_share:+.2%}) above it, "
        f"{floor.excess_per_token:+.5f} per token"
    )
    if floor.perfect_nats_per_document is not None:
        print(
            f"perfect model  {floor.perfect_nats_per_document:.3f} nats on average for these very "
            f"stories: {floor.excess_share_of_perfect:+.2%}"
        )
