"""One run of learning.py, in a process of its own: what it is is the argument, in JSON.

Both kinds of model go through the same loop: a batch, the learning rate of the share of the budget
that will be used when the step is done, a step; and a validation by the same windows now and then,
off the clock.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "20000")

import torch
from cs336lm.data import BatchLoader, gather_windows
from cs336lm.experiments.ablate import variants_of
from cs336lm.experiments.space import with_overrides
from cs336lm.training.budget import Place
from cs336lm.training.config import Config, config_from_tables, load_config
from cs336lm.training.data import TrainingData
from cs336lm.training.devices import choose_device, keep_freed_memory
from cs336lm.training.learning_rate import StepSettings
from cs336lm.training.trainer import Trainer
from curves import Curve
from llama import check_same_loss, llama_config, loss_of, twin
from steps import Step, our_step
from torch import Tensor

WARMUP = 0.05
"""Share of the budget, as `cs336lm train` has it."""


@dataclass
class Contestant:
    """What the loop drives."""

    config: Config
    """Resolved; its data and its schedule are used."""
    model: Any
    step: Step
    optimizer: torch.optim.Optimizer
    data: TrainingData
    notes: dict[str, Any]


def configuration(asked: dict[str, Any]) -> Config:
    """A candidate's configuration, with the job's data, context, vocabulary and seed.

    A shape that a file or the recipe says is its own; else it is the job's.
    """
    from learning import RECIPE

    name, *changes = asked["candidate"].partition("@")[0].split("+")
    job, folder = asked["job"], Path(asked["folder"])
    shape = job["shape"]
    base = config_from_tables({"model": shape}, Config())
    if name == "recipe":
        base = config_from_tables(RECIPE, base)
    elif name.endswith(".toml"):
        base = load_config(name, base)
    elif name not in ("default", "transformers"):
        sys.exit(f"there is no candidate {name!r}: default, recipe, transformers or a FILE.toml")
    for change in changes:
        base = with_overrides(base, variants_of(base, [change])[change])
    data = dataclasses.replace(
        base.data,
        train=folder / "train.npy",
        val=folder / "train.val.npy",
        tokenizer=folder / "tokenizer",
    )
    optim = base.optim
    if asked["lr"]:
        optim = dataclasses.replace(optim, lr=asked["lr"])
    train = dataclasses.replace(
        base.train,
        seed=asked["seed"],
        steps=asked["steps"] or 10**9,  # the loop below knows when to end
        max_tokens=None,
        epochs=None,
        max_seconds=None,
        eval_batches=None,
        eval_tokens=job["eval_tokens"],
        eval_by_document=False,
        compile=job["compile"],
        device="cpu" if not torch.cuda.is_available() else "cuda",
    )
    model = dataclasses.replace(base.model, context_length=shape["context_length"], vocab_size=None)
    optim = dataclasses.replace(optim, warmup_steps=0)  # a share of the budget: see Place
    return Config(data=data, model=model, optim=optim, train=train)


def ours(config: Config, scratch: Path) -> Contestant:
    """As `cs336lm train` would."""
    trainer = Trainer(config, scratch / "run")
    count = sum(parameter.numel() for parameter in trainer.model.parameters())
    notes = {"parameters": count}
    step = our_step(trainer)
    return Contestant(trainer.config, trainer.model, step, trainer.optimizer, trainer.data, notes)


def theirs(config: Config, scratch: Path) -> Contestant:
    """As transformers' users would, with what PyTorch has that is fastest.

    Ends the process if transformers' model with our weights has another loss than ours.
    """
    from transformers import LlamaForCausalLM

    trainer = Trainer(config, scratch / "run")
    data, context = trainer.data.train, trainer.config.model.context_length
    x, y = gather_windows(data, [0, context], context, trainer.device)
    said = check_same_loss(trainer.model, twin(trainer.model), x, y)
    torch.manual_seed(config.train.seed)
    llama = LlamaForCausalLM(llama_config(trainer.config.model)).to(trainer.device)
    llama.train()
    optim = trainer.config.optim
    optimizer = torch.optim.AdamW(
        llama.parameters(),
        lr=optim.lr,
        betas=optim.betas,
        eps=optim.eps,
        weight_decay=optim.weight_decay,
        fused=True,
    )
    for group in optimizer.param_groups:
        group["base_lr"] = optim.lr
    forward = torch.compile(llama) if config.train.compile else llama
    parameters = list(llama.parameters())
    half = trainer.dtype != torch.float32

    def step(x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast(trainer.device.type, trainer.dtype, enabled=half):
            loss: Tensor = forward(input_ids=x, labels=y, shift_labels=y, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, optim.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    count = sum(parameter.numel() for parameter in parameters)
    notes = {"parameters": count, "twin": said}
    return Contestant(trainer.config, llama, step, optimizer, trainer.data, notes)


def validation(model: Any, config: Config, windows: Any, data: Any, device: torch.device) -> float:
    """The mean loss over ``windows``, the same for all, in nats per token, in float32."""
    context, total = config.model.context_length, 0.0
    model.eval()
    for first in range(0, len(windows), 16):
        rows = windows[first : first + 16]
        total += len(rows) * loss_of(model, *gather_windows(data, rows, context, device))
    model.train()
    return total / len(windows)


def follow(
    contestant: Contestant,
    batches: Callable[[], tuple[Tensor, Tensor]],
    validate: Callable[[], float],
    *,
    seconds: float,
    steps: int,
    validations: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Curve:
    """Trains for so many steps or, if those are 0, seconds, and notes the losses on the way.

    The clock runs while a batch is made and a step is taken. As in `cs336lm train`, a step has the
    learning rate of the share of the budget that will be used when it is done, and the last one,
    after which no other would fit, has that of the end.
    """
    settings = StepSettings(contestant.config, contestant.optimizer)
    curve, used, last, step, due = Curve([0], [0.0], [validate()]), 0.0, 0.0, 0, 1
    while True:
        began, step = clock(), step + 1
        if steps:
            done, end, is_last = float(step), float(steps), step == steps
        else:
            done, end = used + last, seconds
            is_last = step > 1 and done + last > seconds
            done = end if is_last else min(done, end)
        settings.apply(step, Place(done, WARMUP * end, end, is_last))
        loss = contestant.step(*batches())
        if loss.device.type != "cpu":
            torch.accelerator.synchronize()
        last = clock() - began
        used += last
        if is_last or done >= due * end / validations:
            due = int(done * validations / end) + 1
            curve.steps.append(step)
            curve.seconds.append(used)
            curve.losses.append(validate())
        if is_last:
            return curve


def main() -> None:
    asked = json.loads(sys.argv[1])
    clock = time.perf_counter
    if asked["job"]["clock"] != "wall":
        torch.set_num_threads(1)
        clock = time.thread_time
    scratch = Path(asked["scratch"])
    if choose_device("auto").type == "cpu":
        keep_freed_memory()
    config = configuration(asked)
    is_theirs = asked["candidate"].partition("@")[0] == "transformers"
    contestant = (theirs if is_theirs else ours)(config, scratch)
    config = contestant.config
    device = next(contestant.model.parameters()).device
    data = contestant.data
    loader = BatchLoader(
        data.train,
        config.data.batch_size,
        config.model.context_length,
        seed=config.train.seed,
        device=device,
        plan=data.plan,
    )
    stream = loader.iterate(range(1, 10**9))
    curve = follow(
        contestant,
        lambda: next(stream),
        lambda: validation(contestant.model, config, data.val_windows, data.val, device),
        seconds=asked["seconds"],
        steps=asked["steps"],
        validations=asked["validations"],
        clock=clock,
    )
    stream.close()
    curve.notes.update(contestant.notes, torch=torch.__version__, date=time.strftime("%Y-%m-%d"))
    Path(asked["out"]).write_text(json.dumps(dataclasses.asdict(curve)))


if __name__ == "__main__":
    main()
