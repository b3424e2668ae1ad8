"""``cs336lm export``: a run's model in one of the formats of :data:`FORMATS`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cs336lm.errors import UsageError
from cs336lm.files import new_directory, refuse_if_there

if TYPE_CHECKING:
    from cs336lm.model.transformer import TransformerLM
    from cs336lm.text.tokenizer import Tokenizer
    from cs336lm.training.run_directory import Which

Write = Callable[["TransformerLM", "Tokenizer | None", Path, str], list[str]]
"""(model, tokenizer, place, dtype): writes it, returns what the user should know, a line each."""


class Format(NamedTuple):
    """A format that models are written in."""

    write: Write
    dtypes: tuple[str, ...]
    """What weights can be stored in."""


def export_run(
    run_dir: Path, out: Path, format: str, dtype: str = "float32", checkpoint: Which = "best"
) -> list[str]:
    """Writes the model of a run, and its tokenizer, to ``out`` in ``format`` (of ``FORMATS``).

    ``dtype`` is what weights are stored in. Returns what the user should know, a line each.

    Raises:
        UsageError: the format cannot hold the model or ``dtype`` (what it lacks is named), or
            something stands under ``out`` already.
        ValueError: there is no such run, or no such checkpoint in it.
        OSError: a file cannot be read or written.
    """
    from cs336lm.training.run_directory import load_run

    write, dtypes = FORMATS[format]
    if dtype not in dtypes:
        raise UsageError(f"--format {format} stores {', '.join(dtypes)}, not {dtype}")
    refuse_if_there(out)
    _, model, tokenizer = load_run(run_dir, which=checkpoint)
    return write(model, tokenizer, out, dtype)


def _hugging_face(
    model: TransformerLM, tokenizer: Tokenizer | None, out: Path, dtype: str
) -> list[str]:
    import torch

    from cs336lm.exchange.hugging_face import write_hugging_face

    write_hugging_face(model, tokenizer, out, getattr(torch, dtype))
    return [] if tokenizer is not None else [_NO_TOKENIZER]


def _weights_alone(
    model: TransformerLM, tokenizer: Tokenizer | None, out: Path, dtype: str
) -> list[str]:
    """The assignment's names and shapes; the model's configuration is in the file's header."""
    import torch

    from cs336lm.exchange.weights import converted, write_weights

    weights = converted(model.state_dict(), getattr(torch, dtype))
    config = json.dumps(dataclasses.asdict(model.config))
    with _file(out, ".safetensors") as path:
        write_weights(weights, path, {"model_config": config})
    return []


def _gguf(model: TransformerLM, tokenizer: Tokenizer | None, out: Path, dtype: str) -> list[str]:
    from cs336lm.exchange.gguf import write_gguf

    with _file(out, ".gguf") as path:
        return write_gguf(model, tokenizer, path, dtype)


@contextmanager
def _file(out: Path, suffix: str) -> Iterator[Path]:
    """``out`` if it is named as a file of this kind, else the one file of a new folder ``out``."""
    if out.suffix == suffix:
        yield out
        return
    with new_directory(out) as folder:
        yield folder / f"model{suffix}"


_NO_TOKENIZER = "the run has no tokenizer/, so none was written: the model takes ids alone"

FORMATS = {
    "hf": Format(_hugging_face, ("float32", "bfloat16", "float16")),
    "safetensors": Format(_weights_alone, ("float32", "bfloat16", "float16")),
    "gguf": Format(_gguf, ("float32", "bfloat16", "float16", "q8_0")),
}
