"""The built-in corpus: exact entropy, stories that can be read back, bytes that never change."""

import hashlib
import math
import random
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from statistics import mean, stdev
from typing import Any

import pytest
from cs336lm.cli.main import main
from cs336lm.errors import UsageError
from cs336lm.text.stories import (
    SEPARATOR,
    corpus,
    entropy,
    log_probability,
    read_story,
    stories,
    story_grammar,
)
from cs336lm.text.stories.analysis import ambiguities, measure
from cs336lm.text.stories.grammar import Choice, Draw, Nodes, Record, Say, compile_rules, tell
from cs336lm.text.stories.reading import Reading
from hypothesis import given, settings
from hypothesis import strategies as st


def told(grammar: Nodes, pick: Any) -> str:
    pieces: list[str] = []
    tell(grammar, pick, {}, pieces.append)
    return "".join(pieces)


def enumerate_texts(grammar: Nodes) -> Iterator[tuple[str, float]]:
    """Every way of choosing, the obvious way: the text it tells and its probability."""
    fixed: list[int] = []
    while True:
        sizes: list[int] = []

        def pick(options: Sequence[Any], sizes: list[int] = sizes) -> Any:
            if len(sizes) == len(fixed):
                fixed.append(0)
            sizes.append(len(options))
            return options[fixed[len(sizes) - 1]]

        text = told(grammar, pick)
        yield text, 1 / math.prod(sizes)
        while fixed and fixed[-1] + 1 == sizes[len(fixed) - 1]:
            fixed.pop()
        if not fixed:
            return
        fixed[-1] += 1


def distribution(grammar: Nodes) -> dict[str, float]:
    chances: dict[str, float] = {}
    for text, chance in enumerate_texts(grammar):
        chances[text] = chances.get(text, 0.0) + chance
    assert math.isclose(sum(chances.values()), 1)
    return chances


def table(*names: str, **own: tuple[Record, ...]) -> tuple[Record, ...]:
    return tuple(Record({"name": name, "cry": name * 2}, own) for name in names)


SMALL = """
[start]
2x A {pet := pets} <met> {pet.Cry}!
- The {pet := kings} <met>
[met]
3x met (a {other := pets} or (one|two more)|nobody but {other := pets - pet}).
- had a {spot := pet.spots}{spot}, {other.cry := kings - pet}.
"""
TABLES = {
    "pets": (
        *table("cat", spots=table("red", "blue", "yellow")),
        *table("dog", "horse", spots=table("pink")),
    ),
    "kings": table("Otto", "Ada", spots=table("gold", "silver")),
}


def test_measure_equals_enumeration():
    grammar = compile_rules(SMALL, TABLES, "start")
    assert ambiguities(grammar) == []
    chances = distribution(grammar)
    exact = measure(grammar)
    assert exact.nats == pytest.approx(-sum(p * math.log(p) for p in chances.values()), rel=1e-12)
    assert exact.bytes == pytest.approx(sum(p * len(t) for t, p in chances.items()), rel=1e-12)


def test_reading_equals_enumeration():
    grammar = compile_rules(SMALL, TABLES, "start")
    for text, chance in distribution(grammar).items():
        reading = Reading(text)
        assert reading.read(grammar)
        assert reading.end == len(text)
        assert reading.log_probability == pytest.approx(math.log(chance), rel=1e-12)


@pytest.mark.parametrize(
    "rules",
    [
        "[start]\n- a\n- ab",
        "[start]\n- (a|b)c\n- b(cd|e)",
        "[start]\n- {x := pets}\n- dog",
        "[start]\n- {x := kings} {y := pets}{x}\n- Ada cat\n- Ada horseAda",
        "[start]\n- {x := pets}{y := words}",
    ],
)
def test_ambiguities_are_found(rules):
    tables = {**TABLES, "words": table("in", "into")}
    assert ambiguities(compile_rules(rules, tables, "start"))


_texts = st.text("ab", min_size=1, max_size=2)
_names = st.sampled_from(["x", "y"])


def _choices(nodes):
    return st.lists(st.tuples(st.integers(1, 2), nodes), min_size=1, max_size=3).map(
        lambda options: Choice(
            tuple(n for _, n in options),
            tuple(w for w, _ in options),
            tuple(n for w, n in options for _ in range(w)),
            "",
        )
    )


