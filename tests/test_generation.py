"""Generation equals the loop without a cache; sampling draws what it says; text is whole."""

import math

import numpy as np
import pytest
import torch
from cs336lm.errors import UsageError
from cs336lm.generation.engine import _decoded, generate, generate_ids, stream, window_start
from cs336lm.generation.sampling import Sampler, SamplingParams
from cs336lm.model import ModelConfig, TransformerLM
from hypothesis import given, settings
from hypothesis import strategies as st

END = 256


class Bytes:
    """A tokenizer whose tokens are the bytes: every character beyond ASCII is several."""

    def __init__(self, special_tokens=("<|endoftext|>",)):
        self.special_tokens = list(special_tokens)
        self.vocab_size = 256 + len(self.special_tokens)
        self.vocab = {i: bytes([i]) for i in range(256)}
        self.vocab.update({256 + i: t.encode() for i, t in enumerate(self.special_tokens)})

    def encode(self, text):
        return [END] if text == "<|endoftext|>" else list(text.encode())

    def decode_bytes(self, ids):
        return b"".join(self.vocab[i] for i in ids)

    def token_to_id(self, token):
        return 256 + self.special_tokens.index(token)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=257, context_length=12, d_model=16, num_layers=2, num_heads=2, d_ff=32
    )
    model = TransformerLM(config, dtype=torch.float64).double()
    torch.nn.init.normal_(model.lm_head.weight)  # logits far enough apart for a clear maximum
    return model


def greedy_without_cache(model, prompt, steps):
    """Reads the whole window for every token."""
    ids, context = list(prompt), model.config.context_length
    for _ in range(steps):
        window = ids
        while len(window) > context:
            window = ids[len(ids) - len(window) + context // 2 :]
        with torch.no_grad():
            ids.append(model(torch.tensor(window))[-1].argmax().item())
    return ids[len(prompt) :]


def ids_of(steps):
    return [list(row) for row in zip(*steps, strict=True)]


@pytest.mark.parametrize("lengths", [[1], [5], [12], [13], [40], [3, 12, 1, 17, 6]])
def test_greedy_equals_the_loop_without_a_cache(model, lengths):
    """Prompts shorter and longer than the context, alone and together, past the window's end."""
    torch.manual_seed(sum(lengths))
    prompts = [torch.randint(0, 257, (n,)).tolist() for n in lengths]
    ours = ids_of(generate_ids(model, prompts, 30, Sampler(SamplingParams(temperature=0))))
    assert ours == [greedy_without_cache(model, prompt, 30) for prompt in prompts]


@pytest.mark.parametrize("texts", [1, 3, 5])
def test_compiled_decoding_writes_the_same(model, monkeypatch, texts):
    """All of torch.compile but the generation of code; past the window's end, too."""
    monkeypatch.setattr(torch, "compile", eager_compile)
    prompts = [[1, 2, 3], [4, 5], [6] * 12, [7], [8, 9]][:texts]
    expected = ids_of(generate_ids(model, prompts, 30, Sampler(SamplingParams(temperature=0))))
    compiled = generate_ids(
        model, prompts, 30, Sampler(SamplingParams(temperature=0)), compile=True
    )
    assert ids_of(compiled) == expected


def eager_compile(function, *, mode=None, _compile=torch.compile, **options):
    assert mode in (None, "reduce-overhead")  # which this backend does not take
    return _compile(function, backend="eager", **options)


@pytest.mark.parametrize("context", [1, 2, 3])
def test_the_smallest_contexts(context):
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=20, context_length=context, d_model=8, num_layers=1, num_heads=1, d_ff=8
    )
    model = TransformerLM(config, dtype=torch.float64)
    steps = list(
        generate_ids(model, [[1], [2, 3, 4, 5]], 8, Sampler(SamplingParams(temperature=0)))
    )
    assert np.shape(steps) == (8, 2)


