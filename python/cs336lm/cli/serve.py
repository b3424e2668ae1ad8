"""``cs336lm serve``: a trained model behind HTTP, as OpenAI's clients ask, and a page."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cs336lm.cli.options import (
    above_zero,
    add_checkpoint,
    add_placement,
    count,
    memory,
    positive,
    spin_briefly,
)
from cs336lm.cli.parser import Parser, parser_for
from cs336lm.errors import UsageError

if TYPE_CHECKING:
    from cs336lm.serving.gate import Access
    from cs336lm.serving.limits import Limits

_EPILOG = """\
examples:
  cs336lm serve runs/a
  cs336lm serve llama/ --port 8001 --name llama
  cs336lm serve runs/a --host 0.0.0.0 --allowed-host lm.example.org --api-key-file keys.txt
  curl http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' \\
       -d '{"prompt": "Once upon a time", "max_tokens": 50}'

RUN is a run directory, or a Llama in Hugging Face's format (config.json, safetensors, a tokenizer).
In a browser, http://127.0.0.1:8000/ shows what the model predicts, token by token. The API is
OpenAI's (/v1/completions, /v1/models; /v1/chat/completions where there is a chat template), with
/tokenize, /detokenize, /health and /metrics: see docs/serving.md. Only this machine can reach
it unless --host says otherwise. Ctrl-C or SIGTERM ends it when what is running is finished."""

_KEY_VARIABLE = "CS336LM_API_KEY"
_CONTEXTS = 4


def main(argv: list[str]) -> int:
    """Serves until a signal comes."""
    arguments = _parser().parse_args(argv)
    access = _access(arguments)
    spin_briefly()
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"serve needs {error.name}, which is not installed: pip install 'cs336lm[serve]'"
        ) from None

    from cs336lm.serving.loading import load_model, make_service
    from cs336lm.serving.server import bind, run, url_of

    with bind(arguments.host, arguments.port) as bound:  # first: it fails at once, or not at all
        model, served = load_model(
            arguments.run,
            device=arguments.device,
            dtype=arguments.dtype,
            which=arguments.checkpoint,
            name=arguments.name,
            chat_template=arguments.chat_template,
            stops=arguments.stop,
        )
        limits = _limits(arguments, served.context_length)
        service = make_service(model, served, limits, compile=arguments.compile)
        _warn_of_strangers(arguments, access)
        about = "" if served.chat_template else " (no chat template: completions only)"
        run(service, access, bound, f"serving {served.name}{about} at {url_of(bound)}")
    return 0


def _access(arguments: argparse.Namespace) -> Access:
    from cs336lm.serving.gate import Access, host_names, own_names

    keys = list(arguments.api_key or [])
    if arguments.api_key_file is not None:
        lines = arguments.api_key_file.read_text(encoding="utf-8").splitlines()
        keys += [line.strip() for line in lines if line.strip()]
        if not keys:
            raise UsageError(f"--api-key-file {arguments.api_key_file} holds no key")
    if _KEY_VARIABLE in os.environ:
        keys.append(os.environ[_KEY_VARIABLE])
    if not all(key.isascii() and key.strip() == key and key for key in keys):
        raise UsageError("an API key must be ASCII, not empty, and without spaces at its ends")
    hosts = own_names() | host_names(arguments.allowed_host)
    return Access(hosts, frozenset(arguments.allow_origin), tuple(keys))


def _limits(arguments: argparse.Namespace, context_length: int) -> Limits:
    from cs336lm.serving.limits import Limits

    given = {name: value for name, value in vars(arguments).items() if name.startswith("max_")}
    given["max_prompt_tokens"] = arguments.max_prompt_tokens or _CONTEXTS * context_length
    if arguments.client_seconds is not None:
        names = ("head_seconds", "body_seconds", "write_seconds", "idle_seconds")
        given |= dict.fromkeys(names, arguments.client_seconds)
    return Limits(**given, stop_seconds=arguments.stop_seconds)


def _warn_of_strangers(arguments: argparse.Namespace, access: Access) -> None:
    import ipaddress

    host = arguments.host
    try:
        is_own = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_own = host == "localhost"
    if not is_own and not access.keys:
        print(
            f"note: everybody who reaches {host} can use this server: give it an --api-key-file",
            file=sys.stderr,
        )


def _parser() -> Parser:
    parser = parser_for("serve", "Serve a model by HTTP: OpenAI's API, and a page.", _EPILOG)
    add = parser.add_argument
    add(
        "run",
        metavar="RUN",
        type=Path,
        help="run directory, or directory with a Llama in Hugging Face's format",
    )
    add("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)")
    add("--port", type=_port, default=8000, help="default: 8000; 0 is any that is free")
    add("--name", help="what requests call the model (default: the directory's name)")
    add_checkpoint(parser)
    add_placement(parser, "the weights")
    add("--compile", action="store_true", help="compile the model: slow to start, then faster")
    add(
        "--chat-template",
        type=Path,
        metavar="FILE",
        help="a Jinja template of conversations (default: the one beside the tokenizer, if any)",
    )
    add(
        "--stop",
        action="append",
        default=[],
        metavar="TOKEN",
        help="a special token that ends every text, beside <|endoftext|> and what a Llama's "
        "config.json names; may be repeated",
    )
    _add_access(parser)
    _add_limits(parser)
    return parser


def _add_access(parser: Parser) -> None:
    add = parser.add_argument_group("who may ask").add_argument
    add(
        "--api-key",
        action="append",
        metavar="KEY",
        help="a key that requests must bring; other users of this machine can read it in the list "
        f"of processes: better --api-key-file, or {_KEY_VARIABLE} in the environment",
    )
    add("--api-key-file", type=Path, metavar="FILE", help="keys, one a line")
    add(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name that this server may be asked by, beside addresses, localhost and the "
        "machine's own; '*' is any name (then DNS rebinding is not prevented)",
    )
    add(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="a site whose pages may ask, such as https://example.org (default: none but its own)",
    )


def _add_limits(parser: Parser) -> None:
    add = parser.add_argument_group("limits").add_argument
    add(
        "--max-sequences",
        type=positive,
        default=64,
        metavar="N",
        help="texts that are made at once (default: 64)",
    )
    add(
        "--max-queue",
        type=positive,
        default=256,
        metavar="N",
        help="texts that may wait; beyond, requests get a 429 (default: 256)",
    )
    add(
        "--max-prompt-tokens",
        type=count,
        metavar="N",
        help=f"of one prompt (default: {_CONTEXTS} times the model's context; what is beyond the "
        "context is seen through a window)",
    )
    add(
        "--max-new-tokens",
        type=count,
        default=4096,
        metavar="N",
        help="of one continuation (default: 4096)",
    )
    add(
        "--max-body",
        type=memory,
        default=2_000_000,
        metavar="SIZE",
        help="of one request (default: 2MB)",
    )
    add(
        "--max-connections",
        type=positive,
        default=1000,
        metavar="N",
        help="beyond, those that are silent are closed (default: 1000)",
    )
    add(
        "--client-seconds",
        type=above_zero,
        metavar="S",
        help="how long a client may take to send headers, to send a body, to read what it is sent, "
        "and to be silent between requests (default: 10, 30, 30, 30)",
    )
    add(
        "--stop-seconds",
        type=above_zero,
        default=30.0,
        metavar="S",
        help="after SIGTERM, how long what is running may go on (default: 30)",
    )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: a number from 0 to 65535")
    return int(text)
