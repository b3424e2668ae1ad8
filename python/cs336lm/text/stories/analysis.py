"""Exact entropy and length of a grammar, and the proof that no two choices tell the same story.

**Entropy.** By the chain rule, the entropy of all choices is the sum over the choices of the
probability that one is met, times its own entropy given what was chosen before (Cover and
Thomas, *Elements of Information Theory*, theorem 2.5.1). An option's weight never depends on what
was drawn, so the probability of meeting a choice is a product of weights; a draw of one in n has
log n nats, where n can depend on one record drawn before, whose distribution is carried along.
As distinct choices tell distinct stories, the entropy of the choices is that of the stories.

**Length.** Expectation is linear: what is said of a record counts its expected length under the
distribution of that record alone, whatever it has to do with the others.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from cs336lm.text.stories.grammar import Choice, Draw, Node, Nodes, Record, Say, Table

# What a remembered name may stand for, and how probably.
_Beliefs = dict[str, dict[Record, float]]


@dataclass(frozen=True)
class Measure:
    """Expected information and expected length of a text."""

    nats: float
    bytes: float


def measure(nodes: Nodes) -> Measure:
    """Entropy in nats and expected UTF-8 bytes of what ``nodes`` tell.

    Raises:
        ValueError: a name is said that may not have been drawn, or is drawn twice, or a draw
            depends on two records (whose joint distribution is not carried along).
    """
    return _measure(nodes, {})


def _measure(nodes: Nodes, beliefs: _Beliefs) -> Measure:
    """Measures, and adds to ``beliefs`` what is drawn for certain."""
    nats, length = [], []
    for node in nodes:
        if isinstance(node, str):
            length.append(float(len(node.encode())))
        elif isinstance(node, Say):
            length.append(_expected_length(_known(beliefs, node.name), node.field))
        elif isinstance(node, Draw):
            nats.append(_measure_draw(node, beliefs))
            length.append(_expected_length(beliefs[node.name], node.field))
        else:
            told = _measure_choice(node, beliefs)
            nats.append(told.nats)
            length.append(told.bytes)
    return Measure(math.fsum(nats), math.fsum(length))


def _measure_choice(choice: Choice, beliefs: _Beliefs) -> Measure:
    total = sum(choice.weights)
    nats, length = [], []
    after: list[tuple[float, _Beliefs]] = []
    for option, weight in zip(choice.options, choice.weights, strict=True):
        then = dict(beliefs)
        told = _measure(option, then)
        chance = weight / total
        nats.append(chance * (told.nats - math.log(chance)))
        length.append(chance * told.bytes)
        after.append((chance, then))
    for name in set.intersection(*(set(then) for _, then in after)) - set(beliefs):
        mixed: dict[Record, float] = {}
        for chance, then in after:
            for record, share in then[name].items():
                mixed[record] = mixed.get(record, 0.0) + chance * share
        beliefs[name] = mixed
    return Measure(math.fsum(nats), math.fsum(length))


def _measure_draw(draw: Draw, beliefs: _Beliefs) -> float:
    """The entropy of a draw; what was drawn is added to ``beliefs``."""
    if draw.name in beliefs:
        raise ValueError(f"{draw.name!r} is drawn twice")
    depends = [name for name in (draw.own and draw.own[0], draw.without) if name]
    if len(depends) > 1:
        raise ValueError(f"the draw of {draw.name!r} depends on two records")
    nats = 0.0
    drawn: dict[Record, float] = {}
    for memory, chance in _memories(depends, beliefs):
        candidates = draw.candidates(memory)
        nats += chance * math.log(len(candidates))
        for record in candidates:
            drawn[record] = drawn.get(record, 0.0) + chance / len(candidates)
    beliefs[draw.name] = drawn
    return nats


def _memories(depends: list[str], beliefs: _Beliefs) -> Iterator[tuple[dict[str, Record], float]]:
    """What may be remembered of the one record that a draw depends on, if it does on one."""
    if not depends:
        yield {}, 1.0
    for name in depends:
        for record, chance in _known(beliefs, name).items():
            yield {name: record}, chance


def _known(beliefs: _Beliefs, name: str) -> dict[Record, float]:
    if name not in beliefs:
        raise ValueError(f"{name!r} is said where it may not have been drawn")
    return beliefs[name]


def _expected_length(distribution: dict[Record, float], field: str) -> float:
    return math.fsum(
        chance * len(record.words[field].encode()) for record, chance in distribution.items()
    )


def ambiguities(nodes: Nodes) -> list[str]:
    """The choices that a reader from the left could not tell apart; empty: a prefix code.

    At each choice, the texts of any two options are to differ before either ends, and so are the
    words of any two records of a draw. Then each text has one derivation, by induction over its
    length: of two options at most one can stand at the place read, and it can end in one place
    only. A remembered name counts as any record that it may stand for anywhere in the grammar,
    which errs on the safe side.
    """
    may_be: dict[str, set[Record]] = {}
    found: list[str] = []
    for draw in (node for node in _walk(nodes) if isinstance(node, Draw)):
        for table in _tables(draw, may_be):
            may_be.setdefault(draw.name, set()).update(table)
            for one, other in combinations(sorted(r.words[draw.field] for r in table), 2):
                if other.startswith(one):
                    found.append(f"{{{draw.name}.{draw.field}}}: {one!r} begins {other!r}")
    for choice in (node for node in _walk(nodes) if isinstance(node, Choice)):
        for option, rival in combinations(choice.options, 2):
            shared = _shared_text(option, rival, may_be)
            if shared is not None:
                found.append(f"{choice.where}: two options can say {shared!r}")
    return list(dict.fromkeys(found))


def _walk(nodes: Nodes) -> Iterator[Node]:
    """All nodes, in the order of reading."""
    for node in nodes:
        yield node
        if isinstance(node, Choice):
            for option in node.options:
                yield from _walk(option)


def _tables(draw: Draw, may_be: dict[str, set[Record]]) -> list[Table]:
    if draw.own is None:
        return [draw.table]
    return [record.tables[draw.own[1]] for record in may_be[draw.own[0]]]


@dataclass(frozen=True, slots=True)
class _Text:
    """Texts that all begin with ``said`` and go on with what ``rest`` tells."""

    said: str
    rest: Nodes

    def branches(self, may_be: dict[str, set[Record]]) -> "Iterator[_Text]":
        """The same texts, parted by what the first node of the rest says."""
        node, rest = self.rest[0], self.rest[1:]
        if isinstance(node, str):
            yield _Text(self.said + node, rest)
        elif isinstance(node, Choice):
            yield from (_Text(self.said, option + rest) for option in node.options)
        else:
            tables = _tables(node, may_be) if isinstance(node, Draw) else [may_be[node.name]]
            words = {record.words[node.field] for table in tables for record in table}
            yield from (_Text(self.said + word, rest) for word in words)


def _shared_text(one: Nodes, other: Nodes, may_be: dict[str, set[Record]]) -> str | None:
    """A text of one side that begins a text of the other; None if there is none."""
    open_pairs = [(_Text("", one), _Text("", other))]
    while open_pairs:
        ahead, behind = open_pairs.pop()
        if len(ahead.said) < len(behind.said):
            ahead, behind = behind, ahead
        if not ahead.said.startswith(behind.said):
            continue
        if behind.rest:
            open_pairs += ((ahead, longer) for longer in behind.branches(may_be))
        else:  # one has ended, and the other begins with it
            return behind.said
    return None
