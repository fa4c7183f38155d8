"""Gaussianisation flows: marginals made normal, rotated, and again."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qtorch.distributions.checks import require
from qtorch.distributions.transforms import Affine, Bijection, MixtureGaussianisation, Rotation
from qtorch.distributions.transforms.affine import MAX_LOG_SCALE
from qtorch.errors import ArgumentError
from qtorch.models.flows.bases import NormalBase
from qtorch.models.flows.flow import Flow
from qtorch.models.flows.layers import Context, Layer, TailLayer

_EM_STEPS = 25


class GaussianisationFlow(Flow):
    """Each coordinate to its normal score under a mixture of normals, between learned rotations.

    A context shifts and scales the coordinates before each mixture by a linear map, at first not at all. `initialise`
    runs iterative Gaussianisation on the data: mixtures fitted to marginals, rotations from principal
    components, each layer on what those before make of the data; without it a flow starts at random rotations.

    Args:
        features: coordinates D.
        context: features C of the context; 0 for none.
        transforms: layers of mixtures, between which stand rotations.
        kernels: K of each mixture.
        tails: whether a layer of heavy tails stands next to the data, as in `NeuralSplineFlow`.
        base: a module whose call with a batch shape gives the base law; independent normals by default.

    References:
        Chen and Gopinath (2000), Gaussianization, NeurIPS.
        Meng, Song, Song and Ermon (2020), Gaussianization flows, AISTATS.

    Example:
        >>> flow = GaussianisationFlow(features=3, kernels=8)
        >>> flow.initialise(torch.randn(100, 3))
        >>> flow().log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        *,
        transforms: int = 5,
        kernels: int = 16,
        tails: bool = True,
        base: nn.Module | None = None,
    ) -> None:
        require(features >= 1, "features", features, "a law needs a coordinate")
        require(transforms >= 1, "transforms", transforms, "a flow needs a layer")
        require(kernels >= 1, "kernels", kernels, "a mixture needs a kernel")
        layers: list[Layer] = [TailLayer(features)] if tails else []
        for k in range(transforms):
            layers += [RotationLayer(features)] if k else []
            layers += [ContextAffineLayer(features, context)] if context else []
            layers.append(MixtureLayer(features, kernels))
        super().__init__(NormalBase(features) if base is None else base, layers)
        self.features, self.context, self.transforms = features, context, transforms
        self.kernels, self.tails = kernels, tails


class MixtureLayer(Layer):
    """Each coordinate's normal score under a mixture of normals.

    Args:
        features: coordinates D.
        kernels: K.
    """

    def __init__(self, features: int, kernels: int) -> None:
        super().__init__()
        self.features, self.kernels = features, kernels
        # At first the kernels are quantiles' neighbours of a standard normal, about the identity.
        place = torch.special.ndtri((torch.arange(kernels) + 0.5) / kernels)
        start = torch.zeros(3, kernels, features)
        start[1] = 0.8 * place.unsqueeze(-1)
        start[2] = -0.5
        self.mixture = nn.Parameter(start)

    def given(self, context: Context) -> Bijection:
        """The transform, which depends on no context."""
        return MixtureGaussianisation(self.mixture.flatten(0, 1))

    @torch.no_grad()
    def initialise(self, data: Float[Tensor, "T D"]) -> None:
        """Fits each mixture by expectation maximisation, from kernels at the K-th parts of the sorted data.

        Raises:
            ValueError: there are fewer than two rows to a kernel, or they are not finite.
        """
        if len(data) < 2 * self.kernels or not torch.isfinite(data).all():
            raise ArgumentError(f"{len(data)} rows of data: {self.kernels} kernels need two finite rows each.")
        # Marginals alone matter here, and some thousand of their order statistics tell all of them.
        rows = torch.linspace(0, len(data) - 1, min(len(data), 4096), device=data.device).round().long()
        x = data.double().sort(0).values[rows]
        parts = torch.tensor_split(x, self.kernels)
        loc, std = (torch.stack([f(part, 0) for part in parts]) for f in (torch.mean, torch.std))
        floor = (0.05 * x.std(0)).square().clamp(min=1e-8)
        # A part as wide as w has the deviation w / sqrt(12); normals w / 2 wide add to a density without ripples.
        log_weight, variance = torch.zeros_like(loc), torch.maximum((1.75 * std).square(), floor)
        for _ in range(_EM_STEPS):
            square = (x.unsqueeze(1) - loc).square() / variance
            share = torch.softmax(log_weight - 0.5 * (torch.log(variance) + square), 1)
            count = share.sum(0) + 1e-6
            loc = (share * x.unsqueeze(1)).sum(0) / count
            variance = torch.maximum((share * (x.unsqueeze(1) - loc).square()).sum(0) / count, floor)
            log_weight = torch.log(count / count.sum(0))
        log_scale = (0.5 * torch.log(variance)).clamp(-4, 4)
        self.mixture.copy_(torch.stack((log_weight, loc, log_scale / (1 - log_scale.abs() / MAX_LOG_SCALE))))


class RotationLayer(Layer):
    """A learned rotation, at first a random one.

    Args:
        features: coordinates D.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.vectors = nn.Parameter(torch.randn(features, features))

    def given(self, context: Context) -> Bijection:
        """The transform, which depends on no context."""
        return Rotation(self.vectors)

    @torch.no_grad()
    def initialise(self, data: Float[Tensor, "T D"]) -> None:
        """The axes are the data's principal components."""
        axes = torch.linalg.eigh(torch.cov(data.double().mT).reshape(self.features, self.features)).eigenvectors
        self.vectors.copy_(Rotation.vectors_of(axes))


class ContextAffineLayer(Layer):
    """Location and log-scale of each coordinate, linear in the context; at first 0.

    Args:
        features: coordinates D.
        context: features C of the context, 1 or more.
    """

    def __init__(self, features: int, context: int) -> None:
        super().__init__()
        self.features, self.context = features, context
        self.weight = nn.Parameter(torch.zeros(2, context, features))

    def given(self, context: Context) -> Bijection:
        """The transform for a context `[..., C]`."""
        if context is None:
            return Affine(torch.zeros_like(self.weight[:, 0]))
        with torch.autocast(context.device.type, enabled=False):
            return Affine(torch.stack([context.to(weight.dtype) @ weight for weight in self.weight]))