@given(context=st.integers(1, 50), length=st.integers(1, 500))
def test_a_window_holds_the_end_and_at_least_half_a_context(context, length):
    start = window_start(length, context)
    seen = length - start
    assert seen <= context
    assert seen == length or seen > context / 2 - 1
    assert start <= window_start(length + 1, context)


def test_seeds_repeat_and_differ(model):
    def draw(seed):
        return ids_of(generate_ids(model, [[1, 2], [3]], 20, Sampler(SamplingParams(seed=seed))))

    assert draw(5) == draw(5)
    assert draw(5) != draw(6)
    assert draw(None) != draw(None)
    first, second = ids_of(generate_ids(model, [[1], [1]], 20, Sampler(SamplingParams(seed=1))))
    assert first != second, "prompts side by side draw for themselves"


def test_ends_at_the_stop_token(model):
    prompts = [[1, 2, 3], [4, 5]]
    free = ids_of(generate_ids(model, prompts, 30, Sampler(SamplingParams(temperature=0))))
    stop = free[0][7]
    steps = ids_of(generate_ids(model, prompts, 30, Sampler(SamplingParams(temperature=0)), stop))
    for ours, all_of_it in zip(steps, free, strict=True):
        end = all_of_it.index(stop) if stop in all_of_it else 30
        kept = [token for token in ours if token is not None]
        assert kept == all_of_it[:end]
        assert all(token is None for token in ours[end:])


def test_generate_takes_one_prompt_or_several(model):
    tokenizer = Bytes()
    prompts = ["Once", "é", "a longer prompt than the context"]
    together = generate(model, tokenizer, prompts, 25, temperature=0)
    alone = [generate(model, tokenizer, prompt, 25, temperature=0) for prompt in prompts]
    assert together == alone
    assert all(isinstance(text, str) for text in together)
    for prompt, text in zip(prompts, together, strict=True):
        ids = greedy_without_cache(model, prompt.encode(), 25)
        ids = ids[: ids.index(END)] if END in ids else ids
        assert text == bytes(ids).decode(errors="replace")
    assert generate(model, tokenizer, [], 5) == []
    assert generate(model, tokenizer, "x", 0) == ""


def test_an_empty_prompt_begins_a_document(model):
    text = generate(model, Bytes(), "", 10, temperature=0)
    ids = greedy_without_cache(model, [END], 10)
    ids = ids[: ids.index(END)] if END in ids else ids
    assert text == bytes(ids).decode(errors="replace")
    with pytest.raises(UsageError, match="the prompt has no token"):
        generate(model, Bytes(special_tokens=()), ["a", ""])


def test_pieces_count_their_tokens_and_are_checked_at_once(model):
    pieces = list(stream(model, Bytes(special_tokens=()), "abc", 30, seed=3))
    assert sum(piece.tokens for piece in pieces) == 30
    assert all(piece.text for piece in pieces)
    with pytest.raises(UsageError, match="temperature"):
        stream(model, Bytes(), "abc", temperature=-1)


@settings(deadline=None)
@given(rows=st.lists(st.binary(max_size=12) | st.text(max_size=6).map(str.encode), max_size=3))
def test_streamed_text_is_whole_characters(rows):
    """Any bytes; rows of different lengths; each character comes with its last byte."""
    longest = max(map(len, rows), default=0)
    steps = [[row[i] if i < len(row) else None for row in rows] for i in range(longest)]
    texts = [""] * len(rows)
    for piece in _decoded(Bytes(), iter(steps)):
        texts[piece.row] += piece.text
    assert texts == [row.decode(errors="replace") for row in rows]


def test_a_character_is_shown_with_its_last_byte():
    ids = list("aé€😀".encode())
    shown = [piece.text for piece in _decoded(Bytes(), ([i] for i in ids))]
    assert shown == ["a", "é", "€", "😀"]
    cut = list(_decoded(Bytes(), ([i] for i in ids[:-1])))
    assert cut[-1] == (0, "�", 3)


