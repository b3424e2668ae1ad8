"""A Llama in Hugging Face's format: as a run directory, which ``train --init-from`` starts from,
or as a model in memory.

Weights keep their dtype in the checkpoint, bit for bit; a run opened from it is in float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cs336lm.exchange.llama import halves_to_neighbours, hugging_face_names, is_rotated
from cs336lm.exchange.llama_config import read_llama_config
from cs336lm.exchange.weights import Weights
from cs336lm.files import new_directory, refuse_if_there
from cs336lm.generation.engine import check_vocabularies

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cs336lm.model.transformer import TransformerLM
    from cs336lm.text.tokenizer import Tokenizer

# Tables that older files hold; they follow from the configuration.
_TABLES = (".rotary_emb.inv_freq", ".rotary_emb.cos_cached", ".rotary_emb.sin_cached")
_SHOWN = 3


def import_llama(
    folder: Path, tokenizer: Tokenizer | None, out: Path, context_length: int | None = None
) -> TransformerLM:
    """Writes the run directory ``out`` from a directory with ``config.json`` and safetensors.

    Args:
        folder: as transformers' ``save_pretrained`` writes it.
        tokenizer: goes into the run; None makes a run of ids alone.
        out: must not be there yet.
        context_length: instead of the file's ``max_position_embeddings``.

    Returns:
        The model without its weights (on "meta").

    Raises:
        UsageError: ``out`` is there already.
        ValueError: the directory holds no Llama, one that a model here cannot be, a tensor too few
            or too many, of the wrong shape, a damaged file; or the tokenizer is of another size.
        OSError: a file cannot be read or written.
    """
    import torch

    from cs336lm.training.checkpoints.state import describe
    from cs336lm.training.config import Config
    from cs336lm.training.distributed import World
    from cs336lm.training.environment import record_environment
    from cs336lm.training.run_directory import RunDirectory

    refuse_if_there(out)
    model, weights = _read_llama(folder, tokenizer, context_length)
    with new_directory(out) as place:
        run = RunDirectory(place)
        run.prepare(Config(model=model.config), tokenizer)
        run.write_checkpoint({**describe(model), "model": weights, "iteration": 0})
        device = torch.device("cpu")
        record_environment(run.environment_file, device, World.from_environment(), step=0)
    return model


def load_llama(
    folder: Path,
    tokenizer: Tokenizer | None,
    context_length: int | None = None,
    device: torch.device | str = "cpu",
) -> TransformerLM:
    """The model of such a directory, in float32 and ready for use; nothing is written.

    Arguments and errors are those of :func:`import_llama`.
    """
    from cs336lm.model.initial import undrawn_weights
    from cs336lm.model.transformer import TransformerLM

    shape, weights = _read_llama(folder, tokenizer, context_length)
    with undrawn_weights():
        model = TransformerLM(shape.config, device=device)
    model.load_state_dict(weights)
    return model.eval()


def _read_llama(
    folder: Path, tokenizer: Tokenizer | None, context_length: int | None
) -> tuple[TransformerLM, dict[str, Tensor]]:
    """The model without its weights (on "meta"), and its weights by our names."""
    from cs336lm.model.transformer import TransformerLM

    if folder.is_dir() and not (folder / "config.json").is_file():
        is_run = (folder / "config.toml").is_file()
        why = (
            "it is a run already, which needs no import"
            if is_run
            else "there is no config.json in it"
        )
        raise ValueError(f"{folder} does not contain a model: {why}")
    config = read_llama_config(folder / "config.json", context_length)
    model = TransformerLM(config, device="meta")
    if tokenizer is not None:
        check_vocabularies(model, tokenizer)
    return model, _our_weights(Weights(folder), model)


def _our_weights(theirs: Weights, model: TransformerLM) -> dict[str, Tensor]:
    """The weights by our names, with rows where our RoPE wants them."""
    config, names = model.config, hugging_face_names(model.config)
    if config.tie_embeddings:  # what a file says of the head then is not looked at
        names["lm_head.weight"] = names["token_embeddings.weight"]
    shapes = {ours: tuple(weight.shape) for ours, weight in model.state_dict().items()}
    missing = [names[ours] for ours in shapes if names[ours] not in theirs]
    if missing:
        raise ValueError(f"{theirs.folder} lacks {_shown(missing)}, which config.json promises")
    for ours, shape in shapes.items():
        found = theirs.shape(names[ours])
        if found != shape:
            raise ValueError(
                f"{theirs.folder}: {names[ours]} has the shape {found}, but by config.json it is "
                f"{shape}"
            )
    known = {*names.values(), "lm_head.weight"}
    extra = [name for name in theirs if name not in known and not name.endswith(_TABLES)]
    if extra:
        raise ValueError(f"{theirs.folder} holds {_shown(extra)}, which no Llama here has")
    weights: dict[str, Tensor] = {}
    for ours in shapes:
        weight = theirs[names[ours]]
        if not weight.is_floating_point():
            raise ValueError(f"{theirs.folder}: {names[ours]} holds {weight.dtype}, not numbers")
        weights[ours] = halves_to_neighbours(weight, config.d_head) if is_rotated(ours) else weight
    return weights


def _shown(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
