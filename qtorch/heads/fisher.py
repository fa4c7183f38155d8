"""The Fisher information of a parametric head's law about its raw numbers."""

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from qtorch.distributions.cumulative import icdf, ndtr
from qtorch.heads.parametric import Parametric

_POINTS, _WEIGHTS = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(20))


def fisher(head: Parametric, raw: Float64[Tensor, "*batch H size"]) -> Float64[Tensor, "*batch H size size"]:
    """E[s s'] of the score s, the gradient of log f(Y) in the raw numbers, for Y of the law itself.

    The mean is a Gauss-Hermite sum of 20 terms over Y = F^-1(Phi(z)). It is positive semidefinite for any law, exact
    where the law is normal, and otherwise as good as log f(F^-1(Phi(z))) is smooth in z. It is also the generalised
    Gauss-Newton matrix of a head whose raw numbers are natural parameters.

    Args:
        head: whose law it is; with `icdf`, and a log density that has a gradient.
        raw: raw numbers, where the scores are taken.
    """
    points, weights = (values.to(raw.device).reshape(-1, *[1] * raw.ndim) for values in (_POINTS, _WEIGHTS))
    with torch.enable_grad():
        each = raw.detach().expand(len(points), *raw.shape).clone().requires_grad_()
        law = head.distribution(*head.constrain(each))
        with torch.no_grad():
            outcome = icdf(law, ndtr(points.squeeze(-1)).expand(each.shape[:-1]))
        (score,) = torch.autograd.grad(law.log_prob(outcome).sum(), each)
    return torch.einsum("j...s,j...t->...st", score * (weights / weights.sum()), score)
