"""A head with a fixed set of draws of its affine map: what every posterior of a last layer forecasts with."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional

from qtorch.distributions import Posterior
from qtorch.distributions.checks import require
from qtorch.heads.parametric import Parameters, Parametric


class DrawnWeights(nn.Module):
    """Maps hidden states to the mixture, over K draws of a parametric head's affine map, of its laws.

    The draws are the same for every asset, date and batch: each is one function of the hidden state, so that forecasts
    repeat, and draws can be followed through time.

    Args:
        head: its own affine map is what the draws differ from.
        draws: `K`.

    Raises:
        ValueError: there is no draw.

    Example:
        >>> from qtorch.heads import SkewedStudentT
        >>> head = DrawnWeights(SkewedStudentT(8, (1, 10)), draws=4)
        >>> head.offsets.normal_(std=0.1).shape, head(torch.randn(3, 8)).batch_shape
        (torch.Size([4, 2, 4, 9]), torch.Size([3, 2]))
    """

    offsets: Tensor

    def __init__(self, head: Parametric, draws: int) -> None:
        super().__init__()
        require(draws > 0, "draws", draws, "give at least 1")
        self.head, self.draws = head, draws
        self.in_features, self.horizons = head.in_features, head.horizons
        self.register_buffer("offsets", torch.zeros(draws, len(head.horizons), head.size, head.in_features + 1))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the tensors of `parameters_of`, in their order."""
        return self.head.names

    def parameters_of(self, hidden: Float[Tensor, "*batch D"]) -> Parameters:
        """Tensors of the laws' parameters, each `[*batch, H, K, ...]`."""
        return parameters_of_draws(self.head, self.offsets, hidden)

    def distribution(self, *parameters: Tensor) -> Posterior:
        """The mixture of parameters as `parameters_of` gives them, batch shape `[*batch, H]`."""
        return equally_likely(self.head.distribution(*parameters), parameters[0])

    def forward(self, hidden: Float[Tensor, "*batch D"]) -> Posterior:
        """The distribution of standardised returns, batch shape `[*batch, H]`."""
        return self.distribution(*self.parameters_of(hidden))


def parameters_of_draws(
    head: Parametric, offsets: Float[Tensor, "K H size W"], hidden: Float[Tensor, "*batch D"]
) -> Parameters:
    """A head's parameters, each `[*batch, H, K, ...]`, under draws of its affine map.

    Args:
        head: the head.
        offsets: by what each draw differs from the head's own weights, and last its bias: `W = D + 1`.
        hidden: hidden states.
    """
    own = head.raw_of(hidden)
    weight, bias = offsets[..., :-1].flatten(0, 2), offsets[..., -1].flatten()
    moved = functional.linear(hidden.to(weight.dtype), weight, bias).unflatten(-1, offsets.shape[:3])
    at = hidden.ndim - 1
    return tuple(part.movedim(at, at + 1) for part in head.constrain(own.unsqueeze(at) + moved))


def equally_likely(laws: Distribution, like: Tensor) -> Posterior:
    """The posterior whose draws, the last dimension of a batch of laws, weigh alike."""
    ones = torch.ones(laws.batch_shape[-1], dtype=like.dtype, device=like.device)
    return Posterior(ones, laws, validate_args=False)
