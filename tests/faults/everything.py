"""All kinds of faults in all jobs, as ``make fault-test`` runs them."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_TEXT = (
    "--job tokenize --job tokenize-over --job tokenize-shards --job tokenize-shards-over "
    "--job train-bpe --job train-bpe-over --job count-pretokens --job stories --job stories-over"
)
_TRAIN = "--job train --job train-samples"
_EXPORT = "--job export-hf --job export-safetensors --job export-gguf"
_LAUNCHED = "--job tokenize-jobs"  # starts processes of its own, a second each

LINES = [
    f"fail {_TRAIN} --most 10",
    f"fail {_TEXT} --most 30",
    f"fail {_EXPORT} --most 8",
    f"fail {_LAUNCHED} --call write --call rename --call open --call mkdir --most 2",
    f"kill {_TEXT} --cases 60",
    f"kill {_TRAIN} --cases 60",
    f"kill {_EXPORT} --cases 15",
    f"kill {_LAUNCHED} --cases 15",
    "kill --job sweep --cases 5",
    f"power {_TEXT} --cases 40",
    f"power {_TRAIN} --cases 40",
    f"power {_EXPORT} --cases 10",
    f"power {_LAUNCHED} --cases 8",
    f"two {_TEXT} {_LAUNCHED} {_EXPORT} --job train --cases 10",
    "two --job sweep --cases 2",
    f"weather {_TEXT} --job train --job export-safetensors --cases 6",
    "ranks --cases 3",
    "link --cases 2",
    "same --compiled",
    "long --minutes 1",
]
"""The slow ones first in each kind, so that two at once end together."""

_SUM = re.compile(r"in all: (\d+) cases, (\d+) faults injected, (\d+) findings")


def everything(base: Path, at_once: int = 2) -> int:
    """Runs all lines, ``at_once`` at a time; returns 1 if there was a finding.

    That takes less than half an hour on two cores.
    """

    def run(number: int) -> tuple[int, list[int]]:
        line = LINES[number]
        command = [sys.executable, "-m", "tests.faults", *line.split()]
        command += ["--dir", str(base / f"{number:02}")]
        ran = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        print(f"$ python -m tests.faults {line}\n{ran.stdout}", flush=True)
        found = _SUM.search(ran.stdout)
        return ran.returncode, list(map(int, found.groups())) if found else [0, 0, 0]

    with ThreadPoolExecutor(at_once) as pool:
        ended = list(pool.map(run, range(len(LINES))))
    cases, fired, findings = (sum(counts[i] for _, counts in ended) for i in range(3))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"everything: {cases:,} cases, {fired:,} faults injected, {findings} findings, "
        f"{used.ru_utime + used.ru_stime:,.0f} s of processors"
    )
    if findings:
        print(f"the folders of the first ones: {base}")
    else:
        shutil.rmtree(base)
    return int(any(status for status, _ in ended))
