"""Takes a story apart: which choices told it, and how probable they were.

A reader goes from left to right and at each choice tries the options in turn. Because the
stories are a prefix code (see `grammar`) at most one option's text can stand there, so the first
that fits is the one that was chosen, and nothing needs to be taken back.
"""

import math
from dataclasses import dataclass, field
from itertools import takewhile

from cs336lm.text.stories.grammar import Choice, Draw, Node, Nodes, Record, Say


@dataclass
class Reading:
    """What is known of a text: the choices that told it, as far as it could be told.

    ``choices`` holds (index of what was chosen, its probability), in the order in which `tell`
    chooses; ``end`` is where the text read so far ends, ``furthest`` the first character that no
    choice explains, and ``whole`` whether it is the whole text that was read.
    """

    text: str
    choices: list[tuple[int, float]] = field(default_factory=list)
    memory: dict[str, Record] = field(default_factory=dict)
    end: int = 0
    furthest: int = 0
    whole: bool = False

    @property
    def log_probability(self) -> float:
        """In nats."""
        return math.fsum(math.log(probability) for _, probability in self.choices)

    def read(self, nodes: Nodes) -> bool:
        """Reads one text of ``nodes`` from ``end`` on; False if none stands there."""
        return all(map(self._read_node, nodes))

    def _read_node(self, node: Node) -> bool:
        if isinstance(node, str):
            return self._expect(node)
        if isinstance(node, Say):
            return self._expect(self.memory[node.name].words[node.field])
        return self._read_choice(node) if isinstance(node, Choice) else self._read_draw(node)

    def _read_choice(self, choice: Choice) -> bool:
        start, known, total = self.end, len(self.choices), sum(choice.weights)
        for index, (option, weight) in enumerate(zip(choice.options, choice.weights, strict=True)):
            self.choices.append((index, weight / total))
            if self.read(option):
                return True
            self.end = start
            del self.choices[known:]
        return False

    def _read_draw(self, draw: Draw) -> bool:
        candidates = draw.candidates(self.memory)
        for index, record in enumerate(candidates):
            if self._expect(record.words[draw.field]):
                self.choices.append((index, 1 / len(candidates)))
                self.memory[draw.name] = record
                return True
        return False

    def _expect(self, words: str) -> bool:
        here = self.text[self.end : self.end + len(words)]
        if here == words:
            self.end += len(words)
            self.furthest = max(self.furthest, self.end)
            return True
        same = takewhile(lambda pair: pair[0] == pair[1], zip(here, words, strict=False))
        self.furthest = max(self.furthest, self.end + sum(1 for _ in same))
        return False
