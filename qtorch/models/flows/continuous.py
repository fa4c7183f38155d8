"""Continuous flows, trained by flow matching or by their likelihood."""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qtorch.distributions.checks import require
from qtorch.distributions.transforms import Bijection, Continuous
from qtorch.distributions.transforms.bijection import promoted
from qtorch.models.flows.bases import NormalBase
from qtorch.models.flows.flow import Flow
from qtorch.models.flows.layers import Context, Layer, TailLayer
from qtorch.nn.velocity import Velocity


class ContinuousLayer(Layer):
    """The flow of a learned velocity field from the data, at time 1, to the base, at time 0.

    Args:
        features: coordinates D.
        context: features C of the context.
        hidden: widths of the velocity's network.
        method: a solver of torchdiffeq.
        steps: of a solver of fixed steps; None for one that chooses its own.
        tolerance: of a solver that chooses its steps.
        probes: vectors of random signs for Hutchinson's estimate of the divergence, drawn once for a law and the same
            for all its rows; 0 computes it exactly, at the price of D passes.
    """

    def __init__(
        self,
        features: int,
        context: int,
        hidden: Sequence[int],
        method: str = "rk4",
        steps: int | None = 16,
        tolerance: float = 1e-6,
        probes: int = 0,
    ) -> None:
        super().__init__()
        self.features, self.method, self.steps, self.tolerance = features, method, steps, tolerance
        self.probes = probes
        self.velocity = Velocity(features, context, hidden)

    def given(self, context: Context) -> Bijection:
        """The transform for a context `[..., C]`."""
        device = self.velocity.first.weight.device
        if self.probes:
            signs = 2.0 * torch.randint(2, (self.probes, self.features), device=device) - 1
            probes = signs / self.probes**0.5
        else:
            probes = torch.eye(self.features, device=device)
        velocity = partial(self.velocity, context=None if context is None else promoted(context))
        return Continuous(velocity, probes, self.method, self.steps, self.tolerance)


class ContinuousFlow(Flow):
    """A neural ordinary differential equation between a layer of heavy tails and a base law.

    Train it by `matching_loss`, which solves no equation, or by its likelihood. It needs the extra `flows`
    (torchdiffeq), which prevents graphs without breaks and exports.

    Args:
        features: coordinates D.
        context: features C of the context; 0 for none.
        hidden: widths of the velocity's network.
        method: a solver of torchdiffeq.
        steps: of a solver of fixed steps; None for one that chooses its own, such as ``"dopri5"``.
        tolerance: of a solver that chooses its steps.
        probes: 0 for the exact divergence, or the number of random vectors of Hutchinson's estimate.
        tails: whether a layer of heavy tails stands next to the data, as in `NeuralSplineFlow`.
        base: a module whose call with a batch shape gives the base law; independent normals by default.

    References:
        Chen, Rubanova, Bettencourt and Duvenaud (2018), Neural ordinary differential equations, NeurIPS.
        Grathwohl et al. (2019), FFJORD, ICLR.
        Lipman et al. (2023), Flow matching for generative modeling, ICLR.

    Example:
        >>> flow = ContinuousFlow(features=2, hidden=[16])
        >>> flow.matching_loss(torch.randn(5, 2)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        *,
        hidden: Sequence[int] = (128, 128),
        method: str = "rk4",
        steps: int | None = 16,
        tolerance: float = 1e-6,
        probes: int = 0,
        tails: bool = True,
        base: nn.Module | None = None,
    ) -> None:
        require(features >= 1, "features", features, "a law needs a coordinate")
        require(steps is None or steps >= 1, "steps", steps, "a solver needs a step, or None to choose its own")
        require(probes >= 0, "probes", probes, "a number of vectors, 0 for the exact divergence")
        before: list[Layer] = [TailLayer(features)] if tails else []
        layer = ContinuousLayer(features, context, hidden, method, steps, tolerance, probes)
        super().__init__(NormalBase(features) if base is None else base, [*before, layer])
        self.features, self.context, self.hidden, self.tails = features, context, list(hidden), tails
        self.method, self.steps, self.tolerance, self.probes = method, steps, tolerance, probes

    def matching_loss(
        self,
        x: Float[Tensor, "... D"],
        context: Float[Tensor, "... C"] | None = None,
        mask: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "..."]:
        """Each row's squared error of the velocity on a straight path from a base draw to the row, at a random time.

        The paths end at the tail layer's output, so that matching leaves that layer at its extreme-value start:
        call `initialise` first, and train by the likelihood what it is to learn.

        Args:
            x: data `[..., D]`.
            context: `[..., C]`.
            mask: usable rows `[...]`; the others, whatever they hold, have a loss of 0.

        References:
            Lipman et al. (2023), Flow matching for generative modeling, ICLR, equations 14 and 23 with sigma_min = 0.
        """
        if mask is not None:
            x = torch.where(mask.unsqueeze(-1), x, 0.0)
            context = None if context is None else torch.where(mask.unsqueeze(-1), context, 0.0)
        with torch.no_grad():
            for layer in self._parts()[:-1]:
                x = layer.given(context).call_and_ladj(x)[0]
            z = self.base(x.shape[:-1]).sample().to(x.dtype)
            t = torch.rand(x.shape[:-1], dtype=x.dtype, device=x.device)
        path = z + t.unsqueeze(-1) * (x - z)
        error = self._velocity(t, path, context).to(x.dtype) - (x - z)
        loss = error.square().sum(-1)
        return loss if mask is None else torch.where(mask, loss, 0.0)

    @property
    def _velocity(self) -> nn.Module:
        layer = self.layers[-1]
        assert isinstance(layer, ContinuousLayer)
        return layer.velocity
