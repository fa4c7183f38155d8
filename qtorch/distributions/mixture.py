"""Finite mixtures with distribution function, quantile and tail means."""

from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from qtorch.distributions.cumulative import cdf, has_atoms, icdf
from qtorch.distributions.indexing import keep_last, take
from qtorch.distributions.inversion import invert, least
from qtorch.distributions.log_tails import log_cdf, log_sf, log_tails
from qtorch.distributions.moment_generating import log_moment_generating
from qtorch.distributions.quadrature import entropy
from qtorch.distributions.reparameterized import reparameterized
from qtorch.distributions.stacked import Stacked
from qtorch.distributions.tails import partial_mean, register_tail_mean
from qtorch.errors import ArgumentError

Double = Float64[Tensor, "..."]


class Mixture(Distribution):
    """The law of X_k with k drawn with the probabilities `weights`.

    What an ensemble, a posterior or a jump model predicts: its value at risk and expected shortfall are those of the
    mixture, not means over components. Distribution function, density and tail means are sums; quantiles are found by
    Newton's method between the components' own. All differentiate in weights and components. Where a component has
    atoms, as an `Empirical` has, quantiles are the smallest value whose mass reaches p, found by bisection, and do not
    differentiate; the tail mean, (1/p) int_0^p icdf(u) du, does, and takes of an atom at the quantile only the mass
    that p has left for it. An `Empirical` takes the last of its values whole; mixed with itself it has another tail
    mean where p S is no whole number, by what less than one value makes.

    Args:
        weights: probabilities `[..., K]`; scaled to sum to 1.
        components: of batch shape `[..., K]`, with `cdf`, `icdf`, `mean` and `variance`.
        validate_args: False skips the check of the weights.

    Raises:
        ValueError: a weight is negative or not finite, all of them are zero, or the components lack a last dimension K.

    Example:
        >>> from qtorch.distributions import StudentT
        >>> parts = StudentT(torch.tensor([8.0, 3.0]), 0.0, torch.tensor([0.01, 0.03]))
        >>> calm_or_not = Mixture(torch.tensor([0.9, 0.1]), parts)
        >>> round(calm_or_not.icdf(torch.tensor(0.01)).item(), 4)
        -0.0505
    """

    arg_constraints = {}
    support = constraints.real

    def __init__(self, weights: Tensor, components: Distribution, *, validate_args: bool | None = None) -> None:
        if not components.batch_shape or components.event_shape:
            raise ArgumentError(
                f"Mixture needs univariate components of batch shape [..., K], not {tuple(components.batch_shape)} "
                f"with events of shape {tuple(components.event_shape)}."
            )
        shape = torch.broadcast_shapes(weights.shape, components.batch_shape)
        if validate_args is not False and not torch.compiler.is_compiling():
            good = torch.isfinite(weights) & (weights >= 0)
            if not (good.all(-1) & (weights.sum(-1) > 0)).all():
                raise ArgumentError("Mixture needs finite weights of 0 or more, not all of them 0.")
        self.weights = (weights / weights.sum(-1, keepdim=True)).expand(shape)
        self.components = components if components.batch_shape == shape else components.expand(shape)
        super().__init__(shape[:-1], validate_args=False)

    def expand(self, batch_shape: _size, _instance: object = None) -> "Mixture":
        """The distribution expanded to a batch shape."""
        shape = torch.Size(batch_shape) + self.weights.shape[-1:]
        return type(self)(self.weights.expand(shape), self.components.expand(shape), validate_args=False)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """As the components."""
        return self.components.has_rsample

    @property
    def has_atoms(self) -> bool:
        """As the components."""
        return has_atoms(self.components)

    @property
    def mean(self) -> Tensor:
        """Mean."""
        return average(self.weights, self.components.mean)

    @property
    def variance(self) -> Tensor:
        """Variance: the mean of the components' (aleatoric) plus the variance of their means (epistemic)."""
        spread = (self.components.mean - self.mean.unsqueeze(-1)) ** 2
        return average(self.weights, self.components.variance + spread)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density at `value`, which broadcasts against the batch shape."""
        return self._weighted(self.components.log_prob(value.unsqueeze(-1)))

    def cdf(self, value: Tensor) -> Tensor:
        """Distribution function."""
        return (self.weights * cdf(self.components, value.unsqueeze(-1))).sum(-1)

    def log_cdf(self, value: Tensor) -> Tensor:
        """Log of the distribution function, a number however far in the left tail."""
        return self._weighted(log_cdf(self.components, value.unsqueeze(-1)))

    def log_sf(self, value: Tensor) -> Tensor:
        """Log of P(X > value), a number however far in the right tail."""
        return self._weighted(log_sf(self.components, value.unsqueeze(-1)))

    def log_tails(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """`log_cdf` and `log_sf`, which share most of their work."""
        below, above = log_tails(self.components, value.unsqueeze(-1))
        return self._weighted(below), self._weighted(above)

    def icdf(self, value: Tensor) -> Tensor:
        """Quantile at left-tail mass `value` in [0, 1], found in float64; NaN outside.

        With atoms it is the smallest value whose mass reaches p, up to rounding of p and of the weights.
        """
        p = value.to(self.weights.device, torch.float64)
        with torch.no_grad():
            each = icdf(self.components, p.unsqueeze(-1)).double()
            low, high = each.amin(-1), each.amax(-1)
            inside = (p > 0) & (p < 1)
        bracket = torch.where(inside, low, 0.0), torch.where(inside, high, 0.0)
        if self.has_atoms:
            x = torch.where(inside, self._least(torch.where(inside, p, 0.5), value.dtype, *bracket), torch.nan)
        else:
            x = invert(self.log_tails, self.log_prob, p, *bracket)
        x = torch.where(p == 0, low, torch.where(p == 1, high, x))
        return x.to(torch.promote_types(self.weights.dtype, value.dtype))

    def _least(self, p: Double, given: torch.dtype, low: Double, high: Double) -> Double:
        """The smallest x whose mass reaches p, from the lighter tail, in whose mass even far quantiles have digits.

        Args:
            p: masses inside (0, 1).
            given: the dtype they were rounded in.
            low: the least quantile of a component.
            high: the largest one.
        """
        digits = torch.finfo(given).eps
        rounding = max(1e-12, 2 * digits, 2 * torch.finfo(self.weights.dtype).eps)
        q = 1 - p
        left, right = p * (1 - rounding), q * (1 + rounding) + torch.minimum(digits + 0 * q, 0.5 * q)
        # An `Empirical` takes a p a little above one of its masses for that mass, and this law takes the next value.
        with torch.no_grad():
            beyond = icdf(self.components, (p + torch.minimum(4e-7 * p, 0.5 * q)).unsqueeze(-1)).double().amax(-1)

        def enough(x: Double) -> Tensor:
            below, above = self.log_tails(x)
            return torch.where(p < 0.5, below.exp() >= left, above.exp() <= right)

        return least(enough, low, torch.maximum(high, beyond))

    def entropy(self) -> Tensor:
        """Differential entropy, by quadrature of -log f(icdf(u)), to 1e-8."""
        return entropy(self.log_prob, self.icdf, self.mean).to(self.weights.dtype)

    def log_moment_generating(self, t: Tensor) -> Tensor:
        """Log of E[exp(t X)], of components that have one."""
        return self._weighted(log_moment_generating(self.components, t.unsqueeze(-1)))

    def partial_mean(self, value: Tensor) -> Tensor:
        """E[X 1{X <= value}]."""
        return average(self.weights, partial_mean(self.components, value.unsqueeze(-1)))

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draws from torch's generator; every component is drawn, so that memory is K times that of the draws."""
        shape = torch.Size(sample_shape)
        chosen = torch.distributions.Categorical(self.weights).sample(shape).unsqueeze(-1)
        return self.components.sample(shape).gather(-1, chosen).squeeze(-1)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draws with gradients in weights and components, by the implicit function theorem."""
        return reparameterized(self, self.sample(sample_shape))

    def _weighted(self, log_values: Tensor) -> Tensor:
        """Log of sum w exp(log_values)."""
        weights = self.weights.clamp(min=torch.finfo(self.weights.dtype).tiny)  # a weight of 0 has no log, nor gradient
        weights = weights.to(log_values.dtype)  # a log in float32 is off by what Newton's method would then chase
        nothing = (log_values == -torch.inf).all(-1, keepdim=True)  # nor has a sum of nothing
        total = torch.logsumexp(torch.log(weights) + torch.where(nothing, 0.0, log_values), dim=-1)
        return torch.where(nothing.squeeze(-1), -torch.inf, total)


def average(weights: Tensor, values: Tensor) -> Tensor:
    """The weighted sum over the last dimension, to which what weighs 0 adds nothing, be it infinite."""
    return (weights * torch.where(weights > 0, values, 0.0)).sum(-1)


@register_tail_mean(Mixture)
def _tail_mean(distribution: Mixture, p: Tensor) -> Tensor:
    """(1/p) int_0^p icdf(u) du, at whose bound, the quantile, an atom may lie that p takes in part.

    The integral is linear in p across an atom, so that it lies between those to either side of it. They are written as
    E[X 1{X <= x}] - q (F(x) - p), q fixed, of which the derivatives in weights and components are those of the integral
    (it is the largest over q, by Rockafellar and Uryasev 2002) and an error in q or in the part is one of its square.
    """
    q = distribution.icdf(p)
    if not distribution.has_atoms:
        return distribution.partial_mean(q) / p
    p = p.to(q.device)
    with torch.no_grad():
        scale = icdf(distribution.components, p.unsqueeze(-1)).abs().amax(-1)
        before = q - 1e-15 * torch.maximum(scale, q.abs())  # beyond what bisection leaves between q and an atom
        start, end = distribution.cdf(before), distribution.cdf(q)
        part = ((p - start) / (end - start)).nan_to_num(1.0).clamp(0, 1)

    def integral(x: Tensor) -> Tensor:
        return distribution.partial_mean(x) - q * (distribution.cdf(x) - p)

    return ((1 - part) * integral(before) + part * integral(q)) / p


@take.register
def _mixture(distribution: Mixture, index: Any) -> Mixture:
    index = keep_last(index)
    return type(distribution)(distribution.weights[index], take(distribution.components, index), validate_args=False)


@take.register
def _stacked(distribution: Stacked, index: Any) -> Stacked:
    """Of all laws at once, as a mixture takes its components."""
    if not isinstance(index, tuple) or index[-1] != slice(None):
        raise ArgumentError("stacked laws are taken together: their last dimension must be kept whole.")
    return Stacked([take(law, index[:-1]) for law in distribution.laws])
