"""What is printed arrives, whatever characters the terminal or the pipe can take."""

import sys
from typing import Any, TextIO


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
