"""Token files and a configuration in, a run directory out."""
