"""An encoder whose hidden states tell how far a window is from those of training."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from qtorch.distributions.checks import require


class DistanceAware(nn.Module):
    """Random Fourier features of an encoder's hidden state, whose linear maps can't stretch without bound.

    A head on the features sqrt(2/M) cos(A x / l + b) is a Gaussian process with a kernel of length scale l over the
    hidden state x, to the error of M features. Fit its posterior after training, by `Laplace.fit`: the variance then
    rises from that of the training data to the prior's as x leaves them. Bounded spectral norms keep windows that
    differ from being mapped far apart, and with the encoder's residual connections from being mapped to one place.

    Args:
        encoder: any that has `out_features`, in either layout; its linear maps are bounded in place.
        features: `M`.
        length_scale: l, in units of the hidden state.
        bound: of the spectral norm of each linear map's weights; None bounds none.
        seed: of the features, which are fixed.

    Raises:
        ValueError: a setting is out of bounds.

    References:
        Liu, Lin, Padhy, Tran, Bedrax-Weiss and Lakshminarayanan (2020), Simple and principled uncertainty estimation
        with deterministic deep learning via distance awareness, NeurIPS, algorithm 1; Rahimi and Recht (2007), Random
        features for large-scale kernel machines, NeurIPS.
    """

    frequency: Tensor
    phase: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        features: int = 256,
        length_scale: float = 1.0,
        bound: float | None = 0.95,
        seed: int = 0,
    ) -> None:
        super().__init__()
        require(features > 0, "features", features, "give at least 1")
        require(0 < length_scale < math.inf, "length_scale", length_scale, "give a positive number")
        require(bound is None or 0 < bound < math.inf, "bound", bound, "give a positive number, or None")
        self.encoder, self.features, self.length_scale = encoder, features, length_scale
        self.bound, self.seed = bound, seed
        self.layout: str = getattr(encoder, "layout", "asset")
        self.causal: bool = getattr(encoder, "causal", True)
        self.in_features, self.context = getattr(encoder, "in_features", None), getattr(encoder, "context", None)
        self.out_features = features
        generator = torch.Generator().manual_seed(seed)
        width: int = encoder.out_features  # type: ignore[assignment]
        self.register_buffer("frequency", torch.randn(features, width, generator=generator))
        self.register_buffer("phase", 2 * math.pi * torch.rand(features, generator=generator))
        if bound is not None:
            for part in [part for part in encoder.modules() if isinstance(part, nn.Linear)]:
                parametrize.register_parametrization(part, "weight", _Bounded(bound))

    def forward(
        self, inputs: Float[Tensor, "B C *N F"], mask: Bool[Tensor, "B C *N"]
    ) -> Float[Tensor, "B positions *N M"]:
        """The features at each position of the encoder's, 0 where masked."""
        hidden = self.encoder(inputs, mask)
        usable = mask[:, -hidden.shape[1] :].unsqueeze(-1)
        angle = nn.functional.linear(hidden / self.length_scale, self.frequency, self.phase)
        return torch.where(usable, math.sqrt(2 / self.features) * torch.cos(angle), 0.0)


class _Bounded(nn.Module):
    """A matrix shrunk so that its spectral norm is at most a bound."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound

    def forward(self, weight: Tensor) -> Tensor:
        norm = torch.linalg.matrix_norm(weight.float(), ord=2)
        return weight * (self.bound / norm.clamp(min=self.bound)).to(weight.dtype)
