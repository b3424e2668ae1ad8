"""Everything a training run can be told."""

from cs336lm.training.config.tree import (
    SECTIONS,
    Config,
    DataConfig,
    OptimConfig,
    TrainConfig,
    config_from_tables,
    dump_config,
    load_config,
    save_config,
)

__all__ = [
    "SECTIONS",
    "Config",
    "DataConfig",
    "OptimConfig",
    "TrainConfig",
    "config_from_tables",
    "dump_config",
    "load_config",
    "save_config",
]
