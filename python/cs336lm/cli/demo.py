"""``cs336lm demo``: from nothing to a model that tells stories, by the commands one would type."""

import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, TextIO, cast

from cs336lm.cli.options import spin_briefly
from cs336lm.cli.parser import parser_for
from cs336lm.errors import UsageError

_EPILOG = """\
examples:
  cs336lm demo
  cs336lm demo --out /tmp/demo --size tiny      a few seconds: to see that everything works

The demo prints each command before it runs it, so that you can run it again yourself, with your own
text. It takes about two minutes on two CPU cores. In a directory that holds an earlier demo, that
demo's files are replaced; any other directory must be empty."""


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    megabytes: float
    val_megabytes: float
    vocab_size: int
    config: str
    new_tokens: int


_FIRST_LINE = "# What `cs336lm demo` trains.\n"  # by which a directory is known as the demo's
_CONFIG = (
    _FIRST_LINE
    + """\
[data]
train = "train.npy"
val = "val.npy"
tokenizer = "tokenizer/"
batch_size = {batch_size}

[model]
context_length = {context_length}
d_model = {d_model}
num_layers = {num_layers}
num_heads = {num_heads}
qk_norm = true
zero_init = true

[optim]
name = "muon"
schedule = "linear"
lr = {lr}
min_lr = 0.0

[train]
steps = {steps}
eval_every = {eval_every}
eval_batches = 3
checkpoint_every = {eval_every}
keep_checkpoints = 1
"""
)

SIZES = {
    "small": Size(
        megabytes=10,
        val_megabytes=0.25,
        vocab_size=1400,
        config=_CONFIG.format(
            batch_size=8,
            context_length=256,
            d_model=96,
            num_layers=3,
            num_heads=3,
            lr=8e-3,
            steps=2000,
            eval_every=100,
        ),
        new_tokens=400,
    ),
    "tiny": Size(
        megabytes=0.2,
        val_megabytes=0.02,
        vocab_size=500,
        config=_CONFIG.format(
            batch_size=8,
            context_length=64,
            d_model=32,
            num_layers=2,
            num_heads=4,
            lr=1e-2,
            steps=40,
            eval_every=20,
        ),
        new_tokens=40,
    ),
}

# All that the demo writes, and therefore all that it may replace; what tells its directory comes
# first when it is written and last when it is removed.
_FILES = (
    "train.txt",
    "val.txt",
    "tokenizer",
    "train.npy",
    "train.json",
    "val.npy",
    "val.json",
    "run",
    "curves.png",
    "run.toml",
)


class _CommandFailed(Exception):
    """A command of the demo failed, and has said why."""

    def __init__(self, status: int) -> None:
        self.status = status


def main(argv: list[str]) -> int:
    """Runs every command from text to a generated story and says what came of it."""
    parser = parser_for(
        "demo", "Everything in two minutes: text, tokenizer, model, story.", _EPILOG
    )
    parser.add_argument(
        "--out", default="demo/", metavar="DIR", help="directory to write (default: demo/)"
    )
    parser.add_argument(
        "--size",
        choices=tuple(SIZES),
        default="small",
        help="how much text and how large a model (default: small)",
    )
    arguments = parser.parse_args(argv)

    spin_briefly()
    out, began = Path(arguments.out), time.monotonic()
    _clear(out)
    try:
        _run(out, SIZES[arguments.size])
    except _CommandFailed as stopped:
        print(f"cs336lm demo: the command above failed; what it read is in {out}/", file=sys.stderr)
        return stopped.status
    print(f"\nThe demo took {time.monotonic() - began:.0f} seconds.")
    return 0


