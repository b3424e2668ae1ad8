"""Faults put into jobs on purpose, and what must come of it: ``python -m tests.faults --help``.

Every job here is a ``cs336lm`` command so small that it takes a second. A fault is put into one
process of it, which ends or goes on; then the same command is given again, undisturbed. Judged is
what can be seen: no file under its own name is incomplete, what went wrong is one line, and in the
end every file is, byte for byte, that of a run in which nothing happened.
"""
