"""``cs336lm train --replay FILE``: the batch at which a run's numbers went wrong, once more."""

from __future__ import annotations

from cs336lm.cli.options import spin_briefly
from cs336lm.cli.parser import parser_for


def main(argv: list[str]) -> int:
    """Runs the batch and prints what is not finite first, in each part that it is in."""
    parser = parser_for("train --replay FILE", "Run a batch of bad-batches/ again.", "")
    parser.add_argument("--replay", required=True, metavar="FILE", help="the saved batch")
    parser.add_argument(
        "--train.device", dest="device", default="auto", metavar="DEVICE", help="cpu, cuda, mps"
    )
    arguments = parser.parse_args(argv)
    spin_briefly()
    from cs336lm.training.bad_numbers import replay
    from cs336lm.training.devices import choose_device

    state, found = replay(arguments.replay, choose_device(arguments.device))
    step, rows = state["iteration"] + 1, len(state["batch"]["x"])
    print(f"{arguments.replay}: step {step}, {rows} sequences in {len(found)} parts")
    for number, where in enumerate(found, 1):
        if where is not None:
            print(f"part {number}: first not finite: {where}")
    if not any(found):
        print("every number is finite here: on another device, or in another order of sums?")
    return 0
