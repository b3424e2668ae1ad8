"""Everything that a run stands on, opened and checked before anything is written.

In order: the data, the processes, the device, the model, its optimizer, and (on resume) the last
checkpoint. An impossible configuration, a missing file or a damaged checkpoint ends here.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cs336lm.errors import UsageError
from cs336lm.model.kernels.fp8 import require_fp8
from cs336lm.model.transformer import TransformerLM
from cs336lm.optim.build import build_optimizer
from cs336lm.training.agreement import facts_of, require_agreement
from cs336lm.training.budget import Budget, build_budget
from cs336lm.training.checkpoints.state import State
from cs336lm.training.config import Config
from cs336lm.training.data import TrainingData, open_data, validation_fingerprint
from cs336lm.training.devices import choose_device, choose_dtype
from cs336lm.training.distributed import World
from cs336lm.training.parallel import ParallelModel, is_sharded
from cs336lm.training.progress import Progress
from cs336lm.training.run_directory import RunDirectory
from cs336lm.training.trackers.table import require_installed


@dataclass(frozen=True)
class Setup:
    """A run that is ready to take its next step."""

    run: RunDirectory
    config: Config
    """Resolved."""
    asked: Config
    """As it was before, with what was left open."""
    data: TrainingData
    world: World
    device: torch.device
    dtype: torch.dtype
    """Of matrix products; weights are in float32."""
    model: ParallelModel
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    progress: Progress
    budget: Budget
    measured_on: str | None
    """Fingerprint of what a validation looks at; None if there is none."""
    best_is_missing: bool
    """Whether the weights resumed from are the best, but were not written as such."""
    damaged: dict[Path, str]
    """Later checkpoints than the one resumed from, and what is wrong with each."""

    @property
    def tokens_per_step(self) -> int:
        """Tokens that a step learns from, over all processes."""
        return self.config.data.batch_size * self.config.model.context_length


def set_up(
    config: Config, run_dir: str | Path, *, resume: bool, new_optimizer: bool = False
) -> Setup:
    """Opens and builds what ``config`` describes; ``resume`` loads the last checkpoint, if any.

    ``new_optimizer`` lets another optimizer than the checkpoint's go on, with nothing remembered.
    """
    run = RunDirectory(run_dir)
    run.refuse_if_in_use()
    run.refuse_if_foreign()
    if run.holds_weights() and not resume:
        raise UsageError(
            f"{run_dir} already contains a run: continue it with --resume, or name another "
            "--run-dir"
        )
    asked = config = config.relative_to(Path.cwd())
    if run.step_checkpoints():
        config = _as_the_weights_were_made(config, run)
    train = config.train
    require_installed(train.track)
    world = World.from_environment()
    # One process a machine reads the files through; if it objects, all of them end.
    data = open_data(config, check_ids=world.local_rank == 0)
    config = config.resolved(data.vocab_size, len(data.train))
    if train.sample_every and data.tokenizer is None:
        raise UsageError(
            f"train.sample_every={train.sample_every} needs data.tokenizer, to write text: name "
            "one, or set train.sample_every=0"
        )
    _check_batch_divides(config, world)
    device = choose_device(train.device, world.local_rank)
    dtype = choose_dtype(train.dtype, device, config.model.d_model)
    if train.fp8:
        require_fp8(device)
    world.join(device, train.peer_timeout)
    if world.size > 1:
        require_agreement(world, facts_of(config, data) | {"train.dtype": str(dtype)})
    torch.manual_seed(train.seed)
    sliced = is_sharded(world, train.parallel)
    model = TransformerLM(config.model, device="meta" if sliced else device)
    model.use_fp8(train.fp8)
    parallel = ParallelModel(model, world, train.parallel, dtype, device)
    optimizer = build_optimizer(model, config.optim, None if sliced else world.group)
    # float16 gradients underflow unless the loss is scaled up (Micikevicius et al. 2018).
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    measured_on = None
    if data.val is not None:
        measured_on = validation_fingerprint(data, config, str(dtype))
    progress, best_is_missing = Progress(), False
    damaged: dict[Path, str] = {}
    if run.step_checkpoints():
        path, damaged = _last_good_checkpoint(run, world, device)
        saved = _resume(path, run, model, optimizer, scaler, config.optim.name, new_optimizer)
        progress = _saved_progress(saved, path)
        best_is_missing = _check_best(progress, run, measured_on)
    elif config.train.init_from is not None:
        start_from = RunDirectory(config.train.init_from)
        start_from.restore(start_from.pick_checkpoint("best"), model)
    if world.size > 1:
        require_agreement(world, {"the step that the run has got to": str(progress.step)})
    if train.activation_checkpointing:
        parallel.checkpoint_activations()
    if train.compile:
        parallel.compile()
    return Setup(
        run=run,
        config=config,
        asked=asked,
        data=data,
        world=world,
        device=device,
        dtype=dtype,
        model=parallel,
        optimizer=optimizer,
        scaler=scaler,
        progress=progress,
        budget=build_budget(config, progress, world, device),
        measured_on=measured_on,
        best_is_missing=best_is_missing,
        damaged=damaged,
    )


def _as_the_weights_were_made(config: Config, run: RunDirectory) -> Config:
    """``config`` with the shape of the run's model where it was left open."""
    if not run.holds_run():
        return config
    made = run.load_config().model
    # With other heads it is another model, and to be refused as that.
    kv_heads = made.num_kv_heads if config.model.num_heads == made.num_heads else None
    model = dataclasses.replace(
        config.model,
        vocab_size=config.model.vocab_size or made.vocab_size,
        d_ff=config.model.d_ff or made.d_ff,
        num_kv_heads=config.model.num_kv_heads or kv_heads,
    )
    return dataclasses.replace(config, model=model)


