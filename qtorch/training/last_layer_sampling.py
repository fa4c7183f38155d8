"""Stochastic-gradient Monte Carlo over a trained forecaster's last layer."""

import copy
import math
import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from qtorch.data.datamodule import DataModule
from qtorch.distributions.checks import require
from qtorch.heads.drawn_weights import DrawnWeights
from qtorch.heads.parametric import Parametric
from qtorch.training.forecaster import Forecaster
from qtorch.training.laplace import Laplace, Structure
from qtorch.training.last_layer import LastLayer, affine_map, with_head

State = tuple[Tensor, Tensor]  # coordinates and their speeds
_FEW = 16  # draws, of which nothing can be said
_LIMIT = 9.0  # of the excess of the drift; of independent draws it is about 1, of a random walk about 30


@dataclass(frozen=True)
class SGLD:
    """Langevin steps u <- u - (e/2) dU + sqrt(e) z, whose size e = step * unit falls as (1 + t/100)^-decay.

    Preconditioned, u are coordinates in which the posterior has about unit variance in every direction, w = w0 + A u
    with A A' the covariance of `Laplace`, and the unit is 1: a chain forgets where it was in some 4 / step steps. Else
    u are the weights and the unit is one over the number of observations, and directions in which hidden states vary
    little, or together, take longer by the ratio of curvatures, which for a network's hidden states is thousands. With
    a constant step the draws' variance along a direction of curvature c is too wide by about a share of e c / 4, and by
    more the smaller the batches are.

    Attributes:
        step: in that unit.
        decay: 0 has a constant step; 0.55 to 1 forget it in the end.
        preconditioner: the structure of `Laplace`'s covariance at the start, or None. It stays there, so that, unlike
            by gradients of the way, the posterior is what the chain draws from. ``"kronecker"`` is for wide last
            layers; ``"diagonal"`` leaves what hidden states have in common slow.

    Raises:
        ValueError: a setting is out of bounds.

    References:
        Welling and Teh (2011), Bayesian learning via stochastic gradient Langevin dynamics, ICML, equation 4; for
        preconditioners Li, Chen, Carlson and Carin (2016), Preconditioned stochastic gradient Langevin dynamics, AAAI.
    """

    step: float = 0.1
    decay: float = 0.0
    preconditioner: Structure | None = "full"

    def __post_init__(self) -> None:
        require(0 < self.step < math.inf, "step", self.step, "give a positive number, such as 0.1")
        require(0 <= self.decay <= 1, "decay", self.decay, "give a number in [0, 1]")

    def advance(self, at: Tensor, speed: Tensor, gradient: Tensor, unit: float, t: int, z: Tensor) -> State:
        """One step down the gradient of U, minus the log posterior, with standard normal noise z."""
        size = self.step * unit * (1 + t / 100) ** -self.decay
        return at - size / 2 * gradient + size**0.5 * z, speed


@dataclass(frozen=True)
class SGHMC:
    """Hamiltonian steps with friction: v <- (1 - a) v - n dU + sqrt(2 a n) z, u <- u + v, with n = step * unit.

    Attributes:
        step: in the unit of `SGLD`, whose coordinates u it has too.
        friction: a, in (0, 1).
        preconditioner: as of `SGLD`.

    Raises:
        ValueError: a setting is out of bounds.

    References:
        Chen, Fox and Guestrin (2014), Stochastic gradient Hamiltonian Monte Carlo, ICML, equation 15.
    """

    step: float = 0.02
    friction: float = 0.2
    preconditioner: Structure | None = "full"

    def __post_init__(self) -> None:
        require(0 < self.step < math.inf, "step", self.step, "give a positive number, such as 0.02")
        require(0 < self.friction < 1, "friction", self.friction, "give a number inside (0, 1)")

    def advance(self, at: Tensor, speed: Tensor, gradient: Tensor, unit: float, t: int, z: Tensor) -> State:
        """One step down the gradient of U, minus the log posterior, with standard normal noise z."""
        size = self.step * unit
        speed = (1 - self.friction) * speed - size * gradient + (2 * self.friction * size) ** 0.5 * z
        return at + speed, speed


