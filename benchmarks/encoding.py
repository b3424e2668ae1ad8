"""Encode text with one tokenizer: cs336lm and its peers, each in a process of its own.

python benchmarks/encoding.py corpus.txt --tokenizer tokenizer/
python benchmarks/encoding.py corpus.txt --tokenizer gpt2/vocab.json --jobs file --megabytes 200
python benchmarks/encoding.py corpus.txt --tokenizer tokenizer/ --jobs batch,one --peers tiktoken
python benchmarks/encoding.py corpus.txt --tokenizer gpt2/ --pattern llama3 --jobs file

Jobs:
  file    text file -> uint16 .npy on disk; the whole process, cold, interpreter start included
  batch   10,000 documents -> arrays; the call alone: the first one, and the best of five
  one     one string of 100 characters -> ids as the library gives them; microseconds a call
  decode  a million ids -> text; the call alone
  load    tokenizer file -> ready to encode; the call alone
  worst   texts made to be slow, cs336lm alone: is ten times the text ten times the work?

All get the same tokenizer.json. Documents are what stands between the special tokens, which are
not encoded (cs336lm's file job does encode them; they are left out of the comparison). Before a
speed is printed, the ids of all contestants are compared, and must be the same.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import harness
import numpy as np
import worst_cases

END = "<|endoftext|>"
JOBS = ("file", "batch", "one", "decode", "load", "worst")
WARM_CALLS = 5


class Contestant:
    """What a job asks of a library. Subclasses import theirs when they are made."""

    def __init__(self, tokenizer_json: str) -> None: ...

    def encode(self, text: str) -> Sequence[int]:
        raise NotImplementedError

    def encode_batch(self, texts: list[str]) -> Sequence[Any]:
        raise NotImplementedError

    def decode(self, ids: list[int]) -> str | bytes:
        raise NotImplementedError

    def file_ids(self, path: str) -> np.ndarray:
        """All ids of the file's documents; from texts unless the library reads files itself."""
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        return flat(self.encode_batch(text.split(END)))


class Cs336lm(Contestant):
    def __init__(self, tokenizer_json: str) -> None:
        from cs336lm import Tokenizer

        tokenizer = Tokenizer.load(tokenizer_json)
        self.encode, self.decode = tokenizer.encode, tokenizer.decode
        self.encode_batch = tokenizer.encode_batch


class Gigatoken(Contestant):
    def __init__(self, tokenizer_json: str) -> None:
        import gigatoken

        self.library = gigatoken
        self.tokenizer = gigatoken.Tokenizer(tokenizer_json)
        self.encode, self.decode = self.tokenizer.encode, self.tokenizer.decode
        self.encode_batch = self.tokenizer.encode_batch_list

    def file_ids(self, path: str) -> np.ndarray:
        import awkward

        source = self.library.TextFileSource([path], separator=END.encode())
        return awkward.to_numpy(awkward.flatten(self.tokenizer.encode_files(source)))


class Tokie(Contestant):
    def __init__(self, tokenizer_json: str) -> None:
        import tokie

        self.tokenizer = tokie.Tokenizer.from_json(tokenizer_json)
        self.decode = self.tokenizer.decode

    def encode(self, text: str) -> Sequence[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: list[str]) -> Sequence[Any]:
        encodings = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def file_ids(self, path: str) -> np.ndarray:
        return self.tokenizer.encode_files([path], separator=END.encode())[0]


class Fastokens(Contestant):
    def __init__(self, tokenizer_json: str) -> None:
        import fastokens

        self.tokenizer = fastokens.Tokenizer.from_file(tokenizer_json)

    def encode(self, text: str) -> Sequence[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: list[str]) -> Sequence[Any]:
        encodings = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: list[int]) -> str | bytes:
        return self.tokenizer.decode(ids, skip_special_tokens=False)


class Tiktoken(Contestant):
    def __init__(self, tokenizer_json: str) -> None:
        from cs336lm import Tokenizer

        try:
            self.tokenizer = Tokenizer.load(tokenizer_json).to_tiktoken("bench")
        except ValueError as error:
            sys.exit(f"tiktoken cannot run this tokenizer: {error}")
        self.encode, self.encode_batch = (
            self.tokenizer.encode_ordinary,
            self.tokenizer.encode_ordinary_batch,
        )
        self.decode = self.tokenizer.decode


class Tokenizers(Contestant):
    def __init__(self, tokenizer_json: str) -> None:
        import tokenizers

        self.tokenizer = tokenizers.Tokenizer.from_file(tokenizer_json)

    def encode(self, text: str) -> Sequence[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: list[str]) -> Sequence[Any]:
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: list[int]) -> str | bytes:
        return self.tokenizer.decode(ids, skip_special_tokens=False)


