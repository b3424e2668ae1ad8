"""Text out of tokens that come one by one: whole characters, up to the first stop.

A token is bytes, and a character may be several tokens; a stop may begin in one token and end in
another. So what cannot be told yet is held back: the bytes of an unfinished character, and the
longest end of the text that a stop begins with.
"""

import codecs
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cs336lm.text.tokenizer import Tokenizer


class TextStream:
    """Turns the ids of one text into characters, as soon as they are whole and sure to stay.

    Args:
        tokenizer: says which bytes an id stands for.
        stops: texts, none of them empty, of which the first to be complete ends the text before it.
    """

    def __init__(self, tokenizer: "Tokenizer", stops: Sequence[str] = ()) -> None:
        self.ended = False
        """Whether a stop has come or :meth:`end` was called: nothing follows."""
        self._tokenizer = tokenizer
        self._stops = stops
        self._held = ""
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """What the text grows by with this token; often nothing, and nothing after the end."""
        if self.ended:
            return ""
        return self._shown(self._utf8.decode(self._tokenizer.decode_bytes([token])))

    def end(self) -> str:
        """What was held back; bytes that became no character are U+FFFD. Harmless to call again."""
        if self.ended:
            return ""
        return self._shown(self._utf8.decode(b"", final=True), is_last=True)

    def _shown(self, new: str, *, is_last: bool = False) -> str:
        text = self._held + new
        # That which is complete first, in however many tokens the text came.
        found = [
            (text.find(stop) + len(stop), text.find(stop)) for stop in self._stops if stop in text
        ]
        self.ended = is_last or bool(found)
        if found:
            _, sure = min(found)
        else:
            sure = len(text) if is_last else len(text) - self._possible_stop(text)
        self._held = text[sure:]
        return text[:sure]

    def _possible_stop(self, text: str) -> int:
        """How many characters at the end of ``text`` may be the beginning of a stop."""
        longest = max(map(len, self._stops), default=1) - 1
        ends = range(min(longest, len(text)), 0, -1)
        return next((n for n in ends if any(s.startswith(text[-n:]) for s in self._stops)), 0)
