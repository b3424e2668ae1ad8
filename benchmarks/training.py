"""Train a BPE tokenizer on a file: cs336lm and its peers, each in a process of its own.

python benchmarks/training.py corpus.txt --vocab-size 32000
python benchmarks/training.py corpus.txt --vocab-size 10000 --peers gigatoken,rustbpe --repeat 5

The job is that of `cs336lm train-bpe`, the interpreter's start included: from the text file to the
tokenizer on disk (of peers: a list of its tokens). GPT-2's pattern; documents are what stands
between the special tokens. No peer breaks ties as cs336lm does (of equally frequent pairs the
greatest bytes), so it makes a few other tokens of the same text; the table says how many are the
same. It is 99 % and more of a small vocabulary; of a large one, whose last pairs are rare and often
tied, gigatoken with one of its tie rules shares 97 % with gigatoken with another. Below 90 %
somebody has counted something else, and no speed is printed. That cs336lm's tokens are the right
ones is for its tests to show.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import harness

PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
ALIKE = 0.9


def gigatoken(options: argparse.Namespace, out: Path) -> None:
    import gigatoken

    source = gigatoken.TextFileSource([options.file], separator=options.special_token.encode())
    vocab, _ = gigatoken.train_bpe(source, options.vocab_size, [options.special_token])
    special = options.special_token.encode()
    write_tokens([vocab[id] for id in sorted(vocab) if vocab[id] != special], out)


def gigabpe(options: argparse.Namespace, out: Path) -> None:
    """It does not look for special tokens in the text: those between documents are counted too."""
    import gigabpe

    special = [options.special_token]
    vocab, _ = gigabpe.train_bpe(
        [options.file], options.vocab_size, special_tokens=special, pretokenizer="bytelevel"
    )
    spelled = byte_alphabet()
    ordered = sorted(vocab.keys() - set(special), key=vocab.__getitem__)
    write_tokens([bytes(spelled[char] for char in token) for token in ordered], out)


def rustbpe(options: argparse.Namespace, out: Path) -> None:
    import rustbpe

    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(
        documents(options), vocab_size=options.vocab_size - 1, pattern=PATTERN
    )
    write_tokens([bytes(token) for token, _ in tokenizer.get_mergeable_ranks()], out)


def bpeasy(options: argparse.Namespace, out: Path) -> None:
    import bpeasy

    vocab = bpeasy.train_bpe(iter(documents(options)), PATTERN, 1 << 20, options.vocab_size - 1)
    write_tokens(sorted(vocab, key=vocab.__getitem__), out)


def tokenizers(options: argparse.Namespace, out: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=options.vocab_size,
        special_tokens=[options.special_token],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents(options), trainer)
    spelled = byte_alphabet()
    ids = tokenizer.get_vocab()
    ids.pop(options.special_token)
    ordered = sorted(ids, key=ids.__getitem__)
    write_tokens([bytes(spelled[char] for char in token) for token in ordered], out)


PEERS: dict[str, Callable[[argparse.Namespace, Path], None]] = {
    "gigatoken": gigatoken,
    "gigabpe": gigabpe,
    "rustbpe": rustbpe,
    "bpeasy": bpeasy,
    "tokenizers": tokenizers,
}


def documents(options: argparse.Namespace) -> list[str]:
    text = Path(options.file).read_text(encoding="utf-8", errors="replace")
    return text.split(options.special_token)


def byte_alphabet() -> dict[str, int]:
    """GPT-2's alphabet: printable Latin-1 bytes as they are, the others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + index): byte for index, byte in enumerate(others)
    }


def write_tokens(tokens: list[bytes], out: Path) -> None:
    out.write_text("\n".join(token.hex() for token in tokens))


def read_tokens(contestant: str, made: Path) -> list[str]:
    """Tokens longer than a byte, in order of creation, in hexadecimal."""
    if contestant == "cs336lm":
        from cs336lm import Tokenizer

        tokenizer = Tokenizer.load(f"{made}.tokenizer")
        return [(left + right).hex() for left, right in tokenizer.merges]
    return [token for token in made.read_text().split("\n") if len(token) > 2]


def check(made: Mapping[str, Path]) -> dict[str, str]:
    ours = read_tokens("cs336lm", made["cs336lm"])
    verdicts = {}
    for name, path in made.items():
        theirs = read_tokens(name, path)
        share = len(set(theirs) & set(ours)) / max(len(ours), len(theirs))
        if share < ALIKE:
            sys.exit(f"{name} made {len(theirs)} tokens, {share:.1%} of them cs336lm's: no speeds")
        verdicts[name] = f"{share:.2%}"
    return verdicts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", help="a text file")
    parser.add_argument("--vocab-size", type=int, default=10_000)
    parser.add_argument("--special-token", default="<|endoftext|>")
    parser.add_argument("--threads", type=int, help="of cs336lm; peers take all cores")
    parser.add_argument("--peers", help="some of them, with commas; all installed ones by default")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each; the best counts (3)")
    parser.add_argument("--contestant", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        PEERS[options.contestant](options, options.out)
        return

    def command(contestant: str, out: Path) -> list[str]:
        if contestant != "cs336lm":
            return harness.itself(__file__, contestant, out, sys.argv[1:])
        arguments = [options.file, "--vocab-size", str(options.vocab_size)]
        arguments += ["--special-token", options.special_token, "--out", f"{out}.tokenizer"]
        arguments += ["--threads", str(options.threads)] if options.threads else []
        return [sys.executable, "-m", "cs336lm", "train-bpe", *arguments]

    contestants = ["cs336lm", *harness.choose(options.peers, list(PEERS))]
    runs, verdicts = harness.compete(command, contestants, options.repeat, check)
    megabytes = Path(options.file).stat().st_size / 1e6
    ours = runs["cs336lm"].process_seconds
    rows = [
        [
            harness.named(name),
            f"{run.process_seconds:.2f}",
            f"{megabytes / run.process_seconds:.1f}",
            f"{run.process_seconds / ours:.2f}",
            f"{run.peak_megabytes:,.0f}",
            verdicts[name],
        ]
        for name, run in runs.items()
    ]
    print(f"{options.file}: {megabytes:.1f} MB, vocabulary {options.vocab_size:,}")
    print(f"{harness.machine()}; whole processes, best of {options.repeat}\n")
    head = ["", "seconds", "MB/s", "x cs336lm's time", "peak MB", "same tokens"]
    print(harness.table(head, rows))


if __name__ == "__main__":
    main()
