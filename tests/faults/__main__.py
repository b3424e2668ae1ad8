"""``python -m tests.faults KIND --job JOB``: puts faults into a job, and says what came of it."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from .shim import CALLS, KINDS, Fault, NoCompiler, enter

_EPILOG = """\
examples, from the repository's root:
  python -m tests.faults jobs
  python -m tests.faults kill --job train --cases 200 --seed 1
  python -m tests.faults fail --job tokenize --call write --errno ENOSPC --nth 7
  python -m tests.faults fail --job train --most 20
  python -m tests.faults power --job train --cases 100
  python -m tests.faults two --job tokenize --cases 20
  python -m tests.faults weather --job train        a slow disk, a clock that jumps
  python -m tests.faults ranks --cases 5            processes that die, hang, disagree
  python -m tests.faults same --compiled            the same bits again
  python -m tests.faults long --job train --minutes 60

A finding is a line, and the folder of the first one stays under --dir. Exit status 0: there is
none; 1: there is one; 77: no C compiler."""


LONG_JOBS = ["train", "tokenize", "tokenize-shards", "train-bpe"]
IN_MEMORY = next((name for name in ("/dev/shm",) if os.access(name, os.W_OK)), None)
"""Where a sync takes no time: what it does to a disk is told by ``power``, not by waiting."""
KINDS_OF_FAULTS = ["all", "jobs"]
KINDS_OF_FAULTS += ["kill", "fail", "power", "two", "weather", "ranks", "link", "same", "long"]


def main() -> int:
    """Runs one kind of fault on some jobs."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("kind", choices=KINDS_OF_FAULTS)
    parser.add_argument("--job", action="append", metavar="JOB", help="default: all; see `jobs`")
    parser.add_argument("--cases", type=int, default=50, metavar="N", help="of each job")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--call", choices=CALLS, action="append", help="what fails; default: all")
    parser.add_argument("--errno", action="append", default=[], metavar="NAME",
        help="how: an errno, SHORT (half is done), KILL, SLOW; default: all that fit")  # fmt: skip
    parser.add_argument("--nth", type=int, metavar="N", help="this call alone; default: each")
    parser.add_argument("--stays", action="store_true", help="with --nth: all after it fail too")
    parser.add_argument("--most", type=int, default=10**6, metavar="N",
        help="fail at most so many places of each call, from the first to the last")  # fmt: skip
    parser.add_argument("--minutes", type=float, default=1.0, help="with `long`, of each job")
    parser.add_argument("--compiled", action="store_true", help="with `same`, torch.compile too")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="where; default: a temporary one")
    arguments = parser.parse_args()
    try:
        enter()
    except NoCompiler as error:
        print(f"skipped: {error}")
        return 77

    from .everything import everything
    from .fail import fail, one_case
    from .findings import Tally, conclude
    from .jobs import JOBS, make_inputs
    from .kill import kill
    from .link import link
    from .long import long
    from .power import power
    from .process import Place
    from .ranks import ranks
    from .same import same
    from .together import together
    from .weather import weather

    if arguments.kind == "jobs":
        for job in JOBS.values():
            print(f"{job.name:<22} cs336lm {' '.join(job.argv)}")
        return 0
    base = arguments.dir or Path(tempfile.mkdtemp(prefix="cs336lm-faults-", dir=IN_MEMORY))
    if arguments.kind == "all":
        return everything(base)
    place = Place(base)
    make_inputs(place)
    of_a_job = {"kill": kill, "power": power, "two": together, "weather": weather}
    if arguments.kind in ("ranks", "link", "same", "long"):
        if arguments.kind != "long":  # whose text jobs are to hold what they need, and no more
            import torch  # noqa: F401  # once, for all that are forked from here

        if arguments.kind == "ranks":
            tallies = [ranks(place, arguments.cases, arguments.seed)]
        elif arguments.kind == "link":
            tallies = [link(place, arguments.cases, arguments.seed)]
        elif arguments.kind == "same":
            tallies = [same(place, compiled=arguments.compiled)]
        else:
            tallies = [long(place, arguments.minutes, arguments.job or LONG_JOBS)]
    else:
        names = arguments.job or list(JOBS)
        unknown = [name for name in names if name not in JOBS]
        if unknown:
            parser.error(f"there is no job {unknown[0]!r}: there are {', '.join(JOBS)}")
        tallies = []
        for job in (JOBS[name] for name in names):
            if arguments.kind != "fail":
                run = of_a_job[arguments.kind]
                tallies.append(run(job, place, arguments.cases, arguments.seed))
            elif arguments.nth is None:
                calls = arguments.call or list(KINDS)
                tallies.append(fail(job, place, calls, arguments.errno, arguments.most))
            elif arguments.call and arguments.errno:
                tally = Tally(f"fail {job.name}")
                job.prepare(place)
                fault = Fault(arguments.call[0], arguments.errno[0], arguments.nth, arguments.stays)
                one_case(job, place, fault, tally)
                tally.close()
                tallies.append(tally)
            else:
                parser.error("--nth needs --call and --errno")
    status = conclude(tallies)
    if status:
        print(f"the folder of the first finding of each job: {base}")
    elif arguments.dir is None:
        import shutil

        shutil.rmtree(base)
    return status


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
