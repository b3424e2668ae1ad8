"""``cs336lm tokenize``: text files + tokenizer -> tokens.npy."""

import time

from cs336lm.cli.options import add_threads, add_tokenizer, load_tokenizer, parser_for
from cs336lm.cli.progress import megabytes, progress_bars, speed

_EPILOG = """\
examples:
  cs336lm tokenize corpus.txt --tokenizer tokenizer/ --out tokens.npy
  cs336lm tokenize part-*.txt --tokenizer tokenizer/ --threads 8 --out tokens.npy
  cs336lm tokenize corpus.txt --tokenizer gpt2/vocab.json --special-token '<|endoftext|>' \\
      --out tokens.npy

--out becomes a one-dimensional array of uint16 (uint32 if the vocabulary needs it):
np.load('tokens.npy', mmap_mode='r') opens it. tokens.json beside it names the tokenizer, the counts
and the inputs. Several files are encoded one after the other, as they are: nothing is put between
them. An empty text gives an array of length 0."""


def main(argv: list[str]) -> int:
    """Encodes files and prints what was written."""
    parser = parser_for("tokenize", "Encode text files into a file of token ids.", _EPILOG)
    parser.add_argument("inputs", nargs="+", metavar="FILE", help="text files, UTF-8 or any bytes")
    add_tokenizer(parser, required=True)
    add_threads(parser)
    parser.add_argument("--out", required=True, metavar="FILE.npy", help="file to write")
    arguments = parser.parse_args(argv)
    if not arguments.out.endswith(".npy"):
        parser.error(f"--out {arguments.out} does not end in .npy")

    tokenizer = load_tokenizer(arguments.tokenizer, arguments)
    began = time.perf_counter()
    with progress_bars() as progress:
        written = tokenizer.encode_files(
            arguments.inputs, arguments.out, threads=arguments.threads, progress=progress
        )
    seconds = time.perf_counter() - began

    ratio = f" ({written.bytes / written.tokens:.3f} bytes/token)" if written.tokens else ""
    print(
        f"{written.tokens:,} tokens of {written.dtype} from {megabytes(written.bytes)}{ratio} in "
        f"{seconds:.2f} s ({speed(written.bytes, seconds)}): {written.path}"
    )
    return 0
