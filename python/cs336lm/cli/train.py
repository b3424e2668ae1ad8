"""``cs336lm train``: tokens + configuration -> run directory."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import secrets
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cs336lm.cli.config_flags import Switch, add_config_flags, config_from_flags, hyphenated
from cs336lm.cli.options import spin_briefly
from cs336lm.cli.parser import Parser
from cs336lm.errors import UsageError
from cs336lm.model.accounting import total_parameters, with_swiglu
from cs336lm.model.presets import preset_names, preset_tables
from cs336lm.training.config import SECTIONS, Config, DataConfig, config_from_tables, load_config
from cs336lm.training.run_directory import RunDirectory

if TYPE_CHECKING:
    from cs336lm.training.trainer import Trainer, TrainResult

_DESCRIPTION = """\
Train a Transformer language model on a file of token ids.

Every field of the configuration is a flag. Flags override --config, and both override --preset, a
known model. The run directory gets the resolved configuration, metrics.jsonl, checkpoints and the
tokenizer: all that `evaluate`, `generate` and `plot` need. One process at a time trains in it.
Ctrl-C saves before it stops; --resume goes on from the last checkpoint and needs --run-dir alone.
With it any field but those of the model may be changed, train.steps for instance: the learning rate
then follows the schedule of the new length, as if the run had been that long from its start. A run
of train.max_seconds goes on with those that are left. What was left open is derived anew, min_lr
from lr and warmup_steps from train.steps; name a field to hold it. Other validation data start a
new search for the best weights.

A loss or a gradient that is infinite or no number ends the run before it reaches the weights
(--train.on-bad-numbers skip leaves the step out). The batch is saved in DIR/bad-batches/, and
--replay FILE runs it again and says in which layer it went wrong; it takes no other flag but
--train.device.

--init-from starts a new run from the weights of another, or of one that `cs336lm import` made: the
model is as it is there and so is the tokenizer, where nothing else is said; the optimizer is new.

