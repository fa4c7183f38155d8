"""The risk of positions each by itself."""

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.distributions import Distribution

from qtorch.risk.measures.tail import expected_shortfall, value_at_risk


def stand_alone_risk(
    marginals: Distribution, exposures: Float64[Tensor, " N"], level: float
) -> tuple[Float64[Tensor, " N"], Float64[Tensor, " N"]]:
    """Value at risk and expected shortfall of each position by itself; a short position's loss is the right tail.

    Args:
        marginals: of simple returns, batch shape `[N]`.
        exposures: weights, or market values.
        level: confidence, such as 0.99.

    Returns:
        Positive losses in the unit of the exposures.

    Raises:
        ValueError: the level is not inside (0, 1).

    Example:
        >>> from qtorch.distributions import StudentT
        >>> law = StudentT(torch.tensor(4.0), torch.zeros(2), torch.tensor([0.01, 0.02]))
        >>> stand_alone_risk(law, torch.tensor([100.0, -100.0], dtype=torch.float64), 0.99)[0]
        tensor([3.7469, 7.4939], dtype=torch.float64)
    """
    upper = -value_at_risk(marginals, 1 - level).double()  # the quantile at `level`
    below = -expected_shortfall(marginals, 1 - level).double()  # the mean up to it
    upper_mean = (marginals.mean.double() - level * below) / (1 - level)
    var = torch.where(exposures >= 0, value_at_risk(marginals, level).double(), upper) * exposures.abs()
    es = torch.where(exposures >= 0, expected_shortfall(marginals, level).double(), upper_mean) * exposures.abs()
    return var, es
