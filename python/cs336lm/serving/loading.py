"""What a server serves, opened: a run directory, or a Llama in Hugging Face's format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cs336lm.errors import UsageError
from cs336lm.serving.app import Service
from cs336lm.serving.batching import Batcher
from cs336lm.serving.chat_template import ChatTemplate, configured_end, find_chat_template
from cs336lm.serving.limits import Limits
from cs336lm.serving.served_model import ServedModel

if TYPE_CHECKING:
    import torch

    from cs336lm.model.transformer import TransformerLM
    from cs336lm.text.tokenizer import Tokenizer
    from cs336lm.training.run_directory import Which


def load_model(
    path: Path,
    *,
    device: str = "auto",
    dtype: str = "float32",
    which: Which = "best",
    name: str | None = None,
    chat_template: Path | None = None,
    stops: Sequence[str] = (),
) -> tuple[TransformerLM, ServedModel]:
    """The model at ``path`` on its device, and what requests need to know of it.

    Args:
        path: a run directory, or one with ``config.json`` and safetensors.
        device, dtype: as for ``cs336lm generate``.
        which: of a run's checkpoints.
        name: what requests call it; the directory's name if nothing is said.
        chat_template: a file, instead of the one beside the tokenizer.
        stops: special tokens that end every text, beside those that the files name.

    Raises:
        UsageError: ``path`` holds neither, or has no tokenizer; a stop is no special token.
        ValueError: a file is damaged, or the model is none that can be here.
        OSError: a file cannot be read.
    """
    from cs336lm.generation.engine import check_vocabularies
    from cs336lm.model.processor import multiply_alike
    from cs336lm.training.devices import choose_device, choose_dtype

    multiply_alike()  # nobody's text depends on who else is in the batch
    where = choose_device(device)
    is_hugging_face = (path / "config.json").is_file()
    load = _load_hugging_face if is_hugging_face else _load_run
    model, tokenizer, folder, ends = load(path, where, which)
    if tokenizer is None:
        raise UsageError(f"{path} has no tokenizer: there is no text to serve")
    check_vocabularies(model, tokenizer)
    template: ChatTemplate | None
    if chat_template is not None:
        template = ChatTemplate(chat_template.read_text(encoding="utf-8"), tokenizer)
    else:
        template = find_chat_template(folder, tokenizer)
    ends = {*ends, *_ids_of(stops, tokenizer)}
    if (end := configured_end(folder, tokenizer)) is not None:
        ends.add(end)
    vocab_size = model.config.vocab_size
    assert vocab_size is not None  # a model is built of a resolved configuration
    served = ServedModel(
        name or path.resolve().name,
        tokenizer,
        vocab_size,
        model.config.context_length,
        template,
        ends,
    )
    return model.to(choose_dtype(dtype, where)), served


def _ids_of(stops: Sequence[str], tokenizer: Tokenizer) -> set[int]:
    for stop in stops:
        if stop not in tokenizer.special_tokens:
            raise UsageError(
                f"--stop {stop!r} is no special token of this tokenizer: requests may name any "
                "text in their own stop"
            )
    ids = {tokenizer.token_to_id(stop) for stop in stops}
    return {token for token in ids if token is not None}


def _load_run(
    path: Path, device: torch.device, which: Which
) -> tuple[TransformerLM, Tokenizer | None, Path, set[int]]:
    from cs336lm.training.run_directory import RunDirectory, load_run

    _, model, tokenizer = load_run(path, device, which)
    return model, tokenizer, RunDirectory(path).tokenizer, set()


def _load_hugging_face(
    path: Path, device: torch.device, which: Which
) -> tuple[TransformerLM, Tokenizer | None, Path, set[int]]:
    from cs336lm.exchange.hugging_face_import import load_llama
    from cs336lm.exchange.llama_config import end_of_text_ids
    from cs336lm.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(path)
    model = load_llama(path, tokenizer, device=device)
    return model, tokenizer, path, set(end_of_text_ids(path / "config.json"))


def make_service(
    model: TransformerLM, served: ServedModel, limits: Limits, *, compile: bool = False
) -> Service:
    """The engine for a model, and the service that hands it requests."""
    import torch

    from cs336lm.generation.batching import BatchEngine

    allowed = torch.zeros(served.vocab_size, dtype=torch.bool)
    allowed[torch.tensor(list(served.vocab))] = True
    engine = BatchEngine(model, allowed, max_sequences=limits.max_sequences, compile=compile)
    return Service(served, Batcher(engine, limits.max_outstanding), limits)
