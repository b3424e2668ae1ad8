"""``cs336lm COMMAND ...``: finds the command, runs it, turns errors into one line and a status.

A command is a module in this package with ``main(argv) -> int | None``. Only the module of the
command that was asked for is imported, so that the tokenizer commands start without PyTorch.
"""

import os
import sys
import warnings
from importlib import import_module

from cs336lm import __version__
from cs336lm.cli.output import escape_what_cannot_be_shown

# command: (module, what it does)
COMMANDS = {
    "train-bpe": ("train_bpe", "text files -> tokenizer"),
    "count-pretokens": ("count_pretokens", "text files -> counts, for train-bpe --counts"),
    "tokenize": ("tokenize", "text files + tokenizer -> tokens.npy"),
    "inspect": ("inspect", "look into a tokenizer or a token file"),
    "train": ("train", "tokens + configuration -> run directory"),
    "evaluate": ("evaluate", "run directory + tokens -> loss, perplexity, bits per byte"),
    "generate": ("generate", "run directory + prompt -> text"),
    "account": ("account", "a model's shape -> parameters, operations, memory, time"),
    "plot": ("plot", "run directories -> learning curves"),
    "sweep": ("sweep", "a configuration + values to try -> trials, compared"),
    "ablate": ("ablate", "a configuration -> what each of its choices is worth"),
    "batch-sizes": ("batch_sizes", "a configuration -> what larger batches cost and give"),
    "report": ("report", "runs and sweeps -> a page and its Markdown twin"),
    "runs": ("runs", "a list of the runs in a folder"),
    "compare": ("compare", "run directories -> what differs, and what came of it"),
    "export": ("export", "run directory -> Hugging Face, safetensors, GGUF"),
    "import": ("import_run", "a Llama in Hugging Face's format -> run directory"),
    "export-tokenizer": (
        "export_tokenizer",
        "tokenizer -> others' formats",
    ),
    "serve": ("serve", "run directory -> OpenAI's API and a page, by HTTP"),
    "check": ("check", "is what was written still as it was written?"),
    "data": ("data", "download the course's corpora"),
    "stories": ("stories", "the built-in corpus, with its exact entropy"),
    "demo": ("demo", "all of it, in two minutes, on a laptop"),
    "completion": ("completion", "a script that lets bash, zsh or fish complete all this"),
}

_EPILOG = """\
Text to model, in order:
  cs336lm stories --megabytes 20 --seed 1 --out stories.txt
  cs336lm train-bpe stories.txt --vocab-size 2000 --special-token '<|endoftext|>' --out tokenizer/
  cs336lm tokenize stories.txt --tokenizer tokenizer/ --out tokens.npy
  cs336lm train --data.train tokens.npy --data.tokenizer tokenizer/ --run-dir runs/a
  cs336lm generate runs/a --prompt 'Once upon a time'

'cs336lm COMMAND --help' says what a command takes, with examples."""


def usage() -> str:
    """The text of ``cs336lm --help``."""
    width = max(map(len, COMMANDS))
    rows = (f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items())
    head = "usage: cs336lm COMMAND [options]\n\nRaw text in, a trained language model out."
    return "\n".join([head, "", "Commands:", *rows, "", _EPILOG])


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns 0 (done), 1 (it failed), 2 (a wrong call) or 130 (Ctrl-C)."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        print(f"cs336lm {__version__}")
        return 0
    name, *rest = argv
    if name not in COMMANDS:
        return _complain(_unknown_command(name), status=2)
    escape_what_cannot_be_shown(sys.stdout)
    warnings.formatwarning = _format_warning
    try:
        command = import_module(f"cs336lm.cli.{COMMANDS[name][0]}")
        return command.main(rest) or 0
    except KeyboardInterrupt:
        return _complain("stopped on request", status=130)
    except BrokenPipeError:
        # The reader of the pipe is gone (`cs336lm ... | head`), which is not a failure.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ImportError as error:
        if "cs336lm" not in (error.name or "") or "_bpe" not in str(error):
            raise
        return _complain("the Rust core is not built: run `make dev`", status=1)
    except (OSError, ValueError) as error:
        if os.environ.get("CS336LM_TRACEBACK"):
            raise
        return _complain(_one_line(error), status=_status(error))
    except (RuntimeError, MemoryError) as error:
        from cs336lm.cli.failures import explain

        message = explain(error)
        if message is None or os.environ.get("CS336LM_TRACEBACK"):
            raise
        return _complain(message, status=1)


def _unknown_command(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, COMMANDS, n=1)
    guess = f"did you mean {close[0]}?" if close else f"the commands are {', '.join(COMMANDS)}"
    return f"there is no command {name!r}; {guess}"


def _status(error: Exception) -> int:
    from cs336lm.errors import UsageError

    return 2 if isinstance(error, UsageError) else 1


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        from cs336lm.cli.failures import file_of

        where = error.filename or file_of(error)
        return f"{where}: {error.strerror}" if where else error.strerror
    line = " ".join(str(error).split())
    # What is quoted may be a stranger's, and of any length.
    return line if len(line) <= _LONGEST_LINE else f"{line[:600]} ... {line[-300:]}"


_LONGEST_LINE = 1000


def _format_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    from cs336lm.errors import Note

    if issubclass(category, Note):
        return f"note: {message}\n"
    return _format_other(message, category, filename, lineno, line)


_format_other = warnings.formatwarning


def _complain(message: str, status: int) -> int:
    print(f"cs336lm: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