def kept_by(sampler, logits, draws=400):
    batch = logits.expand(draws, -1)
    return set(sampler(batch).tolist())


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    top_p=st.floats(0.01, 0.99),
    top_k=st.none() | st.integers(1, 12),
    temperature=st.floats(0.2, 3),
)
def test_top_k_and_top_p_keep_the_fewest_that_suffice(seed, top_p, top_k, temperature):
    torch.manual_seed(seed)
    logits = torch.randn(1, 10, dtype=torch.float64) * 2
    sampler = Sampler(SamplingParams(temperature, top_p, top_k, seed))
    kept = (sampler._keep_top(logits / temperature)[0] > -torch.inf).numpy()

    ranked = np.argsort(-logits[0].numpy())[: top_k or 10]
    shares = np.exp(logits[0].numpy() / temperature)[ranked]
    shares /= shares.sum()
    enough = int(np.searchsorted(np.cumsum(shares), top_p * (1 - 1e-12))) + 1
    assert set(np.flatnonzero(kept)) == set(ranked[:enough])
    assert set(sampler(logits.expand(50, -1)).tolist()) <= set(ranked[:enough])


@pytest.mark.parametrize(
    ("how", "among"),
    [({}, range(5)), ({"top_k": 2}, [1, 2]), ({"top_k": 3}, [1, 2, 4]), ({"top_p": 0.68}, [1, 2])],
)
def test_draws_follow_the_distribution(how, among):
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0, 0.5]])
    likely = torch.full((5,), -torch.inf)
    likely[list(among)] = logits[0, list(among)]
    for temperature in (0.8, 1.0, 1.25):
        sampler = Sampler(SamplingParams(temperature, seed=1, **how))
        draws = sampler(logits.expand(100_000, -1))
        seen = torch.bincount(draws, minlength=5) / 100_000
        expected = (likely / temperature).softmax(0)
        spread = (expected * (1 - expected) / 100_000).sqrt()
        assert ((seen - expected).abs() <= 5 * spread).all()


def test_temperature_zero_and_forbidden_ids():
    logits = torch.tensor([[1.0, 5.0, 3.0], [0.0, -1.0, -2.0]])
    assert Sampler(SamplingParams(temperature=0))(logits).tolist() == [1, 0]
    allowed = torch.tensor([True, False, True])
    assert Sampler(SamplingParams(temperature=0), allowed=allowed)(logits).tolist() == [2, 0]
    draws = Sampler(SamplingParams(temperature=5.0, seed=0), allowed=allowed)(
        logits[:1].expand(1000, -1)
    )
    assert set(draws.tolist()) == {0, 2}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sampling_in_half_precision(dtype):
    logits = torch.zeros(4000, 64, dtype=dtype)
    draws = Sampler(SamplingParams(top_p=0.9, seed=0))(logits)
    assert 50 <= draws.unique().numel() <= 59  # 0.9 of 64 equal shares: 58


def test_a_padded_vocabulary_never_speaks():
    """Rows of the embedding beyond the tokenizer's ids are no text."""
    config = ModelConfig(
        vocab_size=320, context_length=8, d_model=8, num_layers=1, num_heads=1, d_ff=8
    )
    model = TransformerLM(config)
    text = generate(model, Bytes(), "a", 200, temperature=100.0, seed=0)
    assert text
    small = TransformerLM(ModelConfig(vocab_size=256, context_length=8, d_model=8, num_heads=1))
    with pytest.raises(ValueError, match="another tokenizer"):
        generate(small, Bytes(), "a")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", 0),
        ("max_new_tokens", -1),
    ],
)
def test_impossible_arguments_are_refused_by_name(model, name, value):
    with pytest.raises(UsageError, match=name):
        generate(model, Bytes(), "a", **{name: value})


def sampled(logits, *, allowed=None, **params):
    return Sampler(SamplingParams(**params), allowed=allowed)(torch.tensor(logits)).tolist()


@pytest.mark.parametrize("temperature", [5e-324, 1e-45, 1e-39, 1e-30, 1e-9, 1e-8, 1e-6])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4, 1e38])
def test_small_temperatures_are_greedy(temperature, size):
    logits = [[size, 2 * size, -size, 0.0], [0.0, -size, -3 * size, -size]]
    assert sampled(logits, temperature=temperature, seed=0) == [1, 0]
    without = torch.tensor([True, False, True, True])
    assert sampled(logits, temperature=temperature, allowed=without) == [0, 0]


