"""Student's t of many dimensions, whose scale matrix is a few factors and a diagonal."""

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from qtorch.distributions import coordinates, low_rank
from qtorch.distributions.gamma_gaps import digamma_gap, log_gamma_gap
from qtorch.distributions.indexing import part_of, take
from qtorch.distributions.parameters import check
from qtorch.distributions.student_t import StudentT
from qtorch.errors import ArgumentError

Double = Float64[Tensor, "..."]
_LOG_2PI = math.log(2 * math.pi)


class MultivariateStudentT(Distribution):
    """The law of loc + (F e + sqrt(D) u) / sqrt(W), with e and u standard normal and W chi-squared over its df.

    Its scale matrix is Sigma = F F' + diag(D); the covariance, where df > 2, is df / (df - 2) of it. The density is

        Gamma((df + N)/2) / Gamma(df/2) (df pi)^(-N/2) |Sigma|^(-1/2) (1 + Q / df)^(-(df + N)/2),

    with Q = (x - loc)' Sigma^-1 (x - loc). Everything but `scale_matrix` and `covariance_matrix` takes N R^2 operations
    and no N x N matrix, by the identities in `low_rank`, in float64 whatever comes in and goes out.

    Parameters keep batch shapes of their own, which broadcast to that of the law, so that one set of factors serves a
    batch of locations from one place in memory.

    Args:
        df: degrees of freedom, positive, `[...]`; the mean exists above 1, the covariance above 2.
        loc: the centre `[..., N]`.
        factors: F `[..., N, R]`, in the unit of the values; R may be 0.
        diagonal: D `[..., N]`, positive, in the square of that unit: the square of each coordinate's own scale, not a
            variance, which is df / (df - 2) of it.
        validate_args: False skips the check of the parameters, as torch.compile does, which can't stop on a value.

    Raises:
        ValueError: a parameter is outside its domain or not finite, or the parameters disagree about N.

    Example:
        >>> law = MultivariateStudentT(4.0, torch.zeros(3), 0.01 * torch.ones(3, 1), torch.full((3,), 3e-4))
        >>> portfolio = law.combination(torch.tensor([0.5, 0.3, 0.2]))
        >>> round(portfolio.icdf(torch.tensor(0.01)).item(), 4)
        -0.0548
        >>> asia = torch.tensor([True, False, False])  # has closed 4 % down
        >>> law.condition(torch.tensor([-0.04, torch.nan, torch.nan]), asia).loc
        tensor([-0.0100, -0.0100])

    References:
        Kotz and Nadarajah (2004), Multivariate t Distributions and Their Applications, for density, marginals, linear
        combinations and entropy.
        Ding (2016), On the conditional distribution of the multivariate t distribution, The American Statistician 70.
    """

    df: Tensor
    loc: Tensor
    factors: Tensor
    diagonal: Tensor
    arg_constraints = {
        "df": constraints.positive,
        "loc": constraints.real_vector,
        "factors": constraints.independent(constraints.real, 2),
        "diagonal": constraints.independent(constraints.positive, 1),
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, df: Tensor | float, loc: Tensor, factors: Tensor, diagonal: Tensor, *, validate_args: bool | None = None
    ) -> None:
        shapes = loc.shape, factors.shape, diagonal.shape
        if loc.ndim == 0 or not loc.shape[-1:] == factors.shape[-2:-1] == diagonal.shape[-1:]:
            raise ArgumentError(
                "MultivariateStudentT needs loc [..., N], factors [..., N, R] and diagonal [..., N], not the shapes "
                f"{', '.join(str(tuple(shape)) for shape in shapes)}."
            )
        tensors = [value for value in (df, loc, factors, diagonal) if isinstance(value, Tensor)]
        dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
        dtype = dtype if dtype.is_floating_point else torch.get_default_dtype()
        self.df = torch.as_tensor(df, dtype=dtype, device=loc.device)
        self.loc, self.factors, self.diagonal = loc.to(dtype), factors.to(dtype), diagonal.to(dtype)
        if validate_args is not False and not torch.compiler.is_compiling():
            for name, constraint in self.arg_constraints.items():
                check(self, name, getattr(constraint, "base_constraint", constraint))
        batch = torch.broadcast_shapes(self.df.shape, loc.shape[:-1], factors.shape[:-2], diagonal.shape[:-1])
        super().__init__(batch, loc.shape[-1:], validate_args=False)

    def expand(self, batch_shape: _size, _instance: object = None) -> "MultivariateStudentT":
        """The law expanded to a batch shape; its vectors and factors stay where they are."""
        return MultivariateStudentT(
            self.df.expand(batch_shape), self.loc, self.factors, self.diagonal, validate_args=False
        )

    @property
    def mean(self) -> Float[Tensor, "... N"]:
        """Mean; NaN where df is at most 1."""
        return self._vectors(torch.where(self.df.unsqueeze(-1) > 1, self.loc, torch.nan))

    @property
    def variance(self) -> Float[Tensor, "... N"]:
        """Variances of the coordinates; infinite where df is at most 2."""
        df, _, F, D = self._doubles()
        variance = self._variance_ratio(df).unsqueeze(-1) * low_rank.diagonal(F, D)
        return self._vectors(variance.to(self.loc.dtype))

    @property
    def scale_matrix(self) -> Float[Tensor, "... N N"]:
        """Sigma itself, N x N."""
        _, _, F, D = self._doubles()
        matrix = F @ F.mT + torch.diag_embed(D)
        return matrix.to(self.loc.dtype).expand(*self._extended_shape(), -1)

    @property
    def covariance_matrix(self) -> Float[Tensor, "... N N"]:
        """Covariance, N x N; infinite or NaN where df is at most 2."""
        return self._variance_ratio(self.df)[..., None, None] * self.scale_matrix

    def entropy(self) -> Float[Tensor, "..."]:
        """Differential entropy: -log of the density at loc, plus (df + N)/2 E log(1 + Q / df), a gap of digammas."""
        df, _, F, D = self._doubles()
        a, h = df / 2, torch.full_like(df, self.event_shape[0] / 2)
        log_det = low_rank.log_det(low_rank.inner_root(1 / D, F)) + torch.log(D).sum(-1)
        entropy = h * _LOG_2PI + 0.5 * log_det - log_gamma_gap(a, h) + (a + h) * digamma_gap(a, h)
        return entropy.to(self.loc.dtype).expand(self.batch_shape)

    def log_prob(
        self, value: Float[Tensor, "... N"], mask: Bool[Tensor, "... N"] | None = None
    ) -> Float[Tensor, "..."]:
        """Log density at `value`, or with a mask that of the marginal law of the coordinates that are there.

        The normaliser is elementary arithmetic, right to about 1e-16 N for any df; so that at df = 1e8 the law is the
        normal to within their difference, where log-gammas would leave 1e-7.

        Args:
            value: `[..., N]`, broadcasts against the batch shape.
            mask: True where a value counts; the others, which may be NaN, take part in neither density nor gradient.
                All True by default; where all are False the result is 0.

        Raises:
            ValueError: the last dimension of value or mask is not N.
        """
        df, _, _, D = self._doubles()
        there = self._there(mask)
        Q, _, root = self._regress(value, there)
        a, h = df / 2, there.sum(-1).double() / 2
        log_det = low_rank.log_det_some(root, there, D)
        result = log_gamma_gap(a, h) - h * _LOG_2PI - 0.5 * log_det - (a + h) * torch.log1p(Q / df)
        return result.to(self._dtype(value))

    def mahalanobis(
        self, value: Float[Tensor, "... N"], mask: Bool[Tensor, "... N"] | None = None
    ) -> Float[Tensor, "..."]:
        """Squared distance Q = (x - loc)' Sigma^-1 (x - loc); Q / N is F-distributed with N and df degrees of freedom.

        Args:
            value: `[..., N]`, broadcasts against the batch shape.
            mask: True where a value counts, as in `log_prob`; N above is then their number.

        Raises:
            ValueError: the last dimension of value or mask is not N.
        """
        Q = self._regress(value, self._there(mask))[0].to(self._dtype(value))
        return Q.expand(torch.broadcast_shapes(Q.shape, self.batch_shape))

    def marginal(self, index: Sequence[int] | slice | Tensor) -> "MultivariateStudentT":
        """The joint law of some coordinates, in the order of `index`.

        Args:
            index: positions, each at most once, a slice, or a bool mask `[N]` (not in a compiled graph, where the
                number of coordinates has to be known).

        Raises:
            ValueError: a mask is not `[N]`, or a position comes twice.
        """
        return self._part(self._positions(index))

    def marginals(self) -> StudentT:
        """The laws of the single coordinates: batch shape `[..., N]`."""
        df, loc, F, D = self._doubles()
        scale = torch.sqrt(low_rank.diagonal(F, D))
        return _student_t(self.loc.dtype, df.unsqueeze(-1), self._vectors(loc), scale)

    def condition(self, value: Float[Tensor, "... N"], known: Sequence[int] | slice | Tensor) -> "MultivariateStudentT":
        """The law of the unknown coordinates, in their order, given the known ones.

        With k known, n of them, u the rest and M, f and Q those of k: t of df + n degrees of freedom, about
        loc_u + F_u f, of scale matrix (df + Q)/(df + n) (F_u M^-1 F_u' + D_u).

        Args:
            value: `[..., N]`, broadcasts against the batch shape; what stands at unknown places is not looked at.
            known: a bool mask `[N]`, one for the whole batch (not in a compiled graph), positions or a slice.

        Raises:
            ValueError: a mask is not `[N]`, a position comes twice, or a known value is not finite.

        References:
            Ding (2016), as above.
        """
        self._require_event(value, "value")
        k = self._positions(known)
        n, u = len(k), coordinates.others(k, self.event_shape[0])
        known_value = value[..., k]
        coordinates.require_known(known_value, k)
        part, rest = self._part(k), self._part(u)
        Q, f, root = part._regress(known_value, part._there(None))
        df, loc, F, D = rest._doubles()
        ratio = (df + Q) / (df + n)
        loc = loc + low_rank.from_factors(f, F)
        F = torch.sqrt(ratio)[..., None, None] * low_rank.remaining(root, F)
        dtype = self._dtype(value)
        parameters = (parameter.to(dtype) for parameter in (df + n, loc, F, ratio.unsqueeze(-1) * D))
        return MultivariateStudentT(*parameters, validate_args=False)

    def combination(self, weights: Float[Tensor, "... N"]) -> StudentT:
        """The law of w'X: Student's t about w'loc with scale sqrt(w' Sigma w).

        Args:
            weights: w `[..., N]`, broadcasts against the batch shape, so that `[P, 1, N]` are P portfolios on each of
                B dates; not all zero.

        Raises:
            ValueError: the last dimension is not N, or all weights of a combination are zero.
        """
        self._require_event(weights, "weights")
        df, loc, F, D = self._doubles()
        w = weights.double()
        scale = torch.sqrt(low_rank.quadratic(w, F, D))
        return _student_t(self._dtype(weights), df, (w * loc).sum(-1), scale)

    def scale_product(self, weights: Float[Tensor, "... N"]) -> Float[Tensor, "... N"]:
        """Sigma w, for weights `[..., N]` that broadcast against the batch shape.

        Raises:
            ValueError: the last dimension is not N.
        """
        self._require_event(weights, "weights")
        _, _, F, D = self._doubles()
        return self._vectors(low_rank.product(weights.double(), F, D)).to(self._dtype(weights))

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draws from torch's generator, differentiable in every parameter.

        W is a gamma draw of torch, whose derivative in df is implicit: a median error of 1e-4 and at most 1e-3,
        relative. It is kept above 1e-308, which limits one draw in a thousand where df is 0.02.
        """
        df, loc, F, D = self._doubles()
        shape = torch.Size(sample_shape) + self.batch_shape
        e = torch.randn((*shape, F.shape[-1]), dtype=torch.float64, device=loc.device)
        u = torch.randn((*shape, *self.event_shape), dtype=torch.float64, device=loc.device)
        gamma = torch._standard_gamma((df / 2).expand(shape).contiguous())
        W = (gamma / (df / 2)).clamp(min=torch.finfo(torch.float64).tiny)
        z = low_rank.from_factors(e, F) + torch.sqrt(D) * u
        return (loc + z / torch.sqrt(W).unsqueeze(-1)).to(self.loc.dtype)

    def _doubles(self) -> tuple[Double, ...]:
        return self.df.double(), self.loc.double(), self.factors.double(), self.diagonal.double()

    def _dtype(self, value: Tensor) -> torch.dtype:
        return torch.promote_types(self.loc.dtype, value.dtype)

    def _vectors(self, value: Tensor) -> Tensor:
        return value.expand(torch.broadcast_shapes(value.shape, self._extended_shape()))

    def _require_event(self, value: Tensor, name: str) -> None:
        coordinates.require_event(value, name, self.event_shape[0])

    def _there(self, mask: Tensor | None) -> Bool[Tensor, "... N"]:
        return coordinates.there(mask, self.event_shape[0], self.loc.device)

    def _regress(self, value: Tensor, there: Bool[Tensor, "... N"]) -> tuple[Double, Double, Double]:
        """Q, f and the Cholesky root of M of the coordinates that are there."""
        self._require_event(value, "value")
        _, loc, F, D = self._doubles()
        return low_rank.regress_some(value.double() - loc, there, F, D)

    def _positions(self, index: Sequence[int] | slice | Tensor) -> Int64[Tensor, " n"]:
        return coordinates.positions(index, self.event_shape[0], self.loc.device)

    def _part(self, places: Int64[Tensor, " n"]) -> "MultivariateStudentT":
        loc, F, D = self.loc[..., places], self.factors[..., places, :], self.diagonal[..., places]
        return MultivariateStudentT(self.df, loc, F, D, validate_args=False)

    @staticmethod
    def _variance_ratio(df: Tensor) -> Tensor:
        return torch.where(df > 2, df / (df - 2), torch.inf)


def _student_t(dtype: torch.dtype, *parameters: Double) -> StudentT:
    return StudentT(*(parameter.to(dtype) for parameter in parameters))


@take.register
def _multivariate_student_t(distribution: MultivariateStudentT, index: Any) -> MultivariateStudentT:
    def part(value: Tensor, ndim: int) -> Tensor:
        return part_of(value, ndim, distribution.batch_shape, index)

    law = distribution
    parts = part(law.df, 0), part(law.loc, 1), part(law.factors, 2), part(law.diagonal, 1)
    return MultivariateStudentT(*parts, validate_args=False)
