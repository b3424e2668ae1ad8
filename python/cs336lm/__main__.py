"""``python -m cs336lm`` is ``cs336lm`` (and what ``torchrun -m cs336lm`` starts)."""

import sys

from cs336lm.cli.main import main

sys.exit(main())