def test_of_equals_the_first():
    ties = [[1.0, 3.0, 3.0, 3.0], [2.0, 2.0, 2.0, 2.0]]
    for params in ({"top_k": 1}, {"temperature": 0}, {"temperature": 1e-39}):
        assert sampled(ties * 50, **params) == [1, 0] * 50


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.integers(-2, 2), min_size=1, max_size=9),
    top_k=st.integers(1, 10),
    temperature=st.floats(0.5, 2),
)
def test_top_k_never_keeps_more(values, top_k, temperature):
    """Ties included: the k first by falling logit, of equals the first."""
    sampler = Sampler(SamplingParams(temperature, top_k=top_k, seed=0))
    logits = torch.tensor([values], dtype=torch.float32)
    kept = (sampler._keep_top(logits)[0] > -torch.inf).nonzero().flatten().tolist()
    expected = sorted(sorted(range(len(values)), key=lambda i: (-values[i], i))[:top_k])
    assert kept == expected
    assert kept_by(sampler, logits, 100) <= set(expected)


@pytest.mark.parametrize("params", [{"temperature": 0}, {}, {"top_k": 2}, {"top_p": 0.5}])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_of_which_none_is_the_likeliest_are_refused(model, params, bad):
    """In the one row that is broken; a row that has ended may be."""
    assert sampled([[0.0, 1.0, 5.0], [0.0, bad, 1.0]], **params)[1] == -1
    broken = TransformerLM(model.config)
    with torch.no_grad():
        broken.lm_head.weight[7] = bad
    with pytest.raises(ValueError, match=r"logits for new token 1 are NaN or infinite"):
        generate(broken, Bytes(), "abc", 5, **params)


def test_a_forbidden_token_may_be_anything(model):
    allowed = torch.tensor([True, False, True])
    assert sampled([[0.0, math.nan, 5.0]], allowed=allowed, temperature=0) == [2]


class Letters(Bytes):
    """Bytes, whose prompts may hold special tokens, or say that they do not."""

    def encode(self, text):
        head, found, rest = text.partition("<|endoftext|>")
        return list(head.encode()) + ([END, *self.encode(rest)] if found else [])

    def encode_ordinary(self, text):
        return list(text.encode())


def test_special_tokens_in_a_prompt_are_parsed_only_when_wanted(model):
    prompt = "a<|endoftext|>b"
    for parse_special, ids in ((True, [97, END, 98]), (False, list(prompt.encode()))):
        text = generate(
            model, Letters(), prompt, 9, temperature=0, stop="<|endoftext|>",
            parse_special=parse_special,
        )  # fmt: skip
        expected = greedy_without_cache(model, ids, 9)
        expected = expected[: expected.index(END)] if END in expected else expected
        assert text == bytes(expected).decode(errors="replace")
    # An empty prompt begins a document all the same.
    assert generate(model, Letters(), "", 5, temperature=0, parse_special=False) == generate(
        model, Letters(), "", 5, temperature=0
    )


def told(pieces):
    texts = {}
    for piece in pieces:
        assert piece.text
        texts[piece.row] = texts.get(piece.row, "") + piece.text
    return texts


@settings(deadline=None)
@given(
    rows=st.lists(st.text("abé", max_size=9), min_size=1, max_size=3),
    stops=st.lists(st.text("abé", min_size=1, max_size=3), max_size=2),
)
def test_a_stop_text_ends_a_continuation_before_it(rows, stops):
    """In however many tokens it comes; what only begins one is shown in the end."""
    encoded = [row.encode() for row in rows]
    longest = max(map(len, encoded))
    steps = [[row[i] if i < len(row) else None for row in encoded] for i in range(longest)]
    texts = told(_decoded(Bytes(), iter(steps), stops))
    for number, row in enumerate(rows):
        found = [(row.find(stop) + len(stop), row.find(stop)) for stop in stops if stop in row]
        _, cut = min(found, default=(0, len(row)))
        assert texts.get(number, "") == row[:cut]


