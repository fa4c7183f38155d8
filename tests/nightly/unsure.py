"""A head whose draws disagree, for nights of models that know how sure they are."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from qtorch.distributions import Posterior
from qtorch.heads import SkewedStudentT


class Unsure(nn.Module):
    """Five draws of a skewed Student-t head, whose scales differ by fixed factors and whose modes by fixed shifts."""

    def __init__(self, in_features: int, horizons: Sequence[int]) -> None:
        super().__init__()
        self.in_features, self.horizons = in_features, tuple(horizons)
        self.head = SkewedStudentT(in_features, horizons)

    def parameters_of(self, hidden: Float[Tensor, "*batch D"]) -> tuple[Tensor, ...]:
        df, loc, scale, skew = (x.unsqueeze(-1) for x in self.head.parameters_of(hidden))
        step = torch.linspace(-1, 1, 5, device=hidden.device)
        return df + 0 * step, loc + 0.1 * step * scale, scale * torch.exp(0.2 * step), skew + 0 * step

    def distribution(self, *parameters: Tensor) -> Distribution:
        weights = torch.ones(5, device=parameters[0].device)
        return Posterior(weights, self.head.distribution(*parameters), validate_args=False)

    def forward(self, hidden: Float[Tensor, "*batch D"]) -> Distribution:
        return self.distribution(*self.parameters_of(hidden))
