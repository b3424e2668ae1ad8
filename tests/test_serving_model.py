"""A real model behind the server: what is answered is what the model, asked directly, says."""

import concurrent.futures
import json

import pytest
import torch
from cs336lm import generate
from cs336lm.cli.main import main
from cs336lm.serving.chat_template import ChatTemplate
from cs336lm.serving.limits import Limits
from cs336lm.serving.loading import load_model, make_service
from cs336lm.training.run_directory import load_run
from exchanged import make_model, make_run, make_tokenizer
from local_tasks import NAMES, write_tasks
from served import ask, running

LIMITS = Limits(max_prompt_tokens=128, max_new_tokens=64, max_sequences=8, max_queue=500)
PROMPTS = ["the cat", "the dog sat on the log", "a", "", "the ☃", "on and on " * 9]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer))
    torch.nn.init.normal_(model.lm_head.weight, std=0.7)  # far from even
    return make_run(tmp_path_factory.mktemp("model") / "run", tokenizer, model)


@pytest.fixture(scope="module")
def url(run_dir):
    model, served = load_model(run_dir)
    with running(make_service(model, served, LIMITS)) as url:
        yield url


@pytest.fixture(scope="module")
def loaded(run_dir):
    _, model, tokenizer = load_run(run_dir)
    return model, tokenizer


def complete(url, **fields):
    answer = ask(url, "/v1/completions", fields)
    assert answer.status == 200, answer.body
    return answer.json if not fields.get("stream") else answer.events


def test_many_at_once_get_what_each_gets_alone(url, loaded):
    """Greedy texts are those of `generate`; seeded ones are the same alone and in company."""
    greedy = [
        {"prompt": prompt, "max_tokens": count, "temperature": 0}
        for prompt in PROMPTS
        for count in (5, 40)
    ]
    drawn = [
        {"prompt": prompt, "max_tokens": 30, "seed": seed, "n": 2, "top_p": 0.95}
        for prompt in PROMPTS
        for seed in (1, 2)
    ]
    alone = [complete(url, **fields)["choices"] for fields in drawn]
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        company = list(pool.map(lambda fields: complete(url, **fields), greedy + drawn))
    for fields, answer in zip(greedy, company, strict=False):
        expected = generate(
            *loaded, fields["prompt"], max_new_tokens=fields["max_tokens"], temperature=0
        )
        assert answer["choices"][0]["text"] == expected
    assert [answer["choices"] for answer in company[len(greedy) :]] == alone
    texts = {choice["text"] for choices in alone for choice in choices}
    assert len(texts) == 2 * len(drawn)  # n and the seed make a difference


def test_a_prompts_scores_are_the_models(url, loaded):
    """`echo` with 0 and 1 new tokens: log softmax of the logits, token by token."""
    model, tokenizer = loaded
    for prompt in (p for p in PROMPTS if 0 < len(p) < 30):
        ids = tokenizer.encode_ordinary(prompt)
        with torch.no_grad():
            scores = model(torch.tensor([ids]))[0].double().log_softmax(-1)
        expected = [scores[i, token].item() for i, token in enumerate(ids[1:])]
        for count in (0, 1):
            fields = {"prompt": prompt, "max_tokens": count, "temperature": 0}
            (choice,) = complete(url, **fields, echo=True, logprobs=3)["choices"]
            told = choice["logprobs"]
            assert told["token_logprobs"][0] is None
            assert told["token_logprobs"][1 : len(ids)] == pytest.approx(expected, abs=1e-4)
            assert len(told["tokens"]) == len(ids) + count
            for row, top in enumerate(told["top_logprobs"][1:]):
                likeliest = scores[row].topk(3).values.tolist()
                assert sorted(top.values(), reverse=True)[:3] == pytest.approx(likeliest, abs=1e-4)
            if count:
                assert told["token_logprobs"][-1] == max(told["top_logprobs"][-1].values())


def test_bias_and_penalties_change_what_is_drawn(url):
    fields = {"prompt": "the", "max_tokens": 8, "temperature": 0}
    biased = complete(url, **fields, logit_bias={"122": 100})["choices"][0]["text"]
    assert biased == "z" * 8
    spread = complete(
        url, **fields, logit_bias={"122": 90, "121": 89, "120": 88}, frequency_penalty=2
    )["choices"][0]["text"]
    assert set(spread) == set("xyz")


def test_a_chat(run_dir):
    """The template's special tokens end the answer."""
    model, served = load_model(run_dir)
    template = "{{ messages[0].content }}"
    service = make_service(model, served, LIMITS)
    object.__setattr__(service.model, "chat_template", ChatTemplate(template, served.tokenizer))
    with running(service) as url:
        fields = {"messages": [{"role": "user", "content": "the cat"}], "logit_bias": {"262": 100}}
        answer = ask(url, "/v1/chat/completions", fields).json
        assert answer["choices"][0]["message"]["content"] == ""
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert answer["usage"]["completion_tokens"] == 1


def test_lm_eval_gives_the_scores_of_the_adapter(url, run_dir, tmp_path, monkeypatch):
    """`local-completions` over HTTP beside the project's own model of the harness."""
    lm_eval = pytest.importorskip("lm_eval", reason="it is the extra [eval]")
    pytest.importorskip("tenacity", reason="lm-eval's clients need it")
    from cs336lm.exchange.lm_eval import RunLM
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["export", str(run_dir), "--format", "hf", "--out", str(tmp_path / "hf")]) == 0
    write_tasks(tmp_path)
    how = {
        "tasks": NAMES,
        "task_manager": TaskManager(include_path=str(tmp_path), include_defaults=False),
        "bootstrap_iters": 0,
    }
    server = {
        "model": "run",
        "base_url": f"{url}/v1/completions",
        "tokenizer": str(tmp_path / "hf"),
        "tokenizer_backend": "huggingface",
        "max_length": 33,  # of which it takes one off
        "num_concurrent": 1,
    }
    found = lm_eval.simple_evaluate("local-completions", model_args=server, **how)["results"]
    ours = lm_eval.simple_evaluate(RunLM(run_dir, device="cpu"), **how)["results"]
    compared = 0
    for name in NAMES:
        for key, value in ours[name].items():
            if isinstance(value, float):
                assert found[name][key] == pytest.approx(value, rel=1e-4), key
                compared += 1
    assert compared >= 4


def test_what_ends_a_text(run_dir, tmp_path):
    """`<|endoftext|>`, what is named, and what the tokenizer's configuration calls the end."""
    tokenizer = make_tokenizer(special=("<|endoftext|>", "<|turn|>", "<|end|>"))
    run = make_run(tmp_path / "run", tokenizer, make_model(len(tokenizer)))
    ids = {name: tokenizer.token_to_id(name) for name in tokenizer.special_tokens}
    assert load_model(run)[1].stop_ids == {ids["<|endoftext|>"]}
    config = run / "tokenizer" / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "eos_token": "<|end|>"}))
    assert load_model(run)[1].stop_ids == {ids["<|endoftext|>"], ids["<|end|>"]}
    assert load_model(run, stops=["<|turn|>"])[1].stop_ids == set(ids.values())
