"""Runs and models in the formats that others speak."""
