"""``cs336lm plot``: run directories -> learning curves."""

from cs336lm.cli.options import above_zero
from cs336lm.cli.output import refuse_foreign_picture
from cs336lm.cli.parser import parser_for

_EPILOG = """\
examples:
  cs336lm plot runs/a --out curves.png
  cs336lm plot runs/a runs/b runs/c --out curves.svg
  cs336lm plot demo/run --floor 0.183 --out curves.png

The picture shows training and validation loss of each run against steps and against wall-clock
time. A run that is still going can be plotted too. An earlier plot is replaced, no other file."""


def main(argv: list[str]) -> int:
    """Draws a picture and says where it is."""
    parser = parser_for("plot", "Plot the learning curves of runs.", _EPILOG)
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="run directories, or metrics.jsonl files"
    )
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="picture to write: .png, .svg or .pdf"
    )
    parser.add_argument(
        "--floor",
        type=above_zero,
        metavar="LOSS",
        help="draw a line at this loss, in nats per token: the entropy of the text, if known",
    )
    parser.add_argument("--title", metavar="TEXT", help="title of the picture")
    parser.add_argument(
        "--scale",
        choices=("auto", "linear", "log"),
        default="auto",
        help="scale of the loss axis (default: log if the losses span a factor of eight)",
    )
    arguments = parser.parse_args(argv)

    from cs336lm.experiments.plots import plot_curves, read_curve

    refuse_foreign_picture("--out", arguments.out)
    curves = [read_curve(run) for run in arguments.runs]
    plot_curves(
        curves,
        arguments.out,
        floor=arguments.floor,
        title=arguments.title,
        scale=arguments.scale,
    )
    print(f"{len(curves)} {'run' if len(curves) == 1 else 'runs'}: {arguments.out}")
    return 0
