"""The normal score of a value under a univariate law."""

import math

import torch
from torch.distributions import Distribution

from qtorch.distributions.log_tails import log_tails
from qtorch.distributions.transforms.bijection import Bijection, Values, promoted

MAX_SCORE = 8.2
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class NormalScores(Bijection):
    """y = Phi^-1(F(x)) for the distribution function F of a univariate law, which becomes standard normal.

    With `SplicedTails` over a body this is COMET's layer, with `StudentT` the marginal tails of an mTAF. Masses of
    tails may be as small as 1e-300; backwards scores end at +-8.2, where the mass beyond is float64's last digit.

    Args:
        law: of a batch shape that broadcasts against the values, with `log_prob`, `log_cdf`, `log_sf` and `icdf`.

    References:
        McDonald, Tan and Mann (2022), COMET flows, IJCAI.
        Laszkiewicz, Lederer and Fischer (2022), Marginal tail-adaptive normalizing flows, ICML.
    """

    def __init__(self, law: Distribution) -> None:
        super().__init__()
        self.law = law

    def call_and_ladj(self, x: Values) -> tuple[Values, Values]:
        """The score y(x) and log dy/dx."""
        x = promoted(x)
        below, above = log_tails(self.law, x.double())
        left = below < above
        size = -torch.special.ndtri(torch.exp(torch.minimum(below, above)).clamp(min=1e-300, max=0.5))
        y = torch.where(left, -size, size)
        ladj = self.law.log_prob(x.double()) + 0.5 * (y * y) + _HALF_LOG_2PI
        return y.to(x.dtype), ladj.to(x.dtype)

    def inv_and_ladj(self, y: Values) -> tuple[Values, Values]:
        """The x with y(x) = y and log dx/dy."""
        y = promoted(y)
        z = y.double().clamp(-MAX_SCORE, MAX_SCORE)
        x = self.law.icdf(torch.special.ndtr(z))
        ladj = -self.law.log_prob(x) - 0.5 * (z * z) - _HALF_LOG_2PI
        return x.to(y.dtype), ladj.to(y.dtype)