_draws = st.builds(
    lambda name, words: Draw(name, "name", table(*words), None, None),
    _names,
    st.lists(_texts, min_size=1, max_size=3, unique=True),
)
_grammars = st.recursive(
    st.lists(st.one_of(_texts, _names.map(lambda n: Say(n, "name")), _draws), max_size=3).map(
        tuple
    ),
    lambda inner: st.lists(st.one_of(_texts, _choices(inner)), min_size=1, max_size=3).map(tuple),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(_grammars)
def test_no_ambiguities_means_a_prefix_code_with_exact_entropy(grammar):
    try:
        exact = measure(grammar)
    except ValueError:  # says what was not drawn, or draws it twice
        return
    if ambiguities(grammar):
        return
    chances = distribution(grammar)
    assert not any(b.startswith(a) for a, b in pairwise(sorted(chances)))
    assert exact.nats == pytest.approx(
        -sum(p * math.log(p) for p in chances.values()), rel=1e-9, abs=1e-12
    )
    assert exact.bytes == pytest.approx(sum(p * len(t) for t, p in chances.items()), rel=1e-9)
    for text, chance in chances.items():
        reading = Reading(text)
        assert reading.read(grammar)
        assert reading.end == len(text)
        assert reading.log_probability == pytest.approx(math.log(chance), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("rules", "complaint"),
    [
        ("[start]\n- {x}", "'x' is said where it may not have been drawn"),
        ("[start]\n- (a{x := pets}|b) {x}", "'x' is said where"),
        ("[start]\n- {x := pets} {x := pets}", "'x' is drawn twice"),
        ("[start]\n- {x := pets} {z := kings} {y := x.spots - z}", "depends on two records"),
        ("[start]\n- <other>", "there is no rule \\[other\\]"),
        ("[start]\n- {x := cars}", "there is no table 'cars'"),
        ("[start]\n- {x = pets}", "neither a name nor a draw"),
        ("[start]\n- (a|b", "has no end"),
        ("[start]\n- a)", "unbalanced brackets"),
        ("[start]\n- {a", "unbalanced braces"),
    ],
)
def test_what_is_no_grammar_is_refused(rules, complaint):
    with pytest.raises(ValueError, match=complaint):
        measure(compile_rules(rules, TABLES, "start"))


def test_the_stories_are_a_prefix_code():
    assert ambiguities(story_grammar()) == []


def test_stories_are_read_back_choice_by_choice():
    for seed in range(400):
        choices: list[tuple[int, float]] = []
        choose = random.Random(seed).choice

        def pick(options: Sequence[Any], choices: Any = choices, choose: Any = choose) -> Any:
            chosen = choose(options)
            same = [index for index, option in enumerate(options) if option is chosen]
            # What an option weighs is how often it stands in the ladder.
            different = list(dict.fromkeys(map(id, options)))
            choices.append((different.index(id(chosen)), len(same) / len(options)))
            return chosen

        text = told(story_grammar(), pick)
        reading = read_story(text)
        assert reading.whole
        assert reading.choices == choices


def test_entropy_and_length_are_what_samples_show():
    sample = list(islice(stories(seed=7), 6000))
    information = [-log_probability(story) for story in sample]
    sizes = [len((story + SEPARATOR).encode()) for story in sample]
    floor = entropy()
    for values, expected in ((information, floor.nats_per_story), (sizes, floor.bytes_per_story)):
        assert abs(mean(values) - expected) < 4 * stdev(values) / math.sqrt(len(values))
    assert floor.bits_per_byte == pytest.approx(floor.nats_per_token(1.0) / math.log(2), rel=1e-12)


def test_what_the_grammar_cannot_tell_has_no_probability():
    story = next(stories(seed=3))
    assert math.isfinite(log_probability(story))
    assert log_probability(story) == log_probability(story + SEPARATOR)
    for other in ("", story[:-1], story + story, story + "\n\n", story.replace(" was ", " is ", 1)):
        assert log_probability(other) == -math.inf
    reading = read_story(story.replace("named ", "called "))
    assert not reading.whole
    assert reading.text[: reading.furthest].endswith(" ")
    assert reading.text[reading.furthest :].startswith("called ")


def philox(key: int, counter: int) -> list[int]:
    """Philox-4x64-10 as in Salmon et al. 2011, section 3.3."""
    mask = (1 << 64) - 1
    x = [counter >> (64 * i) & mask for i in range(4)]
    k = [key & mask, key >> 64]
    for _ in range(10):
        left, right = x[0] * 0xD2E7470EE14C6C93, x[2] * 0xCA5A826395121157
        x = [(right >> 64) ^ x[1] ^ k[0], right & mask, (left >> 64) ^ x[3] ^ k[1], left & mask]
        k = [(k[0] + 0x9E3779B97F4A7C15) & mask, (k[1] + 0xBB67AE8584CAA73B) & mask]
    return x


@pytest.mark.parametrize("seed", [0, 1, 2**128 - 1])
def test_the_seed_decides_by_a_published_generator(seed):
    numbers = (number >> 34 for block in range(1, 200) for number in philox(seed, block))

    def pick(options: Sequence[Any]) -> Any:
        limit = 2**30 - 2**30 % len(options)
        return options[next(n for n in numbers if n < limit) % len(options)]

    mine = [told(story_grammar(), pick) for _ in range(8)]
    assert list(islice(stories(seed), 8)) == mine


def test_the_generator_is_the_published_one():
    # Known answer of the Random123 distribution: counter and key of zeros.
    assert [f"{x:016x}" for x in philox(0, 0)] == [
        "16554d9eca36314c",
        "db20fe9d672d0fdc",
        "d7e772cee186176b",
        "7e68b68aec7ba23b",
    ]


def test_the_bytes_of_a_seed_never_change():
    """Whoever changes the stories changes every figure measured on them: say so in CHANGELOG.md."""
    digest = hashlib.sha256(b"".join(corpus(100_000, seed=1))).hexdigest()
    assert digest == "714d4d2411b9a9bc0b955649d3bd46bab4287430d9497902811f75bda80dd1fa"


def test_impossible_seeds_are_refused():
    for seed in (-1, 2**128):
        with pytest.raises(UsageError, match=str(seed)):
            stories(seed)


@pytest.mark.parametrize("size", [1, 745, 65_536, 200_000])
def test_a_corpus_is_as_many_whole_stories_as_fit(size):
    blocks = list(corpus(size, seed=5))
    assert all(block.endswith(SEPARATOR.encode()) for block in blocks)
    text = b"".join(blocks).decode()
    *held, rest = text.split(SEPARATOR)
    following = list(islice(stories(seed=5), len(held) + 1))
    assert rest == ""
    assert held == following[:-1]
    assert len(text) <= size or len(held) == 1
    assert len(text) + len(following[-1]) + len(SEPARATOR) > size


def test_command_writes_and_reads(tmp_path, capsys):
    out = tmp_path / "stories.txt"
    assert main(["stories", "--megabytes", "0.05", "--seed", "9", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    held = out.read_text().count("<|endoftext|>")
    assert f"{held} stories" in printed
    assert f"{entropy().bits_per_byte:.5f} bits per byte" in printed
    assert out.read_bytes() == b"".join(corpus(50_000, seed=9))

    assert main(["stories", "--read", str(out)]) == 0
    assert f"{held} of {held} texts are stories" in capsys.readouterr().out
    out.write_text(out.read_text() + "Once upon a time, there was nobody at all.")
    assert main(["stories", "--read", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"{held} of {held + 1} texts are stories" in printed
    assert f"text {held + 1} is none" in printed
    assert "'nobody at all.'" in printed


def test_command_writes_to_standard_output(capsysbinary):
    assert main(["stories", "--megabytes", "0.01", "--seed", "9", "--out", "-"]) == 0
    captured = capsysbinary.readouterr()
    assert captured.out == b"".join(corpus(10_000, seed=9))
    assert b"bits per byte" in captured.err


def test_command_leaves_nothing_half_written(tmp_path, capsys):
    empty = tmp_path / "empty.txt"
    empty.touch()
    before = list(tmp_path.iterdir())
    for arguments, status, complaint in [
        (["--out", str(tmp_path)], 2, "is a directory"),
        (["--out", str(tmp_path / "none" / "a.txt")], 1, "No such file"),
        (["--out", str(tmp_path / "a.txt"), "--seed", "-1"], 2, "seed -1"),
        (["--read", str(empty)], 1, "holds no text"),
        (["--read", str(tmp_path / "none.txt")], 1, "No such file"),
    ]:
        assert main(["stories", "--megabytes", "0.01", *arguments]) == status
        error = capsys.readouterr().err
        assert complaint in error
        assert error.count("\n") == 1
        assert list(tmp_path.iterdir()) == before
    for amount in ("0", "-1", "nan", "inf", "many"):
        with pytest.raises(SystemExit) as stopped:
            main(["stories", "--megabytes", amount, "--out", str(tmp_path / "a.txt")])
        assert stopped.value.code == 2


def test_bits_per_byte_of_text_leave_the_special_token_out():
    """As `cs336lm evaluate` counts: the newlines around ``<|endoftext|>`` are text, it is not."""
    sample = list(islice(stories(seed=11), 6000))
    bits = [-log_probability(story) / math.log(2) for story in sample]
    sizes = [len((story + SEPARATOR).replace("<|endoftext|>", "").encode()) for story in sample]
    floor = entropy()
    assert floor.bits_per_text_byte == pytest.approx(sum(bits) / sum(sizes), rel=0.01)
    # The separator is 2 % of a story, and the scatter of the sample less than that.
    assert floor.bits_per_text_byte / floor.bits_per_byte == pytest.approx(1.0178, abs=1e-4)
