"""Gradients in, steps out: optimizers, learning-rate schedules, gradient clipping."""

from cs336lm.optim.adagrad import AdaGrad
from cs336lm.optim.adamw import AdamW
from cs336lm.optim.build import build_optimizer
from cs336lm.optim.clipping import clip_gradients
from cs336lm.optim.groups import parameter_groups, parameter_roles
from cs336lm.optim.muon import Muon
from cs336lm.optim.normuon import NorMuon
from cs336lm.optim.sgd import SGD

__all__ = [
    "SGD",
    "AdaGrad",
    "AdamW",
    "Muon",
    "NorMuon",
    "build_optimizer",
    "clip_gradients",
    "parameter_groups",
    "parameter_roles",
]
