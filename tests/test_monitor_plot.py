"""The picture of monitored figures: a line a layer in each panel, gaps where nothing was seen."""

import json
import math

import numpy as np
import pytest
from cs336lm.errors import UsageError
from cs336lm.experiments.monitor_plot import (
    BY_LAYER,
    Monitored,
    monitor_figure,
    monitored_in,
    plot_monitor,
    read_monitor,
)

LAYERS = 3


def seen_at(step):
    """Another value for each figure, layer and step."""
    roles = {role: {"update_ratio": step / 100} for role in ("matrix", "head")}
    return {
        **{
            name: [1000 * panel + 10 * step + layer + 1 for layer in range(LAYERS)]
            for panel, name in enumerate(BY_LAYER)
        },
        "roles": roles,
        "logit_max": float(step),
        "logsumexp": 2.0 * step,
    }


def test_each_panel_has_a_line_a_layer():
    steps = [10, 20, 30]
    figure = monitor_figure(Monitored(steps, [seen_at(step) for step in steps]), title="a run")
    assert len(figure.axes) == len(BY_LAYER) + 2
    for panel, (axes, label) in enumerate(zip(figure.axes, BY_LAYER.values(), strict=False)):
        assert axes.get_title() == label
        lines = list(axes.lines)
        assert len({line.get_color() for line in lines}) == LAYERS
        for layer, line in enumerate(lines):
            assert list(line.get_xdata()) == steps
            expected = [1000 * panel + 10 * step + layer + 1 for step in steps]
            assert list(line.get_ydata()) == expected
    by_role, logits = figure.axes[-2:]
    assert [line.get_label() for line in by_role.lines] == ["matrix", "head"]
    assert [list(line.get_ydata()) for line in logits.lines] == [[10, 20, 30], [20, 40, 60]]


def test_what_is_missing_is_a_gap_and_long_runs_are_thinned():
    steps = list(range(1, 1001))
    figures = [seen_at(step) for step in steps]
    figures[-1]["residual_rms"] = [None, None, None]
    del figures[-1]["weight_rms"], figures[-1]["roles"], figures[-1]["logit_max"]
    figure = monitor_figure(Monitored(steps, figures))
    line = figure.axes[0].lines[0]
    assert len(line.get_xdata()) <= 100
    assert line.get_xdata()[-1] == 1000
    assert np.isnan(np.asarray(line.get_ydata(), float)[-1])
    assert math.isnan(figure.axes[5].lines[0].get_ydata()[-1])


def test_one_layer_and_nothing_at_all(tmp_path):
    one = {name: [0.0] for name in BY_LAYER}
    plot_monitor(Monitored([5], [one]), tmp_path / "one.svg")
    assert (tmp_path / "one.svg").read_text().startswith("<?xml")
    assert monitored_in([{"step": 1, "lr": 2.0}]) is None
    with pytest.raises(UsageError, match="no monitored step"):
        plot_monitor(Monitored([], []), tmp_path / "none.svg")
    with pytest.raises(UsageError, match="must end in one of"):
        plot_monitor(Monitored([5], [one]), tmp_path / "one.txt")
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "train_loss": 2.0}) + "\n")
    with pytest.raises(ValueError, match=r"train\.monitor_every"):
        read_monitor(tmp_path)