def test_generation_goes_no_further_than_a_stop_text():
    def steps():
        yield from ([byte] for byte in b"one two")
        raise AssertionError("nobody asked for more")

    assert told(_decoded(Bytes(), steps(), ["two"])) == {0: "one "}


def test_stops_are_ids_or_texts(model):
    both = Bytes(special_tokens=("<|endoftext|>",))
    free = generate(model, both, "Once", 40, temperature=0, stop=())
    at = next(i for i in range(3, 30) if free.index(free[i]) == i and free[i] != "�")
    assert generate(model, both, "Once", 40, temperature=0, stop=free[at]) == free[:at]
    assert generate(model, both, "Once", 40, temperature=0, stop=["never", free[at]]) == free[:at]
    ids = greedy_without_cache(model, b"Once", 40)
    stop = next(i for i in ids if ids.index(i) > 2)
    steps = generate_ids(model, [list(b"Once")], 40, Sampler(SamplingParams(0)), [stop, 999])
    assert ids_of(steps) == [ids[: ids.index(stop)]]
    named = Bytes(special_tokens=("</s>",))  # the model's last id
    expected = ids[: ids.index(END)] if END in ids else ids
    text = generate(model, named, "Once", 40, temperature=0, stop="</s>")
    assert text == bytes(expected).decode(errors="replace")
    with pytest.raises(UsageError, match="empty text"):
        generate(model, both, "Once", stop="")


@pytest.mark.parametrize("seed", [1 << 64, -(1 << 63) - 1, 10**30])
def test_a_seed_that_no_generator_takes_is_refused(seed):
    with pytest.raises(UsageError, match="64 bits"):
        SamplingParams(seed=seed)


def test_only_windows_that_move_are_read_again(model, monkeypatch):
    """Staggered prompts: each is read whole once per half a context, and not for the others."""
    read = []
    hidden_states = TransformerLM.hidden_states

    def counting(self, ids, *rest):
        if ids.shape[1] > 1:
            read.append(len(ids))
        return hidden_states(self, ids, *rest)

    monkeypatch.setattr(TransformerLM, "hidden_states", counting)
    prompts = [[row + 1] * (row + 1) for row in range(6)]
    steps = 18
    ours = ids_of(generate_ids(model, prompts, steps, Sampler(SamplingParams(0))))
    monkeypatch.undo()
    assert ours == [greedy_without_cache(model, prompt, steps) for prompt in prompts]
    hop = model.config.context_length // 2
    assert sum(read) <= len(prompts) * (2 + steps // hop)


def test_compiled_decoding_goes_on_after_many_shapes(model, monkeypatch):
    """The compiler's patience is for programs that compile in every step."""
    monkeypatch.setattr(torch, "compile", eager_compile)
    torch._dynamo.reset()
    greedy = SamplingParams(temperature=0)
    with torch._dynamo.config.patch(recompile_limit=1, accumulated_recompile_limit=1):
        for texts in (1, 2, 3):
            prompts = [[texts, 1]] * texts
            ids = ids_of(generate_ids(model, prompts, 4, Sampler(greedy), compile=True))
            assert ids == [greedy_without_cache(model, prompts[0], 4)] * texts


def test_lengths_share_compilations(model, monkeypatch):
    compiled = []

    def counting(graph, inputs):
        compiled.append(len(inputs))
        return graph.forward

    original = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda f, **options: original(f, backend=counting, **options)
    )
    torch._dynamo.reset()
    wide = TransformerLM(
        ModelConfig(vocab_size=9, context_length=200, d_model=8, num_layers=1, num_heads=1)
    )
    for new_tokens in (3, 9, 30):
        sampler = Sampler(SamplingParams(temperature=0))
        list(generate_ids(wide, [[1, 2]], new_tokens, sampler, compile=True))
    assert len(compiled) == 1
