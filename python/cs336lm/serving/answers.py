"""From a ticket's events to OpenAI's JSON, for both endpoints, whole or as a stream.

An answer has the same texts in either form: the deltas of a stream, joined, are the whole answer.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from cs336lm.serving.api_error import ApiError
from cs336lm.serving.batching import Batcher
from cs336lm.serving.choices import Choice, Delta, scored_prompt
from cs336lm.serving.metrics import Metrics
from cs336lm.serving.requests import Asked
from cs336lm.serving.served_model import ServedModel
from cs336lm.serving.wording import Wording

Chunk = dict[str, Any]


class Answer:
    """One request being answered.

    Args:
        asked: what is wanted.
        wording: the endpoint's own form.
        model: what is served.
        batcher: where the request goes; the constructor submits it, and raises what that raises.
        metrics: told of tokens and times.
    """

    def __init__(
        self,
        asked: Asked,
        wording: Wording,
        model: ServedModel,
        batcher: Batcher,
        metrics: Metrics,
    ) -> None:
        self._asked = asked
        self._wording = wording
        self._model = model
        self._batcher = batcher
        self._metrics = metrics
        self._head = {
            "id": f"{wording.prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model.name,
        }
        self._began = time.perf_counter()
        self._last: dict[int, float] = {}  # when a text's last token came
        echoed = [self._echoed(prompt) for prompt in range(len(asked.prompts))]
        self._echo = [text for text in echoed for _ in range(asked.n)]
        self._choices = [
            Choice(
                model,
                asked.stops,
                asked.stop_ids,
                scored=asked.logprobs is not None,
                offset=len(text),
            )
            for text in self._echo
        ]
        self._ticket = batcher.submit(asked.for_engine())

    async def whole(self) -> Chunk:
        """The answer at once, when all of it is there."""
        deltas: list[Delta] = [Delta() for _ in self._choices]
        async with aclosing(self._deltas()) as coming:
            async for index, new in coming:
                deltas[index].text += new.text
                deltas[index].scored += new.scored
                deltas[index].finish = new.finish
        choices = [self._wording.choice(i, delta, self._asked) for i, delta in enumerate(deltas)]
        return {
            **self._head,
            "object": self._wording.whole_object,
            "choices": choices,
            "usage": self._usage(),
        }

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """The answer piece by piece."""
        has_begun = False
        async with aclosing(self._deltas()) as coming:
            async for index, new in coming:
                if not has_begun:  # not before: until now the request may have been refused
                    has_begun = True
                    for opening in map(self._wording.opening, range(len(self._choices))):
                        if opening is not None:
                            yield self._chunk([opening])
                if new.says_something:
                    yield self._chunk([self._wording.piece(index, new, self._asked)])
        if self._asked.include_usage:
            yield {**self._chunk([]), "usage": self._usage()}

    def cancel(self) -> None:
        """Frees what is still held of the batch; harmless at the end."""
        self._batcher.cancel(self._ticket)

    def _chunk(self, choices: list[Chunk]) -> Chunk:
        chunk = {**self._head, "object": self._wording.chunk_object, "choices": choices}
        return {**chunk, "usage": None} if self._asked.include_usage else chunk

    async def _deltas(self) -> AsyncGenerator[tuple[int, Delta], None]:
        """(Which text, what is new of it), until all have ended."""
        has_begun = [False] * len(self._choices)
        try:
            self._metrics.prompt_tokens.add(sum(len(p.ids) for p in self._asked.prompts))
            while not all(choice.has_ended for choice in self._choices):
                index, token = await self._ticket.next()
                if token.finish == "error":
                    raise ApiError(500, token.message or "the model has failed", "server_error")
                choice = self._choices[index]
                if choice.has_ended:
                    continue
                delta = choice.push(token)
                if token.id is not None:
                    self._measure(index)
                if not has_begun[index]:
                    has_begun[index] = True
                    delta.text = self._echo[index] + delta.text
                    if token.prompt is not None:
                        scored = [(t.id, t.logprob, t.top or ()) for t in token.prompt]
                        delta.scored = scored_prompt(self._model, scored) + delta.scored
                if delta.finish is not None and token.finish is None:
                    self._batcher.cancel(self._ticket, [index])
                yield index, delta
        finally:
            self.cancel()

    def _measure(self, index: int) -> None:
        now = time.perf_counter()
        self._metrics.generated_tokens.add(1)
        if index in self._last:
            self._metrics.token_seconds.observe(now - self._last[index])
        else:
            self._metrics.first_token_seconds.observe(now - self._began)
        self._last[index] = now

    def _echoed(self, index: int) -> str:
        """What stands before a prompt's continuations."""
        if not self._asked.echo:
            return ""
        prompt = self._asked.prompts[index]
        if prompt.text is not None:
            return prompt.text
        return self._model.tokenizer.decode(prompt.ids)

    def _usage(self) -> dict[str, int]:
        read = sum(len(prompt.ids) for prompt in self._asked.prompts)
        made = sum(choice.tokens for choice in self._choices)
        return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}
