"""Everything a training run can be told.

    TOML file -> Config <- command-line flags        Config -> run directory's config.toml

``[model] d_model = 512`` in a file is ``--model.d-model 512`` on the command line. **tree.py** has
the fields, **toml.py** reads and writes files, **values.py** converts what stands in them.
"""

from cs336lm.training.config.toml import (
    config_from_tables,
    config_tables,
    dump_config,
    load_config,
    save_config,
)
from cs336lm.training.config.tree import SECTIONS, Config, DataConfig, OptimConfig, TrainConfig

__all__ = [
    "SECTIONS",
    "Config",
    "DataConfig",
    "OptimConfig",
    "TrainConfig",
    "config_from_tables",
    "config_tables",
    "dump_config",
    "load_config",
    "save_config",
]
