"""Run directories and single checkpoints, verified."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from cs336lm.errors import UsageError
from cs336lm.json_files import parse_json
from cs336lm.training.checkpoints.archive import peek_iteration
from cs336lm.training.run_directory import BAD_BATCHES, RunDirectory, verify_checkpoint
from cs336lm.training.verification.finding import Finding, looked_at
from cs336lm.training.verification.texts import verify_tokenizer


def verify_run(path: Path) -> Iterator[Finding]:
    """Everything in a run directory."""
    run = RunDirectory(path)
    yield looked_at(run.config_file, lambda: _config(run))
    yield looked_at(run.metrics_file, lambda: _records(run.metrics_file, ascending=True))
    for file in (run.samples_file, run.environment_file):
        if file.exists():
            yield looked_at(file, partial(_records, file, ascending=False))
    kept = run.step_checkpoints()
    for checkpoint in (*kept, run.best_checkpoint, run.best_before):
        if checkpoint in kept or checkpoint.exists():
            yield from verify_one(checkpoint)
    if not run.holds_weights():
        yield Finding(str(run.checkpoints), True, "no checkpoint was written yet")
    for batch in sorted((path / BAD_BATCHES).glob("*.pt")):
        yield from verify_one(batch)
    for left in sorted(run.checkpoints.glob("*.damaged")):
        yield Finding(str(left), True, "set aside as damaged before; nothing reads it")
    for left in sorted(run.checkpoints.glob(".*.partial")):
        yield Finding(str(left), True, "begun by a process that was killed; the next start ends it")
    if run.tokenizer.is_dir():
        yield from verify_tokenizer(run.tokenizer)
    try:
        run.refuse_if_in_use()
    except UsageError as error:
        yield Finding(str(path), True, str(error).removeprefix(f"{path} "))


def verify_one(path: Path) -> Iterator[Finding]:
    """One checkpoint: its checksum, and that it is of the step that it is called after."""

    def look() -> str:
        is_sealed = verify_checkpoint(path)
        how = "its checksum matches"
        if not is_sealed:
            how = (
                "whole, as far as can be told: it is of before there were checksums over all of it"
            )
        if path.is_dir():
            return how
        step = peek_iteration(path)
        if step is None:
            raise ValueError("is not a checkpoint: it has no step")
        is_named = path.stem.startswith("step-") and path.parent.name != BAD_BATCHES
        if is_named and int(path.stem.removeprefix("step-")) != step:
            raise ValueError(f"is of step {step}, which its name does not say")
        return f"{how}; of step {step:,}"

    yield looked_at(path, look)


def _config(run: RunDirectory) -> str:
    config = run.load_config()
    return (
        f"every value is possible; d_model {config.model.d_model}, {config.model.num_layers} layers"
    )


def _records(path: Path, *, ascending: bool) -> str:
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    last = -1
    for number, line in enumerate(lines, 1):
        if number == len(lines) and not line.endswith(b"\n"):
            return f"{number - 1:,} whole lines; the next start cuts off what a kill left of one"
        try:
            step = parse_json(line)["step"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"line {number}: not a JSON object with a step") from None
        if ascending and step <= last:
            raise ValueError(f"line {number}: step {step} comes after step {last}")
        last = step
    return f"{len(lines):,} lines" + (f", each step once, to step {last:,}" if ascending else "")
