"""The Dockerfile: linted, built from files that reach it, with extras that exist."""

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
HADOLINT = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


@pytest.mark.skipif(HADOLINT is None, reason="needs hadolint")
def test_hadolint_finds_nothing():
    command = [str(HADOLINT), "--no-color", str(ROOT / "Dockerfile")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "")


def lets_through(name: str) -> bool:
    """Whether ``.dockerignore`` lets a top-level name into the build; the last line decides."""
    passes = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#") and fnmatch.fnmatch(name, pattern):
            passes = line.startswith("!")
    return passes


def test_what_is_copied_is_there_and_let_through():
    lines = re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE)
    names = {name for line in lines for name in line.split()[:-1]}
    assert {"Cargo.lock", "pyproject.toml", "crates", "python", "LICENSE"} <= names
    for name in names:
        assert (ROOT / name).exists()
        assert lets_through(name)
    for name in ("target", "runs", "demo", ".git", ".venv", "data"):
        assert not lets_through(name)


def test_both_targets_install_extras_that_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    found = re.findall(r"^ARG EXTRAS=(.+)$", DOCKERFILE, re.MULTILINE)
    assert len(found) == 2
    for line in found:
        assert set(line.split(",")) <= set(extras)
    assert re.findall(r"^FROM base AS (\w+)$", DOCKERFILE, re.MULTILINE) == ["cpu", "cuda"]


def test_the_compiler_is_new_enough():
    manifest = tomllib.loads((ROOT / "crates" / "bpe" / "Cargo.toml").read_text())
    (image,) = re.findall(r"^FROM rust:([\d.]+)-", DOCKERFILE, re.MULTILINE)
    assert image == manifest["package"]["rust-version"]
