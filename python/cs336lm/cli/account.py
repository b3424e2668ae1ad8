"""``cs336lm account``: a model's shape -> parameters, operations, memory, time; arithmetic."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cs336lm.cli.config_flags import hyphenated
from cs336lm.cli.experiment import base_config
from cs336lm.cli.options import above_zero, fraction, memory, positive
from cs336lm.cli.output import print_json
from cs336lm.cli.parser import Parser, parser_for
from cs336lm.errors import UsageError
from cs336lm.model.presets import PRESETS

if TYPE_CHECKING:
    from cs336lm.experiments.tables import Table
    from cs336lm.model.config import ModelConfig
    from cs336lm.model.memory import Kept

_DESCRIPTION = """\
Say what a model costs before it is trained: exact arithmetic, no PyTorch, an answer at once.

Parameters by component; the operations of every matrix product of a forward pass (2 m k n each;
backward takes twice as many); the memory of training with AdamW in float32, with activations by the
CS336 handout's list and as this package keeps them (fewer: attention keeps no scores and the loss
no logits); AdamW's own operations; with --device, the time. Any [model] flag of `train` is one
here."""

_EPILOG = """\
presets:
  {presets}
  gpt2-xl is that of the handout of 2025 (d_ff = 4 d_model), gpt2-xl-2026 the later one's

examples:
  cs336lm account --preset gpt2-xl
  cs336lm account --preset gpt2-xl --tokens 16384 --json
  cs336lm account --preset gpt2-xl-2026 --device h100-tf32 --mfu 0.5 --steps 400000 --batch 1024
  cs336lm account --config run.toml --model.d-model 512 --memory 24GB --markdown

devices, each with -tf32, -bf16, -fp16 or -fp8 where it has that: h100, h100-pcie, h100-nvl, h200,
b200, gb200, a100, a10g, l4, l40s, t4, v100, rtx4090 and others; or operations a second: 495e12"""


def main(argv: list[str]) -> int:
    """Prints what the shape costs."""
    arguments, given = _parser().parse_known_args(hyphenated(argv))
    config = base_config("account", arguments.config, given, arguments.preset).model
    if config.vocab_size is None:
        raise UsageError(
            "how many tokens there are is unknown: name --model.vocab-size, or a --preset"
        )
    if arguments.tokens is not None:
        config = dataclasses.replace(config, context_length=arguments.tokens)
    account = _account(config, arguments)
    if arguments.json:
        print_json(account)
        return 0
    for title, table in _tables(account):
        print(f"## {title}\n" if arguments.markdown else title)
        print(table.as_markdown() if arguments.markdown else table.as_text())
    print(_WHY)
    return 0


_WHY = """\
The lists differ since the handout's names every tensor of the formulas. Here attention is computed
in tiles, which keep one number a row in place of scores and weights, and the loss in chunks, which
keep its gradients in place of logits; in turn an input stays beside what was made of it, and
matrices that multiply one input stay side by side, as copies."""


def _account(config: ModelConfig, arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures, as ``--json`` prints them."""
    from cs336lm.model import accounting
    from cs336lm.model import memory as holding

    components = accounting.parameters(config)
    flops = accounting.forward_flops(config)
    total, forward = sum(components.values()), sum(flops.values())
    batch = arguments.batch
    lists = {
        "handout": holding.handout_activations(config),
        "kept": holding.kept_activations(config),
    }
    account: dict[str, Any] = {
        "model": {"d_ff": config.ffn_width} | _plain(config),
        "tokens": config.context_length,
        "batch": batch,
        "parameters": {"total": total, **components},
        "forward_flops": {"total": forward, **flops},
        "products": [
            {**dataclasses.asdict(product), "flops": product.flops}
            for product in accounting.forward_products(config)
        ],
        "memory": {
            **holding.training_bytes(config, lists["handout"], batch),
            "kept": holding.training_bytes(config, lists["kept"], batch),
            "activations_by": {name: _parts(kept, batch) for name, kept in lists.items()},
            "available": arguments.memory,
            "largest_batch": {
                name: holding.largest_batch(config, kept, arguments.memory)
                for name, kept in lists.items()
            },
        },
        "optimizer_flops": holding.ADAMW_FLOPS_PER_PARAMETER * total,
        "step_flops": 3 * forward * batch + holding.ADAMW_FLOPS_PER_PARAMETER * total,
    }
    if arguments.device is not None:
        peak = _peak(arguments.device)
        all_flops = 3 * forward * batch * arguments.steps
        seconds = all_flops / (peak * arguments.mfu)
        account["training"] = {
            "device": arguments.device,
            "peak_flops": peak,
            "mfu": arguments.mfu,
            "steps": arguments.steps,
            "batch": batch,
            "tokens": arguments.steps * batch * config.context_length,
            "flops": all_flops,
            "seconds": seconds,
            "hours": seconds / 3600,
        }
    return account


def _parts(kept: list[Kept], batch: int) -> list[dict[str, Any]]:
    return [{**dataclasses.asdict(part), "numbers": part.numbers(batch)} for part in kept]


def _plain(config: ModelConfig) -> dict[str, Any]:
    fields = dataclasses.asdict(config)
    return {name: value for name, value in fields.items() if value is not None}


def _peak(device: str) -> float:
    """The operations a second that ``device`` names or says."""
    from cs336lm.model.accounting import published_peaks

    try:
        return above_zero(device)
    except argparse.ArgumentTypeError:
        pass
    peaks = published_peaks()
    if device.lower() in peaks:
        return peaks[device.lower()]
    import difflib

    name = device.lower().partition("-")[0]
    close = [key for key in peaks if key.rpartition("-")[0] == name] or difflib.get_close_matches(
        device.lower(), peaks, n=3
    )
    hint = f"did you mean {', '.join(close)}?" if close else "give its operations a second: 495e12"
    raise UsageError(f"--device {device} is not known; {hint}")


