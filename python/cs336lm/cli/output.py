"""Output that arrives, whatever characters a terminal can take, and replaces nothing foreign."""

import os
import sys
from typing import Any, TextIO

from cs336lm.errors import UsageError


def escape_what_cannot_be_shown(stream: TextIO) -> None:
    """Lets ``stream`` write \\u20ac for a character outside its encoding, in place of an error."""
    if getattr(stream, "errors", None) == "strict":
        stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]


def print_json(value: Any) -> None:
    """Prints ``value`` as one line of JSON, in ASCII where the standard output needs that."""
    import json  # here, since every command imports this file and few print JSON

    line = json.dumps(value, ensure_ascii=False)
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        line = json.dumps(value)  # valid JSON, which a backslash for each character would not be
    print(line)


def refuse_foreign_picture(flag: str, path: str | os.PathLike[str]) -> None:
    """Raises ``UsageError`` if a file is there that is neither empty nor drawn by matplotlib."""
    if not os.path.isfile(path):
        return
    with open(path, "rb") as file:
        content = file.read()
    is_picture = content.startswith((b"\x89PNG", b"%PDF", b"<?xml"))
    if content and not (is_picture and b"atplotlib" in content):
        raise UsageError(
            f"{flag} {path} exists and is no plot of this command's: delete it, or name another "
            "file"
        )
