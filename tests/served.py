"""A server in a thread of the test, with a model that is a few lines: it says its prompt again.

What the engine is asked and what comes of it is told exactly: the i-th token of a continuation is
the prompt's i-th, from its beginning again and again. So no text but the prompt's own can be in an
answer, and what should be there can be written down.
"""

import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from email.message import Message

from cs336lm import Tokenizer
from cs336lm.errors import UsageError
from cs336lm.generation.batching import PromptToken, Request, Token
from cs336lm.serving.app import Service
from cs336lm.serving.batching import Batcher
from cs336lm.serving.gate import Access
from cs336lm.serving.limits import Limits
from cs336lm.serving.served_model import ServedModel
from cs336lm.serving.server import Server, bind, url_of

MERGES = [(b"t", b"h"), (b"th", b"e"), (b" ", b"the"), (b"a", b"t"), (b"o", b"n"), (b" ", b"s")]
END = "<|endoftext|>"
LIMITS = Limits(max_prompt_tokens=1000, max_new_tokens=500, max_sequences=8, max_queue=8)


def make_tokenizer(special=(END, "<|im_start|>", "<|im_end|>")) -> Tokenizer:
    tokens = [bytes([i]) for i in range(256)] + [left + right for left, right in MERGES]
    return Tokenizer(dict(enumerate(tokens)), MERGES, special)


@dataclass
class Row:
    number: int
    request: Request
    made: int = 0


@dataclass
class Parrot:
    """An engine that repeats prompts. ``pause``: seconds that a step takes."""

    max_sequences: int = 8
    pause: float = 0.0
    die_at: int | None = None
    """The number of the step that fails."""
    rows: list[Row] = field(default_factory=list)
    steps: int = 0
    numbers: int = 0
    cancelled: list[int] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)

    def add(self, request):
        if request.sampling.top_k == 999:
            raise UsageError("the engine does not like 999")
        self.asked.append(request)
        rows = [Row(self.numbers + i, request) for i in range(request.n)]
        self.numbers += request.n
        self.rows += rows
        return [row.number for row in rows]

    def cancel(self, sequence):
        self.cancelled.append(sequence)
        self.rows = [row for row in self.rows if row.number != sequence]

    def has_work(self):
        return bool(self.rows)

    @property
    def running(self):
        return min(len(self.rows), self.max_sequences)

    @property
    def waiting(self):
        return len(self.rows) - self.running

    def step(self):
        self.steps += 1
        if self.steps == self.die_at:
            raise RuntimeError("out of\nmemory")
        time.sleep(self.pause)
        events = [self._next(row) for row in self.rows[: self.max_sequences]]
        ended = {event.sequence for event in events if event.finish}
        self.rows = [row for row in self.rows if row.number not in ended]
        return events

    def _next(self, row):
        request = row.request
        prompt = None
        if row.made == 0 and request.prompt_logprobs is not None:
            prompt = [
                PromptToken(
                    token,
                    -1.0 - place if place else None,
                    near(token, request.prompt_logprobs) if place else None,
                )
                for place, token in enumerate(request.prompt)
            ]
        if request.max_new_tokens == 0:
            return Token(row.number, None, None, None, prompt, "length", None)
        token = request.prompt[row.made % len(request.prompt)]
        row.made += 1
        finish = "length" if row.made == request.max_new_tokens else None
        if token in request.stop_ids:
            return Token(row.number, None, None, None, prompt, "stop", None)
        if token == ord("\x18"):
            return Token(row.number, None, None, None, None, "error", "the logits are NaN")
        top = None if request.logprobs is None else near(token, request.logprobs)
        return Token(row.number, token, -0.5, top, prompt, finish, None)


def near(token, count):
    """The likeliest tokens, the one that comes among them (if there are any)."""
    return [((token + i) % 256, -0.5 - i) for i in range(count)]


def make_service(engine=None, limits=LIMITS, **model) -> Service:
    tokenizer = model.pop("tokenizer", None) or make_tokenizer()
    served = ServedModel("parrot", tokenizer, len(tokenizer), 64, **model)
    return Service(served, Batcher(engine or Parrot(), limits.max_outstanding), limits)


@contextlib.contextmanager
def running(service: Service, access: Access | None = None, send_buffer: int | None = None):
    """The address of a server that runs inside the ``with``."""
    with bind("127.0.0.1", 0) as bound:
        if send_buffer is not None:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        server = Server(service, access or Access())
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.005)
            assert server.started
            yield url_of(bound)
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@dataclass
class Answered:
    status: int
    headers: Message
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def events(self):
        """What a stream says: JSON, or ``[DONE]``."""
        blocks = self.body.decode().split("\n\n")
        assert blocks.pop() == ""
        assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
        said = [block.removeprefix("data: ") for block in blocks]
        return [text if text == "[DONE]" else json.loads(text) for text in said]


def ask(url, path, body=None, headers=(), method=None) -> Answered:
    """A request by Python's own client; ``body`` is JSON, or bytes as they are."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    kind = {} if body is None else {"Content-Type": "application/json"}
    request = urllib.request.Request(url + path, data, kind | dict(headers), method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return Answered(response.status, response.headers, response.read())
    except urllib.error.HTTPError as error:
        return Answered(error.code, error.headers, error.read())


def connect(url) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def until(true, seconds=20):
    """Waits for something that happens soon."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
