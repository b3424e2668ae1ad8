"""What a role has of its own, learning rate, decay, betas, and how a run follows it."""

import dataclasses

import pytest
import torch
from cs336lm.cli.main import main
from cs336lm.errors import UsageError
from cs336lm.model import TransformerLM
from cs336lm.optim import build_optimizer, parameter_roles
from cs336lm.optim.schedules import lr_cosine_schedule
from cs336lm.training.budget import Place
from cs336lm.training.checkpoints.archive import read_state, write_state
from cs336lm.training.config import Config, OptimConfig
from cs336lm.training.learning_rate import StepSettings
from cs336lm.training.run_directory import RunDirectory
from cs336lm.training.trainer import Trainer
from tiny_run import MODEL, curve, make_config

OWN = {"embedding": "embedding", "matrix": "matrix", "head": "head", "gain": "scalar"}


def settings_by_role(optimizer, model):
    roles = parameter_roles(model)
    return {
        roles[parameter]: {name: group[name] for name in group if name != "params"}
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("name", ["adamw", "muon", "normuon"])
def test_each_role_takes_what_is_its_own(name):
    model = TransformerLM(MODEL)
    own = {
        role: {"lr": 0.1 * i, "decay": 0.01 * i, "betas": (0.1 * i, 0.2 * i)}
        for i, role in enumerate(("matrix", "embedding", "head", "scalar"), 1)
    }
    fields = {f"{role}_{what}": v for role, of in own.items() for what, v in of.items()}
    found = settings_by_role(build_optimizer(model, OptimConfig(name=name, **fields)), model)
    for role, prefix in OWN.items():
        expected = own[prefix]
        assert found[role]["lr"] == found[role]["base_lr"] == expected["lr"]
        assert found[role]["weight_decay"] == expected["decay"]
        assert found[role]["betas"] == expected["betas"]


@pytest.mark.parametrize("name", ["sgd", "adagrad"])
def test_plain_optimizers_take_rates_by_role_and_no_decay(name):
    model = TransformerLM(MODEL)
    optimizer = build_optimizer(model, OptimConfig(name=name, lr=0.1, head_lr=0.2))
    found = settings_by_role(optimizer, model)
    assert [found[role]["lr"] for role in OWN] == [0.1, 0.1, 0.2, 0.1]
    assert not any("decay" in key for of in found.values() for key in of)
    assert len(build_optimizer(model, OptimConfig(name=name)).param_groups) == 1


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"matrix_lr": -1.0}, "optim.matrix_lr=-1.0 is impossible"),
        ({"head_decay": float("nan")}, "optim.head_decay=nan is impossible"),
        ({"scalar_betas": (0.9, 1.0)}, "optim.scalar_betas must be at least 0 and below 1"),
        ({"momentum": 1.0}, "optim.momentum must be at least 0 and below 1, not 1.0"),
        ({"momentum_start": -0.1}, "optim.momentum_start must be"),
        ({"momentum_warmup_steps": -1}, "optim.momentum_warmup_steps=-1 is impossible"),
        ({"decay_share": 0.0}, "optim.decay_share must be above 0 and at most 1, not 0.0"),
        ({"decay_share": 1.1}, "optim.decay_share must be above 0 and at most 1, not 1.1"),
    ],
)
def test_the_impossible_is_refused_by_name(fields, says):
    with pytest.raises(UsageError, match=f"^{says}"):
        OptimConfig(**fields)


def test_all_rates_follow_one_schedule(tmp_path):
    """Seen before every step of a run; the metrics have that of optim.lr."""
    optim = OptimConfig(name="muon", lr=0.01, min_lr=0.002, head_lr=0.5, warmup_steps=3)
    trainer = Trainer(make_config(tmp_path, optim=optim, steps=10), tmp_path / "run")
    seen = []
    trainer.optimizer.register_step_pre_hook(
        lambda optimizer, *_: seen.append(
            {role: of["lr"] for role, of in settings_by_role(optimizer, trainer.model).items()}
        )
    )
    trainer.train()
    plain = [lr_cosine_schedule(step, 0.01, 0.002, 3, 10) for step in range(1, 11)]
    assert [record["lr"] for record in curve(tmp_path / "run")[1:]] == plain
    assert [rates["embedding"] for rates in seen] == [rates["gain"] for rates in seen] == plain
    for role, factor in (("matrix", 2), ("head", 50)):
        assert [rates[role] for rates in seen] == pytest.approx([factor * lr for lr in plain])
    assert RunDirectory(tmp_path / "run").load_config().optim.matrix_lr == 0.02
    assert RunDirectory(tmp_path / "run").load_asked().optim.matrix_lr is None


