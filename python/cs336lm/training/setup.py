"""Everything that a run stands on, opened and checked before anything is written.

In order: the data, the processes, the device, the model, its optimizer, and (on resume) the last
checkpoint. An impossible configuration, a missing file or a damaged checkpoint ends here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from cs336lm.errors import UsageError
from cs336lm.model.kernels.fp8 import require_fp8
from cs336lm.model.transformer import TransformerLM
from cs336lm.optim.build import build_optimizer
from cs336lm.training.config import Config
from cs336lm.training.data import TrainingData, open_data
from cs336lm.training.devices import choose_device, choose_dtype
from cs336lm.training.distributed import World
from cs336lm.training.parallel import ParallelModel
from cs336lm.training.progress import Progress
from cs336lm.training.run_directory import RunDirectory
from cs336lm.training.trackers.table import require_installed


@dataclass(frozen=True)
class Setup:
    """A run that is ready to take its next step."""

    run: RunDirectory
    config: Config
    """Resolved."""
    data: TrainingData
    world: World
    device: torch.device
    dtype: torch.dtype
    """Of matrix products; weights are in float32."""
    model: ParallelModel
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    progress: Progress

    @property
    def tokens_per_step(self) -> int:
        """Tokens that a step learns from, over all processes."""
        return self.config.data.batch_size * self.config.model.context_length


def set_up(config: Config, run_dir: str | Path, *, resume: bool) -> Setup:
    """Opens and builds what ``config`` describes; ``resume`` loads the last checkpoint, if any."""
    run = RunDirectory(run_dir)
    if run.holds_run() and not resume:
        raise UsageError(
            f"{run_dir} already contains a run: continue it with --resume, or name another "
            "--run-dir"
        )
    train = config.train
    require_installed(train.track)
    world = World.from_environment()
    # One process a machine reads the files through; if it objects, all of them end.
    data = open_data(config, check_ids=world.local_rank == 0)
    config = config.resolved(data.vocab_size)
    _check_batch_divides(config, world)
    device = choose_device(train.device, world.local_rank)
    dtype = choose_dtype(train.dtype, device)
    if train.fp8:
        require_fp8(device)
    world.join(device)
    torch.manual_seed(train.seed)
    model = TransformerLM(config.model, device=device)
    model.use_fp8(train.fp8)
    parallel = ParallelModel(model, world, train.parallel, dtype)
    optimizer = build_optimizer(model, config.optim)
    # float16 gradients underflow unless the loss is scaled up (Micikevicius et al. 2018).
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    progress = Progress()
    if resume and run.step_checkpoints():
        progress = _resume(run, model, optimizer, scaler)
    if train.activation_checkpointing:
        parallel.checkpoint_activations()
    if train.compile:
        parallel.compile()
    return Setup(run, config, data, world, device, dtype, parallel, optimizer, scaler, progress)


def _check_batch_divides(config: Config, world: World) -> None:
    batch, rounds = config.data.batch_size, config.train.grad_accumulation
    if batch % (world.size * rounds):
        raise UsageError(
            f"data.batch_size={batch} does not divide by {world.size} processes times "
            f"train.grad_accumulation={rounds}"
        )


def _resume(
    run: RunDirectory,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> Progress:
    """Loads the last checkpoint; the optimizer's settings stay as they are configured now."""
    configured = [{**group} for group in optimizer.param_groups]
    saved = run.restore(run.pick_checkpoint("last"), model, optimizer)
    for group, settings in zip(optimizer.param_groups, configured, strict=True):
        group.update({name: settings[name] for name in settings if name != "params"})
    scaler.load_state_dict(saved["scaler"])
    return Progress(**saved["progress"])
