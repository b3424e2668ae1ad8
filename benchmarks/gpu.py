"""Training and generation on a GPU, beside transformers and beside what the device could do.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --jobs train,generate
    python benchmarks/gpu.py --smoke            tiny shapes on any device: to see that it runs

Under ten minutes on one H100; a table at the end, with device, versions and date.

recipe    `cs336lm train --config configs/tinystories.toml` for a tenth of its steps, on random
          tokens (stories, in a bundle), validations and checkpoints included: tokens/s, the whole
          run at that pace, and the share of a step that is not spent in the model
train     that shape and GPT-2 small's, bf16: tokens/s, MFU, peak memory, beside LlamaForCausalLM
          (compiled, SDPA, autocast, fused AdamW). Losses from the same weights are compared first.
          GPT-2 small once more in eight bits, where the device multiplies in them
generate  bf16: a 1.3 B shape and GPT-2 small's, batch 1, beside the tokens/s that reading weights
          and KV cache once a token allows; batch 64 beside transformers' generate, whose cache is
          the default or a static one, which it compiles

Each job is a process of its own. One that fails is a row that says so, and the others go on.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import harness
import torch
from cs336lm.cli.main import main as cs336lm
from cs336lm.errors import UsageError
from cs336lm.model import ModelConfig
from cs336lm.model.accounting import matmul_parameters, peak_bandwidth, peak_flops
from cs336lm.model.accounting import training_flops_per_token as flops_per_token
from cs336lm.model.kernels.fp8 import require_fp8
from cs336lm.training.device_events import DeviceEvent
from cs336lm.training.devices import choose_device
from generation import Generate, make_model, ours, theirs
from llama import loss_of, twin
from steps import fp8_on_cpu, our_step, random_trainer, their_step

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs" / "tinystories.toml"
BUNDLED_TOKENS = ROOT / "tokens.npy"
Figures = dict[str, float]


@dataclass(frozen=True)
class Setting:
    """One shape and how much of it."""

    model: ModelConfig
    batch: int
    tokens: int
    """New tokens a sequence, or steps."""


def llama_shape(
    d_model: int, layers: int, heads: int, vocab_size: int, context: int, d_ff: int | None = None
) -> ModelConfig:
    return ModelConfig(vocab_size, context, d_model, layers, heads, d_ff)


TINYSTORIES = llama_shape(512, 4, 16, 10_000, 256, 1344)
GPT2_SMALL = llama_shape(768, 12, 12, 50_304, 1024, 2048)
LLAMA_1B = llama_shape(2048, 24, 16, 32_000, 1024, 5504)
TRAINING = {
    "TinyStories": Setting(TINYSTORIES, batch=128, tokens=100),
    "GPT-2 small": Setting(GPT2_SMALL, batch=32, tokens=30),
}
GENERATION = {
    "1.3 B, batch 1": Setting(LLAMA_1B, batch=1, tokens=256),
    "GPT-2 small, batch 1": Setting(GPT2_SMALL, batch=1, tokens=512),
    "GPT-2 small, batch 64": Setting(GPT2_SMALL, batch=64, tokens=256),
}
PROMPT_TOKENS = 16
RECIPE_STEPS, WHOLE_RECIPE = 1_000, 10_000
TINY = llama_shape(32, 2, 2, 64, 32)


def smoke(settings: dict[str, Setting]) -> dict[str, Setting]:
    return {
        name: replace(setting, model=TINY, batch=min(setting.batch, 4), tokens=4)
        for name, setting in settings.items()
    }


# Jobs: each returns its figures.


def train(
    setting: Setting, device: torch.device, *, peer: bool, compiled: bool, fp8: bool = False
) -> Figures:
    """Steps on one batch, on the device's clock, after some to compile and warm up."""
    dtype = torch.bfloat16
    with tempfile.TemporaryDirectory() as folder, fp8_on_cpu(device):
        trainer = random_trainer(
            setting.model,
            setting.batch,
            Path(folder),
            device=str(device),
            dtype="bfloat16",
            compile=compiled and not peer,
            fp8=fp8,
        )
    shape = (2, setting.batch, setting.model.context_length)
    x, y = torch.randint(0, setting.model.vocab_size, shape).to(device)
    few = slice(0, 2)  # the loss in float32, with all of transformers' logits
    if peer:
        llama = twin(trainer.model)
        del trainer
        loss, step = loss_of(llama, x[few], y[few]), their_step(llama, dtype, compiled=compiled)
    else:
        loss, step = loss_of(trainer.model, x[few], y[few]), our_step(trainer)
    for _ in range(5):
        step(x, y)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    events = [DeviceEvent(device)]
    for _ in range(setting.tokens):
        step(x, y)
        events.append(DeviceEvent(device))
    events[-1].wait()
    seconds = statistics.median(b.seconds_since(a) for a, b in pairwise(events))
    peak = torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else 0.0
    return {"loss": loss, "tokens_per_second": x.numel() / seconds, "megabytes": peak}


