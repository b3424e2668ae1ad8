"""Verifying what was written: runs, checkpoints, token files, tokenizers, counts files.

``verify(path)`` tells what stands there, piece by piece, and whether each is as it was written.
**kinds.py** says what a path is and who looks at it, **finding.py** what is found; **runs.py**,
**tokens.py** and **texts.py** look.
"""

from cs336lm.training.verification.finding import Finding
from cs336lm.training.verification.kinds import verify

__all__ = ["Finding", "verify"]
