"""Parameters are grouped by the role that their module states."""

import pytest
import torch
from cs336lm.errors import UsageError
from cs336lm.model import ModelConfig, TransformerLM
from cs336lm.optim import AdaGrad, AdamW, build_optimizer, parameter_groups, parameter_roles
from cs336lm.optim.scheduled_sgd import ScheduledSGD
from cs336lm.training.config import OptimConfig
from torch.nn import Module, Parameter

CONFIG = ModelConfig(vocab_size=9, context_length=4, d_model=8, num_layers=2, num_heads=2, d_ff=12)


def names_of(model, parameters):
    name_of = {parameter: name for name, parameter in model.named_parameters()}
    return [name_of[parameter] for parameter in parameters]


def test_roles_of_the_model():
    model = TransformerLM(CONFIG)
    roles = parameter_roles(model)
    assert list(roles) == list(model.parameters())
    by_role = {
        role: names_of(model, [p for p in roles if roles[p] == role]) for role in roles.values()
    }
    assert by_role["embedding"] == ["token_embeddings.weight"]
    assert by_role["head"] == ["lm_head.weight"]
    assert by_role["gain"] == [
        *(f"layers.{layer}.ln{number}.weight" for layer in (0, 1) for number in (1, 2)),
        "ln_final.weight",
    ]
    assert len(by_role["matrix"]) == 2 * 7


def test_weight_decay_is_for_everything_but_gains():
    """The same groups in the same order as by the number of dimensions."""
    model = TransformerLM(CONFIG)
    decayed, plain = parameter_groups(model, 0.3)
    assert decayed["weight_decay"] == 0.3
    assert plain["weight_decay"] == 0.0
    assert decayed["params"] == [p for p in model.parameters() if p.ndim >= 2]
    assert plain["params"] == [p for p in model.parameters() if p.ndim < 2]


class Stranger(Module):
    """States no role."""

    def __init__(self, inside: Module) -> None:
        super().__init__()
        self.inside = inside
        self.low_rank = Parameter(torch.zeros(2, 8))
        self.scale = Parameter(torch.ones(8))


class Flat(Module):
    """A matrix that is kept as a vector, and says that it is one."""

    role = "matrix"

    def __init__(self) -> None:
        super().__init__()
        self.weight = Parameter(torch.zeros(64))


def test_what_states_no_role_has_it_by_shape_and_a_stated_role_counts():
    model = TransformerLM(CONFIG)
    model.layers[0].attn.q_proj = Stranger(model.layers[0].attn.q_proj)
    model.layers[1].ffn.w2 = Flat()
    model.token_embeddings.weight = model.lm_head.weight  # shared: once, as the first one says
    decayed, plain = (names_of(model, g["params"]) for g in parameter_groups(model, 0.1))
    assert "layers.0.attn.q_proj.low_rank" in decayed
    assert "layers.0.attn.q_proj.inside.weight" in decayed
    assert "layers.0.attn.q_proj.scale" in plain
    assert "layers.1.ffn.w2.weight" in decayed
    assert len(decayed) + len(plain) == len(list(model.parameters()))
    assert parameter_roles(model)[model.lm_head.weight] == "embedding"


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", AdamW), ("sgd", ScheduledSGD), ("adagrad", AdaGrad)]
)
def test_builds_what_is_named(name, kind):
    model = TransformerLM(CONFIG)
    settings = OptimConfig(name=name, lr=0.02, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.2)
    optimizer = build_optimizer(model, settings)
    assert type(optimizer) is kind
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    assert set(parameters) == set(model.parameters())
    for group in optimizer.param_groups:
        assert group["lr"] == 0.02
        assert group.get("betas", (0.8, 0.9)) == (0.8, 0.9)
        assert group.get("eps", 1e-6) == 1e-6
    if name == "adamw":
        assert [group["weight_decay"] for group in optimizer.param_groups] == [0.2, 0.0]


def test_an_unknown_name_is_refused():
    class Settings:
        name, lr, betas, eps, weight_decay = "lion", 0.1, (0.9, 0.99), 1e-8, 0.0

    with pytest.raises(UsageError, match=r"optim\.name='lion' is not one of adamw, sgd, adagrad"):
        build_optimizer(TransformerLM(CONFIG), Settings())
