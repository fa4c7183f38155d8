"""A copula whose conditional densities, of one coordinate after another, come from a network."""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from qtorch.distributions import coordinates
from qtorch.distributions.copulas import normal_scores
from qtorch.distributions.cumulative import ndtr
from qtorch.distributions.indexing import keep_last, part_of, take
from qtorch.distributions.transforms import Autoregressive, Bijection, Masked, RationalQuadratic
from qtorch.distributions.transforms.autoregressive import MaskedConditioner

Conditioned = Callable[..., MaskedConditioner]
_BOUND = 5.0  # of splines, in normal scores: a mass of 3e-7 lies beyond on either side


class AttentionalCopula(Distribution):
    """Uniforms in an order, the first exactly uniform, each other one of a law that those before it say.

    F(u_i | before) = Phi(g_i(Phi^-1(u_i))), g_i a monotone rational-quadratic spline on normal scores from -5 to 5 and
    the identity beyond. So conditional density, distribution function and quantiles are closed forms, every density is
    positive, and beyond the splines, where there are next to no data, it is 1.

    Only the first coordinate's margin is uniform by construction. Those of the others are as far as training made them:
    at the optimum of a likelihood of true probability transforms the law is a copula, which is why the marginals are to
    be trained first and frozen, then this (two stages). It has an order: another one gives another law, which
    training on random orders brings near. A mask leaves out coordinates as if they had never been: without those at the
    end of the order what is left is exactly the marginal law, without others approximately.

    Args:
        conditioner: for states and a mask of the coordinates, both in an order, the network of the splines' parameters,
            in that order and with a first row that is 1 where they count.
        order: which coordinate comes i-th, `[..., N]`.
        mask: which coordinates there are at all, `[..., N]`; the batch shape is that of order and mask together.
        states: what the conditioner is given of each coordinate, tensors `[..., N, W]` that broadcast to the batch.

    Raises:
        ValueError: order and mask disagree about N.

    References:
        Drouin, Marcotte and Chapados (2022), TACTiS: Transformer-attentional copulas for time series, ICML; Ashok,
        Marcotte, Zantedeschi, Chapados and Drouin (2024), TACTiS-2, ICLR, for two stages.

    Example:
        >>> from qtorch.heads import AttentionalCopulaHead
        >>> copula = AttentionalCopulaHead(4).eval()(torch.randn(3, 4))
        >>> known = torch.tensor([True, False, False])
        >>> draws = copula.sample_given(torch.tensor([0.02, torch.nan, torch.nan]), known, (100,))
        >>> draws.shape, bool((draws[:, 0] == 0.02).all())
        (torch.Size([100, 3]), True)
    """

    arg_constraints = {}
    support = constraints.independent(constraints.unit_interval, 1)
    has_rsample = True

    def __init__(
        self,
        conditioner: Conditioned,
        order: Int64[Tensor, "... N"],
        mask: Bool[Tensor, "... N"],
        states: Sequence[Float[Tensor, "... N _"]],
    ) -> None:
        coordinates.require_event(mask, "mask", order.shape[-1])
        shape = torch.broadcast_shapes(order.shape, mask.shape)
        self.conditioner, self.order, self.mask = conditioner, order.expand(shape), mask.expand(shape)
        self.states = tuple(states)
        super().__init__(shape[:-1], shape[-1:], validate_args=False)

    def expand(self, batch_shape: _size, _instance: object = None) -> "AttentionalCopula":
        """The copula expanded to a batch shape."""
        shape = (*batch_shape, *self.event_shape)
        return AttentionalCopula(self.conditioner, self.order.expand(shape), self.mask.expand(shape), self.states)

    def log_prob(
        self, value: Float[Tensor, "... N"], mask: Bool[Tensor, "... N"] | None = None
    ) -> Float[Tensor, "..."]:
        """Log density of uniforms that are there.

        Args:
            value: `[..., N]` in (0, 1), broadcasts against the batch shape.
            mask: which of the law's coordinates count, all by default; values of the others, which may be NaN, take
                part in neither density nor gradient. Where fewer than two are there the result is 0.

        Raises:
            ValueError: the last dimension of value or mask is not N.
        """
        coordinates.require_event(value, "value", self.event_shape[0])
        u = torch.where(self._there(mask), value.double(), 0.5)
        return self.log_prob_of_scores(normal_scores(u), mask).to(value.dtype)

    def log_prob_of_scores(
        self, scores: Float64[Tensor, "... N"], mask: Bool[Tensor, "... N"] | None = None
    ) -> Float64[Tensor, "..."]:
        """The same log density, that of uniforms, from the normal scores of these; arguments as of `log_prob`."""
        s, _, transform = self._in_order(scores, mask)
        z, ladj = transform.call_and_ladj(s)
        return 0.5 * (s * s - z * z).sum(-1) + ladj

    def encode_scores(
        self, scores: Float64[Tensor, "... N"], mask: Bool[Tensor, "... N"] | None = None
    ) -> Float64[Tensor, "... N"]:
        """Independent normal scores, of the conditional transforms, from which `decode_scores` makes the scores again.

        They are the Rosenblatt transform: under the law independent standard normal, whatever it is. Arguments as of
        `log_prob`; 0 where nothing is.
        """
        s, order, transform = self._in_order(scores, mask)
        return _back(transform.call_and_ladj(s)[0], order)

    def decode_scores(
        self, z: Float64[Tensor, "... N"], mask: Bool[Tensor, "... N"] | None = None
    ) -> Float64[Tensor, "... N"]:
        """The inverse of `encode_scores`, in N steps."""
        z, order, transform = self._in_order(z, mask)
        return _back(transform.inv_and_ladj(z)[0], order)

    def known_first(self, known: Bool[Tensor, "... N"]) -> "AttentionalCopula":
        """The law in which known coordinates come first, in their order, and then the others in theirs.

        Under it the log density of the others given the known is `log_prob(u) - log_prob(u, known)`.
        """
        known, order = torch.broadcast_tensors(known, self.order)
        late = torch.argsort((~known).long().gather(-1, order), dim=-1, stable=True)
        return AttentionalCopula(self.conditioner, order.gather(-1, late), self.mask, self.states)

    def sample_given(
        self, value: Float[Tensor, "... N"], known: Bool[Tensor, "... N"], sample_shape: _size = torch.Size()
    ) -> Float[Tensor, "... N"]:
        """Draws of the others given known uniforms, exact under the law of `known_first`.

        Args:
            value: `[..., N]` in (0, 1); what stands at unknown places is not looked at.
            known: which coordinates are known.
            sample_shape: of the draws.

        Returns:
            `[*sample_shape, ..., N]`, with the known values where they are known and NaN where nothing is.
        """
        scores = normal_scores(torch.where(known, value.double(), 0.5))
        drawn = ndtr(self.sample_scores_given(scores, known, sample_shape)).to(value.dtype)
        return torch.where(torch.logical_and(known, self.mask), value, drawn)

    def sample_scores_given(
        self, scores: Float64[Tensor, "... N"], known: Bool[Tensor, "... N"], sample_shape: _size = torch.Size()
    ) -> Float64[Tensor, "... N"]:
        """As `sample_given`, in normal scores."""
        with torch.no_grad():
            law = self.known_first(known)
            fixed = torch.logical_and(known, self.mask)
            z = law.encode_scores(scores, fixed)  # of the known alone, which come first, hence as among all
            z = torch.where(fixed, z, self._noise(torch.Size((*sample_shape, *z.shape[:-1]))))
            drawn = torch.where(self.mask, law.decode_scores(z), torch.nan)
            return torch.where(fixed, scores, drawn)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Uniforms from torch's generator, differentiable in the network; NaN where nothing is."""
        return ndtr(self.rsample_scores(sample_shape)).to(torch.get_default_dtype())

    def rsample_scores(self, sample_shape: _size = torch.Size()) -> Float64[Tensor, "... N"]:
        """Normal scores of draws, in N steps; NaN where nothing is."""
        noise = self._noise(torch.Size((*sample_shape, *self.batch_shape)))
        return torch.where(self.mask, self.decode_scores(noise), torch.nan)

    def sample_scores(self, sample_shape: _size = torch.Size()) -> Float64[Tensor, "... N"]:
        """As `rsample_scores`, without gradients."""
        with torch.no_grad():
            return self.rsample_scores(sample_shape)

    def marginal(self, index: Sequence[int] | slice | Tensor) -> NoReturn:
        """Refused, because it is not known but for the last coordinates of the order.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "An attentional copula has no marginal copula in closed form: pass log_prob a mask of the coordinates, "
            "which is the law of those alone as trained, or sample all and keep those."
        )

    def condition(self, scores: Float64[Tensor, "... N"], known: Sequence[int] | slice | Tensor) -> NoReturn:
        """Refused, because marginals of a conditional law are not known.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "The marginals of an attentional copula given some coordinates have no closed form: draw with "
            "sample_scores_given, and for densities see known_first."
        )

    def _in_order(self, scores: Tensor, mask: Tensor | None) -> tuple[Float64[Tensor, "... N"], Tensor, Bijection]:
        """Scores and places in order, 0 where nothing is, and the map to independent scores."""
        coordinates.require_event(scores, "scores", self.event_shape[0])
        given = self._there(mask)
        s, there, order = torch.broadcast_tensors(scores, given, self.order)
        own = self.order.expand(torch.broadcast_shapes(self.order.shape, given.shape))
        rows = own.unsqueeze(-1)
        states = (
            state.expand(*own.shape, -1).gather(-2, rows.expand(*own.shape, state.shape[-1])) for state in self.states
        )
        conditioner = self.conditioner(*states, given.expand(own.shape).gather(-1, own))
        return torch.where(there, s.double(), 0.0).gather(-1, order), order, Autoregressive(conditioner, _spline)

    def _there(self, mask: Tensor | None) -> Bool[Tensor, "... N"]:
        return torch.logical_and(self.mask, coordinates.there(mask, self.event_shape[0], self.mask.device))

    def _noise(self, shape: torch.Size) -> Float64[Tensor, "... N"]:
        return torch.randn((*shape, *self.event_shape), dtype=torch.float64, device=self.order.device)


def _spline(parameters: Float[Tensor, "P ..."]) -> Bijection:
    """In float64, because scores are."""
    return Masked(RationalQuadratic(parameters[1:].double(), _BOUND), parameters[0] > 0)


def _back(x: Tensor, order: Tensor) -> Tensor:
    """Each number at the place that its order names."""
    return torch.zeros_like(x).scatter(-1, order, x)


@take.register
def _attentional_copula(distribution: AttentionalCopula, index: Any) -> AttentionalCopula:
    law, places = distribution, keep_last(index)
    states = [part_of(state, 2, law.batch_shape, index) for state in law.states]
    return AttentionalCopula(law.conditioner, law.order[places], law.mask[places], states)
