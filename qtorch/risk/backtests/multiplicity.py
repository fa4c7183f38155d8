"""Control of false discoveries over the p-values of thousands of series."""

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch.distributions.checks import require


def benjamini_hochberg(p_values: Float[Tensor, "*series"], dependent: bool = False) -> Float[Tensor, "*series"]:
    """Adjusted p-values: those below q are rejections whose expected false share is at most q.

    With the p-values sorted, p~(i) = min over j >= i of m p(j) / j, at most 1. This holds for independent and for
    positively dependent tests, such as those of assets that fall together; `dependent` multiplies by
    1 + 1/2 + ... + 1/m, which holds whatever the dependence.

    Args:
        p_values: of any shape; NaN are left out and stay NaN.
        dependent: whether to use Benjamini and Yekutieli's bound.

    Returns:
        Adjusted p-values of the same shape.

    Raises:
        ValueError: a p-value lies outside [0, 1].

    References:
        Benjamini and Hochberg (1995), Controlling the false discovery rate, JRSS B 57; Benjamini and Yekutieli (2001),
        The control of the false discovery rate in multiple testing under dependency, Annals of Statistics 29,
        theorem 1.3.

    Example:
        >>> import torch
        >>> benjamini_hochberg(torch.tensor([0.01, 0.04, 0.03, 0.5, torch.nan]))
        tensor([0.0400, 0.0533, 0.0533, 0.5000,    nan])
    """
    p = p_values.reshape(-1)
    tested = ~p.isnan()
    inside = p[tested]
    require(
        bool(((inside >= 0) & (inside <= 1)).all()),
        "p_values",
        f"{inside.min() if len(inside) else None} to {inside.max() if len(inside) else None}",
        "p-values lie in [0, 1]; NaN where there is none",
    )
    adjusted = torch.full_like(p, torch.nan)
    ordered, order = inside.sort()
    m = len(ordered)
    rank = torch.arange(1, m + 1, dtype=p.dtype, device=p.device)
    bound = ordered * m / rank * ((1 / rank).sum() if dependent else 1)
    if m:
        bound = bound.flip(0).cummin(0).values.flip(0).clamp(max=1)
    adjusted[tested] = torch.empty_like(bound).scatter(0, order, bound)
    return adjusted.view(p_values.shape)
