"""Runs -> one page that says what was tried, what came of it, and how to do it again."""
