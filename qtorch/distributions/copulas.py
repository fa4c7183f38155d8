"""Gaussian and Student-t copulas whose correlation matrix is a few factors and a diagonal."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.distributions import Distribution, Normal, constraints
from torch.types import _size

from qtorch.distributions import coordinates, low_rank
from qtorch.distributions.checks import require
from qtorch.distributions.cumulative import ndtr
from qtorch.distributions.gamma_gaps import log_gamma_gap
from qtorch.distributions.indexing import part_of, take
from qtorch.distributions.student_t import StudentT
from qtorch.distributions.student_t_scores import FARTHEST, to_normal, to_student_t
from qtorch.errors import ArgumentError

Double = Float64[Tensor, "..."]


class Given(NamedTuple):
    """What is left of a copula's latent coordinates when others are known: the unknown are loc + scale times a score.

    Attributes:
        copula: of the unknown coordinates.
        prior: the law of each latent coordinate before anything was known, standard.
        posterior: that of each unknown one now, `[..., M]`.
    """

    copula: "Copula"
    prior: Distribution
    posterior: Distribution


class Copula(Distribution, ABC):
    """What the elliptical copulas share: uniforms U with Phi(S_n) = G(Z_n) = U_n, Z elliptical with margins G.

    The correlation matrix is C = L L' + diag(1 - |L_n|^2), R factors and what is left to each coordinate of its unit
    variance. Everything is the R x R algebra of `low_rank`, in float64 whatever comes in and goes out, without an N x N
    matrix; missing coordinates are rows that are not there. Densities take normal scores S as well as uniforms, because
    these have digits where uniforms are next to 1. Uniforms nearer than 1e-16 to 0 or 1 count as that near.

    Args:
        loadings: L `[..., N, R]`, rows shorter than 1; R may be 0, which is independence but for the t's tails.
        validate_args: False skips the check of the parameters, as torch.compile does.

    Raises:
        ValueError: a row of the loadings is not shorter than 1.
    """

    loadings: Tensor
    arg_constraints = {"loadings": constraints.independent(constraints.real, 2)}
    support = constraints.independent(constraints.unit_interval, 1)
    has_rsample = True

    def __init__(self, loadings: Float[Tensor, "... N R"], batch: _size, validate_args: bool | None) -> None:
        self.loadings = loadings
        if validate_args is not False and not torch.compiler.is_compiling():
            square = (loadings.double() ** 2).sum(-1)
            bad = ~(square < 1)
            if bad.any():
                raise ArgumentError(
                    f"{type(self).__name__} needs loadings whose rows are shorter than 1, of unit variances; "
                    f"{int(bad.sum())} of {bad.numel()} are not, the first is {float(square[bad][0].sqrt())} long."
                )
        shape = torch.broadcast_shapes(batch, loadings.shape[:-2])
        super().__init__(shape, loadings.shape[-2:-1], validate_args=False)

    @property
    def correlation(self) -> Float[Tensor, "... N N"]:
        """The correlation matrix of the latent coordinates, N x N."""
        L, D = self._doubles()
        return (L @ L.mT + torch.diag_embed(D)).to(self.loadings.dtype).expand(*self._extended_shape(), -1)

    def log_prob(
        self, value: Float[Tensor, "... N"], mask: Bool[Tensor, "... N"] | None = None
    ) -> Float[Tensor, "..."]:
        """Log density of uniforms, or with a mask that of the copula of those that are there.

        Args:
            value: `[..., N]` in (0, 1), broadcasts against the batch shape.
            mask: True where a value counts; the others, which may be NaN, take part in neither density nor gradient.
                Where fewer than two are there the result is 0.

        Raises:
            ValueError: the last dimension of value or mask is not N.
        """
        coordinates.require_event(value, "value", self.event_shape[0])
        there = coordinates.there(mask, self.event_shape[0], value.device)
        u = torch.where(there, value.double(), 0.5)
        return self.log_prob_of_scores(normal_scores(u), mask).to(torch.promote_types(self.loadings.dtype, value.dtype))

    def log_prob_of_scores(
        self, scores: Float64[Tensor, "... N"], mask: Bool[Tensor, "... N"] | None = None
    ) -> Float64[Tensor, "..."]:
        """The same log density, that of uniforms, from the normal scores of these.

        Args:
            scores: `[..., N]`, broadcasts against the batch shape.
            mask: as of `log_prob`.

        Raises:
            ValueError: the last dimension of scores or mask is not N.
        """
        N = self.event_shape[0]
        coordinates.require_event(scores, "scores", N)
        there = coordinates.there(mask, N, scores.device)
        z = self.latent(torch.where(there, scores, 0.0))
        L, D = self._doubles()
        Q, _, root = low_rank.regress_some(z, there, L, D)
        n = there.sum(-1).double()
        result = self._log_ratio(Q, n, z) - 0.5 * low_rank.log_det_some(root, there, D)
        return result.expand(torch.broadcast_shapes(result.shape, self.batch_shape))

    def marginal(self, index: Sequence[int] | slice | Tensor) -> "Copula":
        """The copula of some coordinates, in the order of `index`: positions, a slice or a bool mask `[N]`.

        Raises:
            ValueError: a mask is not `[N]`, or a position comes twice.
        """
        places = coordinates.positions(index, self.event_shape[0], self.loadings.device)
        return self._like(self.loadings[..., places, :], 0.0)

    def condition(self, scores: Float64[Tensor, "... N"], known: Sequence[int] | slice | Tensor) -> Given:
        """The latent coordinates that are not known, given the normal scores of those that are.

        With k known, n of them, u the rest and M, f and Q those of k, the latent law of u is about L_u f, of scale
        matrix r (L_u M^-1 L_u' + D_u): for a Gaussian r = 1, for a t of n more degrees of freedom (df + Q)/(df + n).

        Args:
            scores: `[..., N]`; what stands at unknown places is not looked at.
            known: a bool mask `[N]`, one for the whole batch, positions or a slice.

        Raises:
            ValueError: a mask is not `[N]`, a position comes twice, or a known score is not finite.

        References:
            Ding (2016), On the conditional distribution of the multivariate t distribution, The American Statistician
            70.
        """
        N = self.event_shape[0]
        coordinates.require_event(scores, "scores", N)
        k = coordinates.positions(known, N, self.loadings.device)
        u, z = coordinates.others(k, N), self.latent(scores.double()[..., k])
        coordinates.require_known(z, k)
        L, D = self._doubles()
        there = coordinates.there(None, len(k), z.device)
        Q, f, root = low_rank.regress_some(z, there, L[..., k, :], D[..., k])
        F = low_rank.remaining(root, L[..., u, :])
        variance = low_rank.diagonal(F, D[..., u])
        loc = low_rank.from_factors(f, L[..., u, :])
        ratio, posterior = self._posterior(Q, float(len(k)))
        scale = torch.sqrt(ratio.unsqueeze(-1) * variance)
        copula = self._like(F / torch.sqrt(variance).unsqueeze(-1), float(len(k)))
        return Given(copula, self.margin, posterior(*torch.broadcast_tensors(loc, scale)))

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Uniforms from torch's generator, differentiable in every parameter."""
        return ndtr(self.rsample_scores(sample_shape)).to(self.loadings.dtype)

    def rsample_scores(self, sample_shape: _size = torch.Size()) -> Float64[Tensor, "... N"]:
        """Normal scores of draws."""
        L, _ = self._doubles()
        shape = torch.Size(sample_shape) + self.batch_shape
        e = torch.randn((*shape, L.shape[-1]), dtype=torch.float64, device=L.device)
        own = torch.randn((*shape, *self.event_shape), dtype=torch.float64, device=L.device)
        return self.scores(e, own, self._mixing(shape))

    def scores(
        self, common: Float64[Tensor, "... R"], own: Float64[Tensor, "... N"], mixing: Float64[Tensor, "..."]
    ) -> Float64[Tensor, "... N"]:
        """Normal scores of draws made from standard normal shocks, such as those of a quasi-random sequence.

        Args:
            common: shocks to the factors.
            own: shocks to the coordinates.
            mixing: a chi-squared of df degrees of freedom over df for each draw of a t; a Gaussian ignores it.
        """
        L, D = self._doubles()
        return self._scores(low_rank.from_factors(common, L) + torch.sqrt(D) * own, mixing)

    @property
    @abstractmethod
    def margin(self) -> Distribution:
        """The law of each latent coordinate, `[..., 1]`."""

    @abstractmethod
    def latent(self, scores: Double) -> Double:
        """Latent coordinates of normal scores."""

    @abstractmethod
    def _log_ratio(self, Q: Double, n: Double, z: Double) -> Double:
        """Log of the joint density, without its determinant, over the margins'."""

    @abstractmethod
    def _posterior(self, Q: Double, n: float) -> tuple[Double, Any]:
        """The factor of the scale matrix given n coordinates at distance Q, and the laws of location and scale."""

    @abstractmethod
    def _mixing(self, shape: _size) -> Double:
        """Draws of what divides the square of the shocks."""

    @abstractmethod
    def _scores(self, shocks: Double, mixing: Double) -> Double:
        """Normal scores of correlated normal shocks."""

    @abstractmethod
    def _like(self, loadings: Tensor, more: float) -> "Copula":
        """A copula of other loadings, with `more` degrees of freedom."""

    def _doubles(self) -> tuple[Double, Double]:
        """L and D."""
        L = self.loadings.double()
        return L, 1 - (L * L).sum(-1)


class GaussianCopula(Copula):
    """The copula of a multivariate normal: no dependence in the far tails.

    Args:
        loadings: `[..., N, R]`, as of `Copula`, which documents the methods.
        validate_args: False skips the check of the parameters.

    Raises:
        ValueError: a row of the loadings is not shorter than 1.

    Example:
        >>> copula = GaussianCopula(torch.full((3, 1), 0.8))
        >>> round(copula.correlation[0, 1].item(), 2)
        0.64

    References:
        McNeil, Frey and Embrechts (2015), Quantitative Risk Management, section 7.1.2.
    """

    def __init__(self, loadings: Float[Tensor, "... N R"], *, validate_args: bool | None = None) -> None:
        super().__init__(loadings, torch.Size(), validate_args)

    def expand(self, batch_shape: _size, _instance: object = None) -> "GaussianCopula":
        """The copula expanded to a batch shape."""
        return GaussianCopula(self.loadings.expand(*batch_shape, *self.loadings.shape[-2:]), validate_args=False)

    @property
    def margin(self) -> Normal:
        """Standard normal."""
        zero = torch.zeros(1, dtype=torch.float64, device=self.loadings.device)
        return Normal(zero, 1.0, validate_args=False)

    def latent(self, scores: Double) -> Double:
        """The scores themselves."""
        return scores

    def _log_ratio(self, Q: Double, n: Double, z: Double) -> Double:
        return -0.5 * (Q - (z * z).sum(-1))

    def _posterior(self, Q: Double, n: float) -> tuple[Double, Any]:
        return torch.ones_like(Q), lambda loc, scale: Normal(loc, scale, validate_args=False)

    def _mixing(self, shape: _size) -> Double:
        return torch.ones(shape, dtype=torch.float64, device=self.loadings.device)

    def _scores(self, shocks: Double, mixing: Double) -> Double:
        return shocks.clamp(-FARTHEST, FARTHEST)

    def _like(self, loadings: Tensor, more: float) -> "GaussianCopula":
        return GaussianCopula(loadings, validate_args=False)


class StudentTCopula(Copula):
    """The copula of a multivariate Student's t: assets crash together, the more so the fewer the degrees of freedom.

    Scores of all coordinates are tabulated where the whole batch has one df (see `student_t_scores`); where dates have
    their own, each is a quantile.

    Args:
        df: degrees of freedom, positive, `[...]`.
        loadings: `[..., N, R]`, as of `Copula`, which documents the methods.
        validate_args: False skips the check of the parameters.

    Raises:
        ValueError: df is not positive and finite, or a row of the loadings is not shorter than 1.

    Example:
        >>> copula = StudentTCopula(4.0, torch.full((3, 1), 0.8))
        >>> crash, rally = torch.full((3,), 0.001), torch.tensor([0.001, 0.001, 0.999])
        >>> [round(copula.log_prob(u).item(), 1) for u in (crash, rally)]
        [10.6, 4.6]

    References:
        Demarta and McNeil (2005), The t copula and related copulas, International Statistical Review 73.
    """

    df: Tensor

    def __init__(
        self, df: Tensor | float, loadings: Float[Tensor, "... N R"], *, validate_args: bool | None = None
    ) -> None:
        self.df = torch.as_tensor(df, dtype=loadings.dtype, device=loadings.device)
        if validate_args is not False and not torch.compiler.is_compiling():
            good = bool(((self.df > 0) & self.df.isfinite()).all())
            require(good, "df", df, "give positive, finite degrees of freedom")
        super().__init__(loadings, self.df.shape, validate_args)

    def expand(self, batch_shape: _size, _instance: object = None) -> "StudentTCopula":
        """The copula expanded to a batch shape."""
        loadings = self.loadings.expand(*batch_shape, *self.loadings.shape[-2:])
        df = self.df if self.df.ndim == 0 else self.df.expand(batch_shape)
        return StudentTCopula(df, loadings, validate_args=False)

    @property
    def margin(self) -> StudentT:
        """Student's t of the same degrees of freedom."""
        return StudentT(self.df.double().unsqueeze(-1), validate_args=False)

    def latent(self, scores: Double) -> Double:
        """Student-t scores."""
        return to_student_t(scores, self.df.double().unsqueeze(-1))

    def _log_ratio(self, Q: Double, n: Double, z: Double) -> Double:
        df = self.df.double()
        a = df / 2
        own = torch.log1p(z * z / df.unsqueeze(-1)).sum(-1)
        gap = log_gamma_gap(a, n / 2) - n * log_gamma_gap(a, torch.full_like(a, 0.5))
        return gap - (a + n / 2) * torch.log1p(Q / df) + (a + 0.5) * own

    def _posterior(self, Q: Double, n: float) -> tuple[Double, Any]:
        df = self.df.double()

        def law(loc: Double, scale: Double) -> StudentT:
            return StudentT((df + n).unsqueeze(-1), loc, scale, validate_args=False)

        return (df + Q) / (df + n), law

    def _mixing(self, shape: _size) -> Double:
        a = self.df.double() / 2
        gamma = torch._standard_gamma(a.expand(shape).contiguous())
        return (gamma / a).clamp(min=torch.finfo(torch.float64).tiny)

    def _scores(self, shocks: Double, mixing: Double) -> Double:
        return to_normal(shocks / torch.sqrt(mixing).unsqueeze(-1), self.df.double().unsqueeze(-1))

    def _like(self, loadings: Tensor, more: float) -> "StudentTCopula":
        return StudentTCopula(self.df.to(loadings.dtype) + more, loadings, validate_args=False)


def normal_scores(u: Float64[Tensor, "..."]) -> Float64[Tensor, "..."]:
    """Normal scores of uniforms, those nearer than 1e-16 to 0 or 1 as if that near."""
    return torch.special.ndtri(u.clamp(1e-16, 1 - 2**-53))


def independence(N: int, like: Tensor) -> GaussianCopula:
    """The copula of independent coordinates: no factors."""
    return GaussianCopula(like.new_zeros(N, 0))


@take.register
def _gaussian_copula(distribution: GaussianCopula, index: Any) -> GaussianCopula:
    return GaussianCopula(part_of(distribution.loadings, 2, distribution.batch_shape, index), validate_args=False)


@take.register
def _student_t_copula(distribution: StudentTCopula, index: Any) -> StudentTCopula:
    shape = distribution.batch_shape
    df = distribution.df if distribution.df.ndim == 0 else part_of(distribution.df, 0, shape, index)
    return StudentTCopula(df, part_of(distribution.loadings, 2, shape, index), validate_args=False)
