"""Spectral risk measures: quantiles averaged with weights that do not fall towards the worst."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.distributions import Distribution

from qtorch.distributions import Empirical
from qtorch.distributions.checks import require
from qtorch.errors import ArgumentError
from qtorch.risk.quadrature import integrate, unit_rule

Spectrum = Callable[[Float64[Tensor, "..."]], Float64[Tensor, "..."]]


def exponential_spectrum(risk_aversion: float) -> Spectrum:
    """phi(p) = k exp(-k p) / (1 - exp(-k)) at left-tail mass p: the weights of exponential utility.

    Args:
        risk_aversion: positive k; the larger, the more weight on the worst outcomes.

    Raises:
        ValueError: it is not positive and finite.

    References:
        Cotter and Dowd (2006), Extreme spectral risk measures, Journal of Banking and Finance 30, equation 5.
    """
    require(0 < risk_aversion < math.inf, "risk_aversion", risk_aversion, "give a positive number, such as 25.0")
    return lambda p: risk_aversion * torch.exp(-risk_aversion * p) / -math.expm1(-risk_aversion)


def spectral_risk(distribution: Distribution, spectrum: Spectrum, breaks: Sequence[float] = ()) -> Tensor:
    """M = -int_0^1 phi(p) Q(p) dp with Q the quantile function of returns: a positive loss.

    Double exponential quadrature between the breaks; the mean takes the part phi(1), so that what is left vanishes
    in the right tail, where float64 cannot resolve 1 - p. Measured for the expected shortfall of Student's t: 1e-15
    relative for 1.2 and more degrees of freedom, 3e-10 for 1.1. Of an `Empirical` law it is the exact sum, up to the
    quadrature of the spectrum itself.

    Args:
        distribution: of returns in decimals, batch shape `[...]`, with `icdf` and `mean`.
        spectrum: phi, a density of left-tail masses in (0, 1] that does not rise.
        breaks: masses inside (0, 1), ascending, where the spectrum jumps or has a kink.

    Returns:
        Positive losses in decimals, of the batch shape, in float64.

    Raises:
        ValueError: the spectrum is negative, rises, or does not integrate to one.

    References:
        Acerbi (2002), Spectral measures of risk, Journal of Banking and Finance 26, definition 2.4 and theorem 2.5.

    Example:
        Expected shortfall at 97.5 % is the spectrum that is 40 on the worst 2.5 % and 0 above.

        >>> normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 0.01)
        >>> round(spectral_risk(normal, lambda p: 40.0 * (p <= 0.025), breaks=(0.025,)).item(), 6)
        0.023378
    """
    if isinstance(distribution, Empirical):
        return _of_sample(distribution, spectrum, breaks)
    mass, weight = _checked_nodes(spectrum, breaks)
    mean = distribution.mean.double()
    end = spectrum(torch.ones((), dtype=torch.float64)).double()
    excess = weight * (spectrum(mass).double() - end)
    keep = excess != 0  # where the spectrum is flat no quantile is needed
    mass, excess = mass[keep].to(mean.device), excess[keep].to(mean.device)
    if not distribution.icdf(mass[0]).isfinite().all():  # as of torch's classes, whose quantiles end at 1e-16
        mass = mass.clamp(min=2**-52)
    tail = integrate(distribution.icdf, mass, excess, distribution.batch_shape)
    return -tail if end == 0 else -(end * mean + tail)


def _of_sample(distribution: Empirical, spectrum: Spectrum, breaks: Sequence[float]) -> Tensor:
    values = distribution.values.double().movedim(-1, 0)
    there = ~values.isnan()
    weights = there / there.sum(0) if distribution.weights is None else distribution.weights.movedim(-1, 0)
    edges = torch.cat([torch.zeros_like(values[:1]), weights.cumsum(0).clamp(max=1.0)])
    return -(_masses(spectrum, breaks, edges) * values.nan_to_num()).sum(0)


def _masses(spectrum: Spectrum, breaks: Sequence[float], edges: Float64[Tensor, "E ..."]) -> Float64[Tensor, "E-1 ..."]:
    """The integral of the spectrum between neighbouring masses, scaled to sum to one: the weights of sorted scenarios.

    Four Gauss-Legendre nodes on each side of a break, exact for spectra that are cubic or less between neighbours.

    Raises:
        ValueError: the spectrum is negative, rises, or does not integrate to one.
    """
    _checked_nodes(spectrum, breaks)
    total = torch.zeros_like(edges[1:])
    for low, high in _pairs((0.0, *breaks, 1.0)):
        cut = edges.clamp(low, high)
        left, width = cut[:-1], cut.diff(dim=0)
        for node, weight in zip(_GAUSS_NODES, _GAUSS_WEIGHTS, strict=True):
            total = total + weight * width * spectrum(left + node * width).double()
    return total / total.sum(0)


_GAUSS_NODES = (0.0694318442029737, 0.3300094782075719, 0.6699905217924281, 0.9305681557970263)
_GAUSS_WEIGHTS = (0.1739274225687269, 0.3260725774312731, 0.3260725774312731, 0.1739274225687269)


def _checked_nodes(spectrum: Spectrum, breaks: Sequence[float]) -> tuple[Float64[Tensor, " K"], Float64[Tensor, " K"]]:
    """Quadrature nodes and weights on (0, 1) cut at the breaks, after a look at the spectrum there."""
    bounds = (0.0, *breaks, 1.0)
    ascending = all(a < b for a, b in _pairs(bounds))
    require(ascending, "breaks", tuple(breaks), "give ascending left-tail masses inside (0, 1)")
    node, weight = unit_rule()
    # Nodes that round to a break itself would see the spectrum on its other side.
    parts = [(a + (b - a) * node).clamp(math.nextafter(a, 1), math.nextafter(b, 0)) for a, b in _pairs(bounds)]
    mass = torch.cat(parts)
    weight = torch.cat([(b - a) * weight for a, b in _pairs(bounds)])
    phi = spectrum(mass).double()
    if (phi < 0).any() or not phi.isfinite().all():
        raise ArgumentError("The spectrum must be finite and not negative at left-tail masses in (0, 1).")
    rise = phi.diff() > 1e-9 * phi.max()
    if rise.any():
        raise ArgumentError(
            f"The spectrum rises at left-tail mass {mass[1:][rise][0].item():.4g}: a measure that weighs worse "
            "outcomes less is not coherent. Give a density that does not rise."
        )
    total = (weight * phi).sum().item()
    if abs(total - 1) > 1e-6:
        raise ArgumentError(
            f"The spectrum integrates to {total:.8f}, not 1. Scale it, and name its jumps and kinks in `breaks`."
        )
    return mass, weight


def _pairs(bounds: Sequence[float]) -> list[tuple[float, float]]:
    return list(zip(bounds[:-1], bounds[1:], strict=True))
