"""Samples during training: what the model makes of the same prompts, every now and then.

``RUN_DIR/samples.jsonl`` gets ``{"step": ..., "prompt": ..., "text": ...}`` for each prompt after
every ``train.sample_every`` steps and after the last, drawn with the same random numbers each time:
what changes between them is the model. A run that goes on from a checkpoint drops what is of later
steps, and writes it again.
"""

from __future__ import annotations

import json
import sys

from cs336lm.files import append_line, atomic_write
from cs336lm.generation.engine import check_vocabularies, encode_prompt, generate
from cs336lm.model.initial import undrawn_weights
from cs336lm.model.transformer import TransformerLM
from cs336lm.training.callbacks import Callback, StepResult, is_due
from cs336lm.training.parallel import gather_weights
from cs336lm.training.setup import Setup
from cs336lm.training.trackers.jsonl import lines_until
from cs336lm.training.validator import evaluating

TEMPERATURE, TOP_P, SEED = 0.8, 0.95, 0
_SHOWN = 100  # characters of a sample on the console


class Samples(Callback):
    """Samples after the steps that ``train.sample_every`` says; ``console``: also on stderr.

    The first process writes. Where the weights are spread over processes, it gathers them on the
    host and samples there. Raises ``UsageError`` for a prompt that the tokenizer cannot begin with.
    """

    samples = True

    def __init__(self, setup: Setup, *, console: bool = False) -> None:
        self._setup = setup
        self._train = setup.config.train
        self._path = setup.run.samples_file
        self._console = console
        if self._train.sample_every and setup.data.tokenizer is not None:
            check_vocabularies(setup.model.module, setup.data.tokenizer)
            for prompt in self._train.sample_prompts:
                encode_prompt(setup.data.tokenizer, prompt)

    def before_training(self) -> None:
        """Drops what an earlier part of the run wrote of steps that come again."""
        if self._setup.world.is_main and self._path.exists():
            step = self._setup.progress.step
            kept = lines_until(self._path, step) if step else []
            with atomic_write(self._path) as file:
                file.write(b"".join(kept))

    def after_step(self, result: StepResult) -> None:
        """Writes the samples of a step that is due; with spread weights all processes help."""
        every = self._train.sample_every
        if not every or not (result.is_final or is_due(result.step, every)):
            return
        result.request_scalars()  # before the samples, whose time is not the step's
        result.took_time = True
        model: TransformerLM | None = self._setup.model.module
        if self._setup.model.is_sharded:
            model = self._gathered()
        if self._setup.world.is_main and model is not None:
            with evaluating(model, fp8=self._train.fp8):
                self._write(model, result.step)

    def _gathered(self) -> TransformerLM | None:
        """The whole model on the host, in the first process; all of them must call this."""
        weights = gather_weights(self._setup.model.module, self._setup.world)
        if not self._setup.world.is_main:
            return None
        with undrawn_weights():
            model = TransformerLM(self._setup.config.model)
        model.load_state_dict(weights)
        return model

    def _write(self, model: TransformerLM, step: int) -> None:
        tokenizer, train = self._setup.data.tokenizer, self._train
        assert tokenizer is not None  # checked when the run was set up
        for prompt in train.sample_prompts:
            try:
                text = generate(
                    model,
                    tokenizer,
                    prompt,
                    max_new_tokens=train.sample_tokens,
                    temperature=TEMPERATURE,
                    top_p=TOP_P,
                    seed=SEED,
                )
            except ValueError as error:  # logits that are NaN; whether the run ends is not for us
                self._say(f"no sample after step {step:,}: {error}")
                return
            line = json.dumps({"step": step, "prompt": prompt, "text": text})
            append_line(self._path, line.encode())
            self._say(f"sample after step {step:,}: {_one_line(prompt + text)}")

    def _say(self, line: str) -> None:
        if self._console:
            try:
                print(line, file=sys.stderr, flush=True)
            except (OSError, ValueError):  # a terminal that is gone
                self._console = False


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
