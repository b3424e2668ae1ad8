"""The tree of dataclasses: a section a class, a field with its default, its meaning and its limits.

An impossible value is refused with a ``UsageError`` that names the field, before anything starts.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cs336lm.errors import UsageError
from cs336lm.model.config import ModelConfig


@dataclass(frozen=True)
class DataConfig:
    """Token files and batches."""

    train: Path | None = None
    """Token file to train on, made by `cs336lm tokenize`; the one thing that must be given."""
    val: Path | None = None
    """Token file to validate on; none means no validation."""
    tokenizer: Path | None = None
    """Tokenizer of the token files; kept in the run directory, for `generate` and `evaluate`."""
    batch_size: int = 32
    """Sequences a step learns from, over all devices and all rounds of accumulation."""

    def __post_init__(self) -> None:
        _at_least("data.batch_size", self.batch_size, 1)

    def relative_to(self, folder: Path) -> DataConfig:
        """The same with its relative paths taken to be relative to ``folder``."""
        return dataclasses.replace(
            self,
            train=self.train and folder / self.train,
            val=self.val and folder / self.val,
            tokenizer=self.tokenizer and folder / self.tokenizer,
        )


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer and its learning rate."""

    name: Literal["adamw", "sgd", "adagrad"] = "adamw"
    """Which optimizer; betas and weight decay are AdamW's alone, sgd is plain: lr follows the
    schedule and nothing else."""
    schedule: Literal["cosine", "linear", "wsd", "constant"] = "cosine"
    """How the learning rate falls from lr to min_lr after the warm-up."""
    lr: float = 1e-3
    """Learning rate at its highest."""
    min_lr: float | None = None
    """Learning rate at the end; none means a tenth of lr, also where --resume changes that."""
    warmup_steps: int | None = None
    """Steps in which the learning rate rises from 0 to lr; none means 5 % of train.steps, also
    where --resume changes these."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of AdamW's running means of the gradient and of its square."""
    eps: float = 1e-8
    """Keeps AdamW's and AdaGrad's quotients finite."""
    weight_decay: float = 0.1
    """Decoupled weight decay of matrices; gains of RMSNorm are never decayed."""
    grad_clip: float = 1.0
    """Largest L2 norm of the whole gradient; 0 means no clipping."""

    def __post_init__(self) -> None:
        _at_least("optim.lr", self.lr, 0)
        _at_least("optim.min_lr", self.min_lr, 0)
        _at_least("optim.warmup_steps", self.warmup_steps, 0)
        _at_least("optim.eps", self.eps, 0)
        _at_least("optim.weight_decay", self.weight_decay, 0)
        _at_least("optim.grad_clip", self.grad_clip, 0)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UsageError(f"optim.betas must be at least 0 and below 1, not {self.betas}")
        if self.min_lr is not None and self.min_lr > self.lr:
            raise UsageError(f"optim.min_lr={self.min_lr} is above optim.lr={self.lr}")


@dataclass(frozen=True)
class TrainConfig:
    """The loop."""

    steps: int = 2000
    """Optimizer steps in all; the learning rate reaches min_lr at the last."""
    seed: int = 0
    """Decides the initial weights and which tokens each step sees; a number of 64 bits."""
    device: str = "auto"
    """auto (cuda, else mps, else cpu), cpu, cuda, cuda:1, mps."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the matrix products; auto means bfloat16 on cuda and float32 elsewhere."""
    fp8: bool = False
    """Multiply in eight bits inside the blocks, on GPUs that can (Ada, Hopper and later)."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Under torchrun: every device holds all weights (ddp), or a slice of each (fsdp)."""
    compile: bool = False
    """Compile the model with torch.compile: slower to start, faster to run."""
    activation_checkpointing: bool = False
    """Compute activations twice rather than keep them: about a third slower, far less memory."""
    grad_accumulation: int = 1
    """Rounds in which each device works off its share of a batch; more rounds, less memory."""
    eval_every: int = 250
    """Steps between validations; 0 means only at the end."""
    eval_batches: int = 20
    """Size of a validation, in batches of 32 windows: the same ones whatever data.batch_size."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    checkpoint_every: int = 500
    """Steps between checkpoints; 0 means only at the end."""
    keep_checkpoints: int = 3
    """How many of the last checkpoints to keep, beside the best one."""
    track: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where else metrics go: tensorboard, wandb (each an extra to install)."""
    init_from: Path | None = None
    """Run directory whose best weights training starts from; none means new ones are drawn."""

    def __post_init__(self) -> None:
        for name in ("steps", "seed", "eval_every", "checkpoint_every"):
            _at_least(f"train.{name}", getattr(self, name), 0)
        for name in ("grad_accumulation", "eval_batches", "log_every", "keep_checkpoints"):
            _at_least(f"train.{name}", getattr(self, name), 1)
        if self.seed > _LARGEST_SEED:
            raise UsageError(
                f"train.seed={self.seed} is impossible: it must be at most {_LARGEST_SEED}, a "
                "number of 64 bits"
            )
        if self.device.partition(":")[0] not in ("auto", "cpu", "cuda", "mps"):
            raise UsageError(
                f"train.device={self.device!r} must be one of auto, cpu, cuda, cuda:N, mps"
            )


_LARGEST_SEED = 2**64 - 1  # of PyTorch's generators


def _at_least(name: str, value: float | None, least: int) -> None:
    if value is not None and not value >= least:  # also refuses NaN
        raise UsageError(f"{name}={value} is impossible: it must be at least {least}")


def _small_model() -> ModelConfig:
    """A model of some four million parameters, which a laptop trains."""
    return ModelConfig(context_length=256, d_model=256, num_layers=4, num_heads=8)


@dataclass(frozen=True)
class Config:
    """A training run: data, model, optim, train."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=_small_model)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if self.data.batch_size % self.train.grad_accumulation:
            raise UsageError(
                f"data.batch_size={self.data.batch_size} does not divide by "
                f"train.grad_accumulation={self.train.grad_accumulation}"
            )

    def relative_to(self, folder: Path) -> Config:
        """The same with its relative paths taken to be relative to ``folder``."""
        start = self.train.init_from
        return dataclasses.replace(
            self,
            data=self.data.relative_to(folder),
            train=dataclasses.replace(self.train, init_from=start and folder / start),
        )

    def resolved(self, vocab_size: int) -> Config:
        """This configuration with every value that was left open filled in, and paths absolute.

        Raises ``UsageError`` if what was asked for does not fit together.
        """
        optim, steps = self.optim, self.train.steps
        if optim.warmup_steps is not None and optim.warmup_steps > steps:
            raise UsageError(
                f"optim.warmup_steps={optim.warmup_steps} is more than train.steps={steps}: the "
                "run would end before the learning rate is reached"
            )
        return dataclasses.replace(
            self.relative_to(Path.cwd()),
            model=self.model.resolved(vocab_size),
            optim=dataclasses.replace(
                optim,
                min_lr=optim.lr / 10 if optim.min_lr is None else optim.min_lr,
                warmup_steps=steps // 20 if optim.warmup_steps is None else optim.warmup_steps,
            ),
        )


SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "model": ModelConfig,
    "optim": OptimConfig,
    "train": TrainConfig,
}
