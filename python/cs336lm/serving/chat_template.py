"""A conversation as the one text that a chat model was trained on.

The template is the model's own (Jinja, Hugging Face's convention), run in a sandbox: it comes with
a model, from anywhere. What the people in a conversation write is never more than text: a special
token that stands in a message is held out of the way while the template runs, and put back as
ordinary characters afterwards, so that nobody can end their own turn and begin the system's.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cs336lm.serving.api_error import invalid

if TYPE_CHECKING:
    from cs336lm.text.tokenizer import Tokenizer

_LARGEST_CONFIG = 64_000_000
_MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]  # Unicode's noncharacters: in no text


class ChatTemplate:
    """A template and the tokenizer whose special tokens it writes.

    Args:
        source: the template, in Jinja.
        tokenizer: the model's.
        tokens: what the template calls ``bos_token``, ``eos_token`` and so on.

    Raises ``ValueError`` for a template that is none.
    """

    def __init__(
        self, source: str, tokenizer: Tokenizer, tokens: Mapping[str, str] | None = None
    ) -> None:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise ValueError(f"the chat template is no Jinja template: {error}") from None
        self._tokenizer = tokenizer
        self._tokens = dict(tokens or {})
        special = sorted(tokenizer.special_tokens, key=len, reverse=True)  # the longest wins
        self._special = re.compile("|".join(map(re.escape, special))) if special else None

    def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The ids of a conversation, up to where the assistant is to speak.

        Args:
            messages: each with ``role``, ``content`` and perhaps ``name``.

        Raises ``ApiError`` for a conversation that the template refuses.
        """
        from jinja2 import TemplateError

        mark = self._unused_mark(messages)
        held: list[str] = []
        safe = [
            {name: self._hold(text, mark, held) for name, text in message.items()}
            for message in messages
        ]
        try:
            text = self._template.render(
                **self._tokens,
                messages=safe,
                add_generation_prompt=True,
                tools=None,
                documents=None,
            )
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            reason = " ".join(str(error).split())[:300]
            raise invalid(f"the model's chat template refuses: {reason}", "messages") from None
        return self._ids(text, mark, held)

    @staticmethod
    def _unused_mark(messages: Sequence[Mapping[str, str]]) -> str:
        used = {letter for message in messages for text in message.values() for letter in text}
        mark = next((mark for mark in _MARKS if mark not in used), None)
        if mark is None:
            raise invalid("messages hold every one of Unicode's noncharacters", "messages")
        return mark

    def _hold(self, text: str, mark: str, held: list[str]) -> str:
        """``text`` with a numbered mark for each special token in it."""
        if self._special is None:
            return text

        def replace(found: re.Match[str]) -> str:
            held.append(found[0])
            return f"{mark}{len(held) - 1}{mark}"

        return self._special.sub(replace, text)

    def _ids(self, text: str, mark: str, held: list[str]) -> list[int]:
        """Special tokens that the template wrote are tokens; all else is text."""
        ids: list[int] = []
        start = 0
        places = self._special.finditer(text) if self._special is not None else iter(())
        for found in itertools.chain(places, [None]):
            end = len(text) if found is None else found.start()
            plain = _put_back(text[start:end], mark, held)
            ids += self._tokenizer.encode_ordinary(plain)
            if found is not None:
                token = self._tokenizer.token_to_id(found[0])
                assert token is not None  # it is one of the tokenizer's
                ids.append(token)
                start = found.end()
        return ids


def _put_back(text: str, mark: str, held: list[str]) -> str:
    return re.sub(f"{mark}([0-9]+){mark}", lambda found: held[int(found[1])], text)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def find_chat_template(folder: Path, tokenizer: Tokenizer) -> ChatTemplate | None:
    """The template beside a tokenizer's files: ``chat_template.jinja``, or in its configuration.

    Raises ``ValueError`` for a file that is damaged.
    """
    config = _read_config(folder / "tokenizer_config.json")
    beside = folder / "chat_template.jinja"
    source: Any = config.get("chat_template")
    if beside.is_file():
        source = beside.read_text(encoding="utf-8")
    elif isinstance(source, list):  # several, by name
        named = {one.get("name"): one.get("template") for one in source if isinstance(one, dict)}
        source = named.get("default")
    if not isinstance(source, str):
        return None
    return ChatTemplate(source, tokenizer, _named_tokens(config))


def configured_end(folder: Path, tokenizer: Tokenizer) -> int | None:
    """The id of the token that ``tokenizer_config.json`` calls the end of a text, if it does."""
    name = _named_tokens(_read_config(folder / "tokenizer_config.json")).get("eos_token")
    return tokenizer.token_to_id(name) if name in tokenizer.special_tokens else None


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    if path.stat().st_size > _LARGEST_CONFIG:
        raise ValueError(f"{path} is too large for a tokenizer's configuration")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    return value if isinstance(value, dict) else {}


def _named_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """``bos_token`` and the like, which are texts or objects with their text in ``content``."""
    found = {}
    for name in ("bos_token", "eos_token", "unk_token", "pad_token"):
        value = config.get(name)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            found[name] = value
    return found
