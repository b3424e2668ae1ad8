"""SGD on a toy, at learning rates of 1, 10, 100 and 1000 (CS336, assignment 1, section 4.2).

The loss is the mean of the squares of a 10 x 10 matrix, so step t multiplies the weights by
1 - 2 lr / (100 sqrt(t + 1)): the rate decides alone whether they fall, fall faster, or blow up.

    python examples/learning_rate_toy.py
"""

import torch
from cs336lm import SGD


def losses(lr: float, steps: int = 10) -> list[float]:
    """The loss before each of ``steps`` steps, from the same weights."""
    torch.manual_seed(0)
    weights = torch.nn.Parameter(5 * torch.randn(10, 10))
    optimizer = SGD([weights], lr=lr)
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (weights**2).mean()
        found.append(loss.item())
        loss.backward()
        optimizer.step()
    return found


if __name__ == "__main__":
    for lr in (1.0, 1e1, 1e2, 1e3):
        print(f"lr {lr:6g}:", " ".join(f"{loss:.3g}" for loss in losses(lr)))
