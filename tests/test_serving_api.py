"""OpenAI's endpoints: what is answered, as its own package reads it, and what is refused."""

import json
import re
import shutil
import subprocess

import pytest
from cs336lm.serving.limits import Limits
from served import END, LIMITS, Parrot, ask, make_service, make_tokenizer, running

openai = pytest.importorskip("openai")

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


@pytest.fixture(scope="module")
def engine():
    return Parrot()


@pytest.fixture(scope="module")
def url(engine):
    with running(make_service(engine)) as url:
        yield url


@pytest.fixture(scope="module")
def client(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def complete(url, **fields):
    return ask(url, COMPLETIONS, fields)


def test_a_completion(client):
    answer = client.completions.create(model="parrot", prompt="the cat", max_tokens=6)
    assert answer.object == "text_completion"
    assert answer.model == "parrot"
    assert answer.id.startswith("cmpl-")
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason, choice.logprobs) == ("the catthe ", "length", None)
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (4, 6, 10)


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("ab", ["aba"]),
        (["ab", "cd"], ["aba", "cdc"]),
        ([97, 98], ["aba"]),
        ([[97, 98], [99]], ["aba", "ccc"]),
    ],
)
def test_prompts_of_every_form(client, prompt, texts):
    answer = client.completions.create(model="parrot", prompt=prompt, max_tokens=3, n=2)
    assert [c.text for c in answer.choices] == [text for text in texts for _ in range(2)]
    assert [c.index for c in answer.choices] == list(range(2 * len(texts)))


def test_sixteen_tokens_if_nothing_is_said(client):
    answer = client.completions.create(model="parrot", prompt="ab")
    assert answer.choices[0].text == "ab" * 8


def test_an_empty_prompt_is_the_beginning_of_a_document(client, engine):
    answer = client.completions.create(model="parrot", prompt="", max_tokens=3)
    assert list(engine.asked[-1].prompt) == [make_tokenizer().token_to_id(END)]
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("", "stop")


def test_special_tokens_are_text_unless_asked(client, engine):
    prompt = f"a{END}b"
    answer = client.completions.create(model="parrot", prompt=prompt, max_tokens=40)
    assert list(engine.asked[-1].prompt) == make_tokenizer().encode_ordinary(prompt)
    assert answer.choices[0].text.startswith(prompt)
    answer = client.completions.create(
        model="parrot", prompt=prompt, max_tokens=40, extra_body={"parse_special": True}
    )
    assert list(engine.asked[-1].prompt) == make_tokenizer().encode(prompt)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("a", "stop")
    assert answer.usage.completion_tokens == 2  # with the one that ended it
    answer = client.completions.create(
        model="parrot",
        prompt=prompt,
        max_tokens=4,
        extra_body={"parse_special": True, "ignore_eos": True},
    )
    assert answer.choices[0].text == f"a{END}ba"


def test_what_the_engine_is_asked(client, engine):
    client.completions.create(
        model="parrot",
        prompt="ab",
        max_tokens=5,
        temperature=0.5,
        top_p=0.25,
        seed=-7,
        n=3,
        presence_penalty=1.5,
        frequency_penalty=-2,
        logit_bias={"97": -100, "256": 2},
        logprobs=4,
        stop=[END, "z"],
        user="somebody",
        extra_body={"top_k": 9},
    )
    asked = engine.asked[-1]
    how = asked.sampling
    assert (how.temperature, how.top_p, how.top_k, how.seed) == (0.5, 0.25, 9, -7)
    assert (how.presence_penalty, how.frequency_penalty) == (1.5, -2)
    assert dict(how.logit_bias) == {97: -100, 256: 2}
    assert (asked.n, asked.max_new_tokens, asked.logprobs, asked.prompt_logprobs) == (3, 5, 4, None)
    assert asked.stop_ids == frozenset()  # where scores are wanted, the end's are, too
    client.completions.create(model="parrot", prompt="ab", stop=["<|im_end|>", "z"])
    ends = {make_tokenizer().token_to_id(token) for token in (END, "<|im_end|>")}
    assert engine.asked[-1].stop_ids == ends


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("stop", "text", "finish"),
    [
        ("c", "ab", "stop"),
        (["dab", "cd"], "ab", "stop"),
        ("bcda", "a", "stop"),
        ("xyz", "abcdabcdab", "length"),
        ("bx", "abcdabcdab", "length"),  # held back at the end, and then shown
    ],
)
def test_stops(client, stream, stop, text, finish):
    how = {"model": "parrot", "prompt": "abcd", "max_tokens": 10, "stop": stop, "logprobs": 0}
    if stream:
        chunks = list(client.completions.create(**how, stream=True))
        choices = [chunk.choices[0] for chunk in chunks]
        assert "".join(choice.text for choice in choices) == text
        assert [choice.finish_reason for choice in choices][-1] == finish
        assert {choice.finish_reason for choice in choices[:-1]} <= {None}
        tokens = [token for choice in choices for token in choice.logprobs.tokens]
    else:
        (choice,) = client.completions.create(**how).choices
        assert (choice.text, choice.finish_reason) == (text, finish)
        tokens = choice.logprobs.tokens
    assert "".join(tokens) == text  # nothing is told of the tokens of the stop


