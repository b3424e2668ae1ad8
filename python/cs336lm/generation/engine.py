"""Text from a trained model: several prompts at once, token by token, each token computed once.

    prompts -> ids -> prefill (all of them at once) -> sample -> decode (one token) -> sample ...

The keys and values of past tokens stay in a :class:`~cs336lm.model.kv_cache.KVCache`. A text longer
than the model's ``context_length`` is seen through a window: whenever the window is full, its older
half is dropped and the rest read once more, as if the text began there. So a token is predicted
from at least half a context, the result is the same as without a cache, and the re-reading costs
about one token's work per token.
"""

import codecs
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cs336lm.errors import UsageError
from cs336lm.generation.decoder import make_decoder
from cs336lm.generation.sampling import Sampler, SamplingParams
from cs336lm.model.kv_cache import KVCache
from cs336lm.model.transformer import TransformerLM

if TYPE_CHECKING:
    from cs336lm.text.tokenizer import Tokenizer

END_OF_TEXT = "<|endoftext|>"


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
    compile: bool = False,
) -> str | list[str]:
    """Continues a prompt, or several at once.

    Args:
        model: where it is, there it runs.
        tokenizer: the one the model was trained with.
        prompt: one text or several, of any lengths. An empty one begins after ``<|endoftext|>``,
            as a document does, if the tokenizer has that token.
        max_new_tokens: where to stop if ``<|endoftext|>`` does not come before.
        temperature: 0 always takes the likeliest token (greedy); 1 is the model's distribution.
        top_p: draw among the fewest tokens with this much probability together.
        top_k: draw among the k likeliest.
        seed: makes the draws repeatable, for the same prompts together on the same device.
        compile: compile the decoding of a token with torch.compile, on CUDA into one graph of
            kernels: ten seconds or more to start, then more than twice as fast for one prompt on
            two CPU cores; with more than a few prompts, no faster there.

    Returns:
        The new text, without the prompt and without ``<|endoftext|>``: a string for a string, a
        list for several.

    Raises:
        ValueError: an argument is impossible, a prompt has no token, or tokenizer and model do
            not fit.
    """
    prompts = [prompt] if isinstance(prompt, str) else prompt
    params = SamplingParams(temperature, top_p, top_k, seed)
    texts = [""] * len(prompts)
    for piece in continue_prompts(
        model, tokenizer, prompts, max_new_tokens, params, compile=compile
    ):
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
    compile: bool = False,
) -> Iterator[Piece]:
    """:func:`generate`, piece by piece, as soon as there is something to show.

    Arguments are checked at once. Text is always whole characters: the bytes of one that several
    tokens make up are held back until it is complete.
    """
    prompts = [prompt] if isinstance(prompt, str) else prompt
    params = SamplingParams(temperature, top_p, top_k, seed)
    return continue_prompts(model, tokenizer, prompts, max_new_tokens, params, compile=compile)


def continue_prompts(
    model: TransformerLM,
    tokenizer: "Tokenizer",
    prompts: Sequence[str],
    max_new_tokens: int,
    params: SamplingParams,
    *,
    compile: bool = False,
) -> Iterator[Piece]:
    """:func:`stream` of several prompts, with the choice of tokens as one object."""
    check_vocabularies(model, tokenizer)
    device = next(model.parameters()).device
    sampler = Sampler(params, device, _ids_of(tokenizer, model))
    ids = [encode_prompt(tokenizer, text) for text in prompts]
    stop_id = tokenizer.token_to_id(END_OF_TEXT) if has_end_of_text(tokenizer) else None
    steps = generate_ids(model, ids, max_new_tokens, sampler, stop_id, compile=compile)
    return _decoded(tokenizer, steps)


def generate_ids(
    model: TransformerLM,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampler: Sampler,
    stop_id: int | None = None,
    *,
    compile: bool = False,
) -> Iterator[list[int | None]]:
    """The same on ids: yields, step by step, each prompt's next id, or None once it has ended.

    ``stop_id`` itself is not yielded. While the caller looks at a step's ids the device is already
    at work on the next.
    """
    if max_new_tokens < 0:
        raise UsageError(f"max_new_tokens must not be negative: {max_new_tokens}")
    if not all(prompts):
        raise UsageError("a prompt without any token cannot be continued")
    return _steps(model, prompts, max_new_tokens, sampler, stop_id, compile)


def _steps(
    model: TransformerLM,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampler: Sampler,
    stop_id: int | None,
    compile: bool,
) -> Iterator[list[int | None]]:
    if not prompts or not max_new_tokens:
        return
    texts = _Continuation(model, prompts, max_new_tokens, compile)
    ended = [False] * len(prompts)
    ahead = texts.extend(sampler)
    for step in range(max_new_tokens):
        current = ahead
        if step + 1 < max_new_tokens:
            ahead = texts.extend(sampler)
        ids = current.tolist()  # the one place where the host waits for the device
        ended = [done or token == stop_id for done, token in zip(ended, ids, strict=True)]
        if all(ended):
            return
        yield [None if done else token for done, token in zip(ended, ids, strict=True)]


