"""Dropout whose random numbers cost little on CPUs."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qtorch.errors import ArgumentError


class Dropout(nn.Module):
    """Zeroes elements at random in training and scales up the rest, as `torch.nn.Dropout` does.

    On CPUs 8 bits are drawn for an element, where torch's Bernoulli draws 32 or more and was a fifth of the time of a
    transformer's training step. The probability is then the nearest multiple of 1/256 above 0, and the scale is that
    probability's, so that the mean is kept. Other devices have torch's own dropout.

    Args:
        p: probability, from 0 to below 1.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ArgumentError(f"the probability of dropout must be at least 0 and below 1, not {p}.")
        self.p = p

    def forward(
        self, x: Float[Tensor, "*shape"], onto: Float[Tensor, "*shape"] | None = None
    ) -> Float[Tensor, "*shape"]:
        """The rest of `x`, added to another tensor if there is one."""
        if self.training and self.p > 0:
            if x.device.type == "cpu":
                noise = _noise(x, self.p)
                return x * noise if onto is None else torch.addcmul(onto, x, noise)
            x = nn.functional.dropout(x, self.p)
        return x if onto is None else onto + x

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p}"


def _noise(x: Tensor, p: float) -> Tensor:
    """0 with the probability, else the scale, in the shape and type of a tensor."""
    dropped = min(max(round(256 * p), 1), 255)
    size = x.numel()
    words = torch.randint(-(2**63), 2**63 - 1, ((size + 7) // 8,))  # 64 bits each, but for the one excluded number
    bits = words.view(torch.uint8)[:size].view(x.shape).to(x.dtype)
    # 0 below the threshold and 1 from it on, exactly; a comparison of bytes would not be vectorised when compiled.
    return bits.sub_(dropped - 1).clamp(0, 1).mul_(256 / (256 - dropped))  # `clamp_` has no rule under vmap
