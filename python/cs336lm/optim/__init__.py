"""Gradients in, steps out: optimizers, learning-rate schedules, gradient clipping."""

from cs336lm.optim.adamw import SGD, AdaGrad, AdamW, clip_gradients

__all__ = ["SGD", "AdaGrad", "AdamW", "clip_gradients"]
