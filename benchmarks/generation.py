"""Generation beside transformers' generate with its KV cache: tokens a second, greedily.

    python benchmarks/generation.py
    python benchmarks/generation.py --compile
    python benchmarks/generation.py --batch 1 --d-model 768 --layers 12 --heads 12 --new-tokens 64

Both continue the same prompts with the same weights, on the CPU in float32, and first it is checked
that they write the same ids. Then they take turns; the median counts. The time is that of a whole
call: prompt, decoding, sampling. With --compile there is a third, ours with decoding compiled; its
first call, which compiles, is not timed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

# As `cs336lm generate` has it: threads that wait for each other give way to others soon. It must be
# there before PyTorch is.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

import torch
from cs336lm.generation import generate_ids
from cs336lm.generation.sampling import Sampler, SamplingParams
from cs336lm.model import ModelConfig, TransformerLM
from harness import machine, named, table
from llama import twin

Generate = Callable[[], list[list[int]]]


def make_model(config: ModelConfig, **options: Any) -> TransformerLM:
    """Random weights whose likeliest token stands clear of the second, so that greedy ids agree."""
    torch.manual_seed(0)
    model = TransformerLM(config, **options).eval()
    torch.nn.init.normal_(model.lm_head.weight, std=config.d_model**-0.5 * 4)
    return model


def ours(
    model: TransformerLM, prompts: list[list[int]], new_tokens: int, *, compile: bool = False
) -> Generate:
    """Prompts to new ids, by this package."""

    def run() -> list[list[int]]:
        sampler = Sampler(SamplingParams(temperature=0), device=model.lm_head.weight.device)
        steps = generate_ids(model, prompts, new_tokens, sampler, compile=compile)
        return [[int(i) for i in row if i is not None] for row in zip(*steps, strict=True)]

    return run


def theirs(llama: Any, prompts: list[list[int]], new_tokens: int, **options: Any) -> Generate:
    """The same by transformers; ``options`` go to its GenerationConfig."""
    from transformers import GenerationConfig

    ids = torch.tensor(prompts, device=llama.device)
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=new_tokens,
        min_new_tokens=new_tokens,
        pad_token_id=0,
        use_cache=True,
        **options,
    )

    @torch.inference_mode()
    def run() -> list[list[int]]:
        mask = torch.ones_like(ids)
        out = llama.generate(ids, attention_mask=mask, generation_config=config)
        return out[:, ids.shape[1] :].tolist()

    return run


def check_equal(a: list[list[int]], b: list[list[int]]) -> str:
    """Ends the benchmark unless the first ids agree; rounding may part two texts later on."""
    same = [
        next((i for i, (x, y) in enumerate(zip(*rows, strict=True)) if x != y), len(rows[0]))
        for rows in zip(a, b, strict=True)
    ]
    if min(same) < min(16, len(a[0])):
        sys.exit(f"the ids differ from number {min(same)} of a text on")
    return f"same weights, same prompts, same ids: {sum(same)} of {sum(map(len, a))}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--batch", type=int, action="append", help="prompts (default: 1, then 64)")
    add("--d-model", type=int, default=256)
    add("--layers", type=int, default=4)
    add("--heads", type=int, default=8)
    add("--vocab-size", type=int, default=4096)
    add("--prompt-tokens", type=int, default=16)
    add("--new-tokens", type=int, default=200)
    add("--compile", action="store_true", help="also measure generation compiled")
    add("--repeat", type=int, default=5, help="calls of each (default: 5)")
    arguments = parser.parse_args()
    config = ModelConfig(
        vocab_size=arguments.vocab_size,
        context_length=arguments.prompt_tokens + arguments.new_tokens,
        d_model=arguments.d_model,
        num_layers=arguments.layers,
        num_heads=arguments.heads,
    )
    model = make_model(config)
    llama = twin(model).eval()
    rows = []
    for batch in arguments.batch or [1, 64]:
        prompts = torch.randint(0, config.vocab_size, (batch, arguments.prompt_tokens)).tolist()
        new = arguments.new_tokens
        runs = {"transformers": theirs(llama, prompts, new), "cs336lm": ours(model, prompts, new)}
        if arguments.compile:
            runs["cs336lm compiled"] = ours(model, prompts, new, compile=True)
        expected = runs["transformers"]()
        for name in list(runs)[1:]:
            print(f"batch {batch}, {name}: {check_equal(runs[name](), expected)}", file=sys.stderr)
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(arguments.repeat):
            for name, run in runs.items():
                began = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - began)
        seconds = {name: statistics.median(values) for name, values in times.items()}
        for name in runs:
            rows.append(
                [
                    f"{name}, batch {batch}",
                    f"{batch * new / seconds[name]:,.0f}",
                    f"{seconds['transformers'] / seconds[name]:.2f} x",
                ]
            )
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    print(
        f"{machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads; "
        f"{named('transformers')}; {parameters:.1f} M parameters, float32, prompts of "
        f"{arguments.prompt_tokens} tokens, {arguments.new_tokens} new; {time.strftime('%Y-%m-%d')}"
    )
    print(table(["generation", "tokens/s", "to transformers"], rows))


if __name__ == "__main__":
    main()
