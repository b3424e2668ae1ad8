"""Checkpoints: all that training needs to go on, whole on the disk or not there."""
