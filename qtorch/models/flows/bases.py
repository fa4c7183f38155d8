"""Base laws of flows, as modules."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from qtorch.distributions.student_t import StudentT
from qtorch.distributions.tail_index import hill


class NormalBase(nn.Module):
    """Independent standard normals.

    Args:
        features: coordinates D.
    """

    zero: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("zero", torch.zeros(features), persistent=False)

    def forward(self, batch_shape: torch.Size = torch.Size()) -> Distribution:
        """The law with a batch shape."""
        zero = self.zero.expand(*batch_shape, -1)
        return Independent(Normal(zero, torch.ones_like(zero), validate_args=False), 1, validate_args=False)


class StudentTBase(nn.Module):
    """Independent Student's t, with learned degrees of freedom.

    Args:
        features: coordinates D.
        shared: one df for all, as in a TAF; each its own, as in a gTAF, by default.
        learned: False keeps what `initialise` estimates, as in an mTAF.

    As base of ``AffineFlow(D, tails=False, autoregressive=True, base=...)`` it makes a TAF (`shared`), a gTAF (neither)
    or an mTAF (not `learned`, after `initialise`). An mTAF's authors also keep light coordinates from depending on
    heavy ones: give the data with its coordinates in order of their tail indices, and ``transforms=1``, whose layer
    reads them in the order in which they come.

    References:
        Jaini, Kobyzev, Yu and Brubaker (2020), Tails of Lipschitz triangular flows, ICML.
        Laszkiewicz, Lederer and Fischer (2022), Marginal tail-adaptive normalizing flows, ICML.
    """

    def __init__(self, features: int, shared: bool = False, learned: bool = True) -> None:
        super().__init__()
        self.features, self.shared, self.learned = features, shared, learned
        self.log_df = nn.Parameter(torch.full((1 if shared else features,), math.log(10.0)), requires_grad=learned)

    def forward(self, batch_shape: torch.Size = torch.Size()) -> Distribution:
        """The law with a batch shape."""
        df = torch.exp(self.log_df).expand(*batch_shape, self.features)
        return Independent(StudentT(df, validate_args=False), 1, validate_args=False)

    @torch.no_grad()
    def initialise(self, data: Float[Tensor, "T D"]) -> None:
        """Degrees of freedom from Hill's estimates of both tails, the heavier one of each coordinate.

        Raises:
            ValueError: fewer than 20 rows, or not finite ones.
        """
        centred = data.double() - data.double().median(0).values
        xi = torch.maximum(hill(centred)[0], hill(-centred)[0]).clamp(0.02, 0.9)
        self.log_df.copy_(-torch.log(xi if len(self.log_df) > 1 else xi.max(0, keepdim=True).values))