CONTESTANTS: dict[str, type[Contestant]] = {
    "cs336lm": Cs336lm,
    "gigatoken": Gigatoken,
    "tokie": Tokie,
    "fastokens": Fastokens,
    "tiktoken": Tiktoken,
    "tokenizers": Tokenizers,
}
PEERS = [name for name in CONTESTANTS if name != "cs336lm"]


def flat(rows: Iterable[Any]) -> np.ndarray:
    return np.concatenate([np.asarray(row, dtype=np.uint32) for row in rows])


def save(ids: Any, out: Path) -> None:
    with out.open("wb") as file:
        np.save(file, ids)


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result


def contest(options: argparse.Namespace) -> None:
    """One contestant does one job; what it made goes to ``--out``."""
    if options.job == "load":
        make, argument = CONTESTANTS[options.contestant], options.tokenizer_json
        __import__(options.contestant)  # what is measured is the loading
        seconds, made = timed(lambda: make(argument))
        harness.report(seconds=seconds)
        save(np.asarray(made.encode("It is loaded."), dtype=np.uint32), options.out)
        return
    library = CONTESTANTS[options.contestant](options.tokenizer_json)
    if options.job == "file":
        save(library.file_ids(options.file).astype(options.dtype), options.out)
        return
    documents = Path(options.file).read_text(encoding="utf-8", errors="replace").split(END)
    if options.job == "batch":
        texts = (documents * (10_000 // len(documents) + 1))[:10_000]
        first, rows = timed(lambda: library.encode_batch(texts))
        warm = min(timed(lambda: library.encode_batch(texts))[0] for _ in range(WARM_CALLS))
        size = sum(len(text.encode()) for text in texts)
        harness.report(seconds=first, warm=warm, megabytes=size / 1e6)
        save(flat(rows), options.out)
    elif options.job == "one":
        text = next(text for text in documents if len(text) >= 100).strip()[:100]
        calls = 20_000
        ids = library.encode(text)
        loops = [timed(lambda: [library.encode(text) for _ in range(calls)])[0] for _ in range(5)]
        harness.report(seconds=min(loops) / calls)
        save(np.asarray(ids, dtype=np.uint32), options.out)
    elif options.job == "decode":
        ids = np.load(options.ids).tolist()
        seconds = min(timed(lambda: library.decode(ids))[0] for _ in range(WARM_CALLS))
        harness.report(seconds=seconds)
        text = library.decode(ids)
        save(np.frombuffer(text.encode() if isinstance(text, str) else text, np.uint8), options.out)


def compare(job: str, special: Sequence[int]) -> Callable[[Mapping[str, Path]], dict[str, str]]:
    """Ends the benchmark if two contestants have made different things."""

    def check(made: Mapping[str, Path]) -> dict[str, str]:
        ours = read(made["cs336lm"])
        for name, path in made.items():
            theirs = read(path)
            if not np.array_equal(theirs, ours):
                shorter = min(len(theirs), len(ours))
                differ = np.flatnonzero(theirs[:shorter] != ours[:shorter])
                at = int(differ[0]) if len(differ) else shorter
                sys.exit(
                    f"{job}: {name} made {len(theirs):,}, cs336lm {len(ours):,}, and they differ "
                    f"from {at:,} on: no speeds"
                )
        return dict.fromkeys(made, f"{len(ours):,}")

    def read(path: Path) -> np.ndarray:
        # The command writes what it is told to call so; numpy's own readers mind no name.
        found = path if path.exists() else path.with_name(path.name + ".npy")
        ids = np.load(found)
        return ids[~np.isin(ids, special)] if job == "file" else ids

    return check


def compete(
    job: str, contestants: list[str], options: argparse.Namespace, special: list[int]
) -> None:
    def command(contestant: str, out: Path) -> list[str]:
        if job == "file" and contestant == "cs336lm":
            arguments = [options.file, "--tokenizer", options.tokenizer_json, "--out", f"{out}.npy"]
            arguments += ["--threads", str(options.threads)] if options.threads else []
            return [sys.executable, "-m", "cs336lm", "tokenize", *arguments]
        passed = [options.file, "--job", job, "--tokenizer-json", options.tokenizer_json]
        passed += ["--ids", options.ids, "--dtype", options.dtype]
        return harness.itself(__file__, contestant, out, passed)

    runs, verdicts = harness.compete(command, contestants, options.repeat, compare(job, special))
    ours = runs["cs336lm"]
    rows = [
        [harness.named(name), *figures(job, run, ours, options), verdicts[name]]
        for name, run in runs.items()
    ]
    print(f"\n**{job}**\n\n{harness.table(HEADS[job], rows)}")
    for what, cost in COSTS[job].items():
        costs = {name: cost(run) for name, run in runs.items() if name != "cs336lm"}
        if costs:
            fastest = min(costs, key=costs.__getitem__)
            ratio = costs[fastest] / cost(ours)
            print(f"{what}: {ratio:.2f} times as fast as the fastest peer, {fastest}")


HEADS = {
    "file": ["", "seconds", "MB/s", "x cs336lm's time", "peak MB", "ids"],
    "batch": ["", "first call MB/s", "warm MB/s", "x cs336lm's first", "x warm", "ids"],
    "one": ["", "microseconds", "x cs336lm's time", "ids"],
    "decode": ["", "milliseconds", "x cs336lm's time", "bytes"],
    "load": ["", "milliseconds", "x cs336lm's time", "ids"],
}


COSTS: dict[str, dict[str, Callable[[harness.Run], float]]] = {
    "file": {"file": lambda run: run.process_seconds},
    "batch": {
        "first call": lambda run: run.notes["seconds"],
        "warm": lambda run: run.notes["warm"],
    },
    "one": {"one": lambda run: run.notes["seconds"]},
    "decode": {"decode": lambda run: run.notes["seconds"]},
    "load": {"load": lambda run: run.notes["seconds"]},
}


def figures(
    job: str, run: harness.Run, ours: harness.Run, options: argparse.Namespace
) -> list[str]:
    if job == "file":
        seconds, megabytes = run.process_seconds, Path(options.file).stat().st_size / 1e6
        ratio = seconds / ours.process_seconds
        peak = f"{run.peak_megabytes:,.0f}"
        return [f"{seconds:.2f}", f"{megabytes / seconds:.0f}", f"{ratio:.2f}", peak]
    notes, best = run.notes, ours.notes
    ratio = f"{notes['seconds'] / best['seconds']:.2f}"
    if job == "batch":
        speeds = [f"{notes['megabytes'] / notes[name]:.0f}" for name in ("seconds", "warm")]
        return [*speeds, ratio, f"{notes['warm'] / best['warm']:.2f}"]
    return [f"{notes['seconds'] * (1e6 if job == 'one' else 1e3):.2f}", ratio]


def prepare(options: argparse.Namespace, folder: str) -> list[int]:
    """One tokenizer.json for all, a text of the size asked for, a million ids; special ids."""
    from cs336lm import Tokenizer

    tokenizer = Tokenizer.load(options.tokenizer, options.special_token, pattern=options.pattern)
    options.dtype = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"
    tokenizer.save(folder)
    options.tokenizer_json = f"{folder}/tokenizer.json"
    if options.megabytes:
        text, size = Path(options.file).read_bytes(), options.megabytes * 1_000_000
        if not text:
            sys.exit(f"{options.file} is empty")
        options.file = f"{folder}/text"
        with open(options.file, "wb") as file:
            for _ in range(-(-size // len(text))):
                file.write(text)
    with open(options.file, encoding="utf-8", errors="replace") as file:
        text = file.read(4_000_000)
    # No list of Python's: a process begins with the peak memory of the one that starts it.
    ids = np.concatenate(tokenizer.encode_batch(text.split(END)))
    options.ids = f"{folder}/ids.npy"
    np.save(options.ids, np.resize(ids, 1_000_000))
    return [tokenizer.token_to_id(token) for token in tokenizer.special_tokens]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", help="a text file")
    parser.add_argument("--tokenizer", help="directory or file, any that cs336lm loads")
    parser.add_argument("--special-token", action="append", default=[])
    parser.add_argument("--pattern", help="in place of the tokenizer's: llama3, qwen2, gpt4o, ...")
    parser.add_argument("--jobs", default=",".join(JOBS[:-1]), help="with commas")
    parser.add_argument("--peers", help="some of them, with commas; all installed ones by default")
    parser.add_argument("--megabytes", type=int, help="repeat the file's text up to this size")
    parser.add_argument("--threads", type=int, help="of cs336lm's file job; others take all cores")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each; the best counts (3)")
    for internal in ("--contestant", "--job", "--tokenizer-json", "--ids", "--dtype"):
        parser.add_argument(internal, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        contest(options)
        return
    if not options.tokenizer:
        parser.error("--tokenizer is needed")
    if unknown := set(options.jobs.split(",")) - set(JOBS):
        parser.error(f"no such job: {', '.join(unknown)}; choose of {', '.join(JOBS)}")

    contestants = ["cs336lm", *harness.choose(options.peers, PEERS)]
    with tempfile.TemporaryDirectory() as folder:
        name = options.file
        special = prepare(options, folder)
        size = Path(options.file).stat().st_size / 1e6
        print(f"{name}: {size:.1f} MB, tokenizer {options.tokenizer}")
        print(f"{harness.machine()}; best of {options.repeat}")
        for job in options.jobs.split(","):
            if job == "worst":
                print("\n**worst**\n", flush=True)
                command = [sys.executable, worst_cases.__file__, "--tokenizer"]
                subprocess.run([*command, options.tokenizer_json], check=True)
            else:
                compete(job, contestants, options, special)


if __name__ == "__main__":
    main()
