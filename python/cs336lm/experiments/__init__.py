"""Runs in, comparisons out."""
