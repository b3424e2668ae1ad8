"""Text from a trained model: several prompts at once, token by token, each token computed once.

    prompts -> ids -> prefill (all of them at once) -> sample -> decode (one token) -> sample ...

The keys and values of past tokens stay in a :class:`~cs336lm.model.kv_cache.KVCache`. A text longer
than the model's ``context_length`` is seen through a window: whenever the window is full, its older
half is dropped and the rest read once more, as if the text began there. So a token is predicted
from at least half a context, the result is the same as without a cache, and the re-reading costs
about one token's work per token. Of several texts only those are read again whose window moves.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cs336lm.errors import UsageError
from cs336lm.generation.decoder import make_decoder, unlimited_recompilation
from cs336lm.generation.launching import Arriving, Recording
from cs336lm.generation.sampling import NO_TOKEN, Sampler, SamplingParams
from cs336lm.generation.text_stream import TextStream
from cs336lm.model.kv_cache import KVCache
from cs336lm.model.transformer import TransformerLM

if TYPE_CHECKING:
    from cs336lm.text.tokenizer import Tokenizer

END_OF_TEXT = "<|endoftext|>"

Stop = str | Sequence[str] | None
"""Texts that end a continuation; None for ``<|endoftext|>``, where it is a special token."""

_COMPILED_SLOTS = 64
"""What a compiled decoder's cache is a multiple of: so that few lengths mean a compilation."""


class Piece(NamedTuple):
    """What a prompt has grown by."""

    row: int
    """Which of the prompts, from 0."""
    text: str
    """New text, at least a character."""
    tokens: int
    """How many tokens that took."""


@overload
def generate(
    model: TransformerLM,
    tokenizer: "Tokenizer",
    prompt: str,
    max_new_tokens: int = ...,
    temperature: float = ...,
    top_p: float = ...,
    top_k: int | None = ...,
    seed: int | None = ...,
    *,
    stop: Stop = ...,
    parse_special: bool = ...,
    compile: bool = ...,
) -> str: ...
@overload
def generate(
    model: TransformerLM,
    tokenizer: "Tokenizer",
    prompt: list[str] | tuple[str, ...],
    max_new_tokens: int = ...,
    temperature: float = ...,
    top_p: float = ...,
    top_k: int | None = ...,
    seed: int | None = ...,
    *,
    stop: Stop = ...,
    parse_special: bool = ...,
    compile: bool = ...,
) -> list[str]: ...
def generate(
    model: TransformerLM,
    tokenizer: "Tokenizer",
    prompt: str | Sequence[str],
    max_new_tokens: int = 256,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int | None = None,
    seed: int | None = None,
    *,
    stop: Stop = None,
    parse_special: bool = True,
    compile: bool = False,
) -> str | list[str]:
    """Continues a prompt, or several at once.

    Args:
        model: where it is, there it runs.
        tokenizer: the one the model was trained with.
        prompt: one text or several, of any lengths. An empty one begins after ``<|endoftext|>``,
            as a document does, if the tokenizer has that token.
        max_new_tokens: where to end if ``stop`` does not come before.
        temperature: 0 always takes the likeliest token (greedy); 1 is the model's distribution.
        top_p: draw among the fewest tokens with this much probability together.
        top_k: draw among the k likeliest.
        seed: makes the draws repeatable, for the same prompts together on the same device.
        stop: one or several texts that end a continuation: a special token, or any other text,
            in however many tokens. None is ``<|endoftext|>``, if the tokenizer has that token;
            ``()`` is nothing.
        parse_special: whether special tokens in a prompt become their own ids, or are text like
            any other, as in a prompt from a stranger they should be.
        compile: compile the decoding of a token with torch.compile: ten seconds or more to start,
            then more than twice as fast for one prompt on two CPU cores; with more than a few
            prompts, no faster there. On CUDA a step is launched as one graph, and for one prompt
            its kernels are written by hand and start in a few seconds.

    Returns:
        The new text, without the prompt and without what ended it: a string for a string, a
        list for several.

    Raises:
        ValueError: an argument is impossible, a prompt has no token, tokenizer and model do
            not fit, or the model's logits are NaN or infinite.

    Examples:
        >>> from cs336lm import ModelConfig, Tokenizer, TransformerLM
        >>> tokenizer = Tokenizer({byte: bytes([byte]) for byte in range(256)}, [])
        >>> model = TransformerLM(
        ...     ModelConfig(vocab_size=256, context_length=8, d_model=32, num_layers=1, num_heads=2)
        ... )
        >>> text = generate(model, tokenizer, "Once", max_new_tokens=5, seed=1)
        >>> text == generate(model, tokenizer, "Once", max_new_tokens=5, seed=1)
        True
    """
    texts = [""] * (1 if isinstance(prompt, str) else len(prompt))
    pieces = stream(
        model,
        tokenizer,
        prompt,
        max_new_tokens,
        temperature,
        top_p,
        top_k,
        seed,
        stop=stop,
        parse_special=parse_special,
        compile=compile,
    )
    for piece in pieces:
        texts[piece.row] += piece.text
    return texts[0] if isinstance(prompt, str) else texts