def _check_batch_divides(config: Config, world: World) -> None:
    batch, rounds = config.data.batch_size, config.train.grad_accumulation
    if batch % (world.size * rounds):
        raise UsageError(
            f"data.batch_size={batch} does not divide by {world.size} processes times "
            f"train.grad_accumulation={rounds}"
        )


def _last_good_checkpoint(
    run: RunDirectory, world: World, device: torch.device
) -> tuple[Path, dict[Path, str]]:
    """The last checkpoint that all processes find as it was written, and what is wrong with later.

    One in slices, which belong to all of them, is read through by the first.
    """
    kept = run.step_checkpoints()
    wrong: dict[Path, str] = {}
    if kept[-1].is_dir() and not world.is_main:
        good = len(kept) - 1
    else:
        path, wrong = run.last_good_checkpoint()
        good = -1 if path is None else kept.index(path)
    good = world.least(good, device)
    if good < 0:
        reasons = "; ".join(wrong.values()) or "another process cannot read it"
        raise ValueError(f"{run.path}: no checkpoint is as it was written: {reasons}")
    return kept[good], {
        path: wrong.get(path, "another process cannot read it") for path in kept[good + 1 :]
    }


def _saved_progress(saved: State, path: Path) -> Progress:
    try:
        progress = Progress(**saved["progress"])
        for name, value in vars(progress).items():
            kinds = str if name == "best_measured_on" else int | float
            if value is not None and not isinstance(value, kinds):
                raise TypeError(f"{name} is {value!r}")
        return progress
    except TypeError as error:
        raise ValueError(f"{path} is not a checkpoint of this version's runs ({error})") from None


def _resume(
    path: Path,
    run: RunDirectory,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    optimizer_name: str,
    new_optimizer: bool,
) -> dict[str, Any]:
    """Loads a checkpoint and returns it; the optimizer's settings stay as they are configured."""

    def loads_optimizer(saved: State) -> bool:
        if not {"scaler", "progress"} <= saved.keys():
            raise UsageError(
                f"{path} is not a checkpoint of a run: no training continues from it, but a new "
                "run can start from its weights with --init-from"
            )
        before = _optimizer_of(saved)
        if before == optimizer_name or new_optimizer:
            return before == optimizer_name
        raise UsageError(
            f"{path} holds the state of the optimizer {before}, which {optimizer_name} cannot use: "
            "continue with the same --optim.name, or say --new-optimizer"
        )

    configured = [{**group} for group in optimizer.param_groups]
    saved = run.restore(path, model, optimizer, loads_optimizer=loads_optimizer)
    for group, settings in zip(optimizer.param_groups, configured, strict=True):
        group.update({name: settings[name] for name in settings if name != "params"})
    if saved["scaler"]:  # empty where nothing was scaled
        scaler.load_state_dict(saved["scaler"])
    return saved


def _optimizer_of(saved: State) -> str:
    """The ``optim.name`` that a checkpoint was made with, or what its optimizer remembers says."""
    if "optim" in saved:
        return str(saved["optim"])
    by_parameter = saved.get("optimizer", {})  # sharded: {name: state}; else a state dict
    states = by_parameter.get("state", by_parameter).values()
    remembered = {key for state in states for key in state}
    kinds = {"exp_avg": "adamw", "sum": "adagrad", "t": "sgd with lr / sqrt(t + 1)"}
    return next((kind for key, kind in kinds.items() if key in remembered), "sgd")


def _check_best(progress: Progress, run: RunDirectory, measured_on: str | None) -> bool:
    """Forgets the best if it was measured on something else, or its weights are gone.

    Returns whether those of the checkpoint itself are the best, and have yet to be written as such.
    """
    steps = [step for step in run.best_steps() if step <= progress.step]
    if progress.best_step is None and math.isfinite(progress.best_val_loss) and steps:
        progress.best_step = steps[0]  # the checkpoint is of before this was remembered
    comparable = None in (measured_on, progress.best_measured_on)
    is_here = progress.best_step in (*steps, progress.step)
    if not is_here or not (comparable or progress.best_measured_on == measured_on):
        progress.forget_best()
    return progress.best_step is not None and progress.best_step not in steps
