"""A probabilistic grammar with memory: what a story says first, it can say again.

A rule is a list of options, one of which is told. What makes it more than a context-free grammar
is that words are *drawn* from tables and remembered, so that the ball that is lost in the second
sentence is the ball that is found in the ninth, and a girl stays *she*:

    [lost]
    - {hero.He} looked (up|down|all around). <search>      one option; a|b|c chooses in place
    3x One day {hero} lost {hero.his} {toy := toys}.       three times as likely; draws a toy

    {toy := toys}          draws a record from the table `toys`, calls it toy, and says its name
    {spot := place.spots}  draws from a table that the record `place` has of its own
    {pal.a := names - hero}  any record but the hero's; says the field `a` of it
    {hero}  {hero.his}  {hero.His}   says the name, another field, a field with a capital
    <search>               goes on with the rule `search`
    ¶                      a new paragraph

Every draw is uniform over its table and every option has a fixed weight, whatever was drawn
before. That is what lets `analysis` compute entropy and length exactly. And **whatever is chosen
is said on the spot**: the texts of two options differ before either ends, as do the words of a
table. The stories are therefore the words of a prefix code: someone who reads from the left knows
each choice as it is made, no two ways of choosing tell the same story, and `reading` can take a
story apart again. `analysis.ambiguities` checks that this holds.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True, eq=False, slots=True)
class Record:
    """Something a story can speak of: its words by field (``name`` always), and tables of its own.

    A field is also there with a capital: ``He`` says ``he`` at the start of a sentence.
    """

    words: dict[str, str]
    tables: dict[str, "Table"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, text in list(self.words.items()):
            self.words.setdefault(name[0].upper() + name[1:], text[:1].upper() + text[1:])


Table: TypeAlias = tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Say:
    """Says a field of a record drawn before."""

    name: str
    field: str


@dataclass(frozen=True, slots=True)
class Draw:
    """Draws a record, uniformly, remembers it by a name and says a field of it.

    The table is ``table``, or else the table ``own[1]`` of the record remembered as ``own[0]``;
    ``without`` names a remembered record that is left out.
    """

    name: str
    field: str
    table: Table
    own: tuple[str, str] | None
    without: str | None

    def candidates(self, memory: Mapping[str, Record]) -> Table:
        """What may be drawn, given what was drawn before."""
        table = self.table if self.own is None else memory[self.own[0]].tables[self.own[1]]
        if self.without is None:
            return table
        other = memory[self.without]
        return tuple(record for record in table if record is not other)


@dataclass(frozen=True, slots=True)
class Choice:
    """Options; each stands in ``ladder`` as often as its weight, so that a choice is uniform."""

    options: tuple["Nodes", ...]
    weights: tuple[int, ...]
    ladder: tuple["Nodes", ...]
    where: str = field(compare=False)


Node: TypeAlias = str | Say | Draw | Choice
Nodes: TypeAlias = tuple[Node, ...]

# Picks one element of a sequence, each with the same probability.
Pick: TypeAlias = Callable[[Sequence[Any]], Any]


def tell(nodes: Nodes, pick: Pick, memory: dict[str, Record], say: Callable[[str], None]) -> None:
    """Tells one text of ``nodes``, piece by piece, with the choices that ``pick`` makes."""
    for node in nodes:
        kind = type(node)
        if kind is str:
            say(node)  # type: ignore[arg-type]
        elif kind is Say:
            say(memory[node.name].words[node.field])  # type: ignore[union-attr]
        elif kind is Choice:
            tell(pick(node.ladder), pick, memory, say)  # type: ignore[union-attr]
        else:
            record = pick(node.candidates(memory))  # type: ignore[union-attr]
            memory[node.name] = record  # type: ignore[union-attr]
            say(record.words[node.field])  # type: ignore[union-attr]


def compile_rules(source: str, tables: Mapping[str, Table], start: str) -> Nodes:
    """Makes the grammar that begins with the rule ``start``.

    Raises:
        ValueError: the source says something that is no grammar; the message names the rule.
    """
    return (_Compiler(_split_rules(source), tables).rule(start),)


def _split_rules(source: str) -> dict[str, list[tuple[int, str]]]:
    """The rules of a source: per name the options, each with its weight."""
    rules: dict[str, list[tuple[int, str]]] = {}
    options: list[tuple[int, str]] = []
    for line in filter(None, map(str.strip, source.splitlines())):
        if heading := re.fullmatch(r"\[([\w-]+)\]", line):
            options = rules[heading[1]] = []
        elif option := re.fullmatch(r"(?:-|(\d+)x) (.*)", line):
            options.append((int(option[1] or 1), option[2]))
        else:  # goes on with the option above
            weight, text = options.pop()
            options.append((weight, f"{text} {line}"))
    return rules


_TOKEN = re.compile(r"\{([^{}]*)\}|<([\w-]+)>|([(|)])|([^{}<>(|)]+)")
_DRAW = re.compile(r"(\w+)(?:\.(\w+))? := (\w+)(?:\.(\w+))?(?: - (\w+))?")
_SAY = re.compile(r"(\w+)(?:\.(\w+))?")


class _Compiler:
    def __init__(
        self, rules: dict[str, list[tuple[int, str]]], tables: Mapping[str, Table]
    ) -> None:
        self._rules = rules
        self._tables = tables
        self._done: dict[str, Choice] = {}

    def rule(self, name: str) -> Choice:
        if name not in self._done:
            if name not in self._rules:
                raise ValueError(f"there is no rule [{name}]")
            options = [(weight, self._text(text, name)) for weight, text in self._rules[name]]
            self._done[name] = _choice(options, f"[{name}]")
        return self._done[name]

    def _text(self, text: str, rule: str) -> Nodes:
        text = re.sub(r"\s*¶\s*", "\n\n", text)
        tokens = list(_TOKEN.finditer(text))
        if "".join(token[0] for token in tokens) != text:
            raise ValueError(f"[{rule}]: unbalanced braces in {text!r}")
        nodes, rest = self._sequence(tokens, rule)
        if rest:
            raise ValueError(f"[{rule}]: unbalanced brackets in {text!r}")
        return nodes

    def _sequence(self, tokens: list[re.Match[str]], rule: str) -> tuple[Nodes, Any]:
        """The nodes up to the next bracket or bar that is not one's own, and what follows."""
        nodes: list[Node] = []
        while tokens and tokens[0][0] not in ("|", ")"):
            braces, call, bracket, literal = tokens[0].groups()
            tokens = tokens[1:]
            if bracket:
                choice, tokens = self._inline(tokens, rule)
                nodes.append(choice)
            elif literal:
                nodes.append(literal)
            else:
                nodes.append(self.rule(call) if call else self._braces(braces, rule))
        return tuple(nodes), tokens

    def _inline(self, tokens: list[re.Match[str]], rule: str) -> tuple[Choice, Any]:
        options = []
        source = ""
        while True:
            nodes, rest = self._sequence(tokens, rule)
            source += "".join(token[0] for token in tokens[: len(tokens) - len(rest)])
            if not rest:
                raise ValueError(f"[{rule}]: ({source} has no end")
            options.append((1, nodes))
            tokens = rest[1:]
            if rest[0][0] == ")":
                return _choice(options, f"[{rule}] ({source})"), tokens
            source += "|"

    def _braces(self, text: str, rule: str) -> Node:
        if say := _SAY.fullmatch(text):
            return Say(say[1], say[2] or "name")
        draw = _DRAW.fullmatch(text)
        if not draw:
            raise ValueError(f"[{rule}]: {{{text}}} is neither a name nor a draw")
        name, word, table, own, without = draw.groups()
        if own:
            return Draw(name, word or "name", (), (table, own), without)
        if table not in self._tables:
            raise ValueError(f"[{rule}]: there is no table {table!r}")
        return Draw(name, word or "name", self._tables[table], None, without)


def _choice(options: list[tuple[int, Nodes]], where: str) -> Choice:
    ladder = tuple(nodes for weight, nodes in options for _ in range(weight))
    return Choice(tuple(n for _, n in options), tuple(w for w, _ in options), ladder, where)