def stream(
    model: TransformerLM,
    tokenizer: "Tokenizer",
    prompt: str | Sequence[str],
    max_new_tokens: int = 256,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int | None = None,
    seed: int | None = None,
    *,
    stop: Stop = None,
    parse_special: bool = True,
    compile: bool = False,
) -> Iterator[Piece]:
    """:func:`generate`, piece by piece, as soon as there is something to show.

    Arguments are checked at once. Text is always whole characters: the bytes of one that several
    tokens make up are held back until it is complete.
    """
    prompts = [prompt] if isinstance(prompt, str) else prompt
    params = SamplingParams(temperature, top_p, top_k, seed)
    return continue_prompts(
        model,
        tokenizer,
        prompts,
        max_new_tokens,
        params,
        stop=stop,
        parse_special=parse_special,
        compile=compile,
    )


def continue_prompts(
    model: TransformerLM,
    tokenizer: "Tokenizer",
    prompts: Sequence[str],
    max_new_tokens: int,
    params: SamplingParams,
    *,
    stop: Stop = None,
    parse_special: bool = True,
    compile: bool = False,
) -> Iterator[Piece]:
    """:func:`stream` of several prompts, with the choice of tokens as one object."""
    check_vocabularies(model, tokenizer)
    device = next(model.parameters()).device
    sampler = Sampler(params, device, _ids_of(tokenizer, model))
    ids = [encode_prompt(tokenizer, text, parse_special=parse_special) for text in prompts]
    stop_ids, stop_texts = _stops(tokenizer, stop)
    steps = generate_ids(model, ids, max_new_tokens, sampler, stop_ids, compile=compile)
    return _decoded(tokenizer, steps, stop_texts)


def _stops(tokenizer: "Tokenizer", stop: Stop) -> tuple[set[int], list[str]]:
    """The ids that end a continuation, and the texts that do so when they appear in it."""
    if stop is None:
        stop = [END_OF_TEXT] if has_end_of_text(tokenizer) else []
    named = [stop] if isinstance(stop, str) else list(stop)
    if not all(named):
        raise UsageError("an empty text cannot end a continuation: name another to stop at")
    texts = [text for text in named if text not in tokenizer.special_tokens]
    ids = [tokenizer.token_to_id(text) for text in named if text in tokenizer.special_tokens]
    return {token for token in ids if token is not None}, texts


def generate_ids(
    model: TransformerLM,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampler: Sampler,
    stop_id: int | Collection[int] | None = None,
    *,
    compile: bool = False,
) -> Iterator[list[int | None]]:
    """The same on ids: yields, step by step, each prompt's next id, or None once it has ended.

    ``stop_id``, one or several, is not yielded itself. While the caller looks at a step's ids the
    device is already at work on the next.

    Raises:
        ValueError: an argument is impossible; or, later, logits are NaN or infinite.
    """
    if max_new_tokens < 0:
        raise UsageError(f"max_new_tokens must not be negative: {max_new_tokens}")
    if not all(prompts):
        raise UsageError("a prompt without any token cannot be continued")
    stop_ids = {stop_id} if isinstance(stop_id, int) else set(stop_id or ())
    return _steps(model, prompts, max_new_tokens, sampler, stop_ids, compile)


def _steps(
    model: TransformerLM,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampler: Sampler,
    stop_ids: set[int],
    compile: bool,
) -> Iterator[list[int | None]]:
    if not prompts or not max_new_tokens:
        return
    texts = _Continuation(model, prompts, max_new_tokens, sampler, compile)
    ended = [False] * len(prompts)
    ahead = Arriving(texts.extend())
    for step in range(max_new_tokens):
        current = ahead
        if step + 1 < max_new_tokens:
            ahead = Arriving(texts.extend())
        ids = current.tolist()  # the one place where the host waits for the device
        ended = [done or token in stop_ids for done, token in zip(ended, ids, strict=True)]
        if all(ended):
            return
        found = [None if done else token for done, token in zip(ended, ids, strict=True)]
        if NO_TOKEN in found:
            raise ValueError(
                f"the model's logits for new token {step + 1} are NaN or infinite, so there is no "
                "next token: its weights are damaged or diverged (try another checkpoint), or "
                f"{texts.dtype} is too narrow for them (use float32)"
            )
        yield found


