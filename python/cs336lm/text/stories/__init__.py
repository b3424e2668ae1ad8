"""The built-in corpus: short children's stories from a grammar whose entropy is known exactly.

    from cs336lm.text.stories import entropy, log_probability, stories

    for story in islice(stories(seed=1), 3):
        print(story)
    entropy().bits_per_text_byte      # what no language model can beat
    log_probability(story)            # exact, in nats; -inf for what the grammar cannot tell

`grammar` is the notation and what tells a story, `plots` and `words` are what is told; `reading`
takes a story apart again and `analysis` computes its entropy and shows that this is possible.

**The floor.** A corpus is stories that are drawn independently, each followed by `SEPARATOR`. A
model's loss on it, in nats per token averaged over many stories, times tokens per story, is at
least the entropy of a story, whatever the tokenizer (Gibbs' inequality, and the chain rule over
the tokens of a text): so ``loss / ln 2 / (bytes per token)`` is at least ``bits_per_byte``, and
with the bytes of text alone, as ``cs336lm evaluate`` counts them (``<|endoftext|>`` is none), at
least ``bits_per_text_byte``. Two things keep a real model above that, however good it is:

* Training and validation cut the corpus into windows of ``context_length`` tokens anywhere. Where
  a story's beginning lies before the window, the model cannot know whom or what it is about and
  pays for that again, up to the entropy of what it did not see. No exact floor for such windows is
  given here; it is higher than this one, and the less so the longer the window is beside a story.
* A figure from finitely many stories scatters: with n of them, the mean of ``-log p`` itself by
  about ``5 / sqrt(n)`` nats per story.
"""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import TypeVar

from cs336lm.errors import UsageError
from cs336lm.text.stories.analysis import measure
from cs336lm.text.stories.grammar import Nodes, Pick, compile_rules, tell
from cs336lm.text.stories.plots import RULES
from cs336lm.text.stories.reading import Reading
from cs336lm.text.stories.words import TABLES

__all__ = [
    "SEPARATOR",
    "Entropy",
    "corpus",
    "entropy",
    "holds_stories",
    "log_probability",
    "read_story",
    "stories",
]

END_OF_TEXT = "<|endoftext|>"
SEPARATOR = f"\n{END_OF_TEXT}\n"
"""Follows each story of a corpus: ``<|endoftext|>`` on a line of its own."""

T = TypeVar("T")

_BITS = 30  # of each draw: enough to be all but never rejected, and one digit of a Python integer
_BLOCK = 1 << 16


@dataclass(frozen=True)
class Entropy:
    """The information in a story and its expected length, the separator after it included."""

    nats_per_story: float
    bytes_per_story: float

    @property
    def bits_per_byte(self) -> float:
        """Information per byte of an endless corpus: expected bits over expected bytes."""
        return self.nats_per_story / math.log(2) / self.bytes_per_story

    @property
    def bits_per_text_byte(self) -> float:
        """The same per byte of text, of which ``<|endoftext|>`` has none; its newlines are text."""
        text_bytes = self.bytes_per_story - len(END_OF_TEXT)
        return self.nats_per_story / math.log(2) / text_bytes

    def nats_per_token(self, bytes_per_token: float) -> float:
        """The same per token, for a tokenizer that makes tokens of so many bytes of this corpus."""
        return self.nats_per_story * bytes_per_token / self.bytes_per_story


@cache
def story_grammar() -> Nodes:
    """The grammar of one story, without the separator."""
    return compile_rules(RULES, TABLES, "story")


@cache
def entropy() -> Entropy:
    """The entropy of a story, computed from the grammar; see the module's docstring for its use."""
    story = measure(story_grammar())
    return Entropy(story.nats, story.bytes + len(SEPARATOR))


def stories(seed: int) -> Iterator[str]:
    """Stories without end, without separators; the same for the same seed, everywhere.

    Each draw takes the top 30 bits of the next output of Philox-4x64-10 with key ``seed`` and the
    counters 1, 2, 3, ... (Salmon et al. 2011, *Parallel random numbers: as easy as 1, 2, 3*), a
    generator that is fixed for good; no step of NumPy's or Python's own sampling is involved.

    Raises:
        UsageError: ``seed`` is negative or has more than 128 bits.
    """
    if not 0 <= seed < 1 << 128:
        raise UsageError(f"seed {seed} is impossible: it must be from 0 to 2**128 - 1")
    return _tell_forever(_pick_by(seed))


def _tell_forever(pick: Pick) -> Iterator[str]:
    grammar = story_grammar()
    while True:
        pieces: list[str] = []
        tell(grammar, pick, {}, pieces.append)
        yield "".join(pieces)


def _pick_by(seed: int) -> Pick:
    """Picks uniformly from sequences, with numbers that depend on the seed alone."""
    draw = chain.from_iterable(_blocks(seed)).__next__

    def pick(options: Sequence[T]) -> T:
        # Numbers at the top that would favour the first options are drawn again.
        number, limit = draw(), (1 << _BITS) - (1 << _BITS) % len(options)
        while number >= limit:
            number = draw()
        return options[number % len(options)]

    return pick


def _blocks(seed: int) -> Iterator[list[int]]:
    from numpy.random import Philox

    generator = Philox(key=seed)
    while True:
        yield (generator.random_raw(_BLOCK) >> (64 - _BITS)).tolist()


def corpus(size: int, seed: int) -> Iterator[bytes]:
    """A corpus of at most ``size`` bytes, in blocks of some 64 KB that end with a story.

    It holds the first stories of ``stories(seed)``, each followed by `SEPARATOR`: as many as fit,
    but at least one.
    """
    block = bytearray()
    left = size
    for number, story in enumerate(stories(seed)):
        text = (story + SEPARATOR).encode("ascii")
        left -= len(text)
        if left < 0 and number > 0:
            break
        block += text
        if len(block) >= _BLOCK:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)


def read_story(text: str) -> Reading:
    """Reads ``text`` as one story, which may be followed by its separator."""
    reading = Reading(text.removesuffix(SEPARATOR))
    reading.whole = reading.read(story_grammar()) and reading.end == len(reading.text)
    return reading


def holds_stories(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a corpus of such stories does; an empty one does, too."""
    with open(path, "rb") as file:
        start = file.read(_BLOCK).decode("utf-8", "replace")
    return not start or read_story(start.partition(SEPARATOR)[0]).whole


def log_probability(text: str) -> float:
    """The natural logarithm of the probability of a story, exactly; -inf if it has none.

    The text may be followed by its separator, which adds nothing: it is certain.
    """
    reading = read_story(text)
    return reading.log_probability if reading.whole else -math.inf
