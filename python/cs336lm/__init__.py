"""cs336lm: raw text in, a trained Transformer language model and generated text out.

Every public name is importable from here and loaded when first used, so that
``import cs336lm`` costs nothing and the tokenizer works without importing PyTorch.
"""

from typing import TYPE_CHECKING

from cs336lm import moved
from cs336lm.lazy import lazy_names

if TYPE_CHECKING:  # the table below, for type checkers and editors
    from cs336lm.data import BatchLoader, TokenDataset, get_batch
    from cs336lm.errors import UsageError
    from cs336lm.evaluation import DocumentEvaluation, Evaluation, evaluate, evaluate_documents
    from cs336lm.generation import Piece, SamplingParams, generate, stream
    from cs336lm.model import ModelConfig, TransformerBlock, TransformerLM
    from cs336lm.model.attention import MultiHeadSelfAttention
    from cs336lm.model.embedding import Embedding
    from cs336lm.model.feed_forward import SwiGLU
    from cs336lm.model.functional import (
        cross_entropy,
        perplexity,
        scaled_dot_product_attention,
        silu,
        softmax,
    )
    from cs336lm.model.linear import Linear
    from cs336lm.model.norm import RMSNorm
    from cs336lm.model.positions import RotaryPositionalEmbedding
    from cs336lm.optim import SGD, AdaGrad, AdamW, Muon, NorMuon, clip_gradients
    from cs336lm.optim.schedules import (
        lr_constant_schedule,
        lr_cosine_schedule,
        lr_inverse_sqrt_schedule,
        lr_linear_schedule,
        lr_wsd_schedule,
    )
    from cs336lm.text.options import Progress
    from cs336lm.text.tokenizer import EncodedFile, Tokenizer
    from cs336lm.text.training import count_pretokens, train_bpe
    from cs336lm.training.checkpoints.course import load_checkpoint, save_checkpoint
    from cs336lm.training.config import (
        Config,
        DataConfig,
        OptimConfig,
        TrainConfig,
        load_config,
        save_config,
    )
    from cs336lm.training.run_directory import RunDirectory, load_run
    from cs336lm.training.trainer import Trainer

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "AdaGrad",
    "AdamW",
    "BatchLoader",
    "Config",
    "DataConfig",
    "DocumentEvaluation",
    "Embedding",
    "EncodedFile",
    "Evaluation",
    "Linear",
    "ModelConfig",
    "MultiHeadSelfAttention",
    "Muon",
    "NorMuon",
    "OptimConfig",
    "Piece",
    "Progress",
    "RMSNorm",
    "RotaryPositionalEmbedding",
    "RunDirectory",
    "SamplingParams",
    "SwiGLU",
    "TokenDataset",
    "Tokenizer",
    "TrainConfig",
    "Trainer",
    "TransformerBlock",
    "TransformerLM",
    "UsageError",
    "__version__",
    "clip_gradients",
    "count_pretokens",
    "cross_entropy",
    "evaluate",
    "evaluate_documents",
    "generate",
    "get_batch",
    "load_checkpoint",
    "load_config",
    "load_run",
    "lr_constant_schedule",
    "lr_cosine_schedule",
    "lr_inverse_sqrt_schedule",
    "lr_linear_schedule",
    "lr_wsd_schedule",
    "perplexity",
    "save_checkpoint",
    "save_config",
    "scaled_dot_product_attention",
    "silu",
    "softmax",
    "stream",
    "train_bpe",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "data": ("BatchLoader", "TokenDataset", "get_batch"),
        "errors": ("UsageError",),
        "evaluation": ("DocumentEvaluation", "Evaluation", "evaluate", "evaluate_documents"),
        "generation": ("Piece", "SamplingParams", "generate", "stream"),
        "model": ("ModelConfig", "TransformerBlock", "TransformerLM"),
        "model.attention": ("MultiHeadSelfAttention",),
        "model.embedding": ("Embedding",),
        "model.feed_forward": ("SwiGLU",),
        "model.functional": (
            "cross_entropy",
            "perplexity",
            "scaled_dot_product_attention",
            "silu",
            "softmax",
        ),
        "model.linear": ("Linear",),
        "model.norm": ("RMSNorm",),
        "model.positions": ("RotaryPositionalEmbedding",),
        "optim": ("SGD", "AdaGrad", "AdamW", "Muon", "NorMuon", "clip_gradients"),
        "optim.schedules": (
            "lr_constant_schedule",
            "lr_cosine_schedule",
            "lr_inverse_sqrt_schedule",
            "lr_linear_schedule",
            "lr_wsd_schedule",
        ),
        "text.options": ("Progress",),
        "text.tokenizer": ("EncodedFile", "Tokenizer"),
        "text.training": ("count_pretokens", "train_bpe"),
        "training.checkpoints.course": ("load_checkpoint", "save_checkpoint"),
        "training.config": (
            "Config",
            "DataConfig",
            "OptimConfig",
            "TrainConfig",
            "load_config",
            "save_config",
        ),
        "training.run_directory": ("RunDirectory", "load_run"),
        "training.trainer": ("Trainer",),
    },
)

moved.install()
