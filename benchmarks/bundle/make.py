"""Packs what a GPU machine without a network and without Rust needs into one folder.

    python benchmarks/bundle/make.py --out gpu-bundle       (or: make gpu-bundle)

    run.sh        installs into a folder of its own, checks every path, runs the benchmarks
    jobs.txt      the benchmarks, in the order of their worth
    wheels/       this package for any Python from 3.11, and the pure-Python packages it needs
    benchmarks/   configs/   tokens.npy

PyTorch and NumPy must be on the machine already, and what is compared with (transformers) may be.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cs336lm.cli.main import main as cs336lm

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent

# What the package imports beside PyTorch and NumPy while it trains and generates, and what these
# import. Pure Python all of them: one wheel serves every machine.
PACKAGES = [
    *("einops", "jaxtyping", "wadler-lindig", "rich", "markdown-it-py", "mdurl", "pygments"),
    *("tomli-w", "typing-extensions"),
]
MEGABYTES = 4.0  # of stories, for tokens.npy
LARGEST = 60e6  # bytes


def make(out: Path) -> None:
    """Makes the folder anew; what it holds is all from here."""
    if out.exists():
        if not (out / "run.sh").exists():
            sys.exit(f"{out} exists and is not a bundle: name another folder")
        shutil.rmtree(out)
    wheels = out / "wheels"
    wheels.mkdir(parents=True)
    maturin = Path(sys.executable).with_name("maturin")
    subprocess.run(
        [maturin, "build", "--release", "--quiet", "--out", wheels.resolve()], cwd=ROOT, check=True
    )
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    pure = ["--only-binary=:all:", "--python-version", "3.11", "--platform", "any"]
    subprocess.run([*download, *pure, "--dest", wheels, *PACKAGES], check=True)
    shutil.copytree(
        ROOT / "benchmarks", out / "benchmarks", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(ROOT / "configs", out / "configs")
    for name in ("run.sh", "jobs.txt"):
        shutil.copy(HERE / name, out / name)
    write_tokens(out / "tokens.npy")
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    print(f"{out}: {size / 1e6:.1f} MB; on the machine with the GPU: bash {out.name}/run.sh")
    if size > LARGEST:
        sys.exit(f"{out} is larger than {LARGEST / 1e6:.0f} MB")


def write_tokens(path: Path) -> None:
    """Stories as ids of a vocabulary of 10,000, as the TinyStories recipe expects them."""
    with tempfile.TemporaryDirectory() as folder:
        text, tokenizer = f"{folder}/stories.txt", f"{folder}/tokenizer"
        special = ["--special-token", "<|endoftext|>"]
        for command in (
            ["stories", "--megabytes", str(MEGABYTES), "--seed", "1", "--out", text],
            ["train-bpe", text, "--vocab-size", "10000", *special, "--out", tokenizer],
            ["tokenize", text, "--tokenizer", tokenizer, "--out", str(path)],
        ):
            if status := cs336lm(command):
                sys.exit(status)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "gpu-bundle")
    make(parser.parse_args().out)
