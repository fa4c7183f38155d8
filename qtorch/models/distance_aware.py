"""An encoder whose hidden states tell how far a window is from those of training."""

import copy
import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call

from qtorch.distributions.checks import require

_WITH_MATRICES = (nn.Linear, nn.RNNBase, nn.MultiheadAttention)


class DistanceAware(nn.Module):
    """Random Fourier features of an encoder's hidden state, whose linear maps can't stretch without bound.

    A head on the features sqrt(2/M) cos(A x / l + b) is a Gaussian process with a kernel of length scale l over the
    hidden state x, to the error of M features. Fit its posterior after training, by `Laplace.fit`: the variance then
    rises from that of the training data to the prior's as x leaves them. Bounded spectral norms keep windows that
    differ from being mapped far apart, and with the encoder's residual connections from being mapped to one place.
    The matrices of `torch.nn`'s linear, recurrent and attention layers are bounded whenever they are used, those of a
    recurrent layer's gates as the one matrix that they are kept in, so that each gate's keeps to the bound too.

    Args:
        encoder: any that has `out_features`, in either layout; it stays as it is.
        features: `M`.
        length_scale: l, in units of the hidden state.
        bound: of the spectral norm of each matrix; None bounds none.
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
        self.encoder, self.features, self.length_scale = copy.deepcopy(encoder), features, length_scale
        self.bound, self.seed = bound, seed
        self.layout: str = getattr(encoder, "layout", "asset")
        self.causal: bool = getattr(encoder, "causal", True)
        self.in_features, self.context = getattr(encoder, "in_features", None), getattr(encoder, "context", None)
        self.out_features = features
        generator = torch.Generator().manual_seed(seed)
        width: int = encoder.out_features  # type: ignore[assignment]
        self.register_buffer("frequency", torch.randn(features, width, generator=generator))
        self.register_buffer("phase", 2 * math.pi * torch.rand(features, generator=generator))

    def bounded(self) -> dict[str, Float[Tensor, "rows columns"]]:
        """The encoder's matrices as it uses them, by their names in it; none where there is no bound."""
        if self.bound is None:
            return {}
        return {
            f"{name}.{key}" if name else key: _shrunk(weight, self.bound)
            for name, part in self.encoder.named_modules()
            if isinstance(part, _WITH_MATRICES)
            for key, weight in part.named_parameters(recurse=False)
            if weight.ndim == 2
        }

    def forward(
        self, inputs: Float[Tensor, "B C *N F"], mask: Bool[Tensor, "B C *N"]
    ) -> Float[Tensor, "B positions *N M"]:
        """The features at each position of the encoder's, 0 where masked."""
        hidden = functional_call(self.encoder, self.bounded(), (inputs, mask))
        usable = mask[:, -hidden.shape[1] :].unsqueeze(-1)
        angle = nn.functional.linear(hidden / self.length_scale, self.frequency, self.phase)
        return torch.where(usable, math.sqrt(2 / self.features) * torch.cos(angle), 0.0)


def _shrunk(weight: Float[Tensor, "rows columns"], bound: float) -> Float[Tensor, "rows columns"]:
    """A matrix times what makes its spectral norm at most a bound."""
    norm = torch.linalg.matrix_norm(weight.float(), ord=2)
    return weight * (bound / norm.clamp(min=bound)).to(weight.dtype)
