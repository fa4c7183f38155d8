"""Heads whose mean is a Gaussian process of the hidden state."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtorch.distributions.checks import require
from qtorch.heads.noise import NormalNoise, StudentTNoise
from qtorch.heads.variational_location import VariationalLocation

if TYPE_CHECKING:
    from qtorch.heads.sparse_process import SparseProcess


class GaussianProcessNormal(VariationalLocation):
    """A `VariationalLocation` whose mean is a sparse variational Gaussian process, with normal noise.

    Each horizon has a process of its own, f = m + s g, with a kernel of unit variance over the hidden state. Its
    variance rises from what the data leave near the inducing points to the prior's, s^2, a few length scales away: it
    is aware of distances between hidden states. Whether windows unlike those of training are far in them is for the
    encoder to see to.

    Inducing points are learned from standard normal draws, which is how large the hidden states of an encoder with a
    last norm are; the length scale from sqrt(D), about their distance. So they need no look at the data, and a fresh
    head is the same whatever it is shown first. GPyTorch's divergence, `penalty`, is summed over the horizons.

    It needs ``qtorch-finance[gp]``. Under `torch.compile` GPyTorch is a break in the graph, so that the head is not
    compiled with ``fullgraph=True``.

    Args:
        in_features: hidden width `D`.
        horizons: the horizons in sessions, `H` of them.
        inducing: points of each horizon.
        smoothness: of Matern's kernel, 0.5, 1.5 or 2.5: its functions have 0, 1 or 2 derivatives. None for the squared
            exponential, its limit.
        ard: a length scale for each hidden unit, not one for all.
        linear: m is affine in the hidden state, not constant. It is learned without a posterior, and bounded by no
            prior.
        prior_scale: s over sqrt(h), in units of the window's scale; None has it learned, from 0.1.
        length_scale: at the start, in units of the hidden state; None for sqrt(D).
        draws: as of `VariationalLocation`.

    Raises:
        ImportError: GPyTorch is missing.
        ValueError: a setting is out of bounds.

    References:
        Hensman, Matthews and Ghahramani (2015), Scalable variational Gaussian process classification, AISTATS,
        equation 15; Wilson, Hu, Salakhutdinov and Xing (2016), Stochastic variational deep kernel learning, NeurIPS;
        Gardner, Pleiss, Bindel, Weinberger and Wilson (2018), GPyTorch, NeurIPS.

    Example:
        >>> import torch
        >>> head = GaussianProcessNormal(8, (1, 10), inducing=16).eval()
        >>> head(torch.zeros(3, 8)).batch_shape, abs(head.penalty().item()) < 1e-6
        (torch.Size([3, 2]), True)
    """

    def __init__(
        self,
        in_features: int,
        horizons: Sequence[int],
        *,
        inducing: int = 64,
        smoothness: float | None = 2.5,
        ard: bool = False,
        linear: bool = False,
        prior_scale: float | None = None,
        length_scale: float | None = None,
        draws: int = 32,
    ) -> None:
        process = _process(in_features, horizons, inducing, smoothness, ard, linear, prior_scale, length_scale)
        super().__init__(in_features, horizons, process, NormalNoise(), draws)
        self.inducing, self.smoothness, self.ard, self.linear = inducing, smoothness, ard, linear
        self.prior_scale, self.length_scale = prior_scale, length_scale


class GaussianProcessStudentT(VariationalLocation):
    """A `VariationalLocation` whose mean is a sparse variational Gaussian process, with Student-t noise.

    Args:
        in_features: hidden width `D`.
        horizons: the horizons in sessions, `H` of them.
        inducing: as of `GaussianProcessNormal`, as are those that follow.
        smoothness: of Matern's kernel, or None.
        ard: a length scale for each hidden unit.
        linear: m is affine in the hidden state.
        prior_scale: s over sqrt(h), or None.
        length_scale: at the start, or None.
        draws: as of `VariationalLocation`.

    Raises:
        ImportError: GPyTorch is missing.
        ValueError: a setting is out of bounds.
    """

    def __init__(
        self,
        in_features: int,
        horizons: Sequence[int],
        *,
        inducing: int = 64,
        smoothness: float | None = 2.5,
        ard: bool = False,
        linear: bool = False,
        prior_scale: float | None = None,
        length_scale: float | None = None,
        draws: int = 32,
    ) -> None:
        process = _process(in_features, horizons, inducing, smoothness, ard, linear, prior_scale, length_scale)
        super().__init__(in_features, horizons, process, StudentTNoise(), draws)
        self.inducing, self.smoothness, self.ard, self.linear = inducing, smoothness, ard, linear
        self.prior_scale, self.length_scale = prior_scale, length_scale


def _process(
    in_features: int,
    horizons: Sequence[int],
    inducing: int,
    smoothness: float | None,
    ard: bool,
    linear: bool,
    prior_scale: float | None,
    length_scale: float | None,
) -> "SparseProcess":
    try:
        from qtorch.heads.sparse_process import SparseProcess
    except ImportError as error:
        raise ImportError("Heads of Gaussian processes need GPyTorch: pip install 'qtorch-finance[gp]'.") from error
    length_scale = in_features**0.5 if length_scale is None else length_scale
    require(inducing > 0, "inducing", inducing, "give at least 1")
    require(smoothness in (0.5, 1.5, 2.5, None), "smoothness", smoothness, "give 0.5, 1.5 or 2.5, or None")
    require(0 < length_scale < math.inf, "length_scale", length_scale, "give a positive number, or None for sqrt(D)")
    positive = prior_scale is None or 0 < prior_scale < math.inf
    require(positive, "prior_scale", prior_scale, "give a positive number, or None to have it learned")
    return SparseProcess(in_features, horizons, inducing, smoothness, ard, linear, prior_scale, length_scale)
