"""What a server counts, in the text format that Prometheus reads.

Counters only grow, gauges are asked when they are shown, histograms count what is below each bound.
All of it happens in the event loop's thread.
"""

from __future__ import annotations

import bisect
import itertools
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_FIRST_TOKEN = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BETWEEN_TOKENS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_REQUEST = (0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metric(Protocol):
    """A family of figures."""

    name: str
    what: str
    kind: str

    def lines(self) -> Iterator[str]:
        """Its samples."""


class Counter:
    """A number that grows, one for each set of labels."""

    kind = "counter"

    def __init__(self, name: str, what: str, labels: Sequence[str] = ()) -> None:
        self.name, self.what = name, what
        self._labels = labels
        self._values: Tally[tuple[str, ...]] = Tally()
        if not labels:
            self._values[()] = 0

    def add(self, amount: int, *values: str) -> None:
        """Counts on; ``values`` are those of the labels."""
        self._values[values] += amount

    def lines(self) -> Iterator[str]:
        """A line for each set of labels."""
        for values, count in sorted(self._values.items()):
            named = ",".join(
                f'{label}="{_escaped(value)}"'
                for label, value in zip(self._labels, values, strict=True)
            )
            yield f"{self.name}{{{named}}} {count}" if named else f"{self.name} {count}"


class Gauge:
    """A number that is asked for."""

    kind = "gauge"

    def __init__(self, name: str, what: str, ask: Callable[[], float]) -> None:
        self.name, self.what = name, what
        self._ask = ask

    def lines(self) -> Iterator[str]:
        """The one line."""
        yield f"{self.name} {self._ask():g}"


class Histogram:
    """How many observations were at most each bound, and their sum."""

    kind = "histogram"

    def __init__(self, name: str, what: str, bounds: Sequence[float]) -> None:
        self.name, self.what = name, what
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Counts a value."""
        self._counts[bisect.bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self) -> Iterator[str]:
        """A line for each bound, the sum, and the count."""
        below = list(itertools.accumulate(self._counts))
        for bound, count in zip(self._bounds, below, strict=False):
            yield f'{self.name}_bucket{{le="{bound:g}"}} {count}'
        yield f'{self.name}_bucket{{le="+Inf"}} {below[-1]}'
        yield f"{self.name}_sum {self._sum}"
        yield f"{self.name}_count {below[-1]}"


class Metrics:
    """All that is counted. ``gauges``: (name, what it is, how it is asked for)."""

    def __init__(self) -> None:
        self.requests = Counter("cs336lm_requests_total", "Requests answered.", ["route", "status"])
        self.cancelled = Counter("cs336lm_cancelled_total", "Requests whose client went away.")
        self.prompt_tokens = Counter("cs336lm_prompt_tokens_total", "Tokens of prompts.")
        self.generated_tokens = Counter("cs336lm_generated_tokens_total", "Tokens drawn.")
        self.first_token_seconds = Histogram(
            "cs336lm_first_token_seconds", "From a request to a text's first token.", _FIRST_TOKEN
        )
        self.token_seconds = Histogram(
            "cs336lm_token_seconds", "Between two tokens of a text.", _BETWEEN_TOKENS
        )
        self.request_seconds = Histogram(
            "cs336lm_request_seconds", "From a request's headers to its answer's end.", _REQUEST
        )
        self._all: list[Metric] = [
            self.requests,
            self.cancelled,
            self.prompt_tokens,
            self.generated_tokens,
            self.first_token_seconds,
            self.token_seconds,
            self.request_seconds,
        ]

    def gauge(self, name: str, what: str, ask: Callable[[], float]) -> None:
        """Adds a figure that is asked for when it is shown."""
        self._all.append(Gauge(name, what, ask))

    def text(self) -> str:
        """All of it, as Prometheus reads it."""
        lines: list[str] = []
        for metric in self._all:
            lines.append(f"# HELP {metric.name} {metric.what}")
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            lines += metric.lines()
        return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
