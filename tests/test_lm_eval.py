"""A run in lm-evaluation-harness: by plain sums, and beside transformers in the same tasks."""

import pytest

lm_eval = pytest.importorskip("lm_eval", reason="it is the extra [eval]")

import torch  # noqa: E402
from cs336lm.cli.main import main  # noqa: E402
from cs336lm.errors import UsageError  # noqa: E402
from cs336lm.exchange.lm_eval import RunLM  # noqa: E402
from cs336lm.exchange.lm_eval import main as lm_eval_main  # noqa: E402
from exchanged import END, greedy, make_model, make_run, make_tokenizer  # noqa: E402
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from local_tasks import NAMES, write_tasks  # noqa: E402


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    tokenizer = make_tokenizer()
    model = make_model(tokenizer.vocab_size)
    return make_run(tmp_path_factory.mktemp("lm") / "run", tokenizer, model)


@pytest.fixture(scope="module")
def adapter(run):
    return RunLM(run, device="cpu", batch_size=3)


@pytest.fixture(scope="module")
def theirs(run):
    out = run.parent / "llama"
    assert main(["export", str(run), "--format", "hf", "--out", str(out)]) == 0
    return HFLM(pretrained=str(out), device="cpu", batch_size=2, dtype="float32")


def asked(kind, *arguments):
    return [Instance(kind, {}, each, number) for number, each in enumerate(arguments)]


def plain(adapter, context, continuation):
    """The sum of log-probabilities, token by token, each with all before it that fits."""
    total, is_greedy, row = 0.0, True, list(context)
    for token in continuation:
        with torch.no_grad():
            logits = adapter.model(torch.tensor([row[-adapter.max_length :]]))[0, -1].double()
        total += logits.log_softmax(-1)[token].item()
        is_greedy &= int(logits.argmax()) == token
        row.append(token)
    return total, is_greedy


PAIRS = [
    ("the cat", " sat"),
    ("the cat ", "sat on"),  # the space goes over to the continuation
    ("", "the dog"),
    ("", END + "the"),
    ("a", "b"),
    ("the cat sat on the mat; the dog sat on the log and so on and on", " and on"),
]


def test_loglikelihood_is_the_sum_over_the_continuation(adapter):
    found = adapter.loglikelihood(asked("loglikelihood", *PAIRS), disable_tqdm=True)
    for (context, continuation), score in zip(PAIRS, found, strict=True):
        if context:
            whole = adapter.tok_encode(context + continuation)
            start = len(adapter.tok_encode(context.rstrip()))
        else:
            whole = adapter.tok_encode(continuation)
            whole = whole if whole[0] == adapter.prefix_token_id else [262, *whole]
            start = 1
        # A window that ends with the last token but one, as long as the context.
        row = whole[-(adapter.max_length + 1) :]
        expected = plain(adapter, row[: start - len(whole)], row[start - len(whole) :])
        assert score == (pytest.approx(expected[0], abs=1e-4), expected[1])


def test_the_greedy_continuation_is_known(adapter):
    ids = adapter.tok_encode("the cat")
    best = greedy(adapter.model, ids, 3, 263)
    score, is_greedy = adapter._score([(ids, best[len(ids) :])])[0]
    assert is_greedy
    assert not adapter._score([(ids, [*best[len(ids) : -1], best[-1] ^ 1])])[0][1]
    assert score == pytest.approx(plain(adapter, ids, best[len(ids) :])[0], abs=1e-4)


def test_every_token_of_a_long_continuation_is_scored(adapter):
    long = adapter.tok_encode("the dog sat on the log. " * 8)
    assert len(long) > 2 * adapter.max_length
    (found, _), (first, _), (rest, _) = adapter._score(
        [([262], long), ([262], long[:32]), (long[:32], long[32:])]
    )
    assert found == pytest.approx(first + rest, abs=1e-3)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_batch_size_changes_nothing(run, adapter, size):
    other = RunLM(run, device="cpu", batch_size=size)
    requests = asked("loglikelihood", *PAIRS)
    ours = [score for score, _ in adapter.loglikelihood(requests, disable_tqdm=True)]
    found = [score for score, _ in other.loglikelihood(requests, disable_tqdm=True)]
    assert found == pytest.approx(ours, abs=1e-4)


