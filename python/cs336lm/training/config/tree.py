"""Everything a training run can be told, as one tree of dataclasses.

    TOML file -> Config <- command-line flags        Config -> run directory's config.toml

A TOML table is a section, a key is a field: ``[model] d_model = 512`` is ``--model.d-model 512``.
What cannot be is refused with a ``UsageError`` that names the field before anything starts.
A relative path in a file is relative to that file's folder, in a flag to the working directory.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cs336lm.errors import UsageError
from cs336lm.files import atomic_write
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


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer and its learning rate."""

    name: Literal["adamw", "sgd", "adagrad"] = "adamw"
    """Which optimizer; betas and weight decay are AdamW's alone."""
    schedule: Literal["cosine", "linear", "wsd", "constant"] = "cosine"
    """How the learning rate falls from lr to min_lr after the warm-up."""
    lr: float = 1e-3
    """Learning rate at its highest."""
    min_lr: float | None = None
    """Learning rate at the end; none means a tenth of lr."""
    warmup_steps: int | None = None
    """Steps in which the learning rate rises from 0 to lr; none means 5 % of train.steps."""
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
    """Decides the initial weights and which tokens each step sees."""
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
    """Batches of a validation; their windows are the same every time."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    checkpoint_every: int = 500
    """Steps between checkpoints; 0 means only at the end."""
    keep_checkpoints: int = 3
    """How many of the last checkpoints to keep, beside the best one."""
    track: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where else metrics go: tensorboard, wandb (each an extra to install)."""

    def __post_init__(self) -> None:
        for name in ("steps", "seed", "eval_every", "checkpoint_every"):
            _at_least(f"train.{name}", getattr(self, name), 0)
        for name in ("grad_accumulation", "eval_batches", "log_every", "keep_checkpoints"):
            _at_least(f"train.{name}", getattr(self, name), 1)
        if self.device.partition(":")[0] not in ("auto", "cpu", "cuda", "mps"):
            raise UsageError(
                f"train.device={self.device!r} is none of auto, cpu, cuda, cuda:N, mps"
            )


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

    def resolved(self, vocab_size: int) -> Config:
        """This configuration with every value that was left open filled in, and paths absolute."""
        optim, steps = self.optim, self.train.steps
        return dataclasses.replace(
            self,
            data=_map_paths(self.data, Path.cwd()),
            model=dataclasses.replace(self.model, vocab_size=vocab_size, d_ff=self.model.ffn_width),
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


def load_config(path: str | Path, base: Config | None = None) -> Config:
    """Reads a TOML file; what it does not say is as in ``base`` (the defaults).

    Raises ``OSError`` if the file cannot be read, ``ValueError`` if it is no TOML, and
    ``UsageError`` naming the key if that is unknown or its value impossible.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ValueError(f"{path} is no valid TOML: {error}") from None
    try:
        config = config_from_tables(tables, base or Config())
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return dataclasses.replace(config, data=_map_paths(config.data, path.absolute().parent))


def config_from_tables(tables: dict[str, Any], base: Config) -> Config:
    """``base`` with the fields that ``{section: {field: value}}`` names replaced."""
    sections = {}
    for name, table in tables.items():
        if name not in SECTIONS:
            raise UsageError(f"there is no section [{name}]{_nearest(name, SECTIONS)}")
        if not isinstance(table, dict):
            raise UsageError(f"{name} must be a section: write [{name}] and its fields below")
        hints = typing.get_type_hints(SECTIONS[name])
        for key in table:
            if key not in hints:
                raise UsageError(f"there is no field {name}.{key}{_nearest(key, hints)}")
        values = {key: _convert(value, hints[key], f"{name}.{key}") for key, value in table.items()}
        sections[name] = dataclasses.replace(getattr(base, name), **values)
    return dataclasses.replace(base, **sections)


def _nearest(name: str, known: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"


def _convert(value: Any, hint: Any, name: str) -> Any:
    """A TOML value as what the field wants, or a ``UsageError`` that says what it wants."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):  # X | None: TOML has no null
        return _convert(value, arguments[0], name)
    if origin is Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list):
        each = [arguments[0]] * len(value) if arguments[-1] is ... else arguments
        if len(each) == len(value):
            return tuple(_convert(v, h, name) for v, h in zip(value, each, strict=True))
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and type(value) in (int, float):
        return float(value)
    if hint in (bool, int, str) and type(value) is hint:
        return value
    raise UsageError(f"{name}={value!r} is impossible: it must be {_describe(hint)}")


def _describe(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple:
        each = "any number" if arguments[-1] is ... else str(len(arguments))
        return f"a list of {each}, each {_describe(arguments[0])}"
    return {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a text",
        Path: "a path",
    }[hint]


def _map_paths(data: DataConfig, folder: Path) -> DataConfig:
    """``data`` with its relative paths taken to be relative to ``folder``."""
    return dataclasses.replace(
        data,
        train=data.train and folder / data.train,
        val=data.val and folder / data.val,
        tokenizer=data.tokenizer and folder / data.tokenizer,
    )


def dump_config(config: Config) -> str:
    """The configuration as TOML; a field that is None is left out."""
    lines = []
    for section in SECTIONS:
        lines.append(f"[{section}]")
        values = vars(getattr(config, section))
        lines += [f"{key} = {_toml(v)}" for key, v in values.items() if v is not None]
        lines.append("")
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, int | float):
        return repr(value)
    # JSON's strings are TOML's, but for the one control character that JSON leaves as it is.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def save_config(config: Config, path: str | Path) -> None:
    """Writes ``dump_config`` atomically."""
    with atomic_write(path) as file:
        file.write(dump_config(config).encode())