A field that may be left open takes None."""

_EPILOG = """\
examples:
  cs336lm train --data.train train.npy --data.val val.npy --data.tokenizer tokenizer/
  cs336lm train --config run.toml --run-dir runs/a --model.d-model 512 --optim.lr 1e-3
  cs336lm train --preset gpt2-small --data.train train.npy --data.tokenizer tokenizer/
  cs336lm train --preset depth-8 --data.train train.npy --data.tokenizer tokenizer/
  cs336lm train --resume --run-dir runs/a
  cs336lm train --resume --run-dir runs/a --train.steps 20000
  cs336lm train --replay runs/a/bad-batches/step-00000123.pt
  cs336lm train --init-from runs/a --data.train other.npy --optim.lr 1e-4 --run-dir runs/tuned"""


@dataclass(frozen=True)
class Arguments(Config):
    """What the command line says: the configuration, and where the run goes."""

    run_dir: Path | None = None
    resume: bool = False
    new_optimizer: bool = False
    profile: bool = False
    find_batch_size: bool = False


def main(argv: list[str]) -> int:
    """Trains, or goes on training, and says how it went."""
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0:
        argv = [*argv, "--resume"]  # torchrun starts the job again after a failure
    if any(argument.partition("=")[0] == "--replay" for argument in argv):
        from cs336lm.cli.replay import main as replay

        return replay(argv)
    arguments = parse(argv)
    spin_briefly()
    from cs336lm.generation.samples import Samples
    from cs336lm.training.devices import keep_freed_memory
    from cs336lm.training.trainer import Trainer

    config = Config(**{section: getattr(arguments, section) for section in SECTIONS})
    trainer = Trainer(
        config,
        _run_dir(arguments),
        resume=arguments.resume,
        new_optimizer=arguments.new_optimizer,
        console=True,
        profile=arguments.profile,
        callbacks=[partial(Samples, console=True)],
    )
    if arguments.find_batch_size:
        return _find_batch_size(trainer)
    if trainer.device.type == "cpu":
        keep_freed_memory()
    if trainer.world.is_main:
        print(_opening(trainer), file=sys.stderr, flush=True)
    try:
        result = trainer.train()
    except RuntimeError as error:
        if trainer.world.size == 1 or not re.search("gloo|nccl|peer", str(error), re.IGNORECASE):
            raise
        reason = re.split(r"\.\s|\n", str(error).strip())[0]
        raise ValueError(
            f"process {trainer.world.rank} lost the others, see what they say: {reason}"
        ) from None
    return _closing(trainer, result) if trainer.world.is_main else 0


def _run_dir(arguments: Arguments) -> Path:
    if arguments.run_dir is not None:
        return arguments.run_dir
    if "WORLD_SIZE" in os.environ:
        raise UsageError("name --run-dir: under torchrun all processes must agree on it")
    # Runs that start in the same second, on machines that share a disk perhaps, must not meet.
    return Path("runs") / f"{time.strftime('%Y-%m-%d-%H%M%S')}-{secrets.token_hex(3)}"


def _find_batch_size(trainer: Trainer) -> int:
    from cs336lm.training.batch_size import find_batch_size

    if trainer.world.size > 1:
        raise UsageError("--find-batch-size looks at one device: run it without torchrun")
    found = find_batch_size(trainer)
    asked, context = trainer.config.data.batch_size, trainer.config.model.context_length
    print(
        f"{'about ' if found.is_estimate else ''}{found.sequences:,} sequences of {context:,} "
        f"tokens fit on {trainer.device} at once; --data.batch-size {asked} needs "
        f"--train.grad-accumulation {found.rounds_for(asked)}"
    )
    return 0


def _opening(trainer: Trainer) -> str:
    parameters = sum(p.numel() for p in trainer.model.parameters())
    data, model = trainer.config.data, trainer.config.model
    done = f"from step {trainer.progress.step:,} " if trainer.progress.step else ""
    compared = ""
    if model.ffn != "swiglu":
        with_gate = total_parameters(with_swiglu(model))
        compared = f" ({with_gate / 1e6:.2f} M with model.ffn=swiglu)"
    many = f"{trainer.world.size} x " if trainer.world.size > 1 else ""
    return (
        f"{trainer.run.path}: training {done}{parameters / 1e6:.2f} M parameters{compared} on "
        f"{many}{trainer.device.type} in {str(trainer.dtype).removeprefix('torch.')}, "
        f"{data.batch_size * model.context_length:,} tokens per step"
        + "".join(f"\n  {remark}" for remark in trainer.data.plan.remarks())
        + "".join(f"\n  {reason}; set aside" for reason in trainer.damaged.values())
    )


def _closing(trainer: Trainer, result: TrainResult) -> int:
    progress, budget, path = result.progress, trainer.budget, trainer.run.path
    if result.stopped_by is not None and not result.is_done:
        print(
            f"stopped by {result.stopped_by.name} at {budget.describe()}, and "
            f"saved; go on with: cs336lm train --resume --run-dir {path}",
            file=sys.stderr,
        )
        return 128 + result.stopped_by
    if result.train_loss is None:
        flag = f"--train.{budget.field.replace('_', '-')}"
        print(f"{path} is at step {progress.step:,} already; {flag} says how far to go")
        return 0
    losses = f"train loss {result.train_loss:.4f}"
    if result.val_loss is not None:
        losses += f", validation loss {result.val_loss:.4f} (best {progress.best_val_loss:.4f})"
    counts = {"steps left out": progress.skipped_steps, "loss spikes": progress.loss_spikes}
    losses += "".join(f", {count:,} {what}" for what, count in counts.items() if count)
    print(f"step {progress.step:,}: {losses}; {progress.seconds:.1f} s: {path}")
    return 0


class _Parser(Parser):
    """A parser that raises what is wrong, as the configuration does."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def _parser(defaults: Config | None) -> Parser:
    """The parser, with help texts if there are ``defaults`` for them to show."""
    parser = _Parser(
        prog="cs336lm train",
        usage="cs336lm train [--preset NAME] [--config FILE.toml] [--run-dir DIR] "
        "[--SECTION.FIELD VALUE ...]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        add_help=False,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("-h", "--help", action="store_true", help="show this text")
    add(
        "--config",
        type=Path,
        metavar="FILE.toml",
        help="TOML file with the sections [data], [model], [optim] and [train]",
    )
    add(
        "--preset",
        metavar="NAME",
        help=f"a known model, one of {', '.join(preset_names())}: shapes, but depth-N, from whose "
        "number of blocks batch, learning rates, decay and number of tokens follow as well; the "
        "vocabulary is the tokenizer's, if there is one",
    )
    add(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help="directory of the run (default: runs/, the time of day and six letters)",
    )
    add(
        "--init-from",
        dest="train.init_from",
        metavar="RUN_DIR",
        help="start from the weights of this run; the same as --train.init-from",
    )
    add("--replay", metavar="FILE", help="run a batch of DIR/bad-batches/ again, and train nothing")
    for name, text in (
        ("resume", "go on with the run in --run-dir, or start it if there is none yet"),
        ("new-optimizer", "with --resume: if --optim.name is another now, let it start anew"),
        ("profile", "record five steps: a trace for Perfetto in DIR/profile, and where time went"),
        ("find-batch-size", "say how many sequences the device holds at once; train nothing"),
    ):
        add(f"--{name}", f"--no-{name}", action=Switch, help=text)
    add_config_flags(parser, defaults)
    return parser


def parse(argv: list[str]) -> Arguments:
    """The command line over the file over the defaults (over the run's own, on ``--resume``)."""
    given = vars(_parser(None).parse_args(hyphenated(argv)))
    run_dir, resume = given.get("run_dir"), given.get("resume", False)
    run = _run_to_resume(run_dir) if resume else None
    base = _default_config(given) if run is None else run.load_asked()
    preset = preset_tables(given["preset"]) if "preset" in given else {}
    vocab_size = preset.get("model", {}).pop("vocab_size", None)
    max_tokens = preset.get("train", {}).pop("max_tokens", None)
    base = config_from_tables(preset, base)
    if "config" in given:
        base = load_config(given["config"], base)
    if "help" in given:
        _parser(base).print_help()
        sys.exit(0)
    config = config_from_flags(given, base)
    if vocab_size is not None and config.model.vocab_size is None and not config.data.tokenizer:
        config = config_from_tables({"model": {"vocab_size": vocab_size}}, config)
    if max_tokens is not None and not config.train.has_budget:
        config = config_from_tables({"train": {"max_tokens": max_tokens}}, config)
    if resume and run is None and config.data.train is None:
        raise UsageError(
            f"--resume: there is no run in {run_dir} yet, and data.train is missing to start one"
        )
    if run is not None and run.step_checkpoints():
        _refuse_another_model(run.load_config(), config)
    return Arguments(
        **{section: getattr(config, section) for section in SECTIONS},
        run_dir=run_dir,
        resume=resume,
        new_optimizer=given.get("new_optimizer", False),
        profile=given.get("profile", False),
        find_batch_size=given.get("find_batch_size", False),
    )


def _default_config(given: Mapping[str, Any]) -> Config:
    """What neither file nor flags say: of a run that starts from another's weights, its model."""
    start = given.get("train.init_from")
    if start is None and "config" in given:
        start = load_config(given["config"]).train.init_from
    if start is None or str(start) in ("None", "none"):
        return Config()
    run = RunDirectory(start)
    tokenizer = run.tokenizer if run.tokenizer.is_dir() else None
    return Config(model=run.load_config().model, data=DataConfig(tokenizer=tokenizer))


def _run_to_resume(run_dir: Path | None) -> RunDirectory | None:
    if run_dir is None:
        raise UsageError("--resume needs --run-dir: which run is to go on?")
    run = RunDirectory(run_dir)
    return run if run.holds_run() else None


def _refuse_another_model(stored: Config, asked: Config) -> None:
    before, now = dataclasses.asdict(stored.model), dataclasses.asdict(asked.model)
    for name, value in before.items():
        if now[name] not in (value, None):  # what is left open follows the weights
            raise UsageError(
                f"model.{name} cannot become {now[name]} on --resume: the run's weights were made "
                f"with {value}"
            )