def test_it_agrees_with_transformers(adapter, theirs):
    requests = asked("loglikelihood", *PAIRS)
    ours = adapter.loglikelihood(requests, disable_tqdm=True)
    expectations = theirs.loglikelihood(requests, disable_tqdm=True)
    for found, expected in zip(ours, expectations, strict=True):
        assert found == (pytest.approx(expected[0], abs=1e-3), expected[1])
    texts = ["the cat", "x" * 31, "x" * 32, "x" * 33, "the dog sat on the log. " * 9, ""]
    requests = asked("loglikelihood_rolling", *((text,) for text in texts))
    ours = adapter.loglikelihood_rolling(requests, disable_tqdm=True)
    rolling = theirs.loglikelihood_rolling(requests[:-1], disable_tqdm=True)
    assert ours[:-1] == pytest.approx(rolling, abs=1e-2)
    assert ours[-1] == 0
    ends = {"until": ["the", "\n\n"], "max_gen_toks": 8, "do_sample": False}
    contexts = ["the cat", "the dog sat on the log and so on and on and on", "a"]
    requests = asked("generate_until", *((context, ends) for context in contexts))
    ours = adapter.generate_until(requests, disable_tqdm=True)
    assert ours == theirs.generate_until(requests, disable_tqdm=True)


def test_generation_ends_before_a_stop(adapter):
    free = adapter.generate_until(
        asked("generate_until", ("the cat", {"max_gen_toks": 12})), disable_tqdm=True
    )[0]
    ids = adapter.tok_encode("the cat")
    expected = greedy(adapter.model, ids, 12, 263)[len(ids) :]
    expected = expected[: expected.index(262)] if 262 in expected else expected
    assert free == adapter.tokenizer.decode(expected)
    stop = free[3:5]
    cut = adapter.generate_until(
        asked("generate_until", ("the cat", {"max_gen_toks": 12, "until": stop})),
        disable_tqdm=True,
    )
    assert cut == [free[: free.find(stop)]]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Small local tasks: nothing is downloaded."""
    folder = tmp_path_factory.mktemp("tasks")
    write_tasks(folder)
    return TaskManager(include_path=str(folder), include_defaults=False)


def test_tasks_of_the_harness_give_the_same_figures(tasks, run, theirs, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    how = {"tasks": NAMES, "task_manager": tasks, "bootstrap_iters": 0}
    arguments = {"run": str(run), "device": "cpu"}
    ours = lm_eval.simple_evaluate("cs336lm", model_args=arguments, **how)["results"]
    expected = lm_eval.simple_evaluate(theirs, **how)["results"]
    for name in NAMES:
        figures = {key for key, value in expected[name].items() if isinstance(value, float)}
        assert figures >= ({"acc,none"} if name == "local_choices" else {"bits_per_byte,none"})
        for key in figures:
            assert ours[name][key] == pytest.approx(expected[name][key], rel=1e-4), key


def test_a_run_without_an_end_of_text_is_refused(tmp_path):
    run = make_run(tmp_path / "run", make_tokenizer(special=()), make_model(262))
    with pytest.raises(ValueError, match=r"has no tokenizer with <\|endoftext\|>"):
        RunLM(run)


def test_the_harness_says_cuda_where_nobody_did(run):
    assert RunLM(run, device="cuda:0").device.type == (
        "cuda" if torch.cuda.is_available() else "cpu"
    )
    with pytest.raises(UsageError, match="nowhere"):
        RunLM(run, device="nowhere")


def test_a_wrong_run_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("lm_eval.__main__.cli_evaluate", lambda: RunLM(tmp_path / "no"))
    with pytest.raises(SystemExit, match=r"cs336lm: .*/no") as ended:
        lm_eval_main()
    assert "\n" not in ended.value.code
