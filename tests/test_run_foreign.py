"""A run directory that holds somebody's files stays as it is."""

from pathlib import Path

import pytest
from cs336lm.cli.main import main
from cs336lm.errors import UsageError
from cs336lm.training.config import save_config
from cs336lm.training.trainer import Trainer
from tiny_run import make_config


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.jsonl", '{"step": 7, "loss": 1.0}\n'),
        ("environment.jsonl", '{"PATH": "/bin"}\n'),
        ("config.toml", "# by hand\n[model]\nd_model = 16\n"),
    ],
)
def test_what_no_run_wrote_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, resume: bool
) -> None:
    save_config(make_config(tmp_path), tmp_path / "run.toml")
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)  # others have folders of that name, too
    if name == "config.toml":
        (run / "checkpoints").rmdir()
    (run / name).write_text(content)
    before = sorted(run.rglob("*"))
    command = ["train", "--config", f"{tmp_path}/run.toml", "--run-dir", str(run)]
    assert main([*command, *["--resume"][:resume]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{run / name} would be written over" in line
    assert (sorted(run.rglob("*")), (run / name).read_text()) == (before, content)


@pytest.mark.parametrize("without", [[], [".lock"], ["environment.jsonl", ".lock"]])
def test_a_run_is_known_by_what_it_left(tmp_path: Path, without: list[str]) -> None:
    """One that never saved is begun anew, also one of a version that left less."""
    config = make_config(tmp_path, steps=2, eval_every=0, checkpoint_every=0)
    run = tmp_path / "run"
    Trainer(config, run).train()
    for path in [*(run / "checkpoints").iterdir(), *(run / name for name in without)]:
        path.unlink()
    Trainer(config, run).train()
    with pytest.raises(UsageError, match="already contains a run"):
        Trainer(config, run)