def test_a_stream_is_the_whole_answer_in_pieces(client, url):
    how = {"prompt": ["the cat — ☃", "ab"], "n": 2, "max_tokens": 25, "logprobs": 2, "echo": True}
    whole = client.completions.create(model="parrot", **how)
    events = complete(url, **how, stream=True, stream_options={"include_usage": True}).events
    assert events.pop() == "[DONE]"
    last = events.pop()
    assert last["choices"] == []
    assert last["usage"] == whole.usage.to_dict()
    assert all(event["usage"] is None for event in events)
    assert len({event["id"] for event in events}) == 1
    for choice in whole.choices:
        own = [e["choices"][0] for e in events if e["choices"][0]["index"] == choice.index]
        assert "".join(piece["text"] for piece in own) == choice.text
        assert "\ufffd" not in choice.text
        for name, values in choice.logprobs.to_dict().items():
            assert [value for piece in own for value in piece["logprobs"][name]] == values
        assert [piece["finish_reason"] for piece in own if piece["finish_reason"]] == ["length"]
    texts = [choice.text for choice in whole.choices]
    # The snowman is three tokens: cut inside, it is not shown before the end.
    assert texts[0].startswith("the cat — ☃the cat — ☃")
    assert texts[2] == "ab" * 13 + "a"


@pytest.mark.parametrize("max_tokens", [0, 1])
@pytest.mark.parametrize("prompt", ["the sé", [257, 32, 115, 0xC3, 0xA9]])
def test_echo_scores_the_prompt(client, prompt, max_tokens):
    """What lm-eval asks: the log-probabilities of a prompt's own tokens."""
    answer = client.completions.create(
        model="parrot", prompt=prompt, max_tokens=max_tokens, echo=True, logprobs=1
    )
    (choice,) = answer.choices
    ids = make_tokenizer().encode(prompt) if isinstance(prompt, str) else prompt
    logprobs = choice.logprobs
    assert len(logprobs.tokens) == len(ids) + max_tokens
    assert choice.text.startswith("the sé")
    assert logprobs.token_logprobs[: len(ids)] == [None, *(-1.0 - i for i in range(1, len(ids)))]
    assert logprobs.top_logprobs[0] is None
    assert all(max(top.values()) == -0.5 for top in logprobs.top_logprobs[1 : len(ids)])
    assert logprobs.tokens[len(ids) - 2 : len(ids)] == ["bytes:\\xc3", "bytes:\\xa9"]
    places = logprobs.text_offset
    assert places[0] == 0
    assert places == sorted(places)
    for token, start in zip(logprobs.tokens, places, strict=True):
        assert token.startswith("bytes:") or choice.text.startswith(token, start)


def test_the_end_of_the_text_is_scored_but_not_shown(client):
    """So the last of the scores is always the drawn token's, as lm-eval takes it to be."""
    end = make_tokenizer().token_to_id(END)
    answer = client.completions.create(
        model="parrot", prompt=[end, 97], max_tokens=1, echo=True, logprobs=1
    )
    (choice,) = answer.choices
    assert choice.text == f"{END}a"
    assert choice.logprobs.tokens == [END, "a", END]
    assert choice.finish_reason == "stop"


def test_ids_beside_the_scores(url):
    fields = {"prompt": "the", "max_tokens": 2, "logprobs": 2, "return_token_ids": True}
    scores = complete(url, **fields).json["choices"][0]["logprobs"]
    assert scores["token_ids"] == [257, 257]
    assert [top["id"] for top in scores["top"][1]] == [1, 2, 257]  # the one taken is among them
    assert scores["top"][1][2] == {"id": 257, "token": "the", "logprob": -0.5}
    assert list(scores["top_logprobs"][0].values()) == [-0.5, -1.5, -0.5]


def test_models(client):
    assert [model.id for model in client.models.list()] == ["parrot"]
    assert client.models.retrieve("parrot").to_dict()["max_model_len"] == 64
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-9' here"):
        client.models.retrieve("gpt-9")


