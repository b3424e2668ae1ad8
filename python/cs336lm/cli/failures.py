"""What to do about failures from deep inside: memory that is full, a compiler that is missing, a
process that is gone, a disk that fails in the middle of a file.

PyTorch reports them as ``RuntimeError``, with a traceback and a page of advice to its developers.
It is not imported here: where it is not loaded, no error is one of its own.
"""

import re
import sys
from io import IOBase
from pathlib import Path
from traceback import walk_tb

_FULL = re.compile(r"out of memory|can't allocate memory", re.IGNORECASE)

# What gloo, NCCL and their store say when one of the processes is gone or silent.
_GONE = re.compile(
    r"gloo|NCCL|[Cc]onnection (closed|reset|was)|[Tt]imed? ?out|Broken pipe|TCPStore|recvValue",
)


def explain(error: RuntimeError | MemoryError) -> str | None:
    """One line with what is wrong and what to do, or None for an error that is none of these."""
    says = str(error).strip().partition("\n")[0]
    if isinstance(error, MemoryError) or _FULL.search(says):
        asked = re.search(
            r"[Tt]ried to allocate ([\d.]+ \w+)|Unable to allocate ([\d.]+ \w+)", says
        )
        amount = f" ({asked[1] or asked[2]} more were asked for)" if asked else ""
        return (
            f"memory is full{amount}: train with a smaller --data.batch-size, a greater "
            "--train.grad-accumulation or --train.activation-checkpointing, a tokenizer with "
            "--max-memory; generate fewer or shorter texts"
        )
    processes = sys.modules.get("torch.distributed")
    if processes is not None and (
        isinstance(error, getattr(processes, "DistError", ())) or _GONE.search(str(error))
    ):
        return (
            f"another process of the job has ended, or does not answer ({says[:200]}): its own "
            "last line says why; start all of them again with --resume"
        )
    # Whatever goes wrong while compiling is wrapped in an error of this module.
    compiler = sys.modules.get("torch._dynamo.exc")
    if compiler is not None and isinstance(error, compiler.TorchDynamoException):
        return (
            f"torch.compile failed: {says.rstrip('.')}: install what is missing (it needs a C++ "
            "compiler such as g++), or do without: --train.no-compile, generate without --compile"
        )
    return None


def file_of(error: OSError) -> str | None:
    """The file that an error is about, if it names none: reading an open file fails without a name.

    It is found among what the functions that it passed through had in their hands, innermost first.
    """
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        held = list(frame.f_locals.values())
        for value in held:
            name = getattr(value, "name", None) if isinstance(value, IOBase) else None
            if isinstance(name, str):
                return name
        for value in held:
            if isinstance(value, Path):
                return str(value)
    return None
