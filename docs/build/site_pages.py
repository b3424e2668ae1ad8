"""What the site does beyond MkDocs: pages from outside docs/, and links out of it.

The documents are written to be read where they lie: ``../crates/bpe/src/lib.rs`` leads from one of
them to a source, and CONTRIBUTING.md is at the root. On the site such a source is named without a
link, and the pages of the root lie beside the others.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}

_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):(<code>|`)")


def on_files(files: Any, *, config: Any) -> Any:
    """Adds the pages that lie at the root of the repository."""
    from mkdocs.structure.files import File

    for name, source in PAGES.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Points links to where things are on the site."""
    home = ROOT if page.file.src_uri in PAGES else ROOT / "docs"
    return relinked(markdown, home)


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings name things as Sphinx has it, ``:func:`x```: the name alone is shown."""
    return _ROLE.sub(r"\1", html)


def relinked(markdown: str, home: Path) -> str:
    """``markdown`` of a page in the folder ``home``, with links that hold on the site."""

    def one(found: re.Match[str]) -> str:
        text, target = found[1], found[2]
        path, anchor, place = target.partition("#")
        if "://" in target or not path:
            return found[0]
        name = (home / path).resolve().relative_to(ROOT).as_posix()
        at_root = {source: page for page, source in PAGES.items()}
        if name in at_root:
            return f"[{text}]({at_root[name]}{anchor}{place})"
        if name.startswith("docs/"):
            return f"[{text}]({name.removeprefix('docs/')}{anchor}{place})"
        return text if name in text or text.startswith("`") else f"{text} (`{name}`)"

    return _LINK.sub(one, markdown)
