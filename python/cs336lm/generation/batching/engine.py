"""The engine: what waits, what runs, and one step of all of it.

Each step, in this order: prompts that there is room for are admitted; of what has to be read
(prompts, and windows that have moved) as much is read as a step may read; all other sequences
decode one token; every sequence with new logits chooses its next token. A window that moves is read
as a prompt is, in its turn, while the others go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cs336lm.errors import UsageError
from cs336lm.generation.batching.buckets import lengths, row_steps
from cs336lm.generation.batching.decoding import make_pool_decoder
from cs336lm.generation.batching.pool import Pool, cache_maker
from cs336lm.generation.batching.random_streams import uniforms
from cs336lm.generation.batching.reading import Piece, Read, Reader, pieces_of
from cs336lm.generation.batching.request import Request, Token
from cs336lm.generation.batching.sampling import BatchSampler
from cs336lm.generation.batching.scores import token_scores
from cs336lm.generation.batching.sequence import Prompt, Sequence, new_prompt
from cs336lm.generation.engine import window_start
from cs336lm.generation.sampling import NO_TOKEN
from cs336lm.model.functional import at_least_float32
from cs336lm.model.transformer import TransformerLM


class BatchEngine:
    """Continues many prompts at once, with one model; for one thread.

    The text of a sequence is a function of its request alone, seed included, whoever else is in
    the batch: on a CPU bit for bit, elsewhere and compiled but for the rounding of logits. (On
    Intel's CPUs, where :func:`~cs336lm.model.processor.multiply_alike` came before all products, as
    it does in ``cs336lm serve``.)

    Args:
        model: where it is, there it runs; it must not change while sequences are running.
        allowed_ids: (vocab,), False for ids that must never be chosen.
        max_sequences: how many run at once; others wait. Keys and values take at most
            :attr:`most_cache_bytes`: of 64, less than twice what so many whole windows do.
        prefill_tokens: how many tokens of prompts, padding included, a step reads before the
            sequences that run get their next token: what a long queue of prompts may delay them.
        compile: compile the decoding of a token with torch.compile, once for each of the few shapes
            that caches have.
    """

    def __init__(
        self,
        model: TransformerLM,
        allowed_ids: Bool[Tensor, " vocab"] | None = None,
        *,
        max_sequences: int = 64,
        prefill_tokens: int = 2048,
        compile: bool = False,
    ) -> None:
        for name, value in (("max_sequences", max_sequences), ("prefill_tokens", prefill_tokens)):
            if value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")
        self.max_sequences = max_sequences
        weight = next(p for p in model.parameters() if p.is_floating_point())
        self._device, self._dtype = weight.device, weight.dtype
        self._context_length = model.config.context_length
        assert model.config.vocab_size is not None  # a model is built of a resolved configuration
        self._vocab_size = model.config.vocab_size
        self._forbidden = (
            None
            if allowed_ids is None or bool(allowed_ids.all())
            else ~allowed_ids.to(weight.device)
        )
        self._prefill_tokens = prefill_tokens
        self._compile = compile
        self._read_lengths = lengths(self._context_length)
        self._capacities = lengths(self._context_length, compile=compile)
        self._make_cache = cache_maker(model.config, self._device, self._dtype)
        self._reader = Reader(model, self._forbidden)
        self._decode_pools = make_pool_decoder(model, self._device, compile=compile)
        tile = self._decode_pools.tile
        self._row_steps = row_steps(max_sequences, tile, compile=compile)
        self._next_number = 0
        self._live: dict[int, Sequence] = {}
        self._running = 0
        self._waiting: deque[Prompt] = deque()
        self._moved: deque[Piece] = deque()
        self._unread: deque[Piece] = deque()
        self._pools: dict[int, Pool] = {}
        self._sampler: BatchSampler | None = None
        self._sampler_for: list[int] = []

    @property
    def waiting(self) -> int:
        """How many sequences wait for a place."""
        return len(self._live) - self.running

    @property
    def running(self) -> int:
        """How many sequences have a place in the batch."""
        return self._running

    @property
    def cache_bytes(self) -> int:
        """What the keys and values of running sequences take at the moment."""
        return sum(pool.bytes for pool in self._pools.values())

    @property
    def most_cache_bytes(self) -> int:
        """What :attr:`cache_bytes` never exceeds between steps.

        A whole window for every sequence (two, compiled), and for each capacity the rows that a
        pool keeps in store.
        """
        spare = self._row_steps[0] * 2
        windows = self.max_sequences * self._context_length * (2 if self._compile else 1)
        one = self._make_cache(1, 1).tensor.nbytes
        return one * (windows + spare * sum(self._capacities))

    def has_work(self) -> bool:
        """Whether :meth:`step` has anything to do or to tell."""
        return bool(self._live)

    def add(self, request: Request) -> list[int]:
        """Queues a request: ``request.n`` sequences, whose numbers it returns.

        Raises:
            UsageError: it asks for what is impossible with this model or this engine.
        """
        if request.n > self.max_sequences:
            raise UsageError(
                f"n = {request.n} is more than the {self.max_sequences} sequences that run at once"
            )
        named = {
            "the prompt": request.prompt,
            "stop_ids": request.stop_ids,
            "logit_bias": request.sampling.logit_bias,
        }
        for name, ids in named.items():
            self._check_ids(name, ids)
        prompt = new_prompt(request, self._next_number)
        self._next_number += request.n
        self._waiting.append(prompt)
        self._live.update((sequence.number, sequence) for sequence in prompt.sequences)
        return [sequence.number for sequence in prompt.sequences]

    def _check_ids(self, name: str, ids: Iterable[int]) -> None:
        for token in ids:
            if not 0 <= token < self._vocab_size:
                raise UsageError(
                    f"{name} has the id {token}, the model knows 0 to {self._vocab_size - 1}"
                )

    @torch.inference_mode()
    def cancel(self, sequence: int) -> None:
        """Ends a sequence, of which nothing more will be told; one that has ended is left alone."""
        found = self._live.get(sequence)
        if found is not None:
            self._leave(found)

    def _leave(self, sequence: Sequence) -> None:
        del self._live[sequence.number]
        self._running -= sequence.is_running
        if sequence.capacity is not None:
            self._pools[sequence.capacity].remove(sequence)

    @torch.inference_mode()
    def step(self) -> list[Token]:
        """One more token for every sequence that runs and is not being read; [] when idle."""
        events: list[Token] = []
        self._regroup()
        self._admit(events)
        # First those that decode: what is read now has its logits from the reading.
        pools = [pool for pool in self._pools.values() if len(pool)]
        sequences = [sequence for pool in pools for sequence in pool.sequences]
        logits = [self._decode_pools(pools)] if pools else []
        for pool in pools:
            pool.positions[: len(pool)] += 1
        for read in self._read():
            going_on = [s for s in read.piece.prompt.sequences if s.number in self._live]
            self._take_in(read, going_on, events)
            going_on = [s for s in going_on if s.capacity is not None]
            sequences += going_on
            logits.append(read.logits.expand(len(going_on), -1))
        if sequences:
            events += self._choose(sequences, torch.cat(logits))
        return events

    def _regroup(self) -> None:
        """Those that have outgrown their pool move to a larger one, or their window moves."""
        for capacity in self._capacities:
            pool = self._pools.get(capacity)
            for sequence in pool.outgrown() if pool else ():
                assert pool is not None
                if capacity == self._context_length:
                    pool.remove(sequence)
                    self._reread(sequence)
                    continue
                read = pool.read_of(sequence).clone()  # whose place another takes
                pool.remove(sequence)
                self._pool_for(capacity + 1).add(sequence, read)
        for capacity in [c for c, pool in self._pools.items() if not len(pool)]:
            del self._pools[capacity]

    def _pool_for(self, length: int) -> Pool:
        capacity = next(c for c in self._capacities if c >= length)
        if capacity not in self._pools:
            self._pools[capacity] = Pool(capacity, self._make_cache, self._row_steps)
        return self._pools[capacity]

    def _reread(self, sequence: Sequence) -> None:
        start = window_start(len(sequence.ids), self._context_length)
        alone = Prompt(sequence.request, [sequence])
        self._moved.append(Piece(alone, sequence.ids[start:], start, range(0), is_last=True))

    def _admit(self, events: list[Token]) -> None:
        """Gives places to those that have waited longest."""
        free = self.max_sequences - self.running
        while self._waiting:
            prompt = self._waiting[0]
            wanted = [s for s in prompt.sequences if s.number in self._live]
            if len(wanted) > free:
                return
            self._waiting.popleft()
            free -= len(wanted)
            for sequence in wanted:
                sequence.is_running = True
            self._running += len(wanted)
            pieces = pieces_of(prompt, self._context_length) if wanted else []
            self._unread.extend(pieces)
            if not pieces:  # nothing to score, nothing to generate
                self._tell_scores(prompt, wanted, events)

    def _read(self) -> list[Read]:
        """Reads what has waited longest, windows that have moved before prompts."""
        budget = self._prefill_tokens
        by_length: dict[int, list[Piece]] = {}
        for queue in (self._moved, self._unread):
            while queue:
                piece = queue[0]
                if not any(s.number in self._live for s in piece.prompt.sequences):
                    queue.popleft()
                    continue
                length = next(n for n in self._read_lengths if n >= len(piece.ids))
                if length > budget and by_length:
                    break
                queue.popleft()
                budget -= length
                by_length.setdefault(length, []).append(piece)
        return [
            read for length, pieces in by_length.items() for read in self._reader(pieces, length)
        ]

    def _take_in(self, read: Read, sequences: list[Sequence], events: list[Token]) -> None:
        """Gives sequences their prompt's scores, and a copy each of its keys and values."""
        prompt = read.piece.prompt
        if not prompt.request.max_new_tokens:
            self._tell_scores(prompt, sequences, events)
            return
        length = min(read.cache.shape[3] + 1, self._context_length)
        for sequence in sequences:
            if not sequence.generated:
                sequence.prompt_scores = prompt.scores
            self._pool_for(length).add(sequence, read.cache)

    def _tell_scores(self, prompt: Prompt, sequences: list[Sequence], events: list[Token]) -> None:
        """Ends sequences that nothing was to be generated for."""
        for sequence in sequences:
            events.append(Token(sequence.number, prompt=prompt.scores, finish="length"))
            self._leave(sequence)

    def _choose(self, sequences: list[Sequence], logits: Tensor) -> list[Token]:
        """The next token of each sequence, by its row of logits, and what that means for it."""
        ids = self._sampler_of(sequences)(
            self._adjusted(sequences, logits), uniforms(*_streams(sequences))
        )
        scores = self._scores(sequences, logits, ids)
        events = []
        for sequence, token in zip(sequences, ids.tolist(), strict=True):
            event = self._extend(sequence, token, *scores.get(sequence.number, (None, None)))
            events.append(event)
            if event.finish:
                self._leave(sequence)
        return events

    def _sampler_of(self, sequences: list[Sequence]) -> BatchSampler:
        """Made anew when sequences have come or gone."""
        numbers = [sequence.number for sequence in sequences]
        if self._sampler is None or numbers != self._sampler_for:
            params = [sequence.request.sampling for sequence in sequences]
            self._sampler = BatchSampler(params, self._vocab_size, self._device)
            self._sampler_for = numbers
        return self._sampler

    def _adjusted(
        self, sequences: list[Sequence], logits: Float[Tensor, "rows vocab"]
    ) -> Float[Tensor, "rows vocab"]:
        """With penalties and biases, and -inf for what must not be chosen."""
        biases = {row: self._bias_of(sequence) for row, sequence in enumerate(sequences)}
        biased = {row: bias for row, bias in biases.items() if bias is not None}
        if biased:
            rows = torch.tensor(list(biased), device=logits.device)
            wide = at_least_float32(logits)
            added = wide[rows] + torch.stack(list(biased.values())).to(wide.dtype)
            logits = wide.index_copy(0, rows, added)
        if self._forbidden is not None:
            logits = logits.masked_fill(self._forbidden, -torch.inf)
        return logits

    def _bias_of(self, sequence: Sequence) -> Tensor | None:
        sampling = sequence.request.sampling
        if sequence.bias is None and (sampling.logit_bias or sampling.has_penalties):
            sequence.bias = torch.zeros(self._vocab_size)
            for token, bias in sampling.logit_bias.items():
                sequence.bias[token] = bias
            sequence.bias = sequence.bias.to(self._device)
        return sequence.bias

    def _scores(
        self, sequences: list[Sequence], logits: Tensor, ids: Tensor
    ) -> dict[int, tuple[float, list[tuple[int, float]]]]:
        """By sequence, for those that asked."""
        asked = [row for row, s in enumerate(sequences) if s.request.logprobs is not None]
        if not asked:
            return {}
        counts = [sequences[row].request.logprobs or 0 for row in asked]
        scores = token_scores(logits[asked], ids[asked], counts, self._forbidden)
        return {sequences[row].number: score for row, score in zip(asked, scores, strict=True)}

    def _extend(
        self,
        sequence: Sequence,
        token: int,
        logprob: float | None,
        top: list[tuple[int, float]] | None,
    ) -> Token:
        """Appends a token, or says why there is none."""
        number, request = sequence.number, sequence.request
        prompt, sequence.prompt_scores = sequence.prompt_scores, None
        if token == NO_TOKEN:
            message = (
                f"the model's logits for new token {sequence.generated + 1} are NaN or infinite, "
                "so there is no next token: its weights are damaged or diverged (try another "
                f"checkpoint), or {self._dtype} is too narrow for them (use float32)"
            )
            return Token(number, prompt=prompt, finish="error", message=message)
        if token in request.stop_ids:
            return Token(number, prompt=prompt, finish="stop")
        if request.sampling.has_penalties:
            assert sequence.bias is not None  # made before the token was chosen
            is_new = token not in sequence.ids[len(request.prompt) :]
            sequence.bias[token] -= request.sampling.frequency_penalty
            sequence.bias[token] -= request.sampling.presence_penalty * is_new
        sequence.ids.append(token)
        if sequence.capacity is not None:
            self._pools[sequence.capacity].token_ids[sequence.row] = token
        is_last = sequence.generated == request.max_new_tokens
        return Token(number, token, logprob, top, prompt, "length" if is_last else None)


def _streams(sequences: list[Sequence]) -> tuple[np.ndarray, np.ndarray]:
    """The keys of the random numbers that come next, and their positions."""
    keys = np.array([sequence.key for sequence in sequences], dtype=np.uint64)
    return keys, np.array([sequence.generated for sequence in sequences], dtype=np.uint64)
