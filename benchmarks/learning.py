"""Which recipe learns more in the same time? Candidates on one text, three seeds, curves kept.

    python benchmarks/learning.py english-novels.txt --results learning.jsonl
    python benchmarks/learning.py english-novels.txt --results learning.jsonl --candidates \\
        default,recipe,recipe@330,transformers,configs/low-resource.toml --seconds 600
    python benchmarks/learning.py english-novels.txt --results steps.jsonl --steps 200

The job: 95 % of the text's documents to train on and 5 % to validate on, a tokenizer of 10,000
entries, a model of 5.6 million parameters with a context of 256, and so many seconds (or, on a
machine with other things to do, so many steps). Candidates:

    default        `cs336lm train` with nothing said but the shape: AdamW, cosine
    recipe         the choices of RECIPE below, in the same width and depth
    transformers   LlamaForCausalLM in the same shape, as it initialises itself, AdamW(fused=True),
                   cosine; its learning rate is the best of five, tried with a seed of its own
    FILE.toml      any configuration of `cs336lm train`; its data, context and vocabulary are the
                   job's
    NAME+ABLATION  default, recipe or a file with one thing changed, by its name in `cs336lm ablate`
    NAME@SECONDS   any of these with a budget of its own, and a schedule as long

With --processor-time a run has one thread and its seconds are that thread's: on a machine that does
other things, candidates still compare.

All go through the loop below: the batches of `cs336lm train` for the seed, validated on the same
tokens, nats per token. The clock stands still during validations (--validations). It is
checked first that transformers' model has the same loss where it is given our weights.

Runs take turns, seed by seed. Each is appended to --results when it is finished, and is not made
again: a benchmark that was stopped goes on, on the same machine and with the same files. Learning
rates are tried with seed 0; the seeds of the table are others.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "20000")

from cs336lm.cli.main import main as cs336lm
from curves import Curve, RunRecord, append, load, table_of_means, table_of_passes
from harness import machine

SHAPE: dict[str, Any] = {"context_length": 256, "d_model": 192, "num_layers": 4, "num_heads": 6}
RECIPE: dict[str, dict[str, Any]] = {
    "data": {"batch_size": 8},
    "model": {"num_heads": 3, "qk_norm": True, "zero_init": True},
    "optim": {"name": "muon", "schedule": "linear", "lr": 8e-3, "min_lr": 0.0},
}
LLAMA_RATES = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
TUNING_SEED = 0
VOCAB_SIZE, VAL_FRACTION, EVAL_TOKENS, VALIDATIONS = 10_000, 0.05, 131_072, 20


def prepare(text: Path, folder: Path, vocab_size: int) -> None:
    """The job's files in ``folder``, unless they are there: tokenizer/, train.npy, train.val.npy.

    The tokenizer learns from all of the text, as all candidates share it.
    """
    if (folder / "train.json").exists() and (folder / "train.val.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = folder / "tokenizer"
    if not tokenizer.exists():
        special = ("--special-token", "<|endoftext|>")
        _command("train-bpe", text, "--vocab-size", vocab_size, *special, "--out", tokenizer)
    split = ("--val-fraction", VAL_FRACTION, "--out", folder / "train.npy")
    _command("tokenize", text, "--tokenizer", tokenizer, *split)


def _command(*arguments: object) -> None:
    if status := cs336lm([str(argument) for argument in arguments]):
        sys.exit(status)


def job_of(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What runs must share to be compared: part of every record."""
    digest = hashlib.sha256()
    for name in ("train.npy", "train.val.npy"):
        with open(folder / name, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return {
        "data": digest.hexdigest()[:16],
        "shape": {**SHAPE, **options.shape},
        "eval_tokens": options.eval_tokens,
        "compile": options.compile,
        "clock": "one thread's" if options.processor_time else "wall",
        "machine": machine(),
    }


def candidate_settings(name: str) -> str:
    """What a candidate is, so that a run of an earlier recipe is not taken for one of today's."""
    base = name.partition("@")[0].partition("+")[0]
    if base == "recipe":
        return json.dumps(RECIPE, sort_keys=True)
    return Path(base).read_text() if base.endswith(".toml") else ""


def run_missing(
    options: argparse.Namespace, folder: Path, job: dict[str, Any], todo: Sequence[RunRecord]
) -> list[RunRecord]:
    """Makes the runs of ``todo`` that ``--results`` does not hold, and returns all of them."""
    finished = {record.key: record for record in load(options.results)}
    for record in todo:
        if record.key in finished:
            continue
        said = f"{record.candidate}, seed {record.seed}"
        print(said + (f", lr {record.lr:g}" if record.lr else ""), file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "curve.json"
            # A process of its own, as a user's would be: memory and compiled code begin empty.
            asked = {
                "candidate": record.candidate,
                "seed": record.seed,
                "lr": record.lr,
                "seconds": record.job["seconds"],
                "steps": record.job["steps"],
                "folder": str(folder),
                "job": job,
                "validations": options.validations,
                "out": str(out),
                "scratch": scratch,
            }
            script = Path(__file__).with_name("learning_run.py")
            done = subprocess.run([sys.executable, str(script), json.dumps(asked)])
            if done.returncode:
                sys.exit(done.returncode)
            record = record.finished(Curve(**json.loads(out.read_text())))
        append(options.results, record)
        finished[record.key] = record
    return [finished[record.key] for record in todo]


def _seconds(candidate: str, otherwise: float) -> float:
    _, at, seconds = candidate.partition("@")
    return float(seconds) if at else otherwise


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("text", type=Path, help="documents, each ended by <|endoftext|>")
    add("--results", type=Path, required=True, help="JSON lines: finished runs, kept")
    add("--folder", type=Path, help="tokenizer and token files (default: beside --results)")
    add("--candidates", default="default,recipe,transformers")
    add("--seconds", type=float, default=600.0)
    add("--steps", type=int, default=0, help="so many steps each instead of seconds")
    add("--seeds", default="1,2,3")
    add("--sweep-seconds", type=float, help="for each of those (default: --seconds)")
    add("--rates", default=",".join(map(str, LLAMA_RATES)), help="learning rates of transformers")
    add("--eval-tokens", type=int, default=EVAL_TOKENS)
    add("--validations", type=int, default=VALIDATIONS, help="in the course of a run")
    add("--vocab-size", type=int, default=VOCAB_SIZE)
    add("--shape", type=json.loads, default={}, help='JSON, for a small try: {"d_model": 32}')
    add("--processor-time", action="store_true", help="one thread, by its own time")
    add("--compile", action="store_true", help="compile all of them, on the clock")
    options = parser.parse_args(argv)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    if TUNING_SEED in seeds:
        parser.error(f"seed {TUNING_SEED} is the one that learning rates are tried with")
    names = options.candidates.split(",")
    folder = options.folder or options.results.with_suffix("")
    prepare(options.text, folder, options.vocab_size)
    job = job_of(options, folder)

    def asked(name: str, seed: int, lr: float | None, seconds: float) -> RunRecord:
        budget = {"steps": options.steps, "seconds": 0 if options.steps else seconds}
        return RunRecord(name, seed, lr, {**job, **budget, "settings": candidate_settings(name)})

    rates: dict[str, float] = {}
    for name in names:
        if name.partition("@")[0] == "transformers":
            seconds = options.sweep_seconds or _seconds(name, options.seconds)
            tries = [float(rate) for rate in options.rates.split(",")]
            sweep = [asked(name, TUNING_SEED, rate, seconds) for rate in tries]
            tried = run_missing(options, folder, job, sweep)
            best = min(tried, key=lambda record: record.final_loss)
            assert best.lr is not None
            rates[name] = best.lr
            shown = ", ".join(f"{record.lr:g}: {record.final_loss:.4f}" for record in tried)
            print(f"{name}, loss by learning rate (seed {TUNING_SEED}): {shown}")
    todo = [
        asked(name, seed, rates.get(name), _seconds(name, options.seconds))
        for seed in seeds
        for name in names
    ]
    records = run_missing(options, folder, job, todo)
    budget = f"{options.steps} steps" if options.steps else f"{options.seconds:g} s"
    print(f"{job['machine']}; {budget} each, {len(seeds)} seeds")
    print(table_of_means(records, names))
    print()
    print(table_of_passes(records, names, by="steps" if options.steps else "seconds"))


if __name__ == "__main__":
    main()