def sample_last_layer(
    forecaster: Forecaster,
    datamodule: DataModule,
    method: SGLD | SGHMC | None = None,
    *,
    prior_scale: float = 1.0,
    batch_size: int = 1024,
    burn_in: int = 500,
    thin: int = 50,
    draws: int = 32,
    seed: int = 0,
) -> Forecaster:
    """A trained forecaster that forecasts the mixture over draws from its last layer's posterior.

    Hidden states are computed once; each step then takes a random batch of them, whose gradient is scaled to the whole.
    A warning tells when the draws' second half is elsewhere than the first, so that they are not of the posterior yet.

    Args:
        forecaster: with a parametric head, at whose weights the chain starts; it stays as it is.
        datamodule: what it was trained on.
        method: `SGLD()` by default.
        prior_scale: standard deviation of each weight, around zero.
        batch_size: places of a step.
        burn_in: steps before the first draw.
        thin: steps from a draw to the next.
        draws: `K`.
        seed: of batches and noise.

    Raises:
        ValueError: the head is not parametric, or a setting is out of bounds.
        FloatingPointError: the chain diverged.
    """
    head = copy.deepcopy(forecaster.network.head)
    data = LastLayer.of(forecaster, datamodule)
    drawn = DrawnWeights(head, draws).to(data.hidden.device)
    chain = sampled(
        head,
        data,
        SGLD() if method is None else method,
        prior_scale=prior_scale,
        batch_size=batch_size,
        burn_in=burn_in,
        thin=thin,
        draws=draws,
        seed=seed,
    )
    drawn.offsets.copy_(chain - affine_map(head))
    return with_head(forecaster, drawn)


def sampled(
    head: Parametric,
    data: LastLayer,
    method: SGLD | SGHMC,
    *,
    prior_scale: float,
    batch_size: int,
    burn_in: int,
    thin: int,
    draws: int,
    seed: int,
) -> Float64[Tensor, "K H size W"]:
    """Draws of the affine map, each with its bias last; arguments as of `sample_last_layer`."""
    require(0 < prior_scale < math.inf, "prior_scale", prior_scale, "give a positive number")
    counts = {"batch_size": batch_size, "thin": thin, "draws": draws}
    for name, count in counts.items():
        require(count > 0, name, count, "give at least 1")
    require(burn_in >= 0, "burn_in", burn_in, "give at least 0")
    places, observations = len(data.hidden), data.observations
    generator = torch.Generator().manual_seed(seed)
    weights, unit = affine_map(head), 1 / observations
    around = None
    if method.preconditioner is not None:
        around, unit = Laplace.of(head, data, method.preconditioner, prior_scale), 1.0
    start = torch.zeros_like(weights.flatten(1))

    def map_of(at: Tensor) -> Tensor:
        return weights + (at.view_as(weights) if around is None else around.moved(at.unsqueeze(0)).squeeze(0))

    state, chain = (start, start), []
    for t in range(burn_in + draws * thin):
        part, share = data, 1.0
        if batch_size < places:
            index = torch.randint(places, (batch_size,), generator=generator).to(data.hidden.device)
            part, share = data.part(index), places / batch_size
        at = state[0].detach().requires_grad_()
        w = map_of(at)
        energy = 0.5 * w.square().sum() / prior_scale**2 - share * part.log_likelihood(head, w)
        (gradient,) = torch.autograd.grad(energy, at)
        z = torch.randn(start.shape, generator=generator, dtype=start.dtype).to(start.device)
        state = method.advance(*state, gradient, unit, t, z)
        if t >= burn_in and (t - burn_in + 1) % thin == 0:
            chain.append(map_of(state[0]))
    result = torch.stack(chain)
    if not result.isfinite().all():
        raise FloatingPointError(f"the chain of {method} diverged. Give it a smaller step.")
    if draws >= _FEW and (excess := drift(result)) > _LIMIT:
        warnings.warn(
            f"the chain of {method} has not mixed: its draws' second half is elsewhere than the first, by a squared "
            f"distance {excess:.0f} times that of independent draws. Give it a preconditioner, a larger step, or more "
            "steps from a draw to the next (thin) and before the first (burn_in).",
            RuntimeWarning,
            stacklevel=2,
        )
    return result


def drift(draws: Float64[Tensor, "K *weights"]) -> float:
    """The squared distance of two halves' means over what it is of independent draws, summed over weights.

    About 1 if draws are independent, and the number of draws over that of independent ones if these are many; as in
    the comparison of chains by Gelman and Rubin (1992), Inference from iterative simulation, Statistical Science 7.
    """
    half = len(draws) // 2
    one, other = draws[:half], draws[-half:]
    within = (one.var(0) + other.var(0)).sum() / half
    return float((one.mean(0) - other.mean(0)).square().sum() / within.clamp(min=torch.finfo(within.dtype).tiny))
