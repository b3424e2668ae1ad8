"""Where work runs: on this machine, by Slurm, or on a Ray cluster; one class each."""