def generate(
    setting: Setting, device: torch.device, *, peer: str | None, compiled: bool
) -> Figures:
    """Tokens a second of a whole call, prompt included, the third one; and the first ids."""
    config = setting.model
    model = make_model(config, device=device, dtype=torch.bfloat16)
    prompts = torch.randint(0, config.vocab_size, (setting.batch, PROMPT_TOKENS)).tolist()
    run: Generate
    if peer is None:
        run = ours(model, prompts, setting.tokens, compile=compiled)
    else:
        llama = twin(model).eval()
        del model
        options = {} if peer == "dynamic" else {"cache_implementation": peer}
        run = theirs(llama, prompts, setting.tokens, **options)
    seconds = 0.0
    for _ in range(3):
        began = time.perf_counter()
        written = run()
        seconds = time.perf_counter() - began
    first = {f"first id {number}": float(ids[0]) for number, ids in enumerate(written)}
    return {"tokens_per_second": setting.batch * setting.tokens / seconds, **first}


def recipe(device: torch.device, *, steps: int, compiled: bool) -> Figures:
    """The command, on random tokens; seconds from its start to its last checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        tokens = BUNDLED_TOKENS
        if not tokens.exists():
            tokens = Path(folder) / "tokens.npy"
            size = 4_000_000 if steps > 100 else 40_000
            harness.random_tokens(tokens, size, TINYSTORIES.vocab_size)
        overrides = [
            *("--data.train", str(tokens), "--data.val", str(tokens), "--data.tokenizer", "None"),
            *("--train.steps", str(steps), "--train.device", str(device)),
        ]
        if not compiled:
            overrides += ["--train.no-compile", "--data.batch-size", "2", "--train.log-every", "1"]
            overrides += ["--model.d-model", "32", "--train.eval-batches", "1"]
            overrides += ["--optim.warmup-steps", "1"]
        run = Path(folder) / "run"
        began = time.perf_counter()
        status = cs336lm(["train", "--config", str(CONFIG), "--run-dir", str(run), *overrides])
        seconds = time.perf_counter() - began
        if status:
            sys.exit(f"the training failed with status {status}")
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    speeds = [r["tokens_per_second"] for r in records if "tokens_per_second" in r]
    return {
        "tokens_per_second": statistics.median(speeds[len(speeds) // 2 :]),
        "seconds": seconds,
        "seconds_in_loop": records[-1]["seconds"],
    }


def has_fp8(device: torch.device) -> bool:
    try:
        require_fp8(device)
    except UsageError:
        return False
    return True


def jobs(device: torch.device, is_smoke: bool) -> dict[str, Callable[[], Figures]]:
    """Every job by name."""
    training, generation = TRAINING, GENERATION
    if is_smoke:
        training, generation = smoke(training), smoke(generation)
    compiled = not is_smoke
    steps = 2 if is_smoke else RECIPE_STEPS
    found: dict[str, Callable[[], Figures]] = {
        "recipe": partial(recipe, device, steps=steps, compiled=compiled)
    }
    peers = importlib.util.find_spec("transformers") is not None
    for name, setting in training.items():
        for peer in (False, True) if peers else (False,):
            job = partial(train, setting, device, peer=peer, compiled=compiled)
            found[f"train {name}{' transformers' * peer}"] = job
    if device.type == "cpu" or has_fp8(device):
        setting = training["GPT-2 small"]
        job = partial(train, setting, device, peer=False, compiled=compiled, fp8=True)
        found["train GPT-2 small fp8"] = job
    for name, setting in generation.items():
        for kind in (None, "dynamic", "static") if peers and setting.batch > 1 else (None,):
            job = partial(generate, setting, device, peer=kind, compiled=compiled)
            found[f"generate {name}{f' transformers {kind}' if kind else ''}"] = job
    return found


# The table.


def bound(setting: Setting, device: torch.device) -> float | None:
    """Tokens a second of one sequence if weights and cache were all that is read, at full speed."""
    bandwidth = peak_bandwidth(device)
    if bandwidth is None:
        return None
    config = setting.model
    seen = PROMPT_TOKENS + setting.tokens / 2
    cache = 2 * config.num_layers * config.d_model * seen
    return bandwidth / (2 * (matmul_parameters(config) + cache))


def rows(results: dict[str, Figures | str], device: torch.device) -> list[list[str]]:
    """What was measured, and beside what."""
    lines = []
    for name, figures in results.items():
        if isinstance(figures, str):
            lines.append([name, "failed", figures[:60]])
            continue
        notes = []
        kind, _, shape = name.partition(" ")
        shape = shape.partition(" transformers")[0].removesuffix(" fp8")
        speed = figures["tokens_per_second"]
        if kind == "train":
            peak = peak_flops(device, torch.bfloat16)
            if peak is not None:
                notes.append(f"MFU {speed * flops_per_token(TRAINING[shape].model) / peak:.1%}")
            notes.append(f"{figures['megabytes']:,.0f} MB")
            notes.append(f"first loss {figures['loss']:.5f}")
            wider = results.get(name.removesuffix(" fp8"))
            if name.endswith(" fp8") and isinstance(wider, dict):
                notes.append(f"{speed / wider['tokens_per_second']:.2f} x bfloat16")
        elif kind == "generate":
            limit = bound(GENERATION[shape], device)
            if limit is not None and GENERATION[shape].batch == 1:
                notes.append(f"{speed / limit:.0%} of {limit:,.0f}")
        else:
            everything = figures.get("process_seconds", figures["seconds"])
            around = everything - figures["seconds_in_loop"]
            whole = around + figures["seconds_in_loop"] * WHOLE_RECIPE / RECIPE_STEPS
            notes.append(f"whole run {whole:.0f} s, of that {around:.0f} s around the loop")
            alone = results.get("train TinyStories")
            if isinstance(alone, dict):
                notes.append(f"outside the model {1 - speed / alone['tokens_per_second']:.1%}")
        for other in (f"{name} transformers", f"{name} transformers static"):
            peer = results.get(other)
            if isinstance(peer, dict):
                notes.append(f"{speed / peer['tokens_per_second']:.2f} x {other[len(name) + 1 :]}")
                if kind == "generate":
                    notes[-1] += f" ({agreement(figures, peer):.0%} of first ids equal)"
        lines.append([name, f"{speed:,.0f}", "; ".join(notes)])
    return lines


def agreement(ours: Figures, theirs: Figures) -> float:
    """The share of prompts that both continue with the same token."""
    names = [name for name in ours if name.startswith("first id")]
    return statistics.mean(ours[name] == theirs[name] for name in names)


def check_ids(results: dict[str, Figures | str]) -> None:
    """Ends the benchmark where two models of the same weights write different texts.

    Rounding in bfloat16 decides between tokens that are nearly as likely, here and there.
    """
    for name, figures in results.items():
        ours = results.get(name.partition(" transformers")[0])
        if (
            name.startswith("generate")
            and isinstance(figures, dict)
            and isinstance(ours, dict)
            and (share := agreement(ours, figures)) < 0.75
        ):
            sys.exit(f"{name}: only {share:.0%} of the prompts go on with the same token")


def check_losses(results: dict[str, Figures | str]) -> None:
    """Ends the benchmark where two models of the same weights give two losses."""
    for name, figures in results.items():
        peer = results.get(f"{name} transformers")
        if (
            isinstance(figures, dict)
            and isinstance(peer, dict)
            and "loss" in peer
            and not abs(figures["loss"] - peer["loss"]) < 1e-4 * peer["loss"]
        ):
            sys.exit(f"{name}: a loss of {figures['loss']} here, of {peer['loss']} in transformers")


def measure(name: str, job: Callable[[], Figures], options: list[str]) -> Figures | str:
    """In a process of its own (in this one with --smoke); of a failure the message."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    if "--smoke" in options:
        return job()
    try:
        run = harness.run([sys.executable, __file__, "--job", name, *options])
        return run.notes | {"process_seconds": run.process_seconds}
    except SystemExit as failure:
        print(failure, file=sys.stderr)
        return str(failure).strip().splitlines()[-2:][0]


def describe(device: torch.device) -> str:
    """Device, versions, date."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else harness.machine()
    peers = importlib.util.find_spec("transformers") is not None
    versions = [harness.named("cs336lm"), *([harness.named("transformers")] if peers else [])]
    cuda = f", CUDA {torch.version.cuda}" if device.type == "cuda" else ""
    versions.append(time.strftime("%Y-%m-%d"))
    return f"{name}, torch {torch.__version__}{cuda}; {'; '.join(versions)}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", help="recipe, train, generate (default: all, by commas)")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes on any device")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    device = choose_device("auto" if arguments.smoke else "cuda")
    known = jobs(device, arguments.smoke)
    if arguments.job:
        harness.report(**known[arguments.job]())
        return
    kinds = (arguments.jobs or "recipe,train,generate").split(",")
    options = ["--smoke"] if arguments.smoke else []
    results = {
        name: measure(name, job, options) for name, job in known.items() if name.split()[0] in kinds
    }
    check_losses(results)
    check_ids(results)
    if arguments.smoke:
        print("A smoke test: the figures mean nothing.")
    print(describe(device))
    print(harness.table(["job", "tokens/s", ""], rows(results, device)))


if __name__ == "__main__":
    main()
