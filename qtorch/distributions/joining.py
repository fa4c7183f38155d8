"""Several batches of distributions as one."""

from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from qtorch.distributions.affine import Affine
from qtorch.distributions.concatenated import Concatenated
from qtorch.distributions.copula_like import CopulaLike
from qtorch.distributions.copulas import GaussianCopula, StudentTCopula
from qtorch.distributions.empirical import Empirical
from qtorch.distributions.exp_minus_one import ExpMinusOne
from qtorch.distributions.joint import JointDistribution
from qtorch.distributions.jump_student_t import JumpStudentT
from qtorch.distributions.mixture import Mixture
from qtorch.distributions.quantile_spline import QuantileSpline
from qtorch.distributions.spliced_tails import SplicedTails
from qtorch.distributions.stacked import Stacked
from qtorch.errors import ArgumentError

Join = Callable[[list[Tensor]], Tensor]


def stack(distributions: Sequence[Distribution]) -> Distribution:
    """Distributions of one batch shape `[...]` as one of batch shape `[..., K]`: a mixture's components.

    Laws of one class, down to what they are made of, become one of that class; others, and empirical laws of unlike
    numbers of values, become a `Stacked`.

    Args:
        distributions: `K` of them, without event dimension. Classes whose parameters, named in `arg_constraints`, are
            tensors of the batch shape can be joined as they are; others register their own way with `joined.register`.

    Raises:
        ValueError: they are none or of several shapes, or can't be joined.

    Example:
        >>> from torch.distributions import Normal
        >>> parts = stack([Normal(torch.zeros(3), 1.0), Normal(torch.ones(3), 2.0)])
        >>> parts.batch_shape, Mixture(torch.tensor([0.5, 0.5]), parts).mean
        (torch.Size([3, 2]), tensor([0.5000, 0.5000, 0.5000]))
    """
    if len({_kind(distribution) for distribution in distributions}) > 1 and not any(
        distribution.event_shape for distribution in distributions
    ):
        return Stacked(distributions)
    shape = _checked(distributions)[0].batch_shape
    if any(distribution.batch_shape != shape for distribution in distributions):
        raise ArgumentError(
            f"laws of one batch shape are stacked, not of {[tuple(d.batch_shape) for d in distributions]}."
        )
    return joined(distributions[0], distributions, lambda tensors: torch.stack(tensors, dim=len(shape)))


def concatenate(distributions: Sequence[Distribution]) -> Distribution:
    """Distributions of one class as one, one after the other along the first dimension of the batch.

    Args:
        distributions: of batch shapes that differ in the first dimension alone, without event dimension, or joint laws
            of as many coordinates. Those with copulas of as many factors become one `JointDistribution`; laws that
            evaluate a network, which may be another in each, and mixtures become a `Concatenated`.

    Raises:
        ValueError: they are none, of several classes or of shapes that do not fit.
    """
    joint = [distribution for distribution in distributions if isinstance(distribution, JointDistribution)]
    networks = any(not isinstance(law.copula, GaussianCopula | StudentTCopula) for law in joint)
    if (
        distributions
        and all(law.event_shape for law in distributions)
        and (networks or len(joint) < len(distributions))
    ):
        return Concatenated(distributions, concatenate)
    if not joint or len(joint) != len(distributions):
        _checked(distributions)
    shapes = [tuple(distribution.batch_shape) for distribution in distributions]
    if not shapes[0] or any(shape[1:] != shapes[0][1:] for shape in shapes):
        raise ArgumentError(f"laws are concatenated along the first dimension of the batch; theirs are {shapes}.")
    if joint:
        marginals = concatenate([law.marginals.expand(law.batch_shape + law.event_shape) for law in joint])
        return JointDistribution(marginals, _copulas([law.copula.expand(law.batch_shape) for law in joint]))
    return joined(distributions[0], distributions, torch.cat)


def _copulas(copulas: Sequence[CopulaLike]) -> GaussianCopula | StudentTCopula:
    """Copulas of a few factors as one, along the first dimension of the batch."""
    student = [copula for copula in copulas if isinstance(copula, StudentTCopula)]
    factors = [copula for copula in copulas if isinstance(copula, GaussianCopula | StudentTCopula)]
    kinds = sorted({f"{type(c).__name__} {tuple(getattr(c, 'loadings', torch.empty(0)).shape[-2:])}" for c in copulas})
    if len(kinds) != 1 or len(factors) != len(copulas):
        raise ArgumentError(f"copulas of one class, assets and factors are concatenated, not {', '.join(kinds)}.")
    loadings = torch.cat([copula.loadings for copula in factors])
    if not student:
        return GaussianCopula(loadings, validate_args=False)
    df = torch.cat([copula.df.expand(copula.batch_shape) for copula in student])
    return StudentTCopula(df, loadings, validate_args=False)


