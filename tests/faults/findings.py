"""What the cases of a kind of fault came to: how many there were, which promise did not hold."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from dataclasses import dataclass, field

from .process import Place


@dataclass
class Tally:
    """Counts of one kind of fault in one job."""

    title: str
    cases: int = 0
    fired: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def case(self, what: str, wrong: str | None, place: Place, *, fired: bool = True) -> None:
        """Notes a case; keeps the folder of the first that is wrong."""
        self.cases += 1
        self.fired += fired
        if wrong is None:
            return
        if not self.findings:
            kept = place.base / f"finding-{self.title.replace(' ', '-')}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(place.work, kept, symlinks=True)
        self.findings.append(f"{what}: {wrong}")
        print(f"FINDING {self.title}: {what}: {wrong}", flush=True)

    def close(self) -> None:
        """Prints the sum."""
        ends = ", ".join(f"{count} {end}" for end, count in sorted(self.ends.items()))
        print(
            f"{self.title}: {self.cases} cases, {self.fired} faults injected"
            f"{f' ({ends})' if ends else ''}, {len(self.findings)} findings",
            flush=True,
        )


def conclude(tallies: list[Tally]) -> int:
    """The exit status of all: 1 if there is a finding."""
    cases = sum(tally.cases for tally in tallies)
    fired = sum(tally.fired for tally in tallies)
    findings = sum(len(tally.findings) for tally in tallies)
    print(f"in all: {cases} cases, {fired} faults injected, {findings} findings")
    sys.stdout.flush()
    return int(findings > 0)
