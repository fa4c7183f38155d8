"""Moments over the usable sessions."""

import torch
from torch import Tensor


def usable(returns: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Returns in at least float32 with 0 where masked, the mask, and the count of usable ones `[...]`."""
    there = torch.ones_like(returns, dtype=torch.bool) if mask is None else mask.expand(returns.shape)
    x = torch.where(there, returns, 0.0).to(torch.promote_types(returns.dtype, torch.float32))
    return x, there, there.sum(-1)


def mean_and_variance(returns: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance; zero where there is nothing to take them of."""
    x, there, count = usable(returns, mask)
    mean = x.sum(-1) / count.clamp(min=1)
    square = torch.where(there, x - mean.unsqueeze(-1), 0.0) ** 2
    return mean, square.sum(-1) / (count - 1).clamp(min=1)


def deviation(variance: Tensor) -> Tensor:
    """The square root, whose gradient stays finite at zero."""
    return torch.sqrt(variance + 1e-20)