@singledispatch
def joined(first: Distribution, distributions: Sequence[Distribution], join: Join) -> Distribution:
    """The distribution whose parameters are those of several, joined.

    Args:
        first: the first of them, which decides how.
        distributions: of the class of the first.
        join: makes one tensor of several whose leading dimensions are those of their laws' batches.
    """
    parameters: dict[str, Any] = {name: _joined(distributions, name, join) for name in first.arg_constraints}
    return type(first)(**parameters, validate_args=False)


@joined.register
def _affine(first: Affine, distributions: Sequence[Any], join: Join) -> Affine:
    base = _bases(distributions, "base", join)
    return Affine(base, _joined(distributions, "loc", join), _joined(distributions, "scale", join))


@joined.register
def _empirical(first: Empirical, distributions: Sequence[Any], join: Join) -> Empirical:
    sizes = {distribution.values.shape[-1] for distribution in distributions}
    weighted = {distribution.weights is not None for distribution in distributions}
    if len(sizes) > 1 or len(weighted) > 1:
        raise ArgumentError(f"empirical laws are joined if all have as many values, and weights or none; not {sizes}.")
    values = join([distribution.values for distribution in distributions])
    return Empirical(values, join([d.weights for d in distributions]) if weighted == {True} else None)


@joined.register
def _exp_minus_one(first: ExpMinusOne, distributions: Sequence[Any], join: Join) -> ExpMinusOne:
    return ExpMinusOne(_bases(distributions, "base", join))


@joined.register
def _mixture(first: Mixture, distributions: Sequence[Any], join: Join) -> Mixture:
    """The dimension of the components stays last, as `stack` of their batches puts the new one before it."""
    weights = join([distribution.weights for distribution in distributions])
    parts = [distribution.components for distribution in distributions]
    _checked(parts)
    return type(first)(weights, joined(parts[0], parts, join), validate_args=False)


@joined.register
def _stacked(first: Stacked, distributions: Sequence[Any], join: Join) -> Stacked:
    """Law by law, as the components of mixtures, whose dimension stays last."""
    places = zip(*(distribution.laws for distribution in distributions), strict=True)
    return Stacked([joined(_checked(laws)[0], laws, join) for laws in places])


@joined.register
def _jump_student_t(first: JumpStudentT, distributions: Sequence[Any], join: Join) -> JumpStudentT:
    if any(distribution.parameters != first.parameters for distribution in distributions):
        raise ArgumentError("JumpStudentT is one law for its whole batch; several can't be joined.")
    return first.expand(join([torch.empty(d.batch_shape, device="meta") for d in distributions]).shape)


@joined.register
def _spliced_tails(first: SplicedTails, distributions: Sequence[Any], join: Join) -> SplicedTails:
    parameters = {name: _joined(distributions, name, join) for name in first.arg_constraints}
    return SplicedTails(_bases(distributions, "body", join), **parameters, validate_args=False)


@joined.register
def _quantile_spline(first: QuantileSpline, distributions: Sequence[Any], join: Join) -> QuantileSpline:
    points = {name: join([getattr(d, name) for d in distributions]) for name in first.arg_constraints}
    return QuantileSpline(**points, base=_bases(distributions, "base", join), validate_args=False)


def _joined(distributions: Sequence[Distribution], name: str, join: Join) -> Tensor:
    """A parameter of them all; one may have it where another has not, as tails may have a scale of their own."""
    if not all(name in distribution.arg_constraints for distribution in distributions):
        raise ArgumentError(f"not all of the laws to join have a {name}.")
    return join([getattr(distribution, name).expand(distribution.batch_shape) for distribution in distributions])


def _bases(distributions: Sequence[Any], name: str, join: Join) -> Distribution:
    bases = [getattr(distribution, name) for distribution in distributions]
    return joined(_checked(bases)[0], bases, join)


def _kind(distribution: Distribution) -> tuple[Any, ...]:
    """The class of a law and of those that it is made of, and how many components or values it has."""
    own = (part if isinstance(part, tuple) else (part,) for part in vars(distribution).values())
    parts = (part for several in own for part in several if isinstance(part, Distribution))
    count: Any = distribution.weights.shape[-1] if isinstance(distribution, Mixture) else None
    if isinstance(distribution, Empirical):
        count = distribution.values.shape[-1], distribution.weights is not None
    return (type(distribution), count, *map(_kind, parts))


def _checked(distributions: Sequence[Distribution]) -> Sequence[Distribution]:
    kinds = {type(distribution).__name__ for distribution in distributions}
    if any(isinstance(distribution, JointDistribution) for distribution in distributions):
        raise ArgumentError(
            "joint laws can't be mixed, nor joined with others: join their marginals, and put a copula on the result, "
            "or mix joint laws alone by a JointMixture."
        )
    if len(kinds) != 1 or any(distribution.event_shape for distribution in distributions):
        raise ArgumentError(f"univariate laws of one class are joined, not {sorted(kinds)}.")
    return distributions
