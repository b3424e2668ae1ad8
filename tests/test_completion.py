"""``cs336lm completion``: what real shells offer once they have read its script."""

import shutil
import subprocess
import sys
from importlib import import_module

import pytest
from cs336lm.cli import completion
from cs336lm.cli.main import COMMANDS, main
from cs336lm.cli.parser import Parser, parser_of

shtab = pytest.importorskip("shtab")

# What bash does when Tab is pressed behind the words: it fills COMP_WORDS and calls the function.
BASH = """\
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
function=$(complete -p cs336lm | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function cs336lm "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""

OFFERS = [
    ("co", {"count-pretokens", "compare", "completion"}),
    ("train --data.tr", {"--data.train"}),
    ("train --data.train ", {"corpus.txt", "run.toml", "runs"}),
    ("train --config r", {"run.toml", "runs"}),
    ("train --init-from ", {"runs"}),
    ("train --optim.name mu", {"muon"}),
    ("train --train.dtype f", {"float32", "float16"}),
    ("train-bpe c", {"corpus.txt"}),
    ("sweep --optim.na", {"--optim.name"}),
    ("ablate --train.dtype b", {"bfloat16"}),
    ("generate ", {"runs"}),
    ("export runs --format g", {"gguf"}),
    ("completion ", {"bash", "zsh", "fish"}),
]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    for shell in ("bash", "zsh", "fish"):
        command = [sys.executable, "-m", "cs336lm", "completion", shell]
        (folder / shell).write_text(subprocess.check_output(command, text=True))
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in ("corpus.txt", "run.toml"):
        (tmp_path / name).touch()


def lines(*command):
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(("typed", "offered"), OFFERS)
def test_bash_offers(scripts, folder, typed, offered):
    words = ["cs336lm", *typed.split(" ")]
    assert set(lines("bash", "-c", BASH, "bash", str(scripts / "bash"), *words)) == offered


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
@pytest.mark.parametrize(("typed", "offered"), OFFERS)
def test_fish_offers(scripts, folder, typed, offered):
    script = f"source {scripts / 'fish'}; complete -C 'cs336lm {typed}'"
    found = {line.split("\t")[0].rstrip("/") for line in lines("fish", "-c", script)}
    assert found >= offered  # fish also offers what contains the word


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_finds_its_script(scripts):
    assert lines("zsh", "-n", str(scripts / "zsh")) == []
    (scripts / "zsh").rename(scripts / "_cs336lm")
    load = f"fpath=({scripts} $fpath); autoload -U compinit; compinit -u -D; print $_comps[cs336lm]"
    assert lines("zsh", "-f", "-c", load) == ["_cs336lm"]


def test_the_commands_that_pass_flags_on_are_those_that_run_trials():
    runs_trials = {
        name
        for name, (module, _) in COMMANDS.items()
        if hasattr(import_module(f"cs336lm.cli.{module}"), "parse_trials")
    }
    assert set(completion._PASS_ON) == runs_trials


def test_no_script_without_a_known_shell_or_without_shtab(capsys, monkeypatch):
    with pytest.raises(SystemExit) as ended:
        main(["completion", "csh"])
    assert ended.value.code == 2
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "pip install 'cs336lm[completion]'" in capsys.readouterr().err.splitlines()[-1]


def test_every_command_has_a_parser_and_still_shows_its_help(capsys):
    for name, (module, _) in COMMANDS.items():
        command = import_module(f"cs336lm.cli.{module}").main
        parser = parser_of(command)
        assert isinstance(parser, Parser)
        assert parser.prog == f"cs336lm {name}"
        assert any("--help" in action.option_strings for action in parser._actions)
    assert capsys.readouterr().out == ""
    with pytest.raises(SystemExit):
        main(["plot", "--help"])
    assert "usage: cs336lm plot" in capsys.readouterr().out
    with pytest.raises(LookupError, match="does not answer --help"):
        parser_of(lambda argv: None)