def test_tokens_there_and_back(url):
    text = f"the ☃{END}"
    said = ask(url, "/tokenize", {"prompt": text, "return_token_strs": True}).json
    assert said["tokens"] == make_tokenizer().encode_ordinary(text)
    assert said["count"] == len(said["tokens"]) == len(said["token_strs"])
    assert said["token_strs"][:3] == ["the", " ", "bytes:\\xe2"]
    assert said["max_model_len"] == 64
    assert ask(url, "/detokenize", {"tokens": said["tokens"]}).json == {"prompt": text}
    special = ask(url, "/tokenize", {"prompt": text, "parse_special": True}).json["tokens"]
    assert special == make_tokenizer().encode(text)
    assert ask(url, "/tokenize", {"prompt": ""}).json["tokens"] == []


WRONG = [
    ({}, "prompt", "prompt is missing"),
    ({"prompt": None}, "prompt", "prompt is missing"),
    ({"prompt": []}, "prompt", "empty array"),
    ({"prompt": [[]]}, "prompt", "empty"),
    ({"prompt": 5}, "prompt", "must be a string, not a whole number"),
    ({"prompt": ["a", 5]}, "prompt", "must be a string"),
    ({"prompt": [1, "a"]}, "prompt", "must be a whole number, not a string"),
    ({"prompt": [True]}, "prompt", "not a boolean"),
    ({"prompt": [1.5]}, "prompt", "not a number"),
    ({"prompt": [999]}, "prompt", "must be from 0 to 264"),
    ({"prompt": [-1]}, "prompt", "must be from 0"),
    ({"prompt": [10**400]}, "prompt", "a number of more than 64 bits"),
    ({"prompt": "\ud800"}, "prompt", "half a surrogate"),
    ({"prompt": "ab" * 501}, "prompt", "1,002 tokens; this server takes at most 1,000"),
    ({"prompt": [97] * 1001}, "prompt", "1,001 tokens"),
    ({"prompt": ["a"] * 17}, "prompt", "17 prompts"),
    ({"prompt": "a", "n": 17}, None, "17 texts"),
    ({"prompt": "a", "n": 0}, "n", "from 1 to"),
    ({"prompt": "a", "max_tokens": 501}, "max_tokens", "from 0 to 500"),
    ({"prompt": "a", "max_tokens": "5"}, "max_tokens", "not a string"),
    ({"prompt": "a", "max_tokens": True}, "max_tokens", "not a boolean"),
    ({"prompt": "a", "temperature": -1}, "temperature", "from 0 to"),
    ({"prompt": "a", "temperature": "hot"}, "temperature", "a number"),
    ({"prompt": "a", "top_p": 0}, "top_p", "above 0"),
    ({"prompt": "a", "top_p": 1.1}, "top_p", "from 0 to 1"),
    ({"prompt": "a", "top_k": 0}, "top_k", "from 1"),
    ({"prompt": "a", "seed": 1 << 64}, "seed", "from -"),
    ({"prompt": "a", "seed": 1.5}, "seed", "whole number"),
    ({"prompt": "a", "presence_penalty": 3}, "presence_penalty", "from -2 to 2"),
    ({"prompt": "a", "frequency_penalty": -3}, "frequency_penalty", "from -2 to 2"),
    ({"prompt": "a", "logit_bias": []}, "logit_bias", "an object"),
    ({"prompt": "a", "logit_bias": {"the": 1}}, "logit_bias", "a token's id"),
    ({"prompt": "a", "logit_bias": {"999": 1}}, "logit_bias", "999 is no token"),
    ({"prompt": "a", "logit_bias": {"9": 101}}, "logit_bias", "from -100 to 100"),
    ({"prompt": "a", "logprobs": 21}, "logprobs", "from 0 to 20"),
    ({"prompt": "a", "logprobs": True}, "logprobs", "not a boolean"),
    ({"prompt": "a", "stop": 5}, "stop", "a string, or an array"),
    ({"prompt": "a", "stop": [""]}, "stop", "from 1 to"),
    ({"prompt": "a", "stop": ["a"] * 17}, "stop", "at most 16"),
    ({"prompt": "a", "stop": [None]}, "stop", "not null"),
    ({"prompt": "a", "stream": "yes"}, "stream", "true or false"),
    ({"prompt": "a", "stream_options": {}}, "stream_options", "only for stream"),
    ({"prompt": "a", "stream": True, "stream_options": 1}, "stream_options", "a JSON object"),
    (
        {"prompt": "a", "stream": True, "stream_options": {"usage": True}},
        "stream_options.usage",
        "no parameter 'stream_options.usage'; did you mean include_usage",
    ),
    ({"prompt": "a", "best_of": 3}, "best_of", "not supported"),
    ({"prompt": "a", "suffix": "b"}, "suffix", "not supported"),
    ({"prompt": "a", "temprature": 1}, "temprature", "did you mean temperature"),
    ({"prompt": "a", "\ud800": 1}, "?", "no parameter"),
    ({"prompt": "a", "top_k": 999}, None, "the engine does not like 999"),
    ({"prompt": "a", "top_k": 999, "stream": True}, None, "the engine does not like 999"),
]


