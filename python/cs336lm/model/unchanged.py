"""What stands where a model has nothing: it gives back what it is given."""

from typing import Any

from torch import Tensor
from torch.nn import Module


class Unchanged(Module):
    """``torch.nn.Identity`` of the first argument, for what would look at others as well."""

    def forward(self, x: Tensor, *others: Any) -> Tensor:
        """``x``."""
        return x
