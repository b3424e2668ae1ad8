"""Many requests of mixed lengths: continuous batching beside batches that wait for their longest.

    python benchmarks/batching.py
    python benchmarks/batching.py --requests 256 --batch 64
    python benchmarks/batching.py --peers engine,generate --d-model 512 --layers 8

Every request has a prompt and a number of new tokens of its own, both drawn log-uniformly: many
short ones, a few long. ``engine`` is ``BatchEngine``; ``generate`` is ``generate_ids`` and
``transformers`` its ``generate`` with prompts padded on the left: both continue a batch until its
longest request has what it asked for, and what the others have too much is thrown away. All have
the same weights, greedily, in float32 on the CPU; first it is checked that they write the same ids.
Then they take turns; the median counts. Tokens are those that were asked for.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

# As `cs336lm generate` has it: threads that wait for each other give way to others soon. It must be
# there before PyTorch is.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

import numpy as np
import torch
from cs336lm.generation import SamplingParams, generate_ids
from cs336lm.generation.batching import BatchEngine, Request
from cs336lm.generation.sampling import Sampler
from cs336lm.model import ModelConfig, TransformerLM
from generation import make_model
from harness import machine, named, table
from llama import twin

PEERS = ("engine", "generate", "transformers")
_SEED = 0


class Job(NamedTuple):
    prompt: list[int]
    new_tokens: int


def jobs(count: int, vocab_size: int, longest_prompt: int, most_new: int) -> list[Job]:
    draw = np.random.default_rng(_SEED)

    def lengths(least: int, most: int) -> list[int]:
        return [int(n) for n in np.exp(draw.uniform(np.log(least), np.log(most + 1), count))]

    prompts = [draw.integers(0, vocab_size, n).tolist() for n in lengths(8, longest_prompt)]
    return [Job(prompt, new) for prompt, new in zip(prompts, lengths(8, most_new), strict=True)]


def by_engine(model: TransformerLM, work: list[Job], batch: int) -> list[list[int]]:
    engine = BatchEngine(model, max_sequences=batch)
    greedy = SamplingParams(temperature=0)
    found: list[list[int]] = [[] for _ in work]
    for prompt, new_tokens in work:
        engine.add(Request(prompt, new_tokens, greedy))
    while engine.has_work():
        for token in engine.step():
            assert token.id is not None, token
            found[token.sequence].append(token.id)
    return found


def batches(work: list[Job], batch: int) -> Iterator[list[Job]]:
    return (work[at : at + batch] for at in range(0, len(work), batch))


def by_generate(model: TransformerLM, work: list[Job], batch: int) -> list[list[int]]:
    found = []
    for part in batches(work, batch):
        sampler = Sampler(SamplingParams(temperature=0))
        most = max(job.new_tokens for job in part)
        steps = generate_ids(model, [job.prompt for job in part], most, sampler)
        rows = zip(*steps, strict=True)
        found += [list(row[: job.new_tokens]) for row, job in zip(rows, part, strict=True)]
    return found


@torch.inference_mode()
def by_transformers(llama: Any, work: list[Job], batch: int) -> list[list[int]]:
    from transformers import GenerationConfig

    found = []
    for part in batches(work, batch):
        width = max(len(job.prompt) for job in part)
        most = max(job.new_tokens for job in part)
        ids = torch.zeros(len(part), width, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, job in enumerate(part):
            ids[row, width - len(job.prompt) :] = torch.tensor(job.prompt)
            mask[row, width - len(job.prompt) :] = 1
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=most,
            min_new_tokens=most,
            pad_token_id=0,
            use_cache=True,
        )
        out = llama.generate(ids, attention_mask=mask, generation_config=config)[:, width:]
        found += [row[: job.new_tokens] for row, job in zip(out.tolist(), part, strict=True)]
    return found


def check_equal(name: str, ours: list[list[int]], theirs: list[list[int]]) -> str:
    """Ends the benchmark unless the first ids agree; rounding may part two texts later on."""
    same = []
    for a, b in zip(ours, theirs, strict=True):
        if len(a) != len(b):
            sys.exit(f"{name} wrote {len(b)} ids where {len(a)} were asked for")
        pairs = enumerate(zip(a, b, strict=True))
        same.append(next((i for i, (x, y) in pairs if x != y), len(a)))
        if same[-1] < min(8, len(a)):
            sys.exit(f"{name}: the ids differ from number {same[-1]} of a text on")
    return f"{name}: same ids: {sum(same)} of {sum(map(len, ours))}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--requests", type=int, default=64)
    add("--batch", type=int, default=64, help="how many are continued at once")
    add("--prompt-tokens", type=int, default=256, help="of the longest prompt")
    add("--new-tokens", type=int, default=512, help="of the longest continuation")
    add("--d-model", type=int, default=256)
    add("--layers", type=int, default=4)
    add("--heads", type=int, default=8)
    add("--vocab-size", type=int, default=4096)
    add("--peers", default=",".join(PEERS), help=f"of {', '.join(PEERS)}; the first is compared to")
    add("--repeat", type=int, default=3, help="runs of each (default: 3)")
    arguments = parser.parse_args()
    config = ModelConfig(
        vocab_size=arguments.vocab_size,
        context_length=arguments.prompt_tokens + arguments.new_tokens,
        d_model=arguments.d_model,
        num_layers=arguments.layers,
        num_heads=arguments.heads,
    )
    model = make_model(config)
    work = jobs(
        arguments.requests, config.vocab_size, arguments.prompt_tokens, arguments.new_tokens
    )
    peers = [name for name in arguments.peers.split(",") if name]
    llama = twin(model).eval() if "transformers" in peers else None
    known: dict[str, Callable[[], list[list[int]]]] = {
        "engine": lambda: by_engine(model, work, arguments.batch),
        "generate": lambda: by_generate(model, work, arguments.batch),
        "transformers": lambda: by_transformers(llama, work, arguments.batch),
    }
    runs = {name: known[name] for name in peers}
    written = {name: run() for name, run in runs.items()}
    for name in peers[1:]:
        print(check_equal(name, written[peers[0]], written[name]), file=sys.stderr)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(arguments.repeat):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    tokens = sum(job.new_tokens for job in work)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    rows = [
        [name, f"{tokens / seconds[name]:,.0f}", f"{seconds[name] / seconds[peers[0]]:.2f} x"]
        for name in runs
    ]
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    versions = f"; {named('transformers')}" if llama is not None else ""
    print(
        f"{machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads{versions}; "
        f"{parameters:.1f} M parameters, float32, {arguments.requests} requests, "
        f"{arguments.batch} at once, {tokens:,} tokens asked for; {time.strftime('%Y-%m-%d')}"
    )
    print(table(["requests of mixed lengths", "tokens/s", f"time to {peers[0]}'s"], rows))


if __name__ == "__main__":
    main()
