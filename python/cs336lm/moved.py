"""Module paths of earlier versions: ``from cs336lm.layers import Linear`` goes on working.

A module that is gone is looked up in the table below when somebody imports it. What then stands in
its place holds nothing, and finds each name in the modules where it lives now.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# The module of before, and the modules in which its names are now. Both are below cs336lm.
MOVED: dict[str, tuple[str, ...]] = {
    "accounting": ("model.accounting",),
    "batch_size": ("training.batch_size",),
    "checkpoint": (
        "training.checkpoints.course",
        "training.checkpoints.archive",
        "training.checkpoints.state",
        "training.checkpoints.snapshot",
        "training.checkpoints.writer",
        "files",
    ),
    "chunked_loss": ("model.kernels.cross_entropy",),
    "config": ("training.config", "training.config.tree", "training.config.toml"),
    "decoding": ("generation.decoder",),
    "devices": ("training.devices", "training.device_events"),
    "distributed": ("training.distributed", "training.parallel"),
    "fp8": ("model.kernels.fp8",),
    "functional": ("model.functional",),
    "fused": ("model.kernels.rms_norm", "model.kernels.gated_silu"),
    "inputs": ("text.inputs",),
    "kv_cache": ("model.kv_cache",),
    "layers": (
        "model.linear",
        "model.embedding",
        "model.norm",
        "model.feed_forward",
        "model.positions",
        "model.attention",
        "model.initial",
    ),
    "model_config": ("model.config",),
    "plotting": ("experiments.plots", "experiments.figures"),
    "profiling": ("training.profiling",),
    "reporter": ("training.reporter",),
    "run_directory": ("training.run_directory",),
    "sampling": ("generation.sampling",),
    "schedule": ("optim.schedules",),
    "sharded_checkpoint": ("training.checkpoints.sharded",),
    "stop_signals": ("training.stop_signals",),
    "stories": ("text.stories",),
    "stories.analysis": ("text.stories.analysis",),
    "stories.grammar": ("text.stories.grammar",),
    "stories.plots": ("text.stories.plots",),
    "stories.reading": ("text.stories.reading",),
    "stories.words": ("text.stories.words",),
    "token_files": ("data.token_files",),
    "tokenizer": ("text.tokenizer", "text.training", "text.options"),
    "tracking": (
        "training.trackers.tracker",
        "training.trackers.table",
        "training.trackers.jsonl",
        "training.trackers.console",
        "training.trackers.tensorboard",
        "training.trackers.wandb",
    ),
    "trainer": ("training.trainer", "training.progress", "optim.build"),
    "training_data": ("training.data",),
}

# Names that have changed on the way.
RENAMED = {
    "decoding.Decoder": "FastDecoder",
    "decoding.SEQUENCES_BY_SUMS": "MOST_SEQUENCES_FOR_REDUCTIONS",
    "devices.LateValues": "PendingScalars",
    "devices.Mark": "DeviceEvent",
}


class _MovedModules:
    """Finds and fills the modules of :data:`MOVED`; it is asked after all other finders."""

    @staticmethod
    def find_spec(
        fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package != "cs336lm" or name not in MOVED:
            return None
        loader: Any = _MovedModules()  # a loader by what it does: importlib.abc is slow to import
        return ModuleSpec(fullname, loader, is_package=name == "stories")

    def create_module(self, spec: ModuleSpec) -> None:
        """An ordinary empty module will do."""

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__.partition(".")[2]
        homes = MOVED[old]
        module.__doc__ = f"Moved to {', '.join(f'cs336lm.{home}' for home in homes)}."

        def find(name: str) -> Any:
            if not name.startswith("__"):
                new = RENAMED.get(f"{old}.{name}", name)
                for home in homes:
                    value = getattr(import_module(f"cs336lm.{home}"), new, _MISSING)
                    if value is not _MISSING:
                        return value
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__getattr__ = find  # type: ignore[method-assign]


_MISSING = object()


def install() -> None:
    """Lets Python find the modules that have moved, once."""
    if _MovedModules not in sys.meta_path:
        sys.meta_path.append(_MovedModules)
