"""The training loop, top to bottom.

    a step:        batch(seed, step) -> loss -> gradients (in rounds) -> clip -> optimizer, lr(step)
    now and then:  a line of metrics, a validation, a checkpoint

A step is a pure function of the weights, the optimizer's state, the step's number and the
configuration, and a checkpoint holds the first three: a run that was killed and resumed computes
what it would have computed, bit for bit on the CPU. Steps count from 1; the record of step s holds
the loss of the batch that step s learned from, and the validation loss after it.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import record_function

from cs336lm.data import BatchLoader, gather_windows, validation_starts
from cs336lm.errors import UsageError
from cs336lm.model.accounting import peak_flops, training_flops_per_token
from cs336lm.model.kernels.fp8 import require_fp8
from cs336lm.model.transformer import TransformerLM
from cs336lm.optim.optimizers import SGD, AdaGrad, AdamW, clip_gradients
from cs336lm.optim.schedules import SCHEDULES
from cs336lm.training.checkpoints.checkpoint import BackgroundWriter, pack, snapshot
from cs336lm.training.config import Config, OptimConfig
from cs336lm.training.data import open_data
from cs336lm.training.devices import LateValues, Mark, choose_device, choose_dtype
from cs336lm.training.distributed import ParallelModel, StopVote, World, gather_weights
from cs336lm.training.profiling import StepProfiler
from cs336lm.training.report import Reporter, refuse_divergence
from cs336lm.training.run_directory import RunDirectory
from cs336lm.training.stop_signals import StopSignals
from cs336lm.training.trackers.tracking import (
    TRACKERS,
    ConsoleTracker,
    JsonlTracker,
    Record,
    Tracker,
    require_installed,
)


@dataclass
class Progress:
    """How far a run is; part of its checkpoints."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_val_loss: float = math.inf


@dataclass(frozen=True)
class TrainResult:
    """What came of ``Trainer.train``: how far it is and the latest figures."""

    progress: Progress
    train_loss: float | None
    val_loss: float | None
    stopped_by: signal.Signals | None
    """The signal that ended the run early; None if it is done."""


