"""The corpora of the course, and where its handout says they are.

Their hashes are not known to this package: the SHA-256 of a download is printed, and one that is
known from elsewhere can be demanded.
"""

from __future__ import annotations

from typing import NamedTuple

_HUB = "https://huggingface.co/datasets/"


class CorpusFile(NamedTuple):
    """One file of a corpus."""

    url: str
    sha256: str | None = None

    @property
    def name(self) -> str:
        """What it is called when it is here."""
        return self.url.rpartition("/")[2]


CORPORA = {
    "tinystories": tuple(
        CorpusFile(f"{_HUB}roneneldan/TinyStories/resolve/main/TinyStoriesV2-GPT4-{part}.txt")
        for part in ("train", "valid")
    ),
    "owt": tuple(
        CorpusFile(f"{_HUB}stanford-cs336/owt-sample/resolve/main/owt_{part}.txt.gz")
        for part in ("train", "valid")
    ),
}
"""TinyStories (Eldan and Li 2023), and the course's sample of OpenWebText."""
