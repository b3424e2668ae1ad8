"""``cs336lm import``: a Llama in Hugging Face's format -> run directory."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cs336lm.cli.options import add_tokenizer_options, load_tokenizer, positive
from cs336lm.cli.parser import Parser, parser_for

if TYPE_CHECKING:
    import argparse

    from cs336lm.text.tokenizer import Tokenizer

_EPILOG = """\
examples:
  cs336lm import llama/ --out runs/llama
  cs336lm generate runs/llama --prompt 'Once upon a time'
  cs336lm evaluate runs/llama --data val.npy
  cs336lm train --init-from runs/llama --data.train train.npy --run-dir runs/tuned

DIR is what transformers' save_pretrained writes: config.json, model.safetensors (or shards and
their index) and, if it is a byte-level BPE, the tokenizer. Nothing in it is ever run: pickled
weights (.bin) are refused. So is what a model here cannot be, by name. Weights are kept in the
precision they have."""

_TOKENIZERS = ("tokenizer.json", "vocab.json", "tokenizer.model")


def main(argv: list[str]) -> int:
    """Makes a run of a directory."""
    parser = _parser()
    arguments = parser.parse_args(argv)

    from cs336lm.exchange.hugging_face_import import import_llama
    from cs336lm.exchange.llama_config import end_of_text_ids

    folder = arguments.folder
    tokenizer = _tokenizer(folder, arguments)
    model = import_llama(folder, tokenizer, arguments.out, arguments.context_length)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{arguments.out}: {parameters / 1e6:.2f} M parameters, {_ends(tokenizer)}")
    if tokenizer is None and not arguments.no_tokenizer:
        print(f"note: {folder} has no tokenizer: a run of ids alone", file=sys.stderr)
    if tokenizer is not None and "<|endoftext|>" not in tokenizer.special_tokens:
        ends = [tokenizer.decode([end]) for end in end_of_text_ids(folder / "config.json")]
        flags = " ".join(f"--stop '{end}'" for end in ends)
        if flags:
            print(f"note: its texts end otherwise than ours: generate {flags}", file=sys.stderr)
    return 0


def _ends(tokenizer: "Tokenizer | None") -> str:
    return "no tokenizer" if tokenizer is None else f"a tokenizer of {tokenizer.vocab_size:,}"


def _tokenizer(folder: Path, arguments: "argparse.Namespace") -> "Tokenizer | None":
    there = [name for name in _TOKENIZERS if (folder / name).is_file()]
    if arguments.no_tokenizer or not there:
        return None
    try:
        return load_tokenizer(str(folder), arguments)
    except ValueError as error:
        raise type(error)(f"{error}; --no-tokenizer imports the model without it") from None


def _parser() -> Parser:
    parser = parser_for("import", "Make a run of a Llama in Hugging Face's format.", _EPILOG)
    add = parser.add_argument
    add("folder", metavar="DIR", type=Path, help="directory with config.json and safetensors")
    add(
        "--out",
        required=True,
        type=Path,
        metavar="RUN_DIR",
        help="the run directory to make; must not be there yet",
    )
    add(
        "--context-length",
        type=positive,
        metavar="N",
        help="the most tokens the model looks at together (default: what config.json says)",
    )
    add("--no-tokenizer", action="store_true", help="import the model alone")
    add_tokenizer_options(parser)
    return parser