class Trainer:
    """One training run: ``Trainer(config, run_dir).train()``.

    Everything is opened and checked here, before anything is written. ``resume`` goes on from the
    run's last checkpoint (from the start, if it has none yet); without it, a directory that holds a
    run is refused. ``console``: show a live line on stderr. ``profile``: record a few steps, see
    ``profiling``.
    """

    def __init__(
        self,
        config: Config,
        run_dir: str | Path,
        *,
        resume: bool = False,
        console: bool = False,
        profile: bool = False,
    ) -> None:
        self.run = RunDirectory(run_dir)
        if self.run.holds_run() and not resume:
            raise UsageError(
                f"{run_dir} holds a run already: go on with it by --resume, or name another "
                "--run-dir"
            )
        require_installed(config.train.track)
        self.world = World.from_environment()
        # One process a machine reads the files through; if it objects, all of them end.
        self.data = open_data(config, check_ids=self.world.local_rank == 0)
        self.config = config.resolved(self.data.vocab_size)
        self._check_divisible()
        self.device = choose_device(config.train.device, self.world.local_rank)
        self.dtype = choose_dtype(config.train.dtype, self.device)
        if config.train.fp8:
            require_fp8(self.device)
        self.world.join(self.device)
        torch.manual_seed(config.train.seed)
        self.model = TransformerLM(self.config.model, device=self.device)
        self.model.use_fp8(config.train.fp8)
        self._parallel = ParallelModel(self.model, self.world, config.train.parallel, self.dtype)
        self._parameters = list(self.model.parameters())
        self.optimizer = build_optimizer(self.model, self.config.optim)
        # float16 gradients underflow unless the loss is scaled up (Micikevicius et al. 2018).
        half = self.dtype == torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half)
        self.progress = Progress()
        if resume and self.run.step_checkpoints():
            self._restore()
        self._console = console
        self._profile = profile and self.world.is_main
        if config.train.activation_checkpointing:
            self._parallel.checkpoint_activations()
        if config.train.compile:
            self._parallel.compile()

    def _check_divisible(self) -> None:
        batch, rounds = self.config.data.batch_size, self.config.train.grad_accumulation
        if batch % (self.world.size * rounds):
            raise UsageError(
                f"data.batch_size={batch} does not divide by {self.world.size} processes times "
                f"train.grad_accumulation={rounds}"
            )

    def _restore(self) -> None:
        groups = [{**group} for group in self.optimizer.param_groups]
        path = self.run.pick_checkpoint("last")
        saved = self.run.restore(path, self.model, self.optimizer)
        for group, asked in zip(self.optimizer.param_groups, groups, strict=True):
            group.update({name: asked[name] for name in asked if name != "params"})
        self.scaler.load_state_dict(saved["scaler"])
        self.progress = Progress(**saved["progress"])

    def train(self) -> TrainResult:
        """Trains to the last step, or until Ctrl-C or SIGTERM, and saves in either case.

        Raises ``ValueError`` if the loss is no finite number any more, and ``OSError`` if a file
        cannot be written; the checkpoints written before are whole.
        """
        self.world.barrier()  # everybody has looked at the directory and found it good
        if self.world.is_main:
            self.run.prepare(self.config, self.data.tokenizer)
        self._writer = BackgroundWriter()
        self._reporter = self._make_reporter()
        try:
            with StopSignals(patient=self.world.size > 1) as stop:
                self._run_steps(stop)
                self._reporter.flush()
                self._writer.wait()
            self.world.barrier()
        finally:
            self._writer.close()
            self._reporter.close()
            self.world.leave()
        latest = self._reporter.latest
        return TrainResult(
            self.progress, latest.get("train_loss"), latest.get("val_loss"), stop.received
        )

    def _make_reporter(self) -> Reporter:
        peak = peak_flops(self.device, self.dtype)
        return Reporter(
            self._make_trackers(),
            self.device,
            tokens_a_step=self._tokens_a_step,
            flops_a_token=training_flops_per_token(self.config.model),
            peak_flops=peak and peak * self.world.size,
            scaled=self.scaler.is_enabled(),
        )

    def _make_trackers(self) -> list[Tracker]:
        if not self.world.is_main:
            return []
        train, step = self.config.train, self.progress.step
        trackers: list[Tracker] = [JsonlTracker(self.run.metrics_file, after=step or None)]
        trackers += [TRACKERS[name](self.run.path, asdict(self.config)) for name in train.track]
        if self._console:
            trackers.append(ConsoleTracker(step, train.steps))
        return trackers

    def _run_steps(self, stop: StopSignals) -> None:
        train, progress = self.config.train, self.progress
        started = time.perf_counter() - progress.seconds
        if progress.step == 0 and self.data.val is not None:
            self._reporter.write(self._record(val_loss=self.validate()))
        self._reporter.start_clock(progress.step)
        vote = StopVote(self.world, self.device)
        profiler = StepProfiler(self.run.path / "profile", self.device) if self._profile else None
        for step, x, y in self._batches(range(progress.step + 1, train.steps + 1)):
            lr = self._set_learning_rate(step)
            loss, norm = self.update(x, y, rounds=train.grad_accumulation)
            progress.step, progress.tokens = step, progress.tokens + self._tokens_a_step
            progress.seconds = time.perf_counter() - started
            stopping = vote.poll(stop.received is not None, due=_is_due(step, train.log_every))
            with record_function("report"):
                self._report_and_save(lr, loss, norm, stopping=stopping)
            if profiler is not None:
                profiler.step()
            if stopping:
                break
        if profiler is not None:
            profiler.close()

    def _batches(self, steps: range) -> Iterator[tuple[int, Tensor, Tensor]]:
        with closing(self._loader().iterate(steps)) as batches:
            for step in steps:
                with record_function("wait for data"):
                    x, y = next(batches)
                yield step, x, y

    def _report_and_save(self, lr: float, loss: Tensor, norm: Tensor, *, stopping: bool) -> None:
        """After a step: what is due of metrics, validation and checkpoint."""
        train, step = self.config.train, self.progress.step
        last, logging = step == train.steps, _is_due(step, train.log_every)
        validating = self.data.val is not None and (last or _is_due(step, train.eval_every))
        saving = last or stopping or _is_due(step, train.checkpoint_every)
        if not (logging or validating or saving):
            return
        self._writer.raise_if_failed()
        figures = LateValues([self.world.mean(loss), norm])
        if logging or validating or last:
            self._reporter.expect(self._record(lr=lr), figures)
        improved = validating and self._validate_and_report()
        if saving or improved:
            self._reporter.flush()
            refuse_divergence(step, figures, scaled=self.scaler.is_enabled())
            self._save(as_last=saving, as_best=improved)

    def _loader(self) -> BatchLoader:
        return BatchLoader(
            self.data.train,
            self.config.data.batch_size,
            self.config.model.context_length,
            seed=self.config.train.seed,
            device=self.device,
            rank=self.world.rank,
            world_size=self.world.size,
        )

    def _set_learning_rate(self, step: int) -> float:
        """The schedule ends with the last step; a resumed run follows its own ``train.steps``."""
        optim = self.config.optim
        assert optim.min_lr is not None  # resolved
        assert optim.warmup_steps is not None
        lr = SCHEDULES[optim.schedule](
            step, optim.lr, optim.min_lr, optim.warmup_steps, self.config.train.steps
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def update(self, x: Tensor, y: Tensor, *, rounds: int) -> tuple[Tensor, Tensor]:
        """One optimizer step on ``x`` -> ``y``, this process's share: (batch, context) each.

        Returns the loss of the share and the norm of the whole gradient. Nothing here waits for the
        device (but float16's scaling, by its nature).
        """
        total = torch.zeros((), device=self.device)
        parts = zip(x.chunk(rounds), y.chunk(rounds), strict=True)
        for number, (inputs, targets) in enumerate(parts, start=1):
            with self._parallel.round(is_last=number == rounds):
                with record_function("forward"), self._autocast():
                    loss = self._parallel(inputs, targets) / rounds
                with record_function("backward"):
                    self.scaler.scale(loss).backward()
            total += loss.detach()
        with record_function("clip"):
            self.scaler.unscale_(self.optimizer)
            norm = clip_gradients(self._parameters, self.config.optim.grad_clip or math.inf)
        with record_function("optimizer"):
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
        return total, norm

    def _autocast(self) -> torch.autocast:
        enabled = self.dtype != torch.float32
        return torch.autocast(self.device.type, self.dtype, enabled=enabled)

    @torch.no_grad()
    def validate(self) -> float:
        """The mean loss over the fixed validation windows, in nats a token."""
        assert self.data.val is not None
        context, world = self.config.model.context_length, self.world
        batch_size = self.config.data.batch_size
        starts = validation_starts(
            len(self.data.val), batch_size, self.config.train.eval_batches, context
        )
        # The shapes of training, so that nothing is compiled anew: (rounds, processes, sequences).
        shape = (-1, world.size, batch_size // world.size // self.config.train.grad_accumulation)
        rounds = starts.reshape(shape)[:, world.rank]
        self.model.eval()
        total = torch.zeros((), device=self.device)
        for row in rounds:
            x, y = gather_windows(self.data.val, row, context, self.device)
            with self._autocast():
                total += self._parallel(x, y)
        self.model.train()
        return world.mean(total).item() / len(rounds)

    def _validate_and_report(self) -> bool:
        """Writes the pending record with the validation loss; whether that is the best so far."""
        loss = self.validate()
        self._reporter.flush(val_loss=loss)
        self._reporter.start_clock(self.progress.step)
        improved = loss < self.progress.best_val_loss
        self.progress.best_val_loss = min(loss, self.progress.best_val_loss)
        return improved

    def _save(self, *, as_last: bool, as_best: bool) -> None:
        """Writes a checkpoint; in the background, from a copy, unless it is sharded."""
        step = self.progress.step
        numbers = {
            "iteration": step,
            "scaler": self.scaler.state_dict(),
            "progress": asdict(self.progress),
        }
        if self._parallel.is_sharded:
            self._writer.wait()
            if as_last:
                from cs336lm.training.checkpoints.sharded import save_sharded

                path = self.run.sharded_checkpoint(step)
                save_sharded(path, self.model, self.optimizer, numbers, self.world)
            state = {"iteration": step, "model": gather_weights(self.model)} if as_best else {}
            as_plain = False
        else:
            state = {**pack(self.model, self.optimizer, step), **numbers}
            as_plain = as_last
        if not self.world.is_main:
            return
        state = snapshot(state)
        copied = Mark(self.device)

        def write() -> None:
            copied.wait()
            if as_plain:
                self.run.write_checkpoint(state)
            if as_best:
                self.run.write_best(state)
            if as_last:
                self.run.drop_old_checkpoints(self.config.train.keep_checkpoints)

        self._writer.submit(write)

    def _record(self, **figures: float) -> Record:
        progress = self.progress
        seconds = round(progress.seconds, 3)
        return {"step": progress.step, "tokens": progress.tokens, "seconds": seconds, **figures}

    @property
    def _tokens_a_step(self) -> int:
        return self.config.data.batch_size * self.config.model.context_length


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def build_optimizer(model: torch.nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """The optimizer that ``[optim]`` names. Weight decay is for matrices, not for gains."""
    parameters = list(model.parameters())
    if config.name == "sgd":
        return SGD(parameters, lr=config.lr)
    if config.name == "adagrad":
        return AdaGrad(parameters, lr=config.lr, eps=config.eps)
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps)
