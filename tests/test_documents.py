"""The documents: what they link to is there, what they name exists, and their commands run."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from importlib import import_module
from pathlib import Path

import cs336lm
import pytest
import tiny_run  # noqa: F401 (one thread)
import yaml
from cs336lm.cli.main import COMMANDS, main
from cs336lm.cli.parser import Parser, parser_of

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [
    *sorted(DOCS.glob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ROOT / "benchmarks" / "README.md",
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def build(monkeypatch):
    """The scripts that make the site."""
    monkeypatch.syspath_prepend(str(DOCS / "build"))
    before = set(sys.modules)
    yield import_module
    for name in {"cli_reference", "site_pages"} & (set(sys.modules) - before):
        del sys.modules[name]


def nav(entry):
    """The pages of mkdocs.yml's nav, in order."""
    if isinstance(entry, str):
        return [entry]
    return [page for each in (entry.values() if isinstance(entry, dict) else entry)
            for page in nav(each)]  # fmt: skip


def anchors(page: Path) -> set[str]:
    """What a link to a heading of the page may say."""
    text = FENCE.sub("", page.read_text("utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"[\s]+", "-", heading) for heading in plain}


def test_the_site_names_every_page_once(build):
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    added = build("site_pages").PAGES
    pages = nav(config["nav"])
    assert sorted(pages) == sorted([*(page.name for page in DOCS.glob("*.md")), *added])
    for source in added.values():
        assert (ROOT / source).is_file()
    for hook in config["hooks"]:
        assert (ROOT / hook).is_file()


def test_the_site_is_built_without_a_warning(tmp_path):
    """Where the extra [docs] is installed."""
    for name in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(name)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    ended = subprocess.run(
        [*command, "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stderr.strip()) == (0, "")
    page = (tmp_path / "site" / "api" / "index.html").read_text("utf-8")
    assert 'id="cs336lm.Tokenizer.encode_files"' in page
    assert ":func:" not in page
    home = (tmp_path / "site" / "index.html").read_text("utf-8")
    loaded = re.findall(r'(?:src|href)="(https?://[^"]+\.(?:js|css|woff2?))"', home)
    assert loaded == []  # nothing from another site


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"`[^`]*`", "", FENCE.sub("", page.read_text("utf-8")))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name}: {target}"
        assert found.is_relative_to(ROOT)
        if anchor:
            assert anchor in anchors(found), f"{page.name}: {target}"


def test_links_out_of_the_documents_hold_on_the_site(build):
    relinked = build("site_pages").relinked
    assert relinked("[a](../CONTRIBUTING.md#x) [b](exchange.md) [c](#d)", DOCS) == (
        "[a](contributing.md#x) [b](exchange.md) [c](#d)"
    )
    assert relinked("[a](docs/course.md#b)", ROOT) == "[a](course.md#b)"
    assert relinked("[lines](../Makefile) [x](https://a.b/c)", DOCS) == (
        "lines (`Makefile`) [x](https://a.b/c)"
    )
    assert relinked("![curves](choices.png)", DOCS) == "![curves](choices.png)"


def test_the_reference_of_commands_is_what_the_parsers_say(build):
    reference = build("cli_reference").reference()
    assert (DOCS / "commands.md").read_text("utf-8") == reference, "run: make cli-reference"
    for name in COMMANDS:
        assert f"\n## {name}\n" in reference
    assert "`--optim.lr X`: " in reference
    assert (
        "`--special-token TEXT`: a text that is one token, such as `'<|endoftext|>'`" in reference
    )


def test_the_reference_of_python_names_every_public_name():
    named = re.findall(r"^::: cs336lm\.(\w+)$", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert sorted([*named, "__version__"]) == sorted(cs336lm.__all__)


def test_the_extras_are_those_of_the_package():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    rows = re.findall(r"^\| (`[^|]+`) \|", (DOCS / "install.md").read_text(), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([\w-]+)`", row)}
    assert named == set(extras["optional-dependencies"])


# Commands

TYPED = re.compile(r"^(?: {4}(?:\$ )?|\$ )((?:\w+=\S+ )*cs336lm .*)$")


def commands(page: Path) -> list[str]:
    """What a page's blocks of code tell people to type, a line each, remarks left out."""
    lines = page.read_text("utf-8").replace("\\\n", " ").splitlines()
    found = [match[1] for line in lines if (match := TYPED.match(line))]
    # Two commands side by side; remarks after # and pipes are the shell's.
    typed = [part for line in found for part in re.split(r" {4,}(?=cs336lm )", line)]
    return [re.split(r" +#| [|>] | 2>", part)[0] for part in typed]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if commands(page)], ids=lambda page: page.name
)
def test_commands_are_understood(page, capsys):
    """Every flag exists, every value is possible as far as the parser knows."""
    for line in commands(page):
        words = shlex.split(line)
        if "..." in words or "COMMAND" in words:
            continue
        name, given = words[1], words[2:]
        assert name in COMMANDS, line
        parser = parser_for(name)
        try:
            _, rest = parser.parse_known_args(given)
        except (SystemExit, ValueError) as error:
            pytest.fail(f"{line}: {error} {capsys.readouterr().err}")
        flags = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert flags <= known_to_train(), line


@cache
def parser_for(command: str) -> Parser:
    return parser_of(import_module(f"cs336lm.cli.{COMMANDS[command][0]}").main)


def known_to_train() -> set[str]:
    """The flags of the configuration, which commands that run trials pass on."""
    parser = parser_for("train")
    both = {flag for action in parser._actions for flag in action.option_strings}
    return both | {flag.replace("-", "_") for flag in both if "." in flag} | {
        "--" + flag[2:].replace("-", "_") for flag in both if "." in flag
    }  # fmt: skip


def test_the_tutorial_runs_as_it_is_written(tmp_path, monkeypatch, capsys):
    """Each command in turn, with less text, fewer steps and a smaller model."""
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "tutorial.md").read_text()
    for old, new in (
        *(("--megabytes 6 ", "--megabytes 0.2 "), ("--megabytes 0.3 ", "--megabytes 0.02 ")),
        *(("--vocab-size 1200", "--vocab-size 400"), ("steps = 600", "steps = 6")),
        *(("eval_every = 100", "eval_every = 3"), ("d_model = 128", "d_model = 32")),
        ("--max-new-tokens 150", "--max-new-tokens 10"),
    ):
        assert old in text
        text = text.replace(old, new)
    for language, block in FENCE.findall(text):
        if language == "toml":
            Path("run.toml").write_text(block)
    typed = commands(DOCS / "tutorial.md")
    assert len(typed) > 14
    shrunk = re.findall(r"^\$ (cs336lm .*)$", text, re.MULTILINE)
    assert len(shrunk) == len(typed)
    for line in shrunk:
        assert main(shlex.split(line)[1:]) in (0, None), f"{line}: {capsys.readouterr().err}"
    said = capsys.readouterr().out
    assert "documents" in said
    first, second = (float(x) for x in re.findall(r"^loss +([\d.]+)", said, re.MULTILINE)[-2:])
    assert (tmp_path / "llama" / "model.safetensors").exists()
    assert (tmp_path / "curves.png").exists()
    assert first > 0 < second
