"""Requests of OpenAI's two endpoints, read into what the engine is asked to do.

Both endpoints become one :class:`Asked`. Every field is checked here, by name, before anything is
begun; what this server does not do is refused by name.

Beyond OpenAI's fields: ``top_k``; ``parse_special`` (special tokens in a prompt are tokens, not
text); ``ignore_eos`` (go on at the end of a text); ``return_token_ids`` (ids beside the texts of
``logprobs``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cs336lm.errors import UsageError
from cs336lm.generation.batching import Request
from cs336lm.generation.sampling import SamplingParams
from cs336lm.serving.api_error import invalid
from cs336lm.serving.fields import Fields, as_integer, as_number, as_text
from cs336lm.serving.limits import Limits
from cs336lm.serving.served_model import ServedModel

MAX_LOGPROBS = 20
_MAX_N = 128
_MAX_STOPS, _MAX_STOP_LENGTH = 16, 1000
_MAX_TOKENS_OF_COMPLETIONS = 16  # OpenAI's default
_ROLES = ("system", "developer", "user", "assistant")
_GREATEST_TEMPERATURE = 1e6


@dataclass(frozen=True)
class Prompt:
    """What is continued."""

    ids: Sequence[int]
    text: str | None
    """As it was given; None where ids or a conversation were."""


@dataclass(frozen=True)
class Asked:
    """A request of either endpoint."""

    prompts: Sequence[Prompt]
    sampling: SamplingParams
    max_tokens: int
    n: int
    stops: Sequence[str]
    """Texts that end a continuation."""
    stop_ids: frozenset[int]
    logprobs: int | None
    """How many of the likeliest tokens are told for each; None: nothing is."""
    echo: bool
    stream: bool
    include_usage: bool
    token_ids: bool

    def for_engine(self) -> list[Request]:
        """A request of the engine for each prompt.

        The engine tells nothing of a token that ends a text; where scores are wanted, that token's
        is too (lm-eval counts on one for each token that was drawn), and it is recognized here.
        """
        stop_ids = self.stop_ids if self.logprobs is None else frozenset()
        return [
            Request(
                prompt=prompt.ids,
                max_new_tokens=self.max_tokens,
                sampling=self.sampling,
                n=self.n,
                stop_ids=stop_ids,
                logprobs=self.logprobs,
                prompt_logprobs=self.logprobs if self.echo else None,
            )
            for prompt in self.prompts
        ]


def read_completion(value: Any, model: ServedModel, limits: Limits) -> Asked:
    """The body of ``/v1/completions``."""
    fields = Fields(value)
    model.check_name(fields.text("model"))
    prompts = _prompts(fields, model, limits, parse_special=fields.boolean("parse_special"))
    asked = _shared(fields, model, limits, prompts)
    max_tokens = fields.integer("max_tokens", 0, limits.max_new_tokens)
    asked = replace(
        asked,
        max_tokens=min(_MAX_TOKENS_OF_COMPLETIONS, limits.max_new_tokens)
        if max_tokens is None
        else max_tokens,
        logprobs=fields.integer("logprobs", 0, MAX_LOGPROBS),
        echo=fields.boolean("echo"),
    )
    fields.only("best_of", [asked.n], "every text that is made is returned: leave it out")
    fields.only("suffix", [""], "the model only writes on from a prompt's end")
    fields.end()
    return asked


def read_chat(value: Any, model: ServedModel, limits: Limits) -> Asked:
    """The body of ``/v1/chat/completions``."""
    fields = Fields(value)
    model.check_name(fields.text("model"))
    if model.chat_template is None:
        raise invalid(
            f"{model.name} has no chat template, so it is no chat model: use /v1/completions",
            "messages",
            "no_chat_template",
        )
    ids = model.chat_template.encode(_messages(fields))
    if not ids:
        raise invalid("the chat template makes nothing of these messages", "messages")
    _check_length(ids, "messages", limits)
    asked = _shared(fields, model, limits, [Prompt(ids, None)])
    given = [fields.integer(f, 1, limits.max_new_tokens) for f in _MAX_TOKENS_OF_CHAT]
    told = [limit for limit in given if limit is not None]
    room = max(1, min(model.context_length - len(ids), limits.max_new_tokens))
    logprobs = fields.boolean("logprobs")
    top = fields.integer("top_logprobs", 0, MAX_LOGPROBS)
    if top is not None and not logprobs:
        raise invalid("top_logprobs needs logprobs to be true", "top_logprobs")
    for name, allowed, why in _NOT_IN_CHAT:
        fields.only(name, allowed, why)
    fields.end()
    return replace(
        asked, max_tokens=min(told, default=room), logprobs=(top or 0) if logprobs else None
    )


_MAX_TOKENS_OF_CHAT = ("max_completion_tokens", "max_tokens")
_NOT_IN_CHAT: list[tuple[str, list[Any], str]] = [
    ("tools", [[]], "the model calls no tools"),
    ("tool_choice", ["none"], "the model calls no tools"),
    ("functions", [[]], "the model calls no functions"),
    ("function_call", ["none"], "the model calls no functions"),
    ("parallel_tool_calls", [False, True], "the model calls no tools"),
    ("response_format", [{"type": "text"}], "answers are text"),
    ("modalities", [["text"]], "answers are text"),
    ("audio", [], "answers are text"),
    ("prediction", [], "there is no speculative decoding"),
    ("reasoning_effort", ["none"], "the model does not reason apart"),
    ("store", [False], "nothing is kept"),
    ("service_tier", ["auto", "default"], "there is one"),
]


def _shared(fields: Fields, model: ServedModel, limits: Limits, prompts: Sequence[Prompt]) -> Asked:
    """What both endpoints have, with their own fields as if nothing were said."""
    stops, stop_ids = _stops(fields, model)
    if not fields.boolean("ignore_eos"):
        stop_ids |= model.stop_ids
    stream = fields.boolean("stream")
    fields.text("user")  # for OpenAI's own records
    return Asked(
        prompts=prompts,
        sampling=_sampling(fields, model),
        max_tokens=0,
        n=fields.integer("n", 1, _MAX_N) or 1,
        stops=stops,
        stop_ids=stop_ids,
        logprobs=None,
        echo=False,
        stream=stream,
        include_usage=_include_usage(fields, stream),
        token_ids=fields.boolean("return_token_ids"),
    )


def _sampling(fields: Fields, model: ServedModel) -> SamplingParams:
    temperature = fields.number("temperature", 0, _GREATEST_TEMPERATURE)
    top_p = fields.number("top_p", 0, 1)
    seed = fields.integer("seed", -(1 << 63), (1 << 64) - 1)
    if top_p == 0:
        raise invalid(
            "top_p must be above 0: for the likeliest token alone, temperature 0", "top_p"
        )
    try:
        return SamplingParams(
            temperature=1.0 if temperature is None else temperature,
            top_p=1.0 if top_p is None else top_p,
            top_k=fields.integer("top_k", 1, 1 << 31),
            seed=seed,
            presence_penalty=fields.number("presence_penalty", -2, 2) or 0.0,
            frequency_penalty=fields.number("frequency_penalty", -2, 2) or 0.0,
            logit_bias=_logit_bias(fields, model),
        )
    except UsageError as error:
        raise invalid(str(error)) from None


def _logit_bias(fields: Fields, model: ServedModel) -> dict[int, float]:
    value = fields.take("logit_bias")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid("logit_bias must be an object of token ids and numbers", "logit_bias")
    bias = {}
    for name, number in value.items():
        if not (name.isascii() and name.isdigit() and len(name) < 10):
            raise invalid("logit_bias: every name must be a token's id", "logit_bias")
        model.check_ids([int(name)], "logit_bias")
        bias[int(name)] = as_number(number, "logit_bias", -100, 100)
    return bias


def _stops(fields: Fields, model: ServedModel) -> tuple[list[str], frozenset[int]]:
    """Texts that end a continuation, and those of them that are special tokens, as ids."""
    value = fields.take("stop")
    named = [value] if isinstance(value, str) else value or []
    if not isinstance(named, list) or len(named) > _MAX_STOPS:
        raise invalid(f"stop must be a string, or an array of at most {_MAX_STOPS}", "stop")
    named = [as_text(one, "stop") for one in named]
    if not all(0 < len(one) <= _MAX_STOP_LENGTH for one in named):
        raise invalid(f"a stop must have from 1 to {_MAX_STOP_LENGTH} characters", "stop")
    special = model.special_tokens
    ids = [model.tokenizer.token_to_id(one) for one in named if one in special]
    return [one for one in named if one not in special], frozenset(i for i in ids if i is not None)


def _include_usage(fields: Fields, stream: bool) -> bool:
    value = fields.take("stream_options")
    if value is None:
        return False
    if not stream:
        raise invalid("stream_options are only for stream = true", "stream_options")
    options = Fields(value, "stream_options")
    include = options.boolean("include_usage")
    options.only("include_obfuscation", [False], "nothing is added to the stream")
    options.end()
    return include


def _prompts(
    fields: Fields, model: ServedModel, limits: Limits, *, parse_special: bool
) -> list[Prompt]:
    """A text, several, a list of ids, or several."""
    value = fields.take("prompt")
    if value is None:
        raise invalid("prompt is missing: what is to be continued", "prompt")
    if isinstance(value, list):
        if not value:
            raise invalid("prompt is an empty array", "prompt")
        several = value if isinstance(value[0], str | list) else [value]
    else:
        several = [value]
    if len(several) > limits.max_outstanding:
        raise invalid(f"{len(several)} prompts; at most {limits.max_outstanding} at once", "prompt")
    return [_prompt(one, model, limits, parse_special) for one in several]


def _prompt(value: Any, model: ServedModel, limits: Limits, parse_special: bool) -> Prompt:
    if not isinstance(value, list):
        text = as_text(value, "prompt")
        ids = encode(text, "prompt", model, limits, parse_special)
        return Prompt(ids, text)
    if not value:
        raise invalid("prompt: an array of ids is empty", "prompt")
    _check_length(value, "prompt", limits)
    ids = [as_integer(one, "prompt", 0, model.vocab_size - 1) for one in value]
    model.check_ids(ids, "prompt")
    return Prompt(ids, None)


def encode(
    text: str, name: str, model: ServedModel, limits: Limits, parse_special: bool
) -> list[int]:
    """The ids of a text, if it has not too many."""
    try:
        ids = model.encode(text, parse_special=parse_special)
    except ValueError as error:  # a pattern that gives up; an empty prompt
        raise invalid(" ".join(str(error).split()), name) from None
    _check_length(ids, name, limits)
    return ids


def _check_length(ids: Sequence[Any], name: str, limits: Limits) -> None:
    if len(ids) > limits.max_prompt_tokens:
        raise invalid(
            f"{name} has {len(ids):,} tokens; this server takes at most "
            f"{limits.max_prompt_tokens:,}",
            name,
            "context_length_exceeded",
        )


def _messages(fields: Fields) -> list[dict[str, str]]:
    value = fields.take("messages")
    if not isinstance(value, list) or not value:
        raise invalid("messages must be an array of at least one message", "messages")
    return [_message(one, f"messages[{place}]") for place, one in enumerate(value)]


def _message(value: Any, where: str) -> dict[str, str]:
    fields = Fields(value, where)
    role = fields.text("role")
    if role not in _ROLES:
        raise invalid(f"{where}.role must be one of {', '.join(_ROLES)}", f"{where}.role")
    message = {"role": role, "content": _content(fields.take("content"), f"{where}.content")}
    name = fields.text("name")
    for unsupported in ("tool_calls", "function_call", "refusal", "audio", "annotations"):
        fields.only(unsupported, [[]], "messages are text")
    fields.end()
    return message if name is None else {**message, "name": name}


def _content(value: Any, where: str) -> str:
    """A text, or parts that are texts."""
    if not isinstance(value, list):
        return as_text(value, where)
    texts = []
    for part in value:
        fields = Fields(part, where)
        if fields.text("type") != "text":
            raise invalid(f"{where}: only parts of type text are supported", where)
        texts.append(as_text(fields.take("text"), f"{where}.text"))
        fields.end()
    return "".join(texts)
