"""Clients that send nothing, never end, never read or go away: others are served, places freed."""

import asyncio
import concurrent.futures
import http.client
import io
import json
import signal
import socket
import sys
import threading
import time
from dataclasses import replace

import pytest
from cs336lm.serving.gate import Access
from cs336lm.serving.server import Server
from served import LIMITS, Parrot, ask, connect, make_service, running, until

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
QUICK = replace(
    LIMITS,
    head_seconds=1,
    body_seconds=1,
    write_seconds=1,
    max_connections=50,
    max_body=100_000,
)


def request_bytes(**fields):
    body = json.dumps(fields).encode()
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


def everything(connection):
    """What comes until the other side closes; b"" if it did so without a word."""
    received = b""
    try:
        while part := connection.recv(65536):
            received += part
    except ConnectionResetError:
        pass
    return received


def received_with(connection, mark, times=1):
    """What comes up to the n-th ``mark``."""
    received = b""
    while received.count(mark) < times:
        part = connection.recv(65536)
        assert part, received
        received += part
    return received


def status_of(received):
    return int(received.split(b" ", 2)[1]) if received else None


def trickle(connection):
    for _ in range(300):
        connection.send(b"G")
        time.sleep(0.05)


def works(url):
    answer = ask(url, "/v1/completions", {"prompt": "ab", "max_tokens": 3})
    return answer.status == 200 and answer.json["choices"][0]["text"] == "aba"


def test_silent_connections_end():
    with running(make_service(Parrot(), QUICK)) as url:
        silent = [connect(url) for _ in range(40)]
        assert works(url)
        assert {status_of(everything(connection)) for connection in silent} == {408}


def test_too_many_silent_connections_give_way():
    """Those that have been silent longest, long before their time is over."""
    with running(make_service(Parrot(), replace(QUICK, head_seconds=300))) as url:
        silent = [connect(url) for _ in range(300)]
        assert works(url)
        assert {status_of(everything(connection)) for connection in silent[:200]} == {None}
        silent[-1].send(request_bytes(prompt="ab", max_tokens=3))
        assert b"aba" in received_with(silent[-1], b"total_tokens")


def test_a_request_of_a_byte_at_a_time_ends():
    with running(make_service(Parrot(), QUICK)) as url, connect(url) as slow:
        with pytest.raises(ConnectionError):
            trickle(slow)
        assert works(url)


def test_connections_that_are_busy_do_not_give_way():
    engine = Parrot(pause=0.05)
    limits = replace(QUICK, max_connections=3)
    with running(make_service(engine, limits)) as url:
        busy = [connect(url) for _ in range(3)]
        for connection in busy:
            connection.send(request_bytes(prompt="ab", max_tokens=20))
        until(lambda: len(engine.rows) == 3)
        with connect(url) as refused:
            assert status_of(everything(refused)) == 503
        for connection in busy:
            assert b"aba" in received_with(connection, b"total_tokens")
            connection.close()


@pytest.mark.parametrize("declared", [False, True])
def test_a_body_without_end(declared):
    service = make_service(Parrot(), QUICK)
    with running(service) as url, connect(url) as endless:
        length = (
            b"Content-Length: 99999999999\r\n" if declared else b"Transfer-Encoding: chunked\r\n"
        )
        endless.send(HEAD + length + b"\r\n")
        received = []
        reader = threading.Thread(target=lambda: received.append(everything(endless)))
        reader.start()
        part = b"x" * 10_000 if declared else b"2710\r\n" + b"x" * 10_000 + b"\r\n"
        try:
            for _ in range(100_000):
                endless.sendall(part)
                assert service._bodies._held <= QUICK.max_body + 200_000
        except OSError:
            pass  # closed, as it should be
        reader.join(20)
        assert status_of(received[0]) == 413
        assert works(url)
        assert service._bodies._held == 0


def test_who_asks_before_sending_is_told_at_once():
    with running(make_service(Parrot(), QUICK)) as url, connect(url) as polite:
        polite.send(HEAD + b"Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n")
        assert status_of(everything(polite)) == 413


def test_a_body_that_does_not_come():
    with running(make_service(Parrot(), QUICK)) as url, connect(url) as slow:
        slow.send(HEAD + b"Content-Length: 50\r\n\r\n" + b'{"prompt"')
        assert works(url)
        assert status_of(everything(slow)) == 408


