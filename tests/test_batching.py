"""Sequences that come and go in one batch: each is what it is alone, bit for bit."""

import itertools
import math
import subprocess
import sys

import pytest
import torch
from choices import CHOICES, model_of
from cs336lm.errors import UsageError
from cs336lm.generation import generate_ids, window_start
from cs336lm.generation.batching import BatchEngine, Request
from cs336lm.generation.batching.buckets import lengths
from cs336lm.generation.sampling import Sampler, SamplingParams
from cs336lm.model import TransformerLM
from hypothesis import given, settings
from hypothesis import strategies as st

GREEDY = SamplingParams(temperature=0)
VOCAB = 50
PROMPTS = [[(7 * n + i * i) % VOCAB for i in range(n)] for n in (1, 5, 12, 13, 40, 3, 17, 6, 2)]


def collect(engine, events):
    """Steps the engine until it is idle; all that it tells goes to ``events``, by sequence."""
    steps = 0
    while engine.has_work():
        assert engine.running <= engine.max_sequences
        assert engine.cache_bytes <= engine.most_cache_bytes
        for token in engine.step():
            events.setdefault(token.sequence, []).append(token[1:])
        steps += 1
        assert steps < 1000
    assert engine.step() == []
    assert engine.cache_bytes == 0
    return events


def alone(model, request, allowed=None):
    """The events of each of the request's sequences, with nobody else there."""
    engine = BatchEngine(model, allowed)
    numbers = engine.add(request)
    events = collect(engine, {})
    return [events[number] for number in numbers]


def ids(events):
    return [event[0] for event in events if event[0] is not None]


@pytest.mark.parametrize("choice", CHOICES)
def test_greedy_equals_generate(choice):
    """Prompts on both sides of the context, more of them than have room, past the window's end."""
    model = model_of(choice)
    steps = generate_ids(model, PROMPTS, 20, Sampler(GREEDY))
    expected = [list(row) for row in zip(*steps, strict=True)]
    engine = BatchEngine(model, max_sequences=4)
    numbers = [engine.add(Request(prompt, 20, GREEDY))[0] for prompt in PROMPTS]
    events = collect(engine, {})
    assert [ids(events[number]) for number in numbers] == expected
    assert all(events[number][-1][4] == "length" for number in numbers)


@pytest.mark.parametrize("context", [1, 2, 3, 17])
def test_the_smallest_contexts(context):
    model = model_of("default", context_length=context)
    steps = generate_ids(model, PROMPTS[:4], 20, Sampler(GREEDY))
    expected = [list(row) for row in zip(*steps, strict=True)]
    found = [alone(model, Request(prompt, 20, GREEDY)) for prompt in PROMPTS[:4]]
    assert [ids(events) for (events,) in found] == expected


@st.composite
def requests(draw):
    sampling = SamplingParams(
        temperature=draw(st.sampled_from([0.0, 0.7, 1.0, 3.0])),
        top_p=draw(st.sampled_from([1.0, 0.9, 0.3])),
        top_k=draw(st.sampled_from([None, None, 1, 5, 49, 99])),
        seed=draw(st.integers(0, 3)),
        presence_penalty=draw(st.sampled_from([0.0, 0.0, 1.5])),
        frequency_penalty=draw(st.sampled_from([0.0, 0.0, -0.5])),
        logit_bias=draw(st.sampled_from([{}, {}, {3: 2.5, 8: -100.0}])),
    )
    return Request(
        prompt=draw(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=30)),
        max_new_tokens=draw(st.integers(0, 25)),
        sampling=sampling,
        n=draw(st.sampled_from([1, 1, 2, 3])),
        stop_ids=draw(st.sampled_from([frozenset(), frozenset({4, 5})])),
        logprobs=draw(st.sampled_from([None, None, 0, 3])),
        prompt_logprobs=draw(st.sampled_from([None, None, 0, 2])),
    )


MODELS = {choice: model_of(choice, torch.float32) for choice in ("two-kv-heads", "many", "softcap")}


