"""Learning curves: what is in metrics.jsonl is what is in the picture."""

import json
import math
from xml.etree import ElementTree

import pytest
from cs336lm.cli.main import main
from cs336lm.errors import UsageError
from cs336lm.experiments import figures, plots
from cs336lm.experiments.plots import Curve, Points, plot_curves, read_curve, smoothed
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture
def run(tmp_path):
    """A run directory: a training loss every 10 steps, a validation loss every 50."""
    directory = tmp_path / "runs" / "a"
    directory.mkdir(parents=True)
    with (directory / "metrics.jsonl").open("w") as file:
        for step in range(10, 210, 10):
            record = {
                "step": step,
                "tokens": step * 1024,
                "seconds": step * 1.5,
                "train_loss": None if step == 30 else 8 / step + 0.5,
                "lr": 1e-3,
            }
            if step % 50 == 0:
                record["val_loss"] = 9 / step + 0.5
            file.write(json.dumps(record) + "\n")
        file.write('{"step": 210, "tok')  # cut short by a kill
    return directory


def curve(name="a", train=(), val=()):
    def points(losses):
        return Points(list(range(len(losses))), [2.0 * i for i in range(len(losses))], list(losses))

    return Curve(name, points(train), points(val))


def drawn(axes):
    """The lines that somebody who styles at the axes sees: (xs, ys), empty ones left out."""
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()]
    return [(xs, ys) for xs, ys in lines if xs]


def test_a_curve_is_what_the_metrics_say(run):
    read = read_curve(run)
    assert read.name == "a"
    assert read.train.steps == [10, 20, *range(40, 210, 10)]
    assert read.train.seconds == [15.0, 30.0, *(step * 1.5 for step in range(40, 210, 10))]
    assert read.train.losses[0] == pytest.approx(1.3)
    assert read.val == Points(
        [50, 100, 150, 200],
        [75.0, 150.0, 225.0, 300.0],
        [9 / 50 + 0.5, 0.59, 0.56, 0.545],
        [51_200, 102_400, 153_600, 204_800],
    )
    assert read_curve(run / "metrics.jsonl") == read


def test_the_picture_shows_each_run_against_steps_and_time(run):
    read = read_curve(run)
    figure = plots._draw([read, curve("b", val=[3.0, 2.0])], 0.4, None, "auto")
    by_step, by_time = figure.axes
    assert by_step.get_xlabel() == "step"
    assert by_time.get_xlabel() == "wall-clock time (minutes)"
    for axes, val_x, train_x in (
        (by_step, read.val.steps, read.train.steps),
        (by_time, [s / 60 for s in read.val.seconds], [s / 60 for s in read.train.seconds]),
    ):
        lines = drawn(axes)
        assert (train_x, read.train.losses) in lines
        assert (train_x, smoothed(read.train.losses)) in lines
        assert (val_x, read.val.losses) in lines
        assert any(ys == [0.4, 0.4] for _, ys in lines)
    (legend,) = figure.legends
    named = [text.get_text() for text in legend.get_texts()]
    assert named == ["a  (val 0.545)", "b  (val 2.000)", "validation", "training"]


@pytest.mark.parametrize(("losses", "scale"), [([8.0, 0.9], "log"), ([8.0, 1.1], "linear")])
def test_the_loss_axis_suits_the_losses(losses, scale):
    figure = plots._draw([curve(val=losses)], None, None, "auto")
    assert [axes.get_yscale() for axes in figure.axes] == [scale, scale]
    other = "linear" if scale == "log" else "log"
    figure = plots._draw([curve(val=losses)], None, None, other)
    assert [axes.get_yscale() for axes in figure.axes] == [other, other]


def test_more_runs_than_colours_still_look_different():
    styles = [tuple(figures.line_style(index).values()) for index in range(28)]
    assert len(set(styles)) == 28


@given(st.lists(st.floats(0, 10), max_size=200))
def test_smoothed_is_the_mean_of_a_centred_window(losses):
    reach = len(losses) // 40
    for at, value in enumerate(smoothed(losses)):
        side = min(reach, at, len(losses) - 1 - at)
        window = losses[at - side : at + side + 1]
        assert value == pytest.approx(math.fsum(window) / len(window), abs=1e-9)


def test_pictures_by_extension(run, tmp_path):
    for name, begins in (("c.png", b"\x89PNG\r\n"), ("c.SVG", b"<?xml"), ("c.pdf", b"%PDF")):
        plot_curves([read_curve(run)], tmp_path / name, floor=0.4, title="T")
        first = (tmp_path / name).read_bytes()
        assert first.startswith(begins)
        plot_curves([read_curve(run)], tmp_path / name, floor=0.4, title="T")
        assert (tmp_path / name).read_bytes() == first
    root = ElementTree.parse(tmp_path / "c.SVG").getroot()
    assert root.tag.endswith("svg")


def test_runs_of_the_same_name_are_told_apart():
    named = plots._with_unique_names([curve("a"), curve("b"), curve("a")])
    assert [each.name for each in named] == ["a (1)", "b", "a (2)"]


def test_command(run, tmp_path, capsys):
    out = tmp_path / "curves.svg"
    assert main(["plot", str(run), str(run), "--floor", "0.3", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"2 runs: {out}\n"
    assert out.exists()


def test_bad_input_gets_one_line_and_no_picture(run, tmp_path, capsys):
    empty, strange = tmp_path / "empty", tmp_path / "strange"
    for directory, content in ((empty, ""), (strange, '{"step": 1, "train_loss": 2.0}\n')):
        directory.mkdir()
        (directory / "metrics.jsonl").write_text(content)
    (tmp_path / "text.txt").write_text("no JSON\n")
    out = tmp_path / "c.png"
    for runs, picture, status, complaint in [
        ([tmp_path / "none"], out, 1, "there is no such run directory"),
        ([tmp_path], out, 1, "there is no metrics.jsonl in it"),
        ([empty], out, 1, "does not contain any losses yet"),
        ([run, strange], out, 1, "is not a metrics file"),
        ([tmp_path / "text.txt"], out, 1, "line 1"),
        ([run], tmp_path / "c.gif", 2, "must end in one of .png, .svg, .pdf"),
        ([run], tmp_path / "none" / "c.png", 1, "No such file or directory"),
    ]:
        assert main(["plot", *map(str, runs), "--out", str(picture)]) == status
        error = capsys.readouterr().err
        assert complaint in error
        assert error.count("\n") == 1
        assert not picture.exists()
    with pytest.raises(UsageError, match="no run"):
        plot_curves([], out)