def test_bodies_together_have_a_limit():
    service = make_service(Parrot(), replace(QUICK, max_bodies=150_000, body_seconds=20))
    with running(service) as url:
        first, second = connect(url), connect(url)
        for connection, held in ((first, 90_000), (second, 0)):
            connection.sendall(HEAD + b"Content-Length: 95000\r\n\r\n" + b" " * 90_000)
            until(lambda held=held: service._bodies._held >= held)
        assert status_of(everything(second)) == 429
        until(lambda: service._bodies._held == 90_000)
        assert works(url)
        first.close()
        until(lambda: service._bodies._held == 0)


def test_a_prompt_of_megabytes():
    limits = replace(LIMITS, max_body=5_000_000)
    with running(make_service(Parrot(), limits)) as url:
        for prompt in ("the cat " * 500_000, list(range(256)) * 2000):
            answer = ask(url, "/v1/completions", {"prompt": prompt})
            assert (answer.status, answer.json["error"]["code"]) == (400, "context_length_exceeded")
        answer = ask(url, "/tokenize", {"prompt": "a" * 4_000_000})
        assert answer.status == 400
        assert works(url)


@pytest.mark.parametrize("stream", [False, True])
def test_who_goes_away_frees_its_place(stream):
    engine = Parrot(pause=0.01)
    service = make_service(engine)
    with running(service) as url:
        idle = len(asyncio.all_tasks(service.batcher._loop))
        going = [connect(url) for _ in range(4)]
        for connection in going:  # all places, and all of the queue
            connection.send(request_bytes(prompt="ab", max_tokens=500, stream=stream, n=4))
        until(lambda: len(engine.rows) == 16)
        refused = ask(url, "/v1/completions", {"prompt": "ab"})
        assert (refused.status, refused.json["error"]["type"]) == (429, "rate_limit_exceeded")
        assert refused.headers["Retry-After"].isdigit()
        for connection in going:
            connection.close()
        until(lambda: not engine.rows)
        assert sorted(engine.cancelled) == list(range(16))
        until(lambda: len(asyncio.all_tasks(service.batcher._loop)) <= idle)  # nobody waits
        assert service.batcher.outstanding == 0
        until(lambda: ask(url, "/health").json["running"] == 0)
        assert works(url)
        assert "cs336lm_cancelled_total 4" in ask(url, "/metrics").body.decode()


def test_a_stop_frees_its_place():
    """Of two texts one reaches a stop: it is given up, while the other goes on to its end."""
    engine = Parrot(pause=0.01)
    with running(make_service(engine)) as url:
        fields = {"prompt": ["ab", "cd"], "max_tokens": 60, "stop": "bab"}
        choices = ask(url, "/v1/completions", fields).json["choices"]
        assert [choice["finish_reason"] for choice in choices] == ["stop", "length"]
        assert engine.cancelled == [0]


def test_who_does_not_read_loses_the_connection():
    engine = Parrot()
    with running(make_service(engine, QUICK), send_buffer=8192) as url:
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, port = url.removeprefix("http://").split(":")
        deaf.connect((host, int(port)))
        fields = {"prompt": "ab", "max_tokens": 500, "n": 8, "logprobs": 20, "stream": True}
        deaf.send(request_bytes(**fields))
        ended = 'cs336lm_requests_total{route="/v1/completions",status="200"} 1'
        until(lambda: ended in ask(url, "/metrics").body.decode())
        assert works(url)
        received = everything(deaf)  # what was on its way; the rest was never sent
        assert b"[DONE]" not in received
        deaf.close()


def test_what_is_no_http():
    with running(make_service(Parrot(), QUICK)) as url:
        for noise in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n"):
            with connect(url) as connection:
                connection.send(noise + b"\r\n\r\n")
                received = everything(connection)
            assert status_of(received) == 400
            assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["type"]
        with connect(url) as connection:
            connection.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000)
            assert status_of(everything(connection)) in (400, 431, None)
        assert works(url)


def test_several_requests_on_one_connection():
    with running(make_service(Parrot(), QUICK)) as url:
        with connect(url) as connection:
            connection.send(request_bytes(prompt="ab", max_tokens=2) * 3)  # pipelined
            received_with(connection, b"total_tokens", 3)
        client = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
        for _ in range(3):
            client.request("GET", "/health")
            assert client.getresponse().read()
        client.close()


