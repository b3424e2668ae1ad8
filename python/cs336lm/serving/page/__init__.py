"""The page at ``/``: one file that needs no network, put together from its three parts.

Its policy allows the style and the script that are in it, by their hashes, and requests to the
server that it came from; nothing else, so that no text of a model can become a script.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files


def page_and_policy() -> tuple[str, str]:
    """The HTML, and its ``Content-Security-Policy``."""
    folder = files(__package__)
    html, style, script = (
        (folder / name).read_text(encoding="utf-8")
        for name in ("page.html", "style.css", "script.js")
    )
    policy = [
        "default-src 'none'",
        f"style-src {_hash(style)}",
        f"script-src {_hash(script)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    whole = html.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)
    return whole, "; ".join(policy)


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
