"""``cs336lm report``: runs and sweeps -> a page and its Markdown twin."""

from __future__ import annotations

import sys
from pathlib import Path

from cs336lm.cli.options import positive, spin_briefly
from cs336lm.cli.parser import parser_for

_DESCRIPTION = """\
Write a report of runs: what differs, what came of it, curves, samples, and how to do it again.

OUT gets index.html, one file that needs no network (light and dark, narrow and wide, printable),
and report.md with its pictures. RUN is a run directory, or that of a sweep, of ablations or of
batch sizes, which gets a section of its own. A file notes.md in such a directory stands at its
head. Every run continues the same prompts with the same seed (temperature 0.8, top-p 0.95)."""

_EPILOG = """\
examples:
  cs336lm report runs/a runs/b --out report/
  cs336lm report sweeps/lr ablations/a --title 'Assignment 1' --out report/
  cs336lm report runs/a --prompt 'Once upon a time' --prompt 'The dragon' --out report/"""


def main(argv: list[str]) -> int:
    """Writes the report and says where it is."""
    parser = parser_for("report", _DESCRIPTION, _EPILOG)
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="directories of runs and sweeps")
    add("--out", required=True, type=Path, metavar="DIR", help="directory of the report")
    add("--title", default="Report", metavar="TEXT", help="title of the page (default: Report)")
    add("--prompt", action="append", metavar="TEXT", help="prompt of the samples (default: none)")
    add("--tokens", type=positive, default=128, metavar="N", help="of a sample (default: 128)")
    add("--seed", type=int, default=0, metavar="N", help="of the samples (default: 0)")
    arguments = parser.parse_args(argv)

    spin_briefly()
    from cs336lm.experiments.report.content import read_sections
    from cs336lm.experiments.report.write import refuse_foreign_report, write_report

    refuse_foreign_report(arguments.out)
    sections = read_sections(arguments.runs)
    if arguments.prompt:
        from cs336lm.experiments.report.samples import sample_runs

        for section in sections:
            section.samples, left_out = sample_runs(
                section.runs,
                arguments.prompt,
                max_new_tokens=arguments.tokens,
                seed=arguments.seed,
            )
            for line in left_out:
                print(f"no sample of {line}", file=sys.stderr)
    page = write_report(sections, arguments.out, arguments.title)
    runs = sum(len(section.runs) for section in sections)
    print(f"{runs} {'run' if runs == 1 else 'runs'}: {page}")
    return 0
