"""``cs336lm export``: run directory -> the formats of others."""

import sys
from pathlib import Path

from cs336lm.cli.options import add_checkpoint
from cs336lm.cli.parser import parser_for

_EPILOG = """\
examples:
  cs336lm export runs/a --format hf --out llama/           (opens in transformers, vLLM, ...)
  cs336lm export runs/a --format hf --dtype bfloat16 --checkpoint last --out llama/
  cs336lm export runs/a --format gguf --dtype q8_0 --out model.gguf    (llama.cpp and its family)
  cs336lm export runs/a --format safetensors --out weights.safetensors

hf          config.json, model.safetensors, generation_config.json and the tokenizer: a Llama
gguf        one file with the tokenizer in it (extra: pip install 'cs336lm[gguf]')
safetensors the weights alone, by the names they have here

A model with choices that no Llama has is refused by hf and gguf, which name them."""

_FORMATS = ("hf", "safetensors", "gguf")
_DTYPES = ("float32", "bfloat16", "float16", "q8_0")


def main(argv: list[str]) -> int:
    """Writes the model of a run in another format."""
    parser = parser_for("export", "Write the model of a run in a format of others.", _EPILOG)
    add = parser.add_argument
    add("run_dir", metavar="RUN_DIR", type=Path, help="run directory, made by 'cs336lm train'")
    add("--format", required=True, choices=_FORMATS, help="what is written, see below")
    add(
        "--out",
        required=True,
        type=Path,
        metavar="PATH",
        help="where: a folder, which must not be there yet (gguf, safetensors: or a file)",
    )
    add(
        "--dtype",
        choices=_DTYPES,
        default="float32",
        help="what weights are stored in (default: float32); q8_0, eight bits, in gguf alone",
    )
    add_checkpoint(parser)
    arguments = parser.parse_args(argv)

    from cs336lm.exchange.export import export_run

    notes = export_run(
        arguments.run_dir,
        arguments.out,
        arguments.format,
        arguments.dtype,
        arguments.checkpoint,
    )
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    print(arguments.out)
    return 0
