"""Eager code runs the twin, the compiler sees the formula; both get what the caller passed."""

import torch
from cs336lm.model.kernels.twins import eager_twin_of


def test_who_runs_what(monkeypatch):
    def formula(x, *, scale=1.0):
        return "formula", x, scale

    @eager_twin_of(formula)
    def twin(x, *, scale=1.0):
        return "twin", x, scale

    assert twin(2, scale=3.0) == ("twin", 2, 3.0)
    assert twin.__name__ == "twin"
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert twin(2, scale=3.0) == ("formula", 2, 3.0)
