"""Where the figures of a run go: one tracker a file, and the table of those that have a name."""
