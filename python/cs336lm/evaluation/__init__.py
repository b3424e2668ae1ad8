"""A trained model and held-out tokens in, figures out."""

from cs336lm.evaluation.by_document import DocumentEvaluation, DocumentLoss, evaluate_documents
from cs336lm.evaluation.by_position import PositionBin, PositionLosses
from cs336lm.evaluation.floor import Floor
from cs336lm.evaluation.loss import Evaluation, evaluate

__all__ = [
    "DocumentEvaluation",
    "DocumentLoss",
    "Evaluation",
    "Floor",
    "PositionBin",
    "PositionLosses",
    "evaluate",
    "evaluate_documents",
]