def _tables(account: dict[str, Any]) -> list[tuple[str, Table]]:
    """Titles and tables, for people."""
    from cs336lm.experiments.tables import Table

    batch, tokens = account["batch"], account["tokens"]
    tables = [
        ("Parameters", Table(["", "parameters", "share"], _shares(account["parameters"]))),
        (
            f"Operations of a forward pass over {tokens:,} tokens",
            Table(["product", "m x k x n", "times", "FLOPs", "share"], _products(account), texts=2),
        ),
        (
            f"The same by component (a training step of {batch:,}: "
            f"{account['step_flops']:.4g}, AdamW's {account['optimizer_flops']:.4g} included)",
            Table(["", "FLOPs", "share"], _shares(account["forward_flops"])),
        ),
        (
            f"Memory of training with AdamW in float32, {batch:,} x {tokens:,} tokens",
            Table(["", "by the handout's list", "as kept"], _memory(account["memory"])),
        ),
        (
            "Activations as a formula: numbers for each sequence + for any batch",
            Table(["", "list", "a sequence", "fixed"], _formula(account["memory"]), texts=2),
        ),
    ]
    if "training" in account:
        tables.append(("Time to train", Table(["", ""], _time(account["training"]))))
    return tables


def _shares(parts: dict[str, int]) -> list[list[str]]:
    total = parts["total"]
    rows = [(name, count) for name, count in parts.items() if name != "total" and count]
    return [
        [name, f"{count:,}", f"{count / total:.1%}"] for name, count in [*rows, ("total", total)]
    ]


def _products(account: dict[str, Any]) -> list[list[str]]:
    total = account["forward_flops"]["total"]
    return [
        [
            product["name"],
            f"{product['m']:,} x {product['k']:,} x {product['n']:,}",
            f"{product['times']:,}",
            f"{product['flops']:,}",
            f"{product['flops'] / total:.1%}",
        ]
        for product in account["products"]
    ]


def _memory(memory: dict[str, Any]) -> list[list[str]]:
    names = ("parameters", "gradients", "optimizer", "activations", "total")
    rows = [[name, _bytes(memory[name]), _bytes(memory["kept"][name])] for name in names]
    formula = [_sum(parts) for parts in (memory["activations_by"][n] for n in ("handout", "kept"))]
    state = sum(memory[name] for name in ("parameters", "gradients", "optimizer"))
    formulas = [f"{_bytes(state + fixed)} + {_bytes(each)} x batch" for each, fixed in formula]
    batches = [f"{memory['largest_batch'][name]:,}" for name in ("handout", "kept")]
    return [
        *rows,
        ["as a formula", *formulas],
        [f"largest batch in {_bytes(memory['available'])}", *batches],
    ]


def _sum(parts: list[dict[str, Any]]) -> tuple[int, int]:
    """Bytes of activations a sequence, and whatever the batch."""
    from cs336lm.model.memory import BYTES_PER_NUMBER

    each, fixed = (sum(part[key] for part in parts) for key in ("per_sequence", "fixed"))
    return BYTES_PER_NUMBER * each, BYTES_PER_NUMBER * fixed


def _formula(memory: dict[str, Any]) -> list[list[str]]:
    rows = []
    for listed, parts in memory["activations_by"].items():
        for part in parts:
            name = f"{part['component']}: {part['what']}"
            rows.append([name, listed, f"{part['per_sequence']:,}", f"{part['fixed']:,}"])
        sums = (sum(part[key] for part in parts) for key in ("per_sequence", "fixed"))
        rows.append(["sum", listed, *(f"{value:,}" for value in sums)])
    return rows


def _time(training: dict[str, Any]) -> list[list[str]]:
    peak = f"{training['peak_flops'] / 1e12:,.4g} TFLOP/s, MFU {training['mfu']:.0%}"
    return [
        ["device", f"{training['device']}: {peak}"],
        ["steps", f"{training['steps']:,} of {training['batch']:,} sequences"],
        ["tokens", f"{training['tokens']:,}"],
        ["operations", f"{training['flops']:.4g}"],
        ["time", f"{training['hours']:,.1f} hours, {training['hours'] / 24:,.1f} days"],
    ]


def _bytes(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 10**7 else f"{count / 1e6:,.3f} MB"


def _parser() -> Parser:
    parser = parser_for("account", _DESCRIPTION, _EPILOG.format(presets=", ".join(PRESETS)))
    add = parser.add_argument
    add("--preset", metavar="NAME", help="a known shape, see below")
    add("--config", type=Path, metavar="FILE.toml", help="the configuration of a run")
    add("--tokens", type=positive, metavar="N", help="tokens of a sequence (default: the context)")
    add("--batch", type=positive, default=1, metavar="N", help="sequences of a step (default: 1)")
    add(
        "--memory",
        type=memory,
        default=80 * 10**9,
        metavar="BYTES",
        help="memory that the largest batch is to fit in (default: 80GB)",
    )
    add("--device", metavar="NAME", help="say how long training takes there: h100-bf16, 495e12")
    add("--mfu", type=fraction, default=0.5, metavar="SHARE", help="of its peak (default: 0.5)")
    add("--steps", type=positive, default=1, metavar="N", help="steps of the training (default: 1)")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print one object")
    shape.add_argument("--markdown", action="store_true", help="print tables in Markdown")
    return parser
