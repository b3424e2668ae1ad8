"""What keeps logits from growing without end: a soft bound."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import Identity, Module

from cs336lm.model.functional import softcap


class Uncapped(Identity):
    """Logits stay as they are."""

    cap = 0.0


class Softcap(Module):
    """c tanh(z / c) (Gemma Team 2024, "Gemma 2", section 2)."""

    def __init__(self, cap: float) -> None:
        super().__init__()
        self.cap = cap

    def forward(self, logits: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Same shape and dtype as ``logits``; in between in float32 or better."""
        return softcap(logits, self.cap)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"{self.cap}"
