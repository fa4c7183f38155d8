"""How long the blocks of a stationary bootstrap are best."""

from math import ceil, log10, sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch.distributions.checks import require


def block_length(x: Float[Tensor, " T"]) -> float:
    r"""The mean length of blocks that makes the bootstrapped variance of a series' mean most exact.

    $(2 G^2 / D)^{1/3} T^{1/3}$ with $G = \sum |k| R(k)$ and $D = 2 (\sum R(k))^2$ over autocovariances R with a
    flat-top window, whose width is twice the first lag from which five autocorrelations in a row are inside
    $\pm 2 \sqrt{\log_{10} T / T}$.

    Args:
        x: of at least 8 sessions.

    Returns:
        At least 1, and at most three root T or a third of T.

    Raises:
        ValueError: the series is too short.

    References:
        Politis and White (2004), Automatic block-length selection for the dependent bootstrap, Econometric Reviews 23;
        Patton, Politis and White (2009), correction to it, Econometric Reviews 28.
    """
    n = len(x)
    require(n >= 8, "x", f"of {n} sessions", "at least 8 are needed")
    centred = (x.double() - x.double().mean()).detach()
    few = max(5, ceil(sqrt(log10(n))))
    longest = min(ceil(sqrt(n)) + few, n - 1)
    covariance = torch.stack([(centred[k:] * centred[: n - k]).sum() / n for k in range(longest + 1)])
    if covariance[0] <= 0:
        return 1.0
    small = (covariance / covariance[0]).abs() < 2 * sqrt(log10(n) / n)
    quiet = small[1:].unfold(0, few, 1).all(-1).nonzero()
    width = min(2 * (int(quiet[0]) + 1), longest) if len(quiet) else longest
    k = torch.arange(1, width + 1, dtype=torch.float64, device=x.device)
    window = (2 * (1 - k / width)).clamp(max=1.0)
    g = 2 * (window * k * covariance[1 : width + 1]).sum()
    long_run = covariance[0] + 2 * (window * covariance[1 : width + 1]).sum()
    best = (g**2 / long_run**2 * n) ** (1 / 3)
    return min(max(float(best), 1.0), float(ceil(min(3 * sqrt(n), n / 3))))