@pytest.mark.parametrize(("fields", "param", "message"), WRONG)
def test_what_is_wrong_is_named(url, fields, param, message):
    answer = complete(url, **fields)
    assert answer.status == 400
    error = answer.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert message in error["message"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[1]", "must be a JSON object, not an array"),
        (b"null", "must be a JSON object, not null"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"prompt": "a", "temperature": NaN}', "NaN is no JSON number"),
        (b'{"prompt": "a", "temperature": Infinity}', "Infinity is no JSON number"),
        (b'{"prompt": "a", "temperature": 1e999}', "from 0 to"),
        (b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"prompt":' + b"[" * 100_000, "nested too deeply"),
        (b'{"prompt":' + b'{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_json(url, body, message):
    answer = ask(url, COMPLETIONS, body)
    assert answer.status == 400
    assert message in answer.json["error"]["message"]


def test_errors_as_openai_reads_them(client, url):
    with pytest.raises(openai.BadRequestError, match="from 0 to 1") as caught:
        client.completions.create(model="parrot", prompt="a", top_p=3)
    assert caught.value.param == "top_p"
    with pytest.raises(openai.NotFoundError, match="there is no model 'other'") as caught:
        client.completions.create(model="other", prompt="a")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="tokens; this server") as caught:
        client.completions.create(model="parrot", prompt="ab" * 501)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError, match="there is no /v1/embeddings here"):
        client.embeddings.create(model="parrot", input="a")
    wrong = ask(url, COMPLETIONS)
    assert (wrong.status, wrong.json["error"]["type"]) == (405, "invalid_request_error")
    form = ask(url, COMPLETIONS, b"{}", {"Content-Type": "text/plain"})
    assert form.status == 415


def test_the_engine_fails_at_one_text(client):
    """The others go on; a stream says so, and does not end as if it were whole."""
    with pytest.raises(openai.InternalServerError, match="the logits are NaN"):
        client.completions.create(model="parrot", prompt="a\x18", max_tokens=9)
    fields = {"model": "parrot", "prompt": "ab\x18", "max_tokens": 9, "stream": True}
    stream = client.completions.create(**fields)
    assert [next(stream).choices[0].text for _ in range(2)] == ["a", "b"]
    with pytest.raises(openai.APIError, match="the logits are NaN"):
        next(stream)
    assert client.completions.create(model="parrot", prompt="ok", max_tokens=2).choices[0].text


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is the client")
def test_curl(url):
    body = json.dumps({"prompt": "ab", "max_tokens": 2, "stream": True})
    kind = ["-H", "Content-Type: application/json"]
    said = subprocess.run(
        ["curl", "-sN", url + COMPLETIONS, *kind, "-d", body],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    lines = [line for line in said.splitlines() if line]
    assert lines[-1] == "data: [DONE]"
    texts = [json.loads(line[6:])["choices"][0]["text"] for line in lines[:-1]]
    assert texts == ["a", "b"]


def test_metrics_are_what_prometheus_reads(url):
    with running(make_service(Parrot())) as url:
        complete(url, prompt="abc", max_tokens=5, n=2)
        complete(url, prompt=5)
        ask(url, "/" + "x" * 50)
        answer = ask(url, "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = answer.body.decode()
    sample = r'[a-z0-9_]+(\{([a-z]+="[^"\\\n]*",?)+\})? [0-9.e+-]+'
    for line in text.splitlines():
        assert re.fullmatch(rf"# (HELP|TYPE) .+|{sample}", line), line
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    assert figures["cs336lm_prompt_tokens_total"] == "3"
    assert figures["cs336lm_generated_tokens_total"] == "10"
    assert figures['cs336lm_requests_total{route="/v1/completions",status="200"}'] == "1"
    assert figures['cs336lm_requests_total{route="/v1/completions",status="400"}'] == "1"
    assert figures['cs336lm_requests_total{route="other",status="404"}'] == "1"
    assert figures["cs336lm_first_token_seconds_count"] == "2"
    assert figures['cs336lm_token_seconds_bucket{le="+Inf"}'] == "8"
    assert figures["cs336lm_sequences_running"] == "0"


def test_limits_that_fit_nobody_are_those_given():
    limits = Limits(max_prompt_tokens=3, max_new_tokens=2, max_sequences=2, max_queue=1)
    with running(make_service(Parrot(), limits)) as url:
        assert complete(url, prompt="abcd").status == 400
        assert complete(url, prompt="abc").json["usage"]["completion_tokens"] == 2
        assert complete(url, prompt="abc", n=3).status == 200
        assert complete(url, prompt="abc", n=4).status == 400
    assert LIMITS.max_outstanding == 16