@settings(max_examples=20, deadline=None)
@given(
    choice=st.sampled_from(sorted(MODELS)),
    arrivals=st.lists(st.tuples(st.integers(0, 6), requests()), min_size=1, max_size=6),
    cancelled=st.dictionaries(st.integers(0, 12), st.integers(0, 30), max_size=4),
    room=st.integers(3, 9),
    prefill_tokens=st.sampled_from([1, 30, 1000]),
)
def test_nobody_else_matters(choice, arrivals, cancelled, room, prefill_tokens):
    """In float32, with whoever else is there, arriving and leaving whenever: the same bits."""
    model = MODELS[choice]
    allowed = torch.ones(VOCAB, dtype=torch.bool)
    allowed[[11, 12]] = False
    engine = BatchEngine(model, allowed, max_sequences=room, prefill_tokens=prefill_tokens)
    expected, events, step = {}, {}, 0
    due = sorted(arrivals, key=lambda arrival: arrival[0])
    while due or engine.has_work():
        while due and due[0][0] <= step:
            request = due.pop(0)[1]
            numbers = engine.add(request)
            expected.update(zip(numbers, alone(model, request, allowed), strict=True))
        for number, when in cancelled.items():
            if when == step:
                engine.cancel(number)
        for token in engine.step():
            events.setdefault(token.sequence, []).append(token[1:])
        step += 1
    for number, told in expected.items():
        here = events.get(number, [])
        if number in cancelled:
            assert here == told[: len(here)]
        else:
            assert here == told


def test_samples_of_one_prompt_share_its_reading(monkeypatch):
    model = MODELS["softcap"]
    read = counted_readings(monkeypatch)
    sampling = SamplingParams(seed=5)
    four = alone(model, Request([1, 2, 3], 8, sampling, n=4))
    assert len(read) == 1
    assert len({tuple(ids(events)) for events in four}) > 1, "each draws for itself"
    assert four[:2] == alone(model, Request([1, 2, 3], 8, sampling, n=2))
    assert four != alone(model, Request([1, 2, 3], 8, SamplingParams(seed=6), n=4))
    unseeded = Request([1, 2, 3], 20, SamplingParams())
    assert alone(model, unseeded) != alone(model, unseeded)


def counted_readings(monkeypatch):
    """A list that grows by the number of sequences whenever some are read whole."""
    read = []
    hidden_states = TransformerLM.hidden_states

    def counting(self, token_ids, *rest):
        if token_ids.shape[1] > 1:
            read.append(len(token_ids))
        return hidden_states(self, token_ids, *rest)

    monkeypatch.setattr(TransformerLM, "hidden_states", counting)
    return read


def test_only_windows_that_move_are_read_again(monkeypatch):
    model = model_of("default", context_length=32)
    read = counted_readings(monkeypatch)
    engine = BatchEngine(model)
    for n in range(1, 7):
        engine.add(Request([n] * n, 50, GREEDY))
    collect(engine, {})
    moves = sum(
        window_start(length, 32) != window_start(length + 1, 32)
        for n in range(1, 7)
        for length in range(n, n + 49)
    )
    assert read[0] == 6, "all prompts at once"
    assert sum(read[1:]) == moves


def test_a_long_queue_of_prompts_delays_nobody_for_long(monkeypatch):
    """What a step reads is bounded; sequences that run get a token in every step meanwhile."""
    model = MODELS["softcap"]
    engine = BatchEngine(model, prefill_tokens=24)
    (first,) = engine.add(Request([1], 30, GREEDY))
    engine.step()
    read = counted_readings(monkeypatch)
    for _ in range(10):
        engine.add(Request([2] * 12, 1, GREEDY))
    for _ in range(5):
        tokens = engine.step()
        assert first in [token.sequence for token in tokens]
        assert len(tokens) == 3  # two prompts of 12 a step
    assert len(read) == 5


def reference(model, request):
    """One token after the other without a cache, everything in plain Python, greedily."""
    context, sampling, found = model.config.context_length, request.sampling, []
    for _ in range(request.max_new_tokens):
        text = [*request.prompt, *found]
        with torch.no_grad():
            logits = model(torch.tensor(text[window_start(len(text), context) :]))[-1].tolist()
        for token, bias in sampling.logit_bias.items():
            logits[token] += bias
        for token in set(found):
            logits[token] -= sampling.presence_penalty
            logits[token] -= sampling.frequency_penalty * found.count(token)
        found.append(max(range(len(logits)), key=logits.__getitem__))
    return found


@pytest.mark.parametrize(("presence", "frequency"), [(1.0, 0.0), (0.0, 0.7), (-2.0, 0.3)])
def test_penalties_and_biases_are_openais(presence, frequency):
    sampling = SamplingParams(
        0.0, presence_penalty=presence, frequency_penalty=frequency, logit_bias={7: 1.5, 9: -50.0}
    )
    request = Request([9, 7, 7], 25, sampling)
    (events,) = alone(model_of("default"), request)
    assert ids(events) == reference(model_of("default"), request)
    assert ids(events) != reference(model_of("default"), Request([9, 7, 7], 25, GREEDY))


