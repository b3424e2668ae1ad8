"""Token ids to vectors."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Module, Parameter

from cs336lm.model.initial import Device, fill_truncated_normal
from cs336lm.model.roles import Role


class Embedding(Module):
    """One row of ``weight`` per token id; it starts as N(0, std^2), cut at 3 std."""

    role: Role = "embedding"

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        std: float = 1.0,
    ) -> None:
        super().__init__()
        self.std = std
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.weight = Parameter(
            torch.empty(num_embeddings, embedding_dim, device=device, dtype=dtype)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the table anew."""
        fill_truncated_normal(self.weight, std=self.std)

    def forward(self, token_ids: Int[Tensor, "..."]) -> Float[Tensor, "... embedding_dim"]:
        """Integer ids (...) -> vectors (..., embedding_dim); an unknown id is an IndexError."""
        # Unlike indexing, whose gradient is scattered element by element, on one core.
        rows = self.weight.index_select(0, token_ids.flatten())
        return rows.view(*token_ids.shape, self.embedding_dim)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"{self.num_embeddings}, {self.embedding_dim}"
