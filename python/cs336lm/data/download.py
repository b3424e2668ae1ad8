"""A file from the web, whole or not at all, continued where an earlier try ended.

What has arrived is kept as ``.NAME.download`` beside the place, and what the server said of it
(its version, its length) as ``.NAME.download.json``: so another try asks for the rest by a range,
if the server still has the same file, and begins anew if it does not. A connection that stalls or
breaks is tried again; the file gets its name when it has the length that was promised and, where
one is known, the SHA-256.

The standard library's HTTP client is all that it takes.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from cs336lm.files import exclusive_lock, sync_directory
from cs336lm.json_files import read_json

Progress = Callable[[str, int, int], None]
"""Called with ("downloading", bytes that are here, bytes in all or 0) as they arrive."""

_BLOCK = 1 << 18
_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_BREAKS = (TimeoutError, ConnectionError, http.client.HTTPException, urllib.error.URLError)


@dataclass(frozen=True)
class _Said:
    """What a server said of the file that the bytes here are of."""

    url: str
    length: int | None
    version: str | None
    """Its ETag, or when it was last changed."""


def download(
    url: str,
    out: Path,
    *,
    sha256: str | None = None,
    progress: Progress | None = None,
    timeout: float = 60.0,
    tries: int = 5,
    pause: float = 1.0,
) -> str:
    """Fetches ``url`` to ``out``, unless that is there with this hash already.

    Args:
        url: http or https.
        out: the file to write; one that is there is never replaced.
        sha256: in hexadecimal; None takes what comes.
        progress: called as bytes arrive.
        timeout: seconds without a byte after which a connection counts as broken.
        tries: connections in a row that may bring nothing before it is given up.
        pause: seconds before the second try; twice as many before each further one.

    Returns:
        The file's SHA-256.

    Raises:
        ValueError: the content has another hash (of what arrived, nothing is kept), the server
            refuses, or the connection broke too often (what arrived is kept).
        UsageError: another process downloads the same file.
        OSError: the file cannot be written.
    """
    if out.exists():
        return _checked(out, sha256)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.download")
    lock = out.with_name(f".{out.name}.lock")
    with exclusive_lock(lock, str(out)):
        if out.exists():  # now
            return _checked(out, sha256)
        job = _Job(url, part, progress, timeout)
        job.run(tries, pause)
        found = _sha256(part)
        if sha256 is not None and found != sha256.lower():
            job.forget()
            raise ValueError(
                f"{url} has the SHA-256 {found}, not {sha256}: it was damaged on the way, or is "
                "another file now; nothing of it was kept"
            )
        part.replace(out)
        job.forget()
        sync_directory(out.parent)
        lock.unlink(missing_ok=True)
    return found


def _checked(out: Path, sha256: str | None) -> str:
    """The hash of a file that is there already."""
    found = _sha256(out)
    if sha256 is not None and found != sha256.lower():
        raise ValueError(f"{out} is there already, with the SHA-256 {found}, not {sha256}")
    return found


class _Job:
    def __init__(self, url: str, part: Path, progress: Progress | None, timeout: float) -> None:
        self.url = url
        self.part = part
        self.notes = part.with_name(f"{part.name}.json")
        self.progress = progress
        self.timeout = timeout

    def run(self, tries: int, pause: float) -> None:
        """Connects until the file is whole, or ``tries`` connections in a row brought nothing."""
        failures, most = 0, self._here()
        while True:
            try:
                if self._fetch():
                    return
                reason = "the connection ended early"
            except urllib.error.HTTPError as error:
                if error.code not in _AGAIN:
                    raise ValueError(f"{self.url}: the server says {error.code}") from None
                reason = f"the server says {error.code}"
            except _BREAKS as error:
                reason = str(getattr(error, "reason", error)) or type(error).__name__
            here = self._here()
            failures, most = (0, here) if here > most else (failures + 1, most)
            if failures >= tries:
                raise ValueError(
                    f"{self.url}: {reason}, {tries} times in a row; what has arrived is kept, and "
                    "the same command goes on from there"
                )
            time.sleep(pause * 2**failures)

    def forget(self) -> None:
        """Removes what is kept of an unfinished file."""
        self.part.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)

    def _here(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _fetch(self) -> bool:
        """One connection; whether the file is whole after it."""
        said, here = self._said(), self._here()
        if said is not None and said.length is not None and here >= said.length:
            if here == said.length:
                return True
            here = 0
        headers = {"User-Agent": "cs336lm", "Accept-Encoding": "identity"}
        if said is not None and here:
            headers["Range"] = f"bytes={here}-"
            if said.version is not None:
                headers["If-Range"] = said.version
        request = urllib.request.Request(self.url, headers=headers)
        try:
            response = urllib.request.urlopen(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            if error.code != 416:  # the file is shorter now than what is here
                raise
            self.forget()
            return False
        with response:
            now, start = _describe(response, self.url), _range_start(response)
            if start != here or (said is not None and now != said and start):
                if start:  # a part of another file, or not the part that was asked for
                    self.forget()
                    return False
                here = 0
            self.notes.write_text(json.dumps(asdict(now)), encoding="utf-8")
            with self.part.open("r+b" if here else "wb") as file:
                file.truncate(here)
                file.seek(here)
                arrived = self._copy(response, file, here, now.length)
        if now.length is None:
            return True
        if arrived > now.length:
            self.forget()
        return arrived == now.length

    def _copy(self, response: Any, file: IO[bytes], here: int, length: int | None) -> int:
        """Appends what comes; how many bytes are in the file at the end."""
        try:
            while block := response.read1(_BLOCK):  # all that came before a stall
                self._write(file, block)
                here += len(block)
                if self.progress is not None:
                    self.progress("downloading", here, length or 0)
        finally:  # what has arrived stays, also if the connection breaks
            file.flush()
            os.fsync(file.fileno())
        return here

    def _write(self, file: IO[bytes], block: bytes) -> None:
        try:
            file.write(block)
        except OSError as error:  # a full disk, which no further try would help
            error.filename = str(self.part)
            raise

    def _said(self) -> _Said | None:
        """What is known of the unfinished file; None: it is of another address, or of no use."""
        try:
            said = _Said(**read_json(self.notes))
        except (OSError, ValueError, TypeError):
            return None
        return said if said.url == self.url and self.part.exists() else None


def _describe(response: Any, url: str) -> _Said:
    """The file behind a response, be it whole or a part of it."""
    etag = response.headers.get("ETag")
    total = response.headers.get("Content-Length")
    if response.status == 206:
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
    length = int(total) if total is not None and total.isdigit() else None
    strong = etag is not None and not etag.startswith("W/")
    return _Said(url, length, etag if strong else response.headers.get("Last-Modified"))


def _range_start(response: Any) -> int:
    """Where in the file a response begins; a server may send all of it whatever was asked."""
    if response.status != 206:
        return 0
    start = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(start) if start.isdigit() else -1


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
