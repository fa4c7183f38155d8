"""Moment generating functions, which give simple returns the moments of log returns."""

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal


def log_moment_generating(distribution: Distribution, t: float | Tensor) -> Tensor:
    """Log of E[exp(t X)]; infinite where the expectation is.

    Args:
        distribution: normal, normal inverse Gaussian, or a mixture or affine map of such, of batch shape `[...]`.
        t: broadcast against the batch shape.

    Raises:
        NotImplementedError: the law's is not known. That of Student's t and of Pareto tails is infinite for t > 0.
    """
    own = getattr(distribution, "log_moment_generating", None)
    if own is not None:
        return own(torch.as_tensor(t, dtype=torch.float64))
    if isinstance(distribution, Normal):
        return t * distribution.loc + 0.5 * (t * distribution.scale) ** 2
    raise NotImplementedError(
        f"E[exp(t X)] is not known for {type(distribution).__name__}; it is for normal and normal inverse Gaussian "
        "laws and their mixtures and affine maps."
    )
