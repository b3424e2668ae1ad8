"""A trained model and held-out tokens in, figures out."""

from cs336lm.evaluation.loss import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
