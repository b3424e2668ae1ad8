"""``cs336lm check``: is what was written still as it was written?"""

from cs336lm.cli.output import print_json
from cs336lm.cli.parser import parser_for

_EPILOG = """\
examples:
  cs336lm check runs/a
  cs336lm check tokens.npy tokenizer/ english.counts
  cs336lm check runs/* --json

A run directory is its config, its records, every checkpoint, and its tokenizer; a token file its
sidecar, every array and, where a job was interrupted, its journal and the shards that are finished.
All of a file is read: a bit that was flipped or an end that was cut off anywhere is found by the
checksum that was written with it. Files of before there were checksums, or of other programs, are
verified as far as they tell, and the line says so.

A damaged checkpoint is passed over by 'cs336lm train --resume', which goes on from the one before.
The exit status is 0 if all is well and 1 if anything is damaged."""


def main(argv: list[str]) -> int:
    """Prints a line for each thing looked at."""
    parser = parser_for("check", "Verify runs, checkpoints, token files, tokenizers.", _EPILOG)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="what to verify")
    parser.add_argument("--json", action="store_true", help="print one JSON array instead")
    arguments = parser.parse_args(argv)

    from cs336lm.training.verification import verify

    findings = []
    for looks in [verify(path) for path in arguments.paths]:
        for finding in looks:
            findings.append(finding)
            if not arguments.json:
                print(f"{'ok' if finding.is_good else 'DAMAGED':<8} {finding.path}: {finding.says}")
    if arguments.json:
        print_json([{"path": f.path, "ok": f.is_good, "says": f.says} for f in findings])
    return 0 if all(finding.is_good for finding in findings) else 1
