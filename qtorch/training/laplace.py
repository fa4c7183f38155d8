"""Laplace's approximation of the posterior of a trained forecaster's last layer."""

import copy
import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float64
from scipy.optimize import brentq
from torch import Tensor

from qtorch.data.datamodule import DataModule
from qtorch.distributions.checks import require
from qtorch.heads.drawn_weights import DrawnWeights
from qtorch.heads.fisher import fisher
from qtorch.heads.gaussian_weights import antithetic
from qtorch.heads.parametric import Parametric
from qtorch.training.forecaster import Forecaster
from qtorch.training.last_layer import LastLayer, affine_map, with_head
from qtorch.training.score_covariance import score_covariance

Structure = Literal["full", "kronecker", "diagonal"]
_PLACES = 1024  # whose information matrices are in memory at once


@dataclass(frozen=True, eq=False)
class Laplace:
    """A Gaussian around a trained affine map, with the precision that the log posterior's curvature gives.

    The curvature is the sum over observed targets, weighted 1/h as in training, of F (x) x x', with x the hidden state
    and a 1 for the bias, and F the expected Fisher information of the law about its raw numbers (`heads.fisher`). It is
    block diagonal over horizons, exactly, since no target tells of two; within a horizon it is kept whole, or as a
    Kronecker product of the sum of F and the mean of x x', or as its diagonal. The prior of each weight is N(0, s^2).

    The curvature counts the returns of one date as independent given the hidden states, which those of assets that move
    together are not: with a correlation of 0.4 among 20 of them the posterior of what they share is 2.9 times too
    narrow. With `by_date` the covariance is instead P^-1 (S + I / s^2) P^-1, with P the precision, curvature and 1/s^2,
    and S the sum over dates t of g_t g_t', g_t the gradient of the log likelihood of all targets of t; of a horizon of
    h > 1 sessions, whose targets overlap, with Bartlett's weights over 4 h dates. Without such dependence it is the
    same up to sampling error, which is small where there are many more dates than weights.

    Attributes:
        weights: the trained map `[H, size, W]`, each bias last, `W = D + 1`.
        curvature: eigenvalues of the information `[H, P]`, `P = size * W`.
        rotations: eigenvectors: `[H, P, P]`, or those of the Kronecker factors, or none.
        prior_scale: s.
        log_likelihood: of the trained map, in nats.
        spread: a matrix B `[H, P, P]` with B B' = S + I / s^2, or None.

    References:
        MacKay (1992), A practical Bayesian framework for backpropagation networks, Neural Computation 4; Ritter, Botev
        and Barber (2018), A scalable Laplace approximation for neural networks, ICLR; Daxberger et al. (2021), Laplace
        redux: effortless Bayesian deep learning, NeurIPS. By date: Liang and Zeger (1986), Longitudinal data analysis
        using generalized linear models, Biometrika 73; Newey and West (1987), A simple, positive semi-definite,
        heteroskedasticity and autocorrelation consistent covariance matrix, Econometrica 55; as a posterior, Mueller
        (2013), Risk of Bayesian inference in misspecified models, and the sandwich covariance matrix, Econometrica 81.
    """

    weights: Float64[Tensor, "H size W"]
    curvature: Float64[Tensor, "H P"]
    rotations: tuple[Tensor, ...]
    prior_scale: float
    log_likelihood: float
    spread: Float64[Tensor, "H P P"] | None = None

    @classmethod
    def fit(
        cls,
        forecaster: Forecaster,
        datamodule: DataModule,
        *,
        structure: Structure = "full",
        prior_scale: float | None = None,
        draws: int = 32,
        by_date: bool = False,
        seed: int = 0,
    ) -> Forecaster:
        """A trained forecaster made to know how sure its last layer is: it forecasts the mixture over draws.

        The posterior itself is given by `of`.

        Args:
            forecaster: with a parametric head; it stays as it is.
            datamodule: what it was trained on.
            structure: ``"full"``, ``"kronecker"`` for wide last layers, or ``"diagonal"``.
            prior_scale: s; None takes that of the highest marginal likelihood.
            draws: `K`, even.
            by_date: whether returns of one date may depend on each other; of structure ``"full"``.
            seed: of the draws.

        Raises:
            ValueError: the head is not parametric, or a setting is out of bounds.
        """
        require(draws > 1 and draws % 2 == 0, "draws", draws, "give an even number: they come in pairs")
        head = copy.deepcopy(forecaster.network.head)
        posterior = cls.of(head, LastLayer.of(forecaster, datamodule), structure, prior_scale, by_date)
        drawn = DrawnWeights(head, draws).to(posterior.weights.device)
        generator = torch.Generator().manual_seed(seed)
        H, P = posterior.curvature.shape
        noise = antithetic(draws, H, P, generator).to(posterior.weights)
        drawn.offsets.copy_(posterior.moved(noise))
        return with_head(forecaster, drawn)

    @classmethod
    def of(
        cls,
        head: Parametric,
        data: LastLayer,
        structure: Structure = "full",
        prior_scale: float | None = None,
        by_date: bool = False,
    ) -> "Laplace":
        """The approximation from what a head sees; arguments as of `fit`.

        Raises:
            ValueError: an unknown structure, a scale that is not positive, or `by_date` of another structure than
                ``"full"`` or of data without dates.
        """
        known = ("full", "kronecker", "diagonal")
        require(structure in known, "structure", structure, f"give one of {', '.join(known)}")
        positive = prior_scale is None or 0 < prior_scale < math.inf
        require(positive, "prior_scale", prior_scale, "give a positive number, or None to have it chosen")
        if by_date:
            require(structure == "full", "structure", structure, 'give "full" with by_date')
        weights, log_likelihood = affine_map(head), 0.0
        H, size, W = weights.shape
        whole = weights.new_zeros(H, size * W, size * W) if structure == "full" else None
        entries = weights.new_zeros(H, size, W)
        left, right = weights.new_zeros(H, size, size), weights.new_zeros(H, W, W)
        for index in torch.arange(len(data.hidden), device=data.hidden.device).split(_PLACES):
            part = data.part(index)
            x = torch.nn.functional.pad(part.hidden.double(), (0, 1), value=1.0)
            raw = torch.einsum("hsw,qw->qhs", weights, x)
            information = fisher(head, raw) * part.weight[..., None, None]
            log_likelihood += float(part.log_likelihood(head, weights).detach())
            if whole is not None:
                outer = torch.einsum("qhst,qv,qw->hsvtw", information, x, x)
                whole += outer.reshape(whole.shape)
            elif structure == "kronecker":
                left += information.sum(0)
                right += torch.einsum("qh,qv,qw->hvw", part.weight.double(), x, x)
            else:
                entries += torch.einsum("qhss,qw->hsw", information, x.square())
        if whole is not None:
            curvature, *rotations = torch.linalg.eigh(whole)
        elif structure == "kronecker":
            total = data.weight.double().sum(0)[:, None, None].clamp(min=1e-12)
            (of_left, own), (of_right, other) = torch.linalg.eigh(left), torch.linalg.eigh(right / total)
            curvature, rotations = (of_left.unsqueeze(-1) * of_right.unsqueeze(-2)).flatten(1), [own, other]
        else:
            curvature, rotations = entries.flatten(1), []
        curvature = curvature.clamp(min=0.0)  # rounding makes eigenvalues of what is not seen slightly negative
        scale = _best_scale(weights, curvature) if prior_scale is None else prior_scale
        spread = None
        if by_date:
            unit = torch.eye(size * W, dtype=weights.dtype, device=weights.device)
            values, vectors = torch.linalg.eigh(score_covariance(head, data) + unit / scale**2)
            spread = vectors * values.clamp(min=0.0).sqrt().unsqueeze(-2)
        return cls(weights, curvature, tuple(rotations), scale, log_likelihood, spread)

    def moved(self, noise: Float64[Tensor, "K H P"]) -> Float64[Tensor, "K H size W"]:
        """By what weights differ from the trained ones, for standard normal noise."""
        shape, precision = self.weights.shape[1:], self.curvature + self.prior_scale**-2
        if self.spread is not None:
            noise = torch.einsum("hqp,hqr,khr->khp", self.rotations[0], self.spread, noise) / precision.sqrt()
        moved = noise / precision.sqrt()
        if len(self.rotations) == 1:
            return torch.einsum("hpq,khq->khp", self.rotations[0], moved).unflatten(-1, shape)
        moved = moved.unflatten(-1, shape)
        if self.rotations:
            return torch.einsum("hst,hvw,khtw->khsv", *self.rotations, moved)
        return moved

    @property
    def log_marginal_likelihood(self) -> float:
        """Log p(D), in nats, of the weighted targets."""
        precision = self.prior_scale**-2
        fit = self.log_likelihood - 0.5 * precision * float(self.weights.square().sum())
        return fit - 0.5 * float(torch.log1p(self.curvature / precision).sum())


def _best_scale(weights: Float64[Tensor, "H size W"], curvature: Float64[Tensor, "H P"]) -> float:
    """The prior's scale of the highest marginal likelihood.

    Its stationary point in the precision a, a |w|^2 = sum l / (l + a), is one, since the left side rises in a and the
    right side falls. Weights of zero want no width; the least scale is 1e-6, the greatest 1e6.
    """
    square, values = float(weights.square().sum()), curvature.flatten()

    def excess(log_precision: float) -> float:
        precision = math.exp(log_precision)
        return precision * square - float((values / (values + precision)).sum())

    low, high = -2 * math.log(1e6), 2 * math.log(1e6)
    if excess(high) <= 0:
        return 1e-6
    if excess(low) >= 0:
        return 1e6
    return math.exp(-0.5 * brentq(excess, low, high, xtol=1e-10))