class _Continuation:
    """Texts that grow by one token per step, and the window of the model on each."""

    @torch.inference_mode()
    def __init__(
        self,
        model: TransformerLM,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        sampler: Sampler,
        compile: bool,
    ) -> None:
        # Any of them says where the model is and how wide; a replaced head may have no weight.
        weight = next(p for p in model.parameters() if p.is_floating_point())
        self.model = model
        self.sampler = sampler
        self.dtype = weight.dtype
        self.lengths = [len(prompt) for prompt in prompts]
        capacity = max(self.lengths) + max_new_tokens
        ids = torch.zeros(len(prompts), capacity, dtype=torch.int64)
        for row, prompt in zip(ids, prompts, strict=True):
            row[: len(prompt)] = torch.tensor(prompt)
        self.ids: Int[Tensor, "batch capacity"] = ids.to(weight.device)
        self.ends: Int[Tensor, " batch"] = torch.tensor(self.lengths, device=weight.device)
        if compile:
            capacity = -(-capacity // _COMPILED_SLOTS) * _COMPILED_SLOTS
        context = min(capacity, model.config.context_length)
        self.cache = KVCache(model.config, len(prompts), context, weight.device, weight.dtype)
        self.decoder = make_decoder(model, self.cache, compile=compile)
        self.compiled_step = self.decoder.compiled() if compile else None
        self.recording: Recording | None = None
        if compile and self.decoder.is_replayable:
            self.recording = Recording(weight.device, sampler.generator)
        # For the first step, which is where the compiler may have to do with new shapes.
        self.compiling = unlimited_recompilation() if compile else nullcontext()
        self.positions = torch.zeros(len(prompts), dtype=torch.int64, device=weight.device)
        self.starts: list[int] = []

    @torch.inference_mode()
    def extend(self) -> Int[Tensor, " batch"]:
        """Draws every text's next token and appends it; the host does not wait for it.

        What it returns is good until it is called again.
        """
        context = self.model.config.context_length
        starts = [window_start(length, context) for length in self.lengths]
        before = self.starts or [-1] * len(starts)  # at first all move
        moved = [row for row, start in enumerate(starts) if start != before[row]]
        self.starts = starts
        if len(moved) == len(starts):
            next_ids = self._append(self._prefill(moved, self.cache))
        elif moved:
            next_ids = self._append(self._decode_and_prefill(moved))
        elif self.recording is not None:
            next_ids = self.recording(self._decode_and_append)
        else:
            next_ids = self._decode_and_append()
        self.lengths = [length + 1 for length in self.lengths]
        return next_ids

    def _decode_and_append(self) -> Int[Tensor, " batch"]:
        """Reads every text's last token, draws the next, and appends it."""
        return self._append(self._decode())

    def _append(self, logits: Float[Tensor, "batch vocab"]) -> Int[Tensor, " batch"]:
        """Draws every text's next token and appends it."""
        next_ids = self.sampler(logits)
        # Without a token the text goes on with any; nobody will see it.
        self.ids.scatter_(1, self.ends.unsqueeze(1), next_ids.clamp(min=0).unsqueeze(1))
        self.ends += 1
        return next_ids

    def _prefill(self, rows: list[int], cache: KVCache) -> Float[Tensor, "rows vocab"]:
        """Reads the windows of ``rows`` from their starts; shorter ones are padded on the right."""
        device = self.ids.device
        spans = [self.lengths[row] - self.starts[row] for row in rows]
        places = torch.arange(max(spans), device=device).expand(len(rows), -1)
        starts = torch.tensor([self.starts[row] for row in rows], device=device)
        columns = (places + starts.unsqueeze(1)).clamp(max=self.ids.shape[1] - 1)
        window = self.ids[torch.tensor(rows, device=device).unsqueeze(1), columns]
        hidden = self.model.hidden_states(window, places, cache)
        last_places = torch.tensor(spans, device=device) - 1
        self.positions[rows] = last_places
        last = hidden.take_along_dim(last_places[:, None, None], dim=1).squeeze(1)
        return self.model.logits(last)

    def _decode_and_prefill(self, moved: list[int]) -> Float[Tensor, "batch vocab"]:
        """Reads the windows of ``moved`` from their starts, of the other texts the last token."""
        # All are decoded, so that the shapes stay the same: what that writes for those that moved
        # lies in slots that are written again before anything looks at them.
        self.positions[moved] = -1
        logits = self._decode(together=False)
        spans = max(self.lengths[row] - self.starts[row] for row in moved)
        device = self.ids.device
        fresh = KVCache(self.model.config, len(moved), spans, device, self.dtype)
        new = self._prefill(moved, fresh)
        rows = torch.tensor(moved, device=device)
        for layer, read in zip(self.cache, fresh, strict=True):
            layer.keys[rows, :, :spans] = read.keys
            layer.values[rows, :, :spans] = read.values
        return logits.index_copy(0, rows, new.to(logits.dtype))

    def _decode(self, *, together: bool = True) -> Float[Tensor, "batch vocab"]:
        """Reads every text's last token; ``together``: each at its window's end."""
        self.positions += 1
        last = self.ids.gather(1, self.ends.unsqueeze(1) - 1).squeeze(1)
        if self.compiled_step is not None:
            with self.compiling:
                self.compiling = nullcontext()
                return self.compiled_step(last, self.positions)
        spans = {length - start for length, start in zip(self.lengths, self.starts, strict=True)}
        common = spans.pop() - 1 if together and len(spans) == 1 else None
        return self.decoder.step(last, self.positions, common)


def window_start(length: int, context_length: int) -> int:
    """Where the window on ``length`` tokens begins: 0, or a multiple of half a context."""
    hop = max(1, context_length // 2)
    return max(0, -(-(length - context_length) // hop) * hop)


def _decoded(
    tokenizer: "Tokenizer", steps: Iterator[list[int | None]], stops: Sequence[str] = ()
) -> Iterator[Piece]:
    """Text as it becomes complete, up to the first of ``stops``; at the end what is left of it."""
    texts: list[TextStream] = []
    tokens_held: list[int] = []
    for ids in steps:
        texts = texts or [TextStream(tokenizer, stops) for _ in ids]
        tokens_held = tokens_held or [0] * len(ids)
        for row, (text, token) in enumerate(zip(texts, ids, strict=True)):
            tokens_held[row] += token is not None and not text.ended
            shown = text.end() if token is None else text.push(token)
            if shown:
                yield Piece(row, shown, tokens_held[row])
                tokens_held[row] = 0
        if all(text.ended for text in texts):
            return
    for row, text in enumerate(texts):
        if shown := text.end():
            yield Piece(row, shown, tokens_held[row])


def has_end_of_text(tokenizer: "Tokenizer") -> bool:
    """Whether ``<|endoftext|>`` is a special token of this tokenizer."""
    return END_OF_TEXT in tokenizer.special_tokens


def encode_prompt(tokenizer: "Tokenizer", text: str, *, parse_special: bool = True) -> list[int]:
    """The prompt's ids; an empty prompt becomes the beginning of a document.

    ``parse_special``: whether special tokens in the text become their own ids.

    Raises:
        UsageError: the prompt has no token, and there is no ``<|endoftext|>`` to begin from.
    """
    if not text and has_end_of_text(tokenizer):
        return tokenizer.encode(END_OF_TEXT)
    if not text:
        raise UsageError(
            "the prompt has no token, and the tokenizer no <|endoftext|> to begin from: "
            "give a prompt of at least one character"
        )
    return tokenizer.encode(text) if parse_special else tokenizer.encode_ordinary(text)


def check_vocabularies(model: TransformerLM, tokenizer: "Tokenizer") -> None:
    """Refuses a tokenizer with ids that the model does not know."""
    known = _vocab_size(model)
    if tokenizer.vocab_size > known:
        raise ValueError(
            f"the tokenizer has ids up to {tokenizer.vocab_size - 1}, the model knows only "
            f"{known} tokens: it was trained with another tokenizer"
        )


def _ids_of(tokenizer: "Tokenizer", model: TransformerLM) -> Tensor:
    """(vocab,): True for the ids that stand for text; a padded vocabulary has others, too."""
    allowed = torch.zeros(_vocab_size(model), dtype=torch.bool)
    allowed[torch.tensor(list(tokenizer.vocab))] = True
    return allowed


def _vocab_size(model: TransformerLM) -> int:
    """From the configuration: another module may stand in the embedding's place."""
    assert model.config.vocab_size is not None  # a model is built of a resolved configuration
    return model.config.vocab_size
