"""Requests that nobody would send: each is answered, in OpenAI's form, and never by a failure."""

import http.client
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import Parrot, ask, make_service, make_tokenizer, running

CALM = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}
PATHS = ["/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"]
FIELDS = [
    *("prompt", "model", "max_tokens", "temperature", "top_p", "top_k", "seed", "n", "stop"),
    *("stream", "stream_options", "logprobs", "echo", "logit_bias", "presence_penalty"),
    *("frequency_penalty", "best_of", "suffix", "user", "messages", "top_logprobs", "tools"),
    *("tokens", "parse_special", "return_token_ids", "return_token_strs", "ignore_eos"),
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, 1, -1, 2**31, 2**63, 2**64, 10**30, 0.5, -0.0, 1e308, 5e-324]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.sampled_from(["", "the", "<|endoftext|>", "\x00", "\ud800", "user", "text", "parrot"]),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
MESSAGE = st.fixed_dictionaries(
    {}, optional={"role": SCALARS, "content": JSON, "name": SCALARS, "tool_calls": JSON}
)
BODIES = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), JSON, max_size=4)
LIKELY = st.fixed_dictionaries(
    {"max_tokens": st.integers(-1, 5), "prompt": st.text() | st.lists(st.integers(-1, 270))},
    optional={name: JSON for name in FIELDS if name not in ("prompt", "max_tokens")},
)
TALK = st.fixed_dictionaries(
    {"messages": st.lists(MESSAGE, max_size=3), "max_tokens": st.integers(0, 3)},
    optional={"stream": JSON, "logprobs": JSON, "top_logprobs": JSON, "stop": JSON},
)


@pytest.fixture(scope="module")
def url():
    from cs336lm.serving.chat_template import ChatTemplate

    tokenizer = make_tokenizer()
    template = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}", tokenizer)
    with running(make_service(Parrot(), chat_template=template)) as url:
        yield url


def check(answer):
    """Served, or refused in the form of an error; what is said is whole."""
    assert answer.status in (200, 400, 404, 415)
    if answer.status != 200:
        error = answer.json["error"]
        assert isinstance(error["message"], str)
        assert error["type"] == "invalid_request_error"
    elif answer.headers["content-type"].startswith("text/event-stream"):
        assert answer.events[-1] == "[DONE]"
    else:
        assert answer.json


@settings(max_examples=150, **CALM)
@given(path=st.sampled_from(PATHS), body=BODIES | LIKELY | TALK)
def test_any_json(url, path, body):
    check(ask(url, path, body))


@settings(max_examples=60, **CALM)
@given(path=st.sampled_from(PATHS), body=st.binary(max_size=200))
def test_any_bytes(url, path, body):
    check(ask(url, path, body))


@settings(max_examples=60, **CALM)
@given(path=st.sampled_from(PATHS), body=LIKELY, data=st.data())
def test_damaged_json(url, path, body, data):
    whole = bytearray(json.dumps(body).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    check(ask(url, path, bytes(whole)))


NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30)


@settings(max_examples=60, **CALM)
@given(method=st.sampled_from(["GET", "PUT", "DELETE", "HEAD", "PATCH"]), name=NAMES, value=NAMES)
def test_any_path_and_header(url, method, name, value):
    client = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    for path in ("/" + name, "/v1/models/" + name, "/health?" + name):
        client.request(method, path, headers={"X-Any": value, "Authorization": value})
        answer = client.getresponse()
        answer.read()
        assert answer.status in (200, 400, 404, 405)
    client.close()


def test_schemathesis(url):
    """The tool's own cases, from a description of what the endpoints take."""
    schemathesis = pytest.importorskip("schemathesis")
    number, text, switch = {"type": "number"}, {"type": "string"}, {"type": "boolean"}
    count = {"type": "integer", "maximum": 20}
    shared = {"max_tokens": count, "temperature": number, "top_p": number, "seed": count}
    shared |= {"n": count, "stop": {"anyOf": [text, {"type": "array", "items": text}]}}
    shared |= {"stream": switch, "presence_penalty": number, "logit_bias": {"type": "object"}}
    ids = {"type": "array", "items": {"type": "integer"}}
    message = {"type": "object", "properties": {"role": text, "content": text}}
    bodies = {
        "/v1/completions": {"prompt": {"anyOf": [text, ids]}, "logprobs": count, **shared},
        "/v1/chat/completions": {"messages": {"type": "array", "items": message}, **shared},
        "/tokenize": {"prompt": text},
        "/detokenize": {"tokens": ids},
    }
    described = {
        path: {
            "post": {
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {"schema": {"type": "object", "properties": fields}}
                    },
                },
                "responses": {"200": {"description": "served"}},
            }
        }
        for path, fields in bodies.items()
    }
    info = {"title": "cs336lm", "version": "1"}
    schema = schemathesis.openapi.from_dict({"openapi": "3.0.0", "info": info, "paths": described})
    modes = schemathesis.GenerationMode
    tried = 0
    for path in bodies:
        for mode in (modes.POSITIVE, modes.NEGATIVE):

            @settings(max_examples=20, **CALM)
            @given(case=schema[path]["POST"].as_strategy(generation_mode=mode))
            def send(case):
                nonlocal tried
                tried += 1
                answer = case.call(base_url=url)
                assert answer.status_code in (200, 400, 404, 415)

            send()
    assert tried > 100
    assert ask(url, "/health").status == 200
