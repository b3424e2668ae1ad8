"""That all processes of a job are about to do the same: found out before the first step.

Gradients are averaged whatever they are of. A process that reads another configuration, another
copy of the tokens or runs another version of the code would spoil a run without a word; one that
sees another run directory would go on from another step.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from cs336lm import __version__
from cs336lm.errors import UsageError
from cs336lm.training.config import Config, config_tables
from cs336lm.training.distributed import World

if TYPE_CHECKING:
    from cs336lm.data import TokenDataset, TokenMixture
    from cs336lm.training.data import TrainingData

_OWN = ("data.train", "data.val", "data.tokenizer", "train.device", "train.track")
"""What may differ: where a machine keeps its files (what is in them may not), and its device."""
_PLACES, _TOKENS = 64, 256  # of a token file: how many stretches are looked at, and how long

Facts = dict[str, str]
"""What is compared, by names that a user knows."""


def facts_of(config: Config, data: TrainingData) -> Facts:
    """What decides which weights come of a run."""
    facts = {
        f"{section}.{name}": repr(value)
        for section, table in config_tables(config).items()
        for name, value in table.items()
        if f"{section}.{name}" not in _OWN
    }
    facts |= {"the version of PyTorch": torch.__version__, "the version of cs336lm": _version()}
    for name, tokens in (("data.train", data.train), ("data.val", data.val)):
        if tokens is not None:
            facts[f"the tokens of {name}"] = _sample(tokens)
    return facts


def require_agreement(world: World, facts: Facts) -> None:
    """Raises ``UsageError`` in all processes if not all have the same ``facts``."""
    everybody = world.gather(facts)
    for rank, theirs in enumerate(everybody):
        differ = sorted(name for name in facts if theirs.get(name) != everybody[0].get(name))
        if differ:
            shown = ", ".join(differ[:3]) + (" and more" if len(differ) > 3 else "")
            raise UsageError(
                f"process {rank} of the job differs from process 0 in {shown}: start all processes "
                "with the same command, on the same files"
            )


def _version() -> str:
    """The version, and a digest of the source."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent.parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return f"{__version__} {digest.hexdigest()[:12]}"


def _sample(tokens: TokenDataset | TokenMixture) -> str:
    """The length, and a digest of stretches from all over: a file may have a terabyte."""
    length = min(_TOKENS, len(tokens))
    starts = np.linspace(0, len(tokens) - length, _PLACES).astype(np.int64)
    rows = tokens.windows(starts, length).astype(np.uint32)
    return f"{len(tokens)} {hashlib.sha256(rows.tobytes()).hexdigest()[:12]}"
