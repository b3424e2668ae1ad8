"""The course's examples run, and every command that its script and its page name exists."""

import math
import re
import runpy
import shlex
from pathlib import Path

import pytest
from cs336lm.cli.main import COMMANDS
from cs336lm.training.config import load_config

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"


def test_the_toy_falls_faster_at_higher_rates_until_it_blows_up():
    """Against the closed form: each step multiplies all weights by the same number."""
    losses = runpy.run_path(str(EXAMPLES / "learning_rate_toy.py"))["losses"]
    for lr in (1.0, 10.0, 100.0, 1000.0):
        found = losses(lr)
        expected = found[0]
        for t, loss in enumerate(found):
            assert loss == pytest.approx(expected, rel=1e-3, abs=1e-12)
            expected *= (1 - 2 * lr / (100 * math.sqrt(t + 1))) ** 2
    assert losses(10.0)[-1] < losses(1.0)[-1] < losses(1.0)[0]
    assert losses(1000.0)[-1] > 1e6


def test_one_batch_is_learned_by_heart():
    losses = runpy.run_path(str(EXAMPLES / "overfit_one_batch.py"))["losses"]()
    assert losses[0] == pytest.approx(math.log(50), abs=1)
    assert losses[-1] < 0.01


def test_the_base_is_a_configuration():
    config = load_config(EXAMPLES / "course" / "base.toml")
    assert config.data.train == (EXAMPLES / "course" / "../../course/train.npy")


@pytest.mark.parametrize("page", ["examples/course/run.sh", "docs/course.md"])
def test_every_command_and_flag_exists(page, capsys):
    text = (ROOT / page).read_text().replace("\\\n", " ").replace("$cs336lm", "cs336lm")
    named = re.findall(r"^\s*(?:.*\|\| )?(cs336lm .*)$|`(cs336lm [^`]*)`", text, re.MULTILINE)
    calls = [one or other for one, other in named]
    assert len(calls) > 8
    for call in calls:
        words = shlex.split(call.replace("\\|", "|").partition(" > ")[0].rstrip(" \\"))
        assert words[1] in COMMANDS, call
        known = help_of(words[1], capsys)
        for word in words[2:]:
            flag = word.partition("=")[0]
            if flag.startswith("--") and "." not in flag:
                assert re.search(rf"{flag}\b", known), f"{call}: {flag}"


def help_of(command: str, capsys) -> str:
    from cs336lm.cli.main import main

    with pytest.raises(SystemExit):
        raise SystemExit(main([command, "--help"]))
    return capsys.readouterr().out


def test_the_notebook_runs(tmp_path, monkeypatch):
    """All its cells, in order, as a notebook would run them."""
    import json

    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text())
    assert notebook["nbformat"] == 4
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    assert all(cell["outputs"] == [] for cell in cells), "saved without outputs"
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for cell in cells:
        exec(compile("".join(cell["source"]), "cell", "exec"), names)
    assert names["curve"][-1] < names["curve"][0]
    assert names["text"].startswith("Once upon a time")