@pytest.mark.parametrize("choice", ["default", "many"])
@pytest.mark.parametrize("length", [1, 2, 11, 12, 13, 19, 40])
def test_scores_are_the_models_own(choice, length):
    """Of a prompt through the windows that would have generated it; in spite of bias and heat."""
    model = model_of(choice)
    prompt = [(3 * i * i + 5) % VOCAB for i in range(length)]
    sampling = SamplingParams(2.0, top_k=3, seed=1, logit_bias={2: 9.0}, presence_penalty=1.0)
    (events,) = alone(model, Request(prompt, 15, sampling, logprobs=3, prompt_logprobs=2))
    told = events[0][3]
    assert [token.id for token in told] == prompt
    assert told[0][1:] == (None, None)
    assert all(event[3] is None for event in events[1:])
    text = prompt + ids(events)
    scores = [(token.logprob, token.top) for token in told[1:]]
    scores += [(event[1], event[2]) for event in events]
    for place, (logprob, top) in enumerate(scores, start=1):
        window = text[window_start(place, model.config.context_length) : place]
        with torch.no_grad():
            expected = model(torch.tensor(window))[-1].log_softmax(-1)
        assert logprob == pytest.approx(expected[text[place]].item(), abs=1e-9)
        best = expected.topk(3 if place >= length else 2)
        assert [token for token, _ in top] == best.indices.tolist()
        assert [value for _, value in top] == pytest.approx(best.values.tolist(), abs=1e-9)


def test_a_prompt_may_only_be_scored():
    model = model_of("default")
    for length in (1, 12, 13, 19, 24):
        prompt = list(range(length))
        (scored,) = alone(model, Request(prompt, 0, prompt_logprobs=1))
        (generated,) = alone(model, Request(prompt, 1, prompt_logprobs=1))
        assert [event[0] for event in scored] == [None]
        assert scored[0][4] == "length"
        assert scored[0][3] == generated[0][3]
    assert alone(model, Request([1], 0)) == [[(None, None, None, None, "length", None)]]


def test_what_must_not_be_chosen_is_not_among_the_likeliest():
    model = model_of("default")
    allowed = torch.arange(VOCAB) % 2 == 0
    request = Request([1, 2], 30, SamplingParams(5.0, seed=0), logprobs=VOCAB)
    (events,) = alone(model, request, allowed)
    assert all(token % 2 == 0 for token in ids(events))
    assert all({token for token, _ in event[2]} == set(range(0, VOCAB, 2)) for event in events)


def test_a_stop_id_ends_and_is_no_part_of_the_text():
    model = model_of("default")
    (free,) = alone(model, Request([1, 2, 3], 30, GREEDY))
    stop = ids(free)[7]
    (events,) = alone(model, Request([1, 2, 3], 30, GREEDY, stop_ids=frozenset({stop})))
    assert ids(events) == ids(free)[: ids(free).index(stop)]
    assert events[-1] == (None, None, None, None, "stop", None)


@pytest.mark.parametrize("choice", ["default", "many"])
def test_logits_that_are_no_numbers_end_their_sequence_alone(choice):
    """Nor does what it leaves behind reach whoever gets its place."""
    model = model_of(choice)
    with torch.no_grad():
        model.token_embeddings.weight[13] = math.nan
        if model.config.tie_embeddings:
            model.lm_head = torch.nn.Linear(32, VOCAB, bias=False, dtype=torch.float64)
    good = Request([1, 2, 3], 20, SamplingParams(seed=1))
    allowed = torch.arange(VOCAB) != 13
    expected = alone(model, good, allowed)
    engine = BatchEngine(model, allowed, max_sequences=2)
    first, bad, later, forced = (
        engine.add(request)[0]
        for request in (
            good,
            Request([5, 13, 4] * 3, 20, GREEDY, prompt_logprobs=1),
            good,
            Request([1, 2, 3], 20, SamplingParams(0.0, logit_bias={13: 1e4})),
        )
    )
    events = collect(engine, {})
    assert [events[first], events[later]] == [expected[0]] * 2
    (end,) = events[bad]
    assert end[0] is None
    assert end[4] == "error"
    assert "NaN" in end[5]
    assert events[forced][-1][4] == "length", "what is not allowed is not forced"


def test_caches_are_as_large_as_needed():
    model = model_of("default", context_length=1000)
    engine = BatchEngine(model, max_sequences=64)
    window = 2 * 3 * 32 * 8 * 1000  # keys and values, layers, d_model, bytes, tokens
    for _ in range(64):
        engine.add(Request([1] * 8, 20, GREEDY))
    engine.step()
    assert engine.running == 64
    assert engine.cache_bytes == 64 * window * 16 // 1000
    collect(engine, {})
    assert engine.most_cache_bytes < 2 * 64 * window