def test_the_thread_dies():
    engine = Parrot(pause=0.02, die_at=8)
    with running(make_service(engine)) as url, concurrent.futures.ThreadPoolExecutor() as pool:
        whole = {"prompt": "ab", "max_tokens": 100}
        answers = [
            pool.submit(ask, url, "/v1/completions", {**whole, "stream": stream})
            for stream in (False, True)
        ]
        failed, stream = (answer.result() for answer in answers)
        message = "the model has failed: RuntimeError: out of memory"
        assert (failed.status, failed.json["error"]["message"]) == (500, message)
        assert stream.status == 200
        assert stream.events[-1]["error"]["message"] == message  # and no [DONE]
        health = ask(url, "/health")
        assert (health.status, health.json["status"]) == (503, "failed")
        assert "out of memory" in health.json["reason"]
        refused = ask(url, "/v1/completions", whole)
        assert (refused.status, refused.json["error"]["type"]) == (503, "service_unavailable")
        assert ask(url, "/tokenize", {"prompt": "ab"}).status == 200


def test_nothing_of_one_request_in_anothers():
    """Sixty clients with letters of their own, some of whom go away: no letter strays."""
    limits = replace(LIMITS, max_queue=500)
    letters = [chr(0x4E00 + i) for i in range(60)]

    def visit(url, number):
        letter = letters[number]
        fields = {"prompt": letter * (1 + number % 5), "max_tokens": 60, "stream": number % 2 == 0}
        if number % 6 == 5:
            with connect(url) as connection:
                connection.send(request_bytes(**fields, n=2))
                time.sleep(0.01)
            return letter
        answer = ask(url, "/v1/completions", {**fields, "n": 2})
        if number % 2:
            return "".join(choice["text"] for choice in answer.json["choices"])
        return "".join(e["choices"][0]["text"] for e in answer.events[:-1])

    engine = Parrot(pause=0.001)
    with running(make_service(engine, limits)) as url:
        with concurrent.futures.ThreadPoolExecutor(60) as pool:
            texts = list(pool.map(lambda n: visit(url, n), range(60)))
        until(lambda: not engine.rows)
        for letter, text in zip(letters, texts, strict=True):
            assert set(text) == {letter}
        assert {len(text) for text in texts} == {1, 40}  # three bytes a letter, twice 60 tokens


def test_the_end_lets_what_is_running_finish():
    engine = Parrot(pause=0.02)
    service = make_service(engine)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        with running(service) as url:
            fields = {"prompt": "ab", "max_tokens": 40, "stream": True}
            answer = pool.submit(ask, url, "/v1/completions", fields)
            idle = connect(url)
            until(lambda: engine.rows)
        assert answer.result().events[-1] == "[DONE]"
        assert everything(idle) == b""
        assert not service.batcher._thread.is_alive()


def test_the_end_does_not_wait_for_ever():
    engine = Parrot(pause=0.02)
    limits = replace(LIMITS, stop_seconds=0.3)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        with running(make_service(engine, limits)) as url:
            fields = {"prompt": "ab", "max_tokens": 500}
            stream = pool.submit(ask, url, "/v1/completions", {**fields, "stream": True})
            whole = pool.submit(ask, url, "/v1/completions", fields)
            until(lambda: len(engine.rows) == 2)
        assert stream.result().events[-1]["error"]["message"] == "the server is stopping"
        assert whole.result().status == 503


def test_a_second_signal_on_the_heels_of_the_first(monkeypatch):
    # Who reads "stopping" may send the second signal before the first one's handler has returned.
    class Console(io.StringIO):
        def write(self, text):
            written = super().write(text)
            if "stopping" in text:
                server.handle_exit(signal.SIGINT, None)
            return written

    class Loop:
        asked = ()

        def call_soon_threadsafe(self, callback):
            self.asked += (callback,)

    service = make_service()
    server = Server(service, Access())
    server._loop = loop = Loop()
    console = Console()
    monkeypatch.setattr(sys, "stderr", console)
    server.handle_exit(signal.SIGINT, None)
    assert console.getvalue() == "stopping: finishing what is running\n"
    assert loop.asked == (server._hurry,)
    service.batcher.close()
