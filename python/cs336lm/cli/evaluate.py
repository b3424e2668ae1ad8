"""``cs336lm evaluate``: run directory + tokens -> loss, perplexity, bits per byte."""

from dataclasses import asdict
from pathlib import Path

from cs336lm.cli.options import add_checkpoint, positive, spin_briefly
from cs336lm.cli.output import print_json
from cs336lm.cli.parser import parser_for
from cs336lm.errors import UsageError

_EPILOG = """\
examples:
  cs336lm evaluate runs/a --data val.npy
  cs336lm evaluate runs/a --data val.npy --json
  cs336lm evaluate runs/a --checkpoint last --device cuda

Every token of the file but the first is predicted once, in windows of the model's context length
side by side. loss is in nats per token. bits per byte compares models with different tokenizers:
the bits of all tokens over the bytes of text; a special token such as <|endoftext|> has bits, but
no bytes. The products are in --dtype, never in eight bits, whatever the run was trained in."""


def main(argv: list[str]) -> int:
    """Evaluates a run on a whole file and prints the figures."""
    parser = parser_for("evaluate", "Measure how well a model predicts a token file.", _EPILOG)
    parser.add_argument(
        "run_dir", metavar="RUN_DIR", type=Path, help="run directory, made by 'cs336lm train'"
    )
    parser.add_argument(
        "--data", type=Path, metavar="FILE.npy", help="token file (default: the run's data.val)"
    )
    add_checkpoint(parser)
    parser.add_argument(
        "--batch-size",
        type=positive,
        metavar="N",
        help="windows at once: less needs less memory, the figures are the same (default: as many "
        "as keep the device busy)",
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="float32",
        help="precision of the matrix products (default: float32)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    spin_briefly()

    from cs336lm.data import TokenDataset
    from cs336lm.evaluation.loss import evaluate
    from cs336lm.training.devices import choose_device, choose_dtype, keep_freed_memory
    from cs336lm.training.run_directory import load_run

    device = choose_device(arguments.device)
    config, model, tokenizer = load_run(arguments.run_dir, device, arguments.checkpoint)
    path = arguments.data or config.data.val
    if path is None:
        raise UsageError(f"{arguments.run_dir} has no data.val: name a token file with --data")
    dtype = choose_dtype(arguments.dtype, device)
    if device.type == "cpu":
        keep_freed_memory()
    figures = evaluate(
        model,
        TokenDataset(path),
        tokenizer=tokenizer,
        dtype=dtype,
        batch_size=arguments.batch_size,
    )
    if arguments.json:
        print_json(asdict(figures))
        return 0
    print(f"loss           {figures.loss:.4f} nats/token")
    print(f"perplexity     {figures.perplexity:.3f}")
    if figures.bits_per_byte is not None:
        print(f"bits per byte  {figures.bits_per_byte:.4f} ({figures.bytes:,} bytes of text)")
    print(f"tokens         {figures.tokens:,}")
    return 0
