"""Ablations and batch sizes: which configurations are compared, and what the tables say."""

import json
from pathlib import Path

import pytest
from cs336lm.cli.main import main
from cs336lm.errors import UsageError
from cs336lm.experiments.ablate import ABLATIONS, BASELINE, ablation_table, variants_of
from cs336lm.experiments.batch_sizes import batch_size_variants
from cs336lm.experiments.comparison import Group
from cs336lm.experiments.space import with_overrides
from cs336lm.model.transformer import TransformerLM
from cs336lm.training.config import Config, DataConfig, OptimConfig, save_config
from tiny_run import MODEL, make_config


def record(loss, seed=0, parameters=100):
    return {
        "overrides": {},
        "seed": seed,
        "val_loss": loss,
        "diverged": loss is None,
        "parameters": parameters,
    }


def test_every_ablation_is_possible_and_changes_something():
    base = Config(DataConfig(), MODEL, OptimConfig(lr=1e-2))
    variants = variants_of(base, list(ABLATIONS))
    assert list(variants) == [BASELINE, *ABLATIONS]
    configs = [with_overrides(base, overrides) for overrides in variants.values()]
    assert len({repr(config) for config in configs}) == len(configs)


@pytest.mark.parametrize("name", ["silu", "relu2"])
@pytest.mark.parametrize("d_ff", [None, 30])
def test_networks_without_a_gate_have_as_many_parameters(name, d_ff):
    base = with_overrides(Config(model=MODEL), {"model.d_ff": d_ff})
    changed = with_overrides(base, variants_of(base, [name])[name])
    counts = [
        sum(p.numel() for p in TransformerLM(config.model, device="meta").parameters())
        for config in (base, changed)
    ]
    assert counts[0] == counts[1]


def test_the_low_learning_rate_is_a_tenth():
    base = Config(optim=OptimConfig(lr=0.5))
    overrides = variants_of(base, ["no-norm-low-lr"])["no-norm-low-lr"]
    assert overrides == {"model.norm": "none", "optim.lr": pytest.approx(0.05)}


def test_what_the_baseline_is_already_is_refused():
    base = with_overrides(Config(model=MODEL), {"model.positions": "none"})
    with pytest.raises(UsageError, match="nope is what the baseline is already"):
        variants_of(base, ["nope"])
    assert "nope" not in variants_of(base, list(ABLATIONS), whole=True)
    with pytest.raises(UsageError, match="there is no ablation 'no-nom'"):
        variants_of(base, ["no-nom"])


def test_the_table_says_what_is_beyond_the_noise():
    pytest.importorskip("scipy")

    def group(*losses):
        return Group({}, [record(loss, seed) for seed, loss in enumerate(losses)])

    table = ablation_table(
        {
            BASELINE: group(2.00, 2.01, 1.99),
            "worse": group(2.50, 2.51, 2.49),
            "same": group(2.02, 2.00, 1.98),
            "broken": group(2.0, None, None),
        }
    )
    verdicts = {row[0]: (row[2], row[4], row[-1]) for row in table.rows}
    assert verdicts[BASELINE] == ("2.0000", "", "")
    assert verdicts["worse"] == ("2.5000", "+0.5000", "yes")
    assert verdicts["same"][2] == "no"
    assert verdicts["broken"] == ("diverged (2 of 3)", "", "yes: it diverged")


def test_ablate_from_the_shell(tmp_path, capsys):
    save_config(make_config(tmp_path), tmp_path / "base.toml")
    out = tmp_path / "ablations"
    argv = ["ablate", "--config", str(tmp_path / "base.toml"), "--only", "nope"]
    assert main([*argv, "--out", str(out), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["ablation"] for line in lines] == [BASELINE, "nope"]
    assert lines[0]["val_loss"] != lines[1]["val_loss"]
    assert 'positions = "none"' in (Path(lines[1]["run"]) / "config.toml").read_text()
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "| nope" in (out / "table.md").read_text()
    # A list of runs, and two of them side by side.
    assert main(["runs", str(out)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("done") == 2
    assert main(["compare", *(line["run"] for line in lines), "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert compared["config"] == {"model.positions": ["rope", "none"]}
    assert compared["figures"]["last validation loss"] == [line["val_loss"] for line in lines]


def status(argv):
    """Of a command; what the parser refuses ends it at once."""
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(main(argv))
    return ended.value.code


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["ablate", "--only", "no-nom"], "no ablation 'no-nom'"),
        (["batch-sizes", "--tokens", "10", "--largest", "4"], "less than a step"),
        (["batch-sizes", "--tokens", "x", "--largest", "4"], "--tokens"),
    ],
)
def test_a_wrong_call_is_one_line(tmp_path, capsys, argv, message):
    save_config(make_config(tmp_path), tmp_path / "base.toml")
    argv += ["--config", str(tmp_path / "base.toml"), "--out", str(tmp_path / "o")]
    assert status(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "o").exists()


def test_batch_sizes_learn_from_the_same_tokens_at_rates_by_the_rule():
    base = Config(DataConfig(batch_size=8), MODEL, OptimConfig(lr=0.02, min_lr=0.002))
    variants = batch_size_variants(base, tokens=10_000, largest=40, rule="sqrt")
    assert [v["data.batch_size"] for v in variants] == [1, 2, 4, 8, 16, 32]
    assert {v["train.max_tokens"] for v in variants} == {10_000 // (32 * 8) * 32 * 8}
    by_size = {v["data.batch_size"]: v for v in variants}
    assert by_size[8]["optim.lr"] == pytest.approx(0.02)
    assert by_size[32]["optim.lr"] == pytest.approx(0.04)
    assert by_size[2]["optim.min_lr"] == pytest.approx(0.001)
    linear = batch_size_variants(base, tokens=10_000, largest=16, rule="linear")
    assert [v["optim.lr"] for v in linear] == pytest.approx([0.0025, 0.005, 0.01, 0.02, 0.04])
