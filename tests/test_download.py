"""``cs336lm data get`` from a server that stalls, cuts, lies, and sends something else."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cs336lm.cli.main import main
from cs336lm.data import corpora
from cs336lm.data.download import download
from cs336lm.errors import UsageError
from cs336lm.files import exclusive_lock
from exchanged import one_line

CONTENT = bytes(range(256)) * 4000
HASH = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves ``content`` as well as ``faults`` let it: a fault for each request, in order."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.etag = '"1"'
        self.faults = []
        self.requests = []
        self.released = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/corpus.txt"

    def handle_error(self, request, client_address):
        pass  # clients that go away are what is tested


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.requests.append((self.headers.get("Range"), self.headers.get("If-Range")))
        fault = server.faults.pop(0) if server.faults else None
        if isinstance(fault, int):
            self.send_response(fault)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = bytes(len(server.content)) if fault == "wrong bytes" else server.content
        start = self.begin(content, fault)
        if start is None:
            return
        rest = content[start:]
        if fault in ("cut", "stall"):
            self.wfile.write(rest[: len(rest) // 2])
            self.wfile.flush()
            if fault == "stall":
                server.released.wait(20)
            self.close_connection = True
            return
        self.wfile.write(rest)
        self.close_connection = True

    def begin(self, content, fault):
        """Sends the head; where the body begins."""
        server = self.server
        wanted = self.headers.get("Range")
        version = self.headers.get("If-Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if wanted and (fault == "ignores range" or version not in (None, server.etag)):
            start, wanted = 0, None
        if wanted and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        if fault == "wrong part":
            start = max(0, start - 7)
        self.send_response(206 if wanted else 200)
        length = len(content) - start + (1000 if fault == "promises more" else 0)
        if fault != "says no length":
            self.send_header("Content-Length", str(length))
        if wanted:
            total = length + start
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if server.etag:
            self.send_header("ETag", server.etag)
        self.send_header("Connection", "close")
        self.end_headers()
        return start


@pytest.fixture
def server():
    with Server() as running:
        yield running
        running.released.set()
        running.shutdown()


def fetch(server, out, **options):
    return download(server.url, out, **{"pause": 0, "timeout": 0.5} | options)


def test_a_file_appears_whole_with_its_hash(server, tmp_path):
    calls = []
    out = tmp_path / "new" / "corpus.txt"
    assert fetch(server, out, progress=lambda *call: calls.append(call)) == HASH
    assert out.read_bytes() == CONTENT
    assert [path.name for path in out.parent.iterdir()] == ["corpus.txt"]
    assert calls[-1] == ("downloading", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)
    # Another call asks for nothing.
    assert fetch(server, out, sha256=HASH) == HASH
    assert server.requests == [(None, None)]
    with pytest.raises(ValueError, match="is there already, with the SHA-256"):
        fetch(server, out, sha256="0" * 64)
    assert out.read_bytes() == CONTENT


@pytest.mark.parametrize("fault", ["cut", "stall"])
def test_a_broken_connection_goes_on_where_it_was(server, tmp_path, fault):
    server.faults = [fault, fault, 503]
    assert fetch(server, tmp_path / "c") == HASH
    half, three = len(CONTENT) // 2, len(CONTENT) * 3 // 4
    asked = [None, f"bytes={half}-", f"bytes={three}-", f"bytes={three}-"]
    assert server.requests == list(zip(asked, [None, *['"1"'] * 3], strict=True))


def test_another_call_goes_on_where_one_was_given_up(server, tmp_path):
    server.faults = ["cut", 503, 503]
    with pytest.raises(ValueError, match="the server says 503, 2 times in a row; what has"):
        fetch(server, tmp_path / "c", tries=2)
    assert not (tmp_path / "c").exists()
    assert fetch(server, tmp_path / "c") == HASH
    assert server.requests[-1][0] == f"bytes={len(CONTENT) // 2}-"
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_what_was_kept_of_another_file_is_not_used(server, tmp_path):
    server.faults = ["cut", 503]
    with pytest.raises(ValueError, match="in a row"):
        fetch(server, tmp_path / "c", tries=1)
    server.content, server.etag = CONTENT[::-1], '"2"'
    assert fetch(server, tmp_path / "c") == hashlib.sha256(CONTENT[::-1]).hexdigest()
    # Nor what came from another address, or of which nothing is known.
    server.faults = ["cut", 503]
    with pytest.raises(ValueError, match="in a row"):
        fetch(server, tmp_path / "d", tries=1)
    other = download(f"{server.url}?other", tmp_path / "d", timeout=0.5)
    assert other == hashlib.sha256(CONTENT[::-1]).hexdigest()
    assert server.requests[-1] == (None, None)
    (tmp_path / ".e.download").write_bytes(b"junk")
    assert fetch(server, tmp_path / "e") == other


def test_a_file_that_has_become_shorter(server, tmp_path):
    server.etag = None  # so that only the length tells
    server.faults = ["cut", 503]
    with pytest.raises(ValueError, match="in a row"):
        fetch(server, tmp_path / "c", tries=1)
    server.content = CONTENT[:1000]
    assert fetch(server, tmp_path / "c") == hashlib.sha256(CONTENT[:1000]).hexdigest()
    server.content = CONTENT
    server.faults = ["cut", 503]
    with pytest.raises(ValueError, match="in a row"):
        fetch(server, tmp_path / "d", tries=1)
    server.content = CONTENT[: len(CONTENT) * 3 // 4]  # longer than what is here
    assert fetch(server, tmp_path / "d") == hashlib.sha256(server.content).hexdigest()


@pytest.mark.parametrize("fault", ["ignores range", "wrong part"])
def test_a_server_that_sends_another_part(server, tmp_path, fault):
    server.faults = ["cut", fault]
    assert fetch(server, tmp_path / "c") == HASH


def test_a_server_that_promises_more_than_it_has(server, tmp_path):
    server.faults = ["promises more"] * 40
    with pytest.raises(ValueError, match="3 times in a row"):
        fetch(server, tmp_path / "c", tries=3)
    assert not (tmp_path / "c").exists()
    assert len(server.requests) < 12


def test_a_server_that_says_no_length(server, tmp_path):
    server.faults = ["says no length"]
    assert fetch(server, tmp_path / "c") == HASH


def test_wrong_bytes_are_found_by_their_hash(server, tmp_path):
    server.faults = ["wrong bytes"]
    with pytest.raises(ValueError, match="it was damaged on the way, or is another file now"):
        fetch(server, tmp_path / "c", sha256=HASH)
    assert list(tmp_path.glob("*.txt")) == list(tmp_path.glob(".c.download*")) == []
    assert fetch(server, tmp_path / "c", sha256=HASH.upper()) == HASH


def test_a_refusal_is_not_tried_again(server, tmp_path):
    server.faults = [404]
    with pytest.raises(ValueError, match=r"corpus\.txt: the server says 404"):
        fetch(server, tmp_path / "c")
    assert len(server.requests) == 1


def test_nobody_there(tmp_path):
    with pytest.raises(ValueError, match=r"refused.*, 2 times in a row"):
        download("http://127.0.0.1:9/x", tmp_path / "c", tries=2, pause=0)


def test_one_process_at_a_time(server, tmp_path):
    with (
        exclusive_lock(tmp_path / ".c.lock", "c"),
        pytest.raises(UsageError, match="is in use by process"),
    ):
        fetch(server, tmp_path / "c")
    assert server.requests == []


def test_the_command(server, tmp_path, capsys, monkeypatch):
    files = tuple(corpora.CorpusFile(f"{server.url}-{part}") for part in ("train", "valid"))
    monkeypatch.setitem(corpora.CORPORA, "tinystories", files)
    get = ["data", "get", "tinystories", "--out", str(tmp_path)]
    assert main([*get, "--only", "valid", "--sha256", HASH]) == 0
    place = tmp_path / "corpus.txt-valid"
    assert capsys.readouterr().out == f"{place}: 1.0 MB, SHA-256 {HASH}\n"
    assert main(get) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith(f"corpus.txt-train: 1.0 MB, SHA-256 {HASH}")
    assert second == f"{place}: is there already, SHA-256 {HASH}"
    assert main(["data", "get", server.url, "--out", str(tmp_path)]) == 0
    assert (tmp_path / "corpus.txt").read_bytes() == CONTENT
    capsys.readouterr()
    assert main([*get, "--sha256", HASH]) == 2
    assert "--only train or --only valid" in one_line(capsys)
    for wrong in (["data", "get", "novels"], [*get, "--sha256", "abc"], ["data", "put", "owt"]):
        with pytest.raises(SystemExit, match="2"):
            main(wrong)
        assert "cs336lm data: error:" in one_line(capsys)


def test_the_corpora_are_the_handouts():
    assert [file.url for file in corpora.CORPORA["tinystories"]] == [
        "https://huggingface.co/datasets/roneneldan/TinyStories/resolve/main/" + name
        for name in ("TinyStoriesV2-GPT4-train.txt", "TinyStoriesV2-GPT4-valid.txt")
    ]
    assert [file.url for file in corpora.CORPORA["owt"]] == [
        "https://huggingface.co/datasets/stanford-cs336/owt-sample/resolve/main/" + name
        for name in ("owt_train.txt.gz", "owt_valid.txt.gz")
    ]


def test_a_kill_in_between_leaves_what_has_arrived(server, tmp_path):
    """What is on the disk after a half says how much, and of what."""
    server.faults = ["cut", 503]
    with pytest.raises(ValueError, match="in a row"):
        fetch(server, tmp_path / "c", tries=1)
    assert (tmp_path / ".c.download").read_bytes() == CONTENT[: len(CONTENT) // 2]
    said = json.loads((tmp_path / ".c.download.json").read_text())
    assert said == {"url": server.url, "length": len(CONTENT), "version": '"1"'}