def _clear(out: Path) -> None:
    """Makes ``out`` a directory without the files of an earlier demo."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file: name a directory")
    out.mkdir(parents=True, exist_ok=True)
    if not any(out.iterdir()):
        return
    mark = out / "run.toml"
    if not (mark.is_file() and mark.read_bytes().startswith(_FIRST_LINE.encode())):
        raise UsageError(
            f"--out {out} contains files that are not from an earlier demo: name another directory"
        )
    from cs336lm.text.stories import holds_stories

    for name in ("train.txt", "val.txt"):
        if (out / name).is_file() and not holds_stories(out / name):
            raise UsageError(
                f"{out / name} is not the demo's text any more: move it, or name another --out"
            )
    print(f"{out}/ holds an earlier demo, which this one replaces.\n", flush=True)
    for path in (out / name for name in _FILES):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _run(out: Path, size: Size) -> None:
    train_txt, val_txt = f"{out}/train.txt", f"{out}/val.txt"
    train_npy, val_npy = f"{out}/train.npy", f"{out}/val.npy"
    tokenizer, config, run = f"{out}/tokenizer/", f"{out}/run.toml", f"{out}/run"

    Path(config).write_text(size.config)
    _print_heading(
        "1. Text: stories from a grammar whose entropy is known, and others to validate on."
    )
    _run_command("stories", "--megabytes", f"{size.megabytes:g}", "--seed", "1", "--out", train_txt)
    _run_command(
        "stories", "--megabytes", f"{size.val_megabytes:g}", "--seed", "2", "--out", val_txt
    )

    _print_heading("2. A tokenizer learned from the text, and the text as token ids.")
    _run_command(
        *("train-bpe", train_txt, "--vocab-size", str(size.vocab_size)),
        *("--special-token", "<|endoftext|>", "--out", tokenizer),
    )
    _run_command("tokenize", train_txt, "--tokenizer", tokenizer, "--out", train_npy)
    _run_command("tokenize", val_txt, "--tokenizer", tokenizer, "--out", val_npy)

    _print_heading(f"3. A Transformer, as {config} describes it:")
    print("".join(f"     {line}\n" if line else "\n" for line in size.config.splitlines()))
    _run_command("train", "--config", config, "--run-dir", run)

    _print_heading("4. How good is it, on text that it has not seen?")
    figures = json.loads(_run_command("evaluate", run, "--data", val_npy, "--json"))
    stories = json.loads(
        _run_command("evaluate", run, "--data", val_npy, "--by-document", "--json")
    )
    floor = _floor(Path(f"{out}/val.json"))
    _run_command("plot", run, "--floor", f"{floor:.4f}", "--out", f"{out}/curves.png")

    _print_heading("5. And what does it write?")
    story = _run_command(
        *("generate", run, "--prompt", "Once upon a time", "--max-new-tokens"),
        *(str(size.new_tokens), "--temperature", "0.8", "--seed", "1"),
    )
    _print_summary(out, figures, stories, floor, story)


def _floor(sidecar: Path) -> float:
    """The entropy of the stories per token, in nats, for the tokenizer that made the file."""
    from cs336lm.text.stories import entropy

    counts = json.loads(sidecar.read_text())
    return entropy().nats_per_token(counts["bytes"] / counts["tokens"])


def _print_summary(
    out: Path, figures: dict[str, float], stories: dict[str, Any], floor: float, story: str
) -> None:
    from cs336lm.text.stories import END_OF_TEXT, entropy, read_story

    reading = read_story(story.strip())
    verdict = (
        f"The grammar could have told this story: log-probability {reading.log_probability:.1f}."
    )
    if not reading.whole:
        verdict = (
            f"The grammar tells the first {reading.furthest} of these {len(reading.text)} bytes."
        )
    above = stories["floor"]
    print(
        f"{verdict}\n\n"
        f"                   nats per token   bits per byte   nats per story\n"
        f"  windows          {figures['loss']:14.4f}  {figures['bits_per_byte']:14.4f}\n"
        f"  story by story   {stories['loss']:14.4f}  {stories['bits_per_byte']:14.4f}"
        f"  {stories['nats_per_document']:15.3f}\n"
        f"  entropy          {floor:14.4f}  {entropy().bits_per_text_byte:14.4f}"
        f"  {above['nats_per_document']:15.3f}\n\n"
        f"Read story by story, the model is {above['excess_share']:.1%} above the entropy, which\n"
        f"is known exactly: on average, nothing can be below it. Windows come out higher, for one\n"
        f"that begins in the middle of a story does not know its hero. Bytes are those of text\n"
        f"alone: if {END_OF_TEXT} counted, the entropy would be {entropy().bits_per_byte:.4f}.\n\n"
        f"  {out}/curves.png   the loss as it fell, over the entropy\n"
        f"  {out}/run/         configuration, metrics, checkpoints, tokenizer\n"
        f"  {out}/train.txt    what it learned from\n\n"
        f"Next: another story by\n"
        f"  cs336lm generate {out}/run --prompt 'There once was' --seed 2\n"
        f"or the same with your own text in place of {out}/train.txt. With ten minutes to spend,\n"
        f"configs/stories.toml is for coming nearer to it."
    )


def _print_heading(text: str) -> None:
    print(f"{_bold(text)}\n", flush=True)


def _bold(text: str) -> str:
    terminal = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    return f"\033[1m{text}\033[0m" if terminal else text


def _run_command(*arguments: str) -> str:
    """Runs a command as the shell would, and returns what it printed.

    Raises:
        _CommandFailed: it failed.
    """
    from cs336lm.cli.main import main as cs336lm

    print(f"$ {shlex.join(('cs336lm', *arguments))}", flush=True)
    with _copy_of_stdout() as copied:
        status = cs336lm(list(arguments))
    print(flush=True)
    if status:
        raise _CommandFailed(status)
    return copied.getvalue()


@contextmanager
def _copy_of_stdout() -> Iterator[StringIO]:
    """Keeps a copy of what goes to the standard output."""
    copied = StringIO()
    with redirect_stdout(cast(TextIO, _Tee(sys.stdout, copied))):
        yield copied


class _Tee:
    """The first stream, with a copy of what is written to it in the second."""

    def __init__(self, first: TextIO, second: StringIO) -> None:
        self._first, self._second = first, second

    def write(self, text: str) -> int:
        self._second.write(text)
        return self._first.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._first, name)