class _Continuation:
    """Texts that grow by one token per step, and the window of the model on each."""

    @torch.inference_mode()
    def __init__(
        self,
        model: TransformerLM,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        compile: bool,
    ) -> None:
        # Any of them says where the model is and how wide; a replaced head may have no weight.
        weight = next(p for p in model.parameters() if p.is_floating_point())
        self.model = model
        self.lengths = [len(prompt) for prompt in prompts]
        capacity = max(self.lengths) + max_new_tokens
        ids = torch.zeros(len(prompts), capacity, dtype=torch.int64)
        for row, prompt in zip(ids, prompts, strict=True):
            row[: len(prompt)] = torch.tensor(prompt)
        self.ids: Int[Tensor, "batch capacity"] = ids.to(weight.device)
        self.ends: Int[Tensor, " batch"] = torch.tensor(self.lengths, device=weight.device)
        context = min(capacity, model.config.context_length)
        self.cache = KVCache(model.config, len(prompts), context, weight.device, weight.dtype)
        self.decoder = make_decoder(model, self.cache, compile=compile)
        self.compiled_step = self.decoder.compiled() if compile else None
        self.starts: list[int] = []

    @torch.inference_mode()
    def extend(self, sampler: Sampler) -> Int[Tensor, " batch"]:
        """Draws every text's next token and appends it; the host does not wait for it."""
        context = self.model.config.context_length
        starts = [window_start(length, context) for length in self.lengths]
        if starts == self.starts:
            logits = self._decode()
        else:
            self.starts = starts
            logits = self._prefill()
        next_ids = sampler(logits)
        self.ids.scatter_(1, self.ends.unsqueeze(1), next_ids.unsqueeze(1))
        self.ends += 1
        self.lengths = [length + 1 for length in self.lengths]
        return next_ids

    def _prefill(self) -> Float[Tensor, "batch vocab"]:
        """Reads every window from its start; shorter ones are padded on the right."""
        device = self.ids.device
        spans = [length - start for length, start in zip(self.lengths, self.starts, strict=True)]
        places = torch.arange(max(spans), device=device).expand(len(spans), -1)
        columns = places + torch.tensor(self.starts, device=device).unsqueeze(1)
        window = self.ids.gather(1, columns.clamp(max=self.ids.shape[1] - 1))
        hidden = self.model.hidden_states(window, places, self.cache)
        self.positions = torch.tensor(spans, device=device) - 1
        last = hidden.take_along_dim(self.positions[:, None, None], dim=1).squeeze(1)
        logits: Tensor = self.model.lm_head(last)
        return logits

    def _decode(self) -> Float[Tensor, "batch vocab"]:
        """Reads every text's last token."""
        self.positions += 1
        last = self.ids.gather(1, self.ends.unsqueeze(1) - 1).squeeze(1)
        if self.compiled_step is not None:
            return self.compiled_step(last, self.positions)
        spans = {length - start for length, start in zip(self.lengths, self.starts, strict=True)}
        common = spans.pop() - 1 if len(spans) == 1 else None
        return self.decoder.step(last, self.positions, common)


def window_start(length: int, context_length: int) -> int:
    """Where the window on ``length`` tokens begins: 0, or a multiple of half a context."""
    hop = max(1, context_length // 2)
    return max(0, -(-(length - context_length) // hop) * hop)


def _decoded(tokenizer: "Tokenizer", steps: Iterator[list[int | None]]) -> Iterator[Piece]:
    """Text as it becomes complete; at the end what is left of it."""
    texts: list[_TextOfIds] = []
    for ids in steps:
        texts = texts or [_TextOfIds(tokenizer, row) for row in range(len(ids))]
        for text, token in zip(texts, ids, strict=True):
            yield from text.end() if token is None else text.push(token)
    for text in texts:
        yield from text.end()


class _TextOfIds:
    """Turns the ids of one prompt into characters, as soon as they are whole."""

    def __init__(self, tokenizer: "Tokenizer", row: int) -> None:
        self.tokenizer = tokenizer
        self.row = row
        self.held = 0
        self.utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> Iterator[Piece]:
        self.held += 1
        return self._show(self.utf8.decode(self.tokenizer.decode_bytes([token])))

    def end(self) -> Iterator[Piece]:
        """Bytes that became no character are shown as U+FFFD; harmless to call again."""
        return self._show(self.utf8.decode(b"", final=True))

    def _show(self, text: str) -> Iterator[Piece]:
        if text:
            yield Piece(self.row, text, self.held)
            self.held = 0


def has_end_of_text(tokenizer: "Tokenizer") -> bool:
    """Whether ``<|endoftext|>`` is a special token of this tokenizer."""
    return END_OF_TEXT in tokenizer.special_tokens


def encode_prompt(tokenizer: "Tokenizer", text: str) -> list[int]:
    """The prompt's ids; an empty prompt becomes the beginning of a document.

    Raises:
        UsageError: the prompt has no token, and there is no ``<|endoftext|>`` to begin from.
    """
    if not text and has_end_of_text(tokenizer):
        text = END_OF_TEXT
    if not text:
        raise UsageError(
            "the prompt has no token, and the tokenizer no <|endoftext|> to begin from: "
            "give a prompt of at least one character"
        )
    return tokenizer.encode(text)


def check_vocabularies(model: TransformerLM, tokenizer: "Tokenizer") -> None:
    """Refuses a tokenizer with ids that the model does not know."""
    known = model.token_embeddings.num_embeddings
    if tokenizer.vocab_size > known:
        raise ValueError(
            f"the tokenizer has ids up to {tokenizer.vocab_size - 1}, the model knows only "
            f"{known} tokens: it was trained with another tokenizer"
        )


def _ids_of(tokenizer: "Tokenizer", model: TransformerLM) -> Tensor:
    """(vocab,): True for the ids that stand for text; a padded vocabulary has others, too."""
    allowed = torch.zeros(model.token_embeddings.num_embeddings, dtype=torch.bool)
    allowed[torch.tensor(list(tokenizer.vocab))] = True
    return allowed
