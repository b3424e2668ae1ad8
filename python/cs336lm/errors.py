"""The one error of our own, a call that could never have worked; and the one warning."""


class UsageError(ValueError):
    """The caller asked wrongly: an unknown key, an impossible value, flags that contradict.

    The command line answers it with exit status 2; every other failure (a missing or corrupt
    file, a full disk: ``OSError`` or ``ValueError`` with one clear line) with 1.
    """


class Note(UserWarning):
    """Something was done otherwise than asked, for a reason that it gives in one line."""
