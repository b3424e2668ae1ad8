"""Samples for a report: every run continues the same prompts with the same seed."""

from __future__ import annotations

from collections.abc import Sequence

from cs336lm.experiments.report.content import Sample
from cs336lm.experiments.runs import RunSummary


def sample_runs(
    runs: Sequence[RunSummary], prompts: Sequence[str], *, max_new_tokens: int, seed: int
) -> tuple[list[Sample], list[str]]:
    """Samples of the runs that have weights and a tokenizer, and why others have none."""
    from cs336lm.generation import generate
    from cs336lm.training.run_directory import load_run

    samples, left_out = [], []
    for run in runs:
        try:
            _, model, tokenizer = load_run(run.path)
        except (OSError, ValueError) as error:
            left_out.append(f"{run.name}: {error}")
            continue
        if tokenizer is None:
            left_out.append(f"{run.name} has no tokenizer")
            continue
        for prompt in prompts:
            text = generate(
                model,
                tokenizer,
                prompt,
                max_new_tokens=max_new_tokens,
                temperature=0.8,
                top_p=0.95,
                seed=seed,
            )
            samples.append(Sample(run.name, prompt, text))
    return samples, left_out