def test_momentum_rises():
    optim = OptimConfig(name="muon", momentum=0.9, momentum_start=0.5, momentum_warmup_steps=4)
    config = dataclasses.replace(Config(), optim=optim).resolved(9)
    optimizer = build_optimizer(TransformerLM(MODEL), config.optim)
    found = []
    for step in range(1, 8):
        StepSettings(config, optimizer).apply(step, Place(step, 0, 10, is_last=False))
        found.append({group["momentum"] for group in optimizer.param_groups})
    assert all(len(values) == 1 for values in found)
    assert [values.pop() for values in found] == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9, 0.9, 0.9])


def test_a_rate_of_zero_freezes_a_role(tmp_path):
    optim = OptimConfig(lr=0.0, head_lr=0.01)
    trainer = Trainer(make_config(tmp_path, optim=optim, steps=3), tmp_path / "run")
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    trainer.train()
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(weight, before[name]) == (name != "lm_head.weight")


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_run_goes_on_under_other_rates_and_forgets_nothing(tmp_path, name):
    """The groups are others then; what the optimizer remembers stays with its parameter."""
    optim = OptimConfig(name=name, lr=0.01)
    Trainer(make_config(tmp_path, optim=optim, steps=4), tmp_path / "run").train()
    (*_, last) = RunDirectory(tmp_path / "run").step_checkpoints()
    before = Trainer(make_config(tmp_path, optim=optim, steps=4), tmp_path / "run", resume=True)
    for changes in ({"head_lr": 0.3}, {"embedding_decay": 0.0, "scalar_lr": 0.4}, {"lr": 0.5}):
        changed = dataclasses.replace(optim, **changes)
        config = make_config(tmp_path, optim=changed, steps=6)
        trainer = Trainer(config, tmp_path / "run", resume=True)
        pairs = zip(before.model.parameters(), trainer.model.parameters(), strict=True)
        for old, new in pairs:
            ours, theirs = trainer.optimizer.state[new], before.optimizer.state[old]
            assert ours.keys() == theirs.keys() != set()
            for key in ours:
                assert torch.equal(*map(torch.as_tensor, (ours[key], theirs[key])))
        found = settings_by_role(trainer.optimizer, trainer.model)
        expected = settings_by_role(build_optimizer(trainer.model, changed), trainer.model)
        assert found == expected
    # A checkpoint of before parameters had names there loads as long as the groups are the same.
    state = read_state(last)
    del state["optimizer_parameters"]
    for group in state["optimizer"]["param_groups"]:
        del group["base_lr"]
    write_state(state, last)
    again = Trainer(make_config(tmp_path, optim=optim, steps=6), tmp_path / "run", resume=True)
    assert again.train().progress.step == 6


def test_another_optimizer_starts_anew(tmp_path, capsys):
    Trainer(make_config(tmp_path, steps=2), tmp_path / "run").train()
    resume = ["train", "--resume", "--run-dir", f"{tmp_path}/run", "--train.steps", "4"]
    assert main([*resume, "--optim.name", "muon"]) == 2
    assert "optimizer adamw, which muon cannot use" in capsys.readouterr().err
    assert main([*resume, "--optim.name", "muon", "--new-optimizer"]) == 0
    assert RunDirectory(tmp_path / "run").load_config().optim.matrix_lr == 0.02
    back = ["--optim.name", "adamw", "--new-optimizer", "--train.steps", "5"]
    assert main([*resume[:4], *back]) == 0
    assert RunDirectory(tmp_path / "run").load_config().optim.matrix_lr is None
