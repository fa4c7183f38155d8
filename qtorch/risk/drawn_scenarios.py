"""Scenarios of joint laws by draws, where there are no factors to make quasi-random ones from."""

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.distributions import Distribution

from qtorch.errors import ArgumentError


def drawn_scenarios(law: Distribution, count: int, *, seed: int = 0) -> Float64[Tensor, "S N"]:
    """Random scenarios of a joint law, apart from torch's generator.

    A law of the same shape has the same shocks for the same seed, so that dates are compared by common random numbers.

    Args:
        law: of event shape `[N]` and no batch shape, such as of an `AttentionalCopula` or a `MaskedFlow`.
        count: S.
        seed: the same gives the same scenarios.

    Returns:
        NaN for assets that the law leaves out.

    Raises:
        ValueError: the law has a batch shape, or is not joint.

    Example:
        >>> from qtorch.distributions import GaussianCopula, JointDistribution, StudentT
        >>> law = JointDistribution(StudentT(4.0, torch.zeros(2), 0.01), GaussianCopula(torch.full((2, 1), 0.7)))
        >>> bool(torch.corrcoef(drawn_scenarios(law, 1000).T)[0, 1] > 0.3)
        True
    """
    if law.batch_shape or len(law.event_shape) != 1:
        raise ArgumentError(
            f"scenarios are drawn of one joint law, not of batch {tuple(law.batch_shape)} and event "
            f"{tuple(law.event_shape)}; take one date and horizon."
        )
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.no_grad(), torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        return law.sample(torch.Size([count])).double()
