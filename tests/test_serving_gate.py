"""Who may ask: names, origins, keys; and what a browser is told."""

import pytest
from cs336lm.serving.gate import Access, host_names
from served import Parrot, ask, make_service, running

ASK = {"prompt": "ab", "max_tokens": 1}


@pytest.fixture(scope="module")
def url():
    access = Access(host_names(["LM.example.org"]), frozenset({"https://app.example.org"}))
    with running(make_service(Parrot()), access) as url:
        yield url


@pytest.fixture(scope="module")
def locked():
    with running(make_service(Parrot()), Access(keys=("first", "second"))) as url:
        yield url


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:80", "127.0.0.1:8000", "[::1]:8000", "192.168.1.2", "[fe80::1]"),
        *("lm.example.org", "LM.example.org.:8000"),
    ],
)
def test_known_hosts(url, host):
    assert ask(url, "/v1/completions", ASK, {"Host": host}).status == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example"),
        *("lm.example.org.evil", "evil@localhost", "", "2130706433x"),
    ],
)
def test_names_that_are_not_its_own(url, host):
    """A page whose name its owner lets point to 127.0.0.1 gets nothing, not even the page."""
    for path, body in (("/v1/completions", ASK), ("/", None), ("/health", None)):
        answer = ask(url, path, body, {"Host": host})
        assert (answer.status, answer.json["error"]["code"]) == (421, "unknown_host")


def test_pages_of_other_sites(url):
    own = {"Origin": url}
    assert ask(url, "/v1/completions", ASK, own).status == 200
    for origin in ("https://evil.example", "null", "http://localhost:1", url + "0"):
        for path, body in (("/v1/completions", ASK), ("/v1/models", None), ("/metrics", None)):
            answer = ask(url, path, body, {"Origin": origin})
            assert (answer.status, answer.json["error"]["code"]) == (403, "foreign_origin")
            assert "access-control-allow-origin" not in answer.headers
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        # The types that a browser sends to other sites without asking first.
        assert ask(url, "/v1/completions", ASK, {"Content-Type": kind}).status == 415


def test_pages_of_an_allowed_site(url):
    origin = {"Origin": "https://app.example.org"}
    answer = ask(url, "/v1/completions", ASK, origin)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == "https://app.example.org"
    before = ask(url, "/v1/completions", None, origin, method="OPTIONS")
    assert before.status == 204
    assert "content-type" in before.headers["access-control-allow-headers"]
    assert ask(url, "/v1/completions", None, method="OPTIONS").status == 405


def test_keys(locked):
    for path, body in (("/v1/completions", ASK), ("/v1/models", None), ("/metrics", None)):
        assert ask(locked, path, body).status == 401
        for wrong in ("Bearer third", "Bearer ", "Bearer", "first", "Basic first", "Bearer firs"):
            answer = ask(locked, path, body, {"Authorization": wrong})
            assert (answer.status, answer.json["error"]["code"]) == (401, "invalid_api_key")
            assert answer.headers["www-authenticate"] == "Bearer"
        for key in ("first", "second"):
            answer = ask(locked, path, body, {"Authorization": f"Bearer {key}"})
            assert answer.status == 200
    assert ask(locked, "/").status == ask(locked, "/health").status == 200
    assert ask(locked, "/nowhere").status == 401


def test_the_openai_package_brings_its_key(locked):
    openai = pytest.importorskip("openai")
    good = openai.OpenAI(base_url=f"{locked}/v1", api_key="second", max_retries=0)
    assert good.models.list().data[0].id == "parrot"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{locked}/v1", api_key="third", max_retries=0).models.list()


def test_what_a_browser_is_told(url):
    answer = ask(url, "/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    for path in ("/", "/v1/models", "/nowhere"):
        headers = ask(url, path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in headers