def test_a_cancelled_sequence_frees_its_place():
    engine = BatchEngine(model_of("default"), max_sequences=2)
    numbers = [engine.add(Request([1], 100, GREEDY))[0] for _ in range(5)]
    engine.step()
    assert (engine.running, engine.waiting) == (2, 3)
    for number in (numbers[0], numbers[3], 999):
        engine.cancel(number)
    engine.cancel(numbers[0])
    assert {token.sequence for token in engine.step()} == {numbers[1], numbers[2]}
    assert (engine.running, engine.waiting) == (2, 1)
    for number in numbers:
        engine.cancel(number)
    assert not engine.has_work()
    assert engine.step() == []


@pytest.mark.parametrize(
    ("words", "make"),
    [
        ("without any token", lambda: Request([], 5)),
        ("max_new_tokens", lambda: Request([1], -1)),
        ("n must", lambda: Request([1], 1, n=0)),
        ("logprobs", lambda: Request([1], 1, logprobs=-1)),
        ("prompt_logprobs", lambda: Request([1], 1, prompt_logprobs=-1)),
        ("presence_penalty", lambda: SamplingParams(presence_penalty=math.nan)),
        ("frequency_penalty", lambda: SamplingParams(frequency_penalty=math.inf)),
        ("token 3", lambda: SamplingParams(logit_bias={3: math.inf})),
        ("the prompt has the id 50", lambda: Request([1, 50], 1)),
        ("the prompt has the id -1", lambda: Request([-1], 1)),
        ("stop_ids", lambda: Request([1], 1, stop_ids=frozenset({77}))),
        ("logit_bias", lambda: Request([1], 1, SamplingParams(logit_bias={50: 1.0}))),
        ("n = 9", lambda: Request([1], 1, n=9)),
    ],
)
def test_impossible_requests_are_refused(words, make):
    engine = BatchEngine(model_of("default"), max_sequences=8)
    with pytest.raises(UsageError, match=words):
        engine.add(make())
    assert not engine.has_work()


def test_impossible_engines_are_refused():
    with pytest.raises(UsageError, match="max_sequences"):
        BatchEngine(model_of("default"), max_sequences=0)
    with pytest.raises(UsageError, match="use generation"):
        Sampler(SamplingParams(presence_penalty=1.0))


@pytest.mark.parametrize("choice", ["two-kv-heads", "value-embeddings"])
def test_compiled_decoding_writes_the_same_and_compiles_seldom(monkeypatch, choice):
    """All of torch.compile but the generation of code; caches of one size share a compilation."""
    compiled = []

    def counting(graph, inputs):
        compiled.append(graph)
        return graph.forward

    original = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda f, *, mode, **options: original(f, backend=counting, **options)
    )
    torch._dynamo.reset()
    model = model_of(choice, context_length=70, num_layers=1)
    steps = generate_ids(model, PROMPTS[:4], 64, Sampler(GREEDY))
    expected = [list(row) for row in zip(*steps, strict=True)]
    engine = BatchEngine(model, compile=True)
    for _ in range(2):
        numbers = [engine.add(Request(prompt, 64, GREEDY))[0] for prompt in PROMPTS[:4]]
        events = collect(engine, {})
        assert [ids(events[number]) for number in numbers] == expected
    assert len(compiled) == 2  # 64 tokens and 70


PRODUCTS = """
import torch
from cs336lm.model.processor import multiply_alike
multiply_alike()
for dtype in torch.float32, torch.float64:
    for shape in (32, 96), (256, 1376), (1376, 256):
        torch.manual_seed(0)
        weight, x = torch.randn(shape, dtype=dtype), torch.randn(shape[0], dtype=dtype)
        for product in (lambda x: x @ weight, lambda x: x @ weight.T.contiguous().T):
            products = [product(x.expand(8 * tiles, -1)) for tiles in (1, 2, 3, 5, 8, 32)]
            alike = all(torch.equal(y, products[0][:1].expand_as(y)) for y in products)
            assert alike, (dtype, shape)
"""


def test_a_row_of_a_product_is_the_same_in_any_number_of_tiles():
    """What all else rests on; if a library breaks it, this is the test that says so.

    In a process of its own: the library is asked before its first product.
    """
    subprocess.run([sys.executable, "-c", PRODUCTS], check=True)


@given(longest=st.integers(1, 5000), compile=st.booleans())
def test_there_are_few_lengths_and_the_last_is_the_longest(longest, compile):
    found = lengths(longest, compile=compile)
    assert found[-1] == longest
    assert found == sorted(set(found))
    assert len(found) <= 2 + (1 if compile else 2) * math.log2(longest)
    assert all(b <= 2 * a for a, b in itertools.pairwise(found))
