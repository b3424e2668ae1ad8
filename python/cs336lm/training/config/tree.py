"""The tree of dataclasses: a section a class, a field with its default, its meaning and its limits.

An impossible value is refused with a ``UsageError`` that names the field, before anything starts.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cs336lm.errors import UsageError
from cs336lm.model.config import ModelConfig
from cs336lm.model.roles import Role


@dataclass(frozen=True)
class DataConfig:
    """Token files and batches."""

    train: Path | dict[Path, float] | None = None
    """Token file to train on, made by `cs336lm tokenize`; the one thing that must be given. Several
    of them as FILE=WEIGHT each: a.npy=0.7 b.npy=0.3; in a file a table [data.train]."""
    val: Path | None = None
    """Token file to validate on; none means no validation."""
    tokenizer: Path | None = None
    """Tokenizer of the token files; kept in the run directory, for `generate` and `evaluate`."""
    batch_size: int = 32
    """Sequences a step learns from, over all devices and all rounds of accumulation."""
    sampling: Literal["uniform", "epochs", "documents"] = "uniform"
    """Windows of the token file that a step learns from: any, equally likely (uniform); each once
    before any comes again (epochs); those that begin where a document begins (documents)."""
    document_token: int | None = None
    """Id of the token that ends a document; none means the tokenizer's <|endoftext|>."""

    def __post_init__(self) -> None:
        _at_least("data.batch_size", self.batch_size, 1)
        _at_least("data.document_token", self.document_token, 0)
        if isinstance(self.train, dict):
            if not self.train:
                raise UsageError("data.train names no file: write one as FILE=WEIGHT")
            for path, weight in self.train.items():
                if not (weight > 0 and math.isfinite(weight)):
                    raise UsageError(
                        f"data.train: the weight {weight} of {path} is impossible: it must be a "
                        "number above 0"
                    )

    @property
    def train_files(self) -> dict[Path, float]:
        """The token files to train on with their weights; a single one has the weight 1."""
        if isinstance(self.train, dict):
            return self.train
        return {} if self.train is None else {self.train: 1.0}

    def relative_to(self, folder: Path) -> DataConfig:
        """The same with its relative paths taken to be relative to ``folder``."""
        return dataclasses.replace(
            self,
            train={folder / path: weight for path, weight in self.train.items()}
            if isinstance(self.train, dict)
            else self.train and folder / self.train,
            val=self.val and folder / self.val,
            tokenizer=self.tokenizer and folder / self.tokenizer,
        )


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer and its learning rate."""

    name: Literal["adamw", "muon", "normuon", "sgd", "adagrad"] = "adamw"
    """Which optimizer. muon and normuon are for matrices inside blocks, and AdamW for the rest;
    betas and weight decay are those three's; sgd is plain: lr follows the schedule and nothing
    else."""
    schedule: Literal["cosine", "linear", "wsd", "inverse-sqrt", "constant"] = "cosine"
    """How the learning rate falls from lr to min_lr after the warm-up; for inverse-sqrt min_lr is a
    floor, and constant never falls."""
    lr: float = 1e-3
    """Learning rate at its highest."""
    min_lr: float | None = None
    """Learning rate at the end; none means a tenth of lr, also where --resume changes that. A role
    with a rate of its own ends at the same share of it."""
    warmup_steps: int | None = None
    """Steps in which the learning rate rises from 0 to lr; none means 5 % of train.steps, also
    where --resume changes these, or of train.max_seconds."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of AdamW's running means of the gradient and of its square; the second is also that of
    NorMuon's mean square of a neuron's update."""
    eps: float = 1e-8
    """Keeps AdamW's and AdaGrad's quotients finite."""
    weight_decay: float = 0.1
    """Decoupled weight decay of matrices, embeddings and the head."""
    grad_clip: float = 1.0
    """Largest L2 norm of the whole gradient; 0 means no clipping."""
    decay_share: float = 0.2
    """Share of the way after the warm-up in which wsd falls."""
    matrix_lr: float | None = None
    """Highest learning rate of matrices inside blocks; none means 0.02 for muon and normuon, else
    lr. All rates of roles follow the schedule as lr does."""
    matrix_decay: float | None = None
    """Weight decay of matrices inside blocks; none means weight_decay."""
    matrix_betas: tuple[float, float] | None = None
    """betas of matrices inside blocks; none means betas."""
    embedding_lr: float | None = None
    """Highest learning rate of embeddings; none means lr."""
    embedding_decay: float | None = None
    """Weight decay of embeddings; none means weight_decay."""
    embedding_betas: tuple[float, float] | None = None
    """betas of embeddings; none means betas."""
    head_lr: float | None = None
    """Highest learning rate of the head; none means lr."""
    head_decay: float | None = None
    """Weight decay of the head; none means weight_decay."""
    head_betas: tuple[float, float] | None = None
    """betas of the head; none means betas."""
    scalar_lr: float | None = None
    """Highest learning rate of gains and other scalars; none means lr."""
    scalar_decay: float | None = None
    """Weight decay of gains and other scalars; none means 0, for their neutral value is not."""
    scalar_betas: tuple[float, float] | None = None
    """betas of gains and other scalars; none means betas."""
    momentum: float = 0.95
    """How much of the running mean of gradients Muon keeps at each step."""
    momentum_start: float = 0.85
    """The same at the first step, where momentum_warmup_steps asks for a rise."""
    momentum_warmup_steps: int = 0
    """Steps in which Muon's momentum rises from momentum_start to momentum."""

    def __post_init__(self) -> None:
        for name in ("lr", "min_lr", "warmup_steps", "eps", "weight_decay", "grad_clip"):
            _at_least(f"optim.{name}", getattr(self, name), 0)
        for role in ("matrix", "embedding", "head", "scalar"):
            _at_least(f"optim.{role}_lr", getattr(self, f"{role}_lr"), 0)
            _at_least(f"optim.{role}_decay", getattr(self, f"{role}_decay"), 0)
            _refuse_betas(f"optim.{role}_betas", getattr(self, f"{role}_betas"))
        _refuse_betas("optim.betas", self.betas)
        for name in ("momentum", "momentum_start"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(
                    f"optim.{name} must be at least 0 and below 1, not {getattr(self, name)}"
                )
        _at_least("optim.momentum_warmup_steps", self.momentum_warmup_steps, 0)
        if not 0 < self.decay_share <= 1:
            raise UsageError(
                f"optim.decay_share must be above 0 and at most 1, not {self.decay_share}"
            )
        if self.min_lr is not None and self.min_lr > self.lr:
            raise UsageError(f"optim.min_lr={self.min_lr} is above optim.lr={self.lr}")

    def lr_of(self, role: Role) -> float:
        """The highest learning rate of a role."""
        lr: float | None = getattr(self, f"{_prefix(role)}_lr")
        if lr is None and role == "matrix" and self.name in ("muon", "normuon"):
            return _MUON_LR
        return self.lr if lr is None else lr

    def decay_of(self, role: Role) -> float:
        """The weight decay of a role."""
        prefix = _prefix(role)
        decay: float | None = getattr(self, f"{prefix}_decay")
        if decay is not None:
            return decay
        return 0.0 if prefix == "scalar" else self.weight_decay

    def betas_of(self, role: Role) -> tuple[float, float]:
        """The betas of a role."""
        betas: tuple[float, float] | None = getattr(self, f"{_prefix(role)}_betas")
        return self.betas if betas is None else betas


_MUON_LR = 0.02  # Jordan 2024: of updates whose singular values are about 1


def _prefix(role: Role) -> str:
    """How the fields of a role begin: gains and scalars share theirs."""
    return role if role in ("matrix", "embedding", "head") else "scalar"


def _refuse_betas(name: str, betas: tuple[float, float] | None) -> None:
    if betas is not None and not all(0 <= beta < 1 for beta in betas):
        raise UsageError(f"{name} must be at least 0 and below 1, not {betas}")


@dataclass(frozen=True)
class TrainConfig:
    """The loop."""

    steps: int | None = None
    """Optimizer steps in all; the learning rate reaches min_lr at the last. None means 2000,
    or what max_tokens or epochs come to: of these and max_seconds one is asked for."""
    seed: int = 0
    """Decides the initial weights and which tokens each step sees; a number of 64 bits."""
    max_tokens: int | None = None
    """The whole run's tokens, instead of steps: as many steps as they suffice for."""
    epochs: float | None = None
    """How often the run goes through its data, instead of steps; the last step is filled up."""
    max_seconds: float | None = None
    """The run's time, instead of steps, validations and all else included: the learning rate
    follows the share of it that is used."""
    device: str = "auto"
    """auto (cuda, else mps, else cpu), cpu, cuda, cuda:1, mps."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the matrix products; auto means bfloat16 where the device is fast in it (cuda,
    and processors with AVX512-BF16 or AMX if d_model is at least 64), else float32."""
    fp8: bool = False
    """Multiply in eight bits inside the blocks, on GPUs that can (Ada, Hopper and later); MFU stays
    relative to the device's peak in ``dtype``, so that runs with and without it compare."""
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
    eval_batches: int | None = None
    """Size of a validation, in batches of 32 windows spread over the file: the same ones whatever
    data.batch_size; none means 20, unless eval_tokens says another size."""
    eval_tokens: int | None = None
    """Size of a validation, in tokens from the file's beginning on, rounded up to whole windows:
    the same tokens for models of any context length that divides it."""
    eval_by_document: bool = False
    """Validate on windows that begin where a document begins, as data.sampling = documents trains;
    eval_tokens and eval_batches then say how many of them."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    checkpoint_every: int = 500
    """Steps between checkpoints; 0 means only at the end."""
    on_bad_numbers: Literal["stop", "skip"] = "stop"
    """What a loss or a gradient does that is infinite or no number: stop ends the run (on a GPU one
    step later, so that it need not be waited for), skip leaves the step out. Either way the batch
    is saved, and the layer named where it went wrong."""
    keep_checkpoints: int = 3
    """How many of the last checkpoints to keep, beside the best one."""
    monitor_every: int = 100
    """Steps between looks inside the model: sizes of activations, weights, gradients and updates,
    entropy of attention, dead units; 0 means never."""
    sample_every: int = 0
    """Steps between samples of text, also written after the last step; 0 means none at all. They
    need data.tokenizer."""
    sample_prompts: tuple[str, ...] = ("",)
    """What the samples continue, always with the same random numbers; an empty text is the
    beginning of a document."""
    sample_tokens: int = 64
    """Most tokens of a sample."""
    track: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = ()
    """Where else metrics go: tensorboard, trackio, wandb (each an extra to install)."""
    init_from: Path | None = None
    """Run directory whose best weights training starts from; none means new ones are drawn."""
    peer_timeout: float = 1800.0
    """Seconds after which a process of the job that does not answer is given up, and with it the
    job."""

    def __post_init__(self) -> None:
        for name in ("steps", "seed"):
            _at_least(f"train.{name}", getattr(self, name), 0)
        for name in ("eval_every", "checkpoint_every", "monitor_every", "sample_every"):
            _at_least(f"train.{name}", getattr(self, name), 0)
        _at_least("train.max_tokens", self.max_tokens, 1)
        for name in ("epochs", "max_seconds", "peer_timeout"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"train.{name}={value} is impossible: it must be above 0")
        for name in ("grad_accumulation", "log_every", "keep_checkpoints", "sample_tokens"):
            _at_least(f"train.{name}", getattr(self, name), 1)
        if self.sample_every and not self.sample_prompts:
            raise UsageError(
                f"train.sample_every={self.sample_every} needs train.sample_prompts: name a text"
            )
        for name in ("eval_batches", "eval_tokens"):
            _at_least(f"train.{name}", getattr(self, name), 1)
        if self.eval_batches is not None and self.eval_tokens is not None:
            raise UsageError(
                f"train.eval_batches={self.eval_batches} and train.eval_tokens={self.eval_tokens} "
                "both say how large a validation is: give one of them, and None for the other"
            )
        if self.seed > _LARGEST_SEED:
            raise UsageError(
                f"train.seed={self.seed} is impossible: it must be at most {_LARGEST_SEED}, a "
                "number of 64 bits"
            )
        if self.device.partition(":")[0] not in ("auto", "cpu", "cuda", "mps"):
            raise UsageError(
                f"train.device={self.device!r} must be one of auto, cpu, cuda, cuda:N, mps"
            )

    @property
    def has_budget(self) -> bool:
        """Whether any of the four ways to say how long the run is was used."""
        return any(getattr(self, name) is not None for name in _BUDGETS)


EVAL_BATCHES = 20
"""Where neither ``eval_batches`` nor ``eval_tokens`` says how large a validation is."""

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

    def resolved(self, vocab_size: int, train_tokens: int | None = None) -> Config:
        """This configuration with every value that was left open filled in, and paths absolute.

        Open stays what is as another field says in any case (``optim.head_lr``), and budgets that
        were not asked for. ``train_tokens`` are those of the training data, which ``train.epochs``
        asks for. Raises ``UsageError`` if what was asked for does not fit together.
        """
        optim, steps = self.optim, self._steps(train_tokens)
        if steps is not None and optim.warmup_steps is not None and optim.warmup_steps > steps:
            raise UsageError(
                f"optim.warmup_steps={optim.warmup_steps} is more than train.steps={steps}: the "
                "run would end before the learning rate is reached"
            )
        warmup = optim.warmup_steps
        if warmup is None and steps is not None:
            warmup = steps // 20
        train = dataclasses.replace(self.relative_to(Path.cwd()).train, steps=steps)
        if train.eval_batches is None and train.eval_tokens is None:
            train = dataclasses.replace(train, eval_batches=EVAL_BATCHES)
        has_muon = optim.name in ("muon", "normuon")
        return dataclasses.replace(
            self.relative_to(Path.cwd()),
            model=self.model.resolved(vocab_size),
            optim=dataclasses.replace(
                optim,
                min_lr=optim.lr / 10 if optim.min_lr is None else optim.min_lr,
                warmup_steps=warmup,
                matrix_lr=optim.lr_of("matrix") if has_muon else optim.matrix_lr,
            ),
            train=train,
        )

    def _steps(self, train_tokens: int | None) -> int | None:
        """The run's steps, by its one budget; None if that is time."""
        train, per_step = self.train, self.data.batch_size * self.model.context_length
        steps = None
        if train.max_tokens is not None:
            steps = train.max_tokens // per_step
            if steps < 1:
                raise UsageError(
                    f"train.max_tokens={train.max_tokens} is less than the {per_step} of one step "
                    "(data.batch_size times model.context_length)"
                )
        elif train.epochs is not None:
            if train_tokens is None:
                raise UsageError("train.epochs needs training data of a known length")
            windows = max(1, (train_tokens - 1) // self.model.context_length)
            steps = max(1, math.ceil(round(train.epochs * windows / self.data.batch_size, 6)))
        asked = [name for name in _BUDGETS if getattr(train, name) is not None]
        is_repeated = steps is not None and train.steps == steps  # in the file of a run
        if len(asked) - is_repeated > 1:
            raise UsageError(
                f"{' and '.join(f'train.{name}' for name in asked)} are different budgets: ask for "
                f"one (train.{asked[0]}=None takes that one back)"
            )
        if not asked:
            return _STEPS
        return train.steps if steps is None else steps


_BUDGETS = ("steps", "max_tokens", "epochs", "max_seconds")
_STEPS = 2000

SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "model": ModelConfig,
    "optim": OptimConfig,
    "train": TrainConfig,
}
