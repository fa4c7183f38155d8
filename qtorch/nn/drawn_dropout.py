"""Dropout that is a draw from a posterior: which units are dropped depends on no window."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn


class DrawnDropout(nn.Module):
    """Dropout of whole units: shared by all places of a window in training, and by all windows in a forecast.

    In training each entry of the first dimension has a draw of its own from torch's generator. In evaluation mode the
    units that are dropped are a function of the seed, of this layer's number, of the draw's and of the unit's, and of
    nothing else: no random state is kept or used, and each draw is one net.

    Args:
        p: probability, inside (0, 1).
        seed: of the draws in evaluation mode.
        place: number of this layer among those of its net.

    Attributes:
        draw: the draw's number, which `torch.func.functional_call` may replace.

    References:
        Gal and Ghahramani (2016), Dropout as a Bayesian approximation, ICML; the same (2016), A theoretically grounded
        application of dropout in recurrent neural networks, NeurIPS, for units dropped at all steps.
    """

    key: Tensor
    draw: Tensor

    def __init__(self, p: float, seed: int, place: int) -> None:
        super().__init__()
        self.p, self.seed, self.place = p, seed, place
        self.register_buffer(
            "key", _mixed(_mixed(torch.tensor(0), torch.tensor(seed)), torch.tensor(place)), persistent=False
        )
        self.register_buffer("draw", torch.tensor(0), persistent=False)

    def forward(self, x: Float[Tensor, "*B D"], onto: Float[Tensor, "*B D"] | None = None) -> Float[Tensor, "*B D"]:
        """The rest of `x`, scaled up, added to another tensor if there is one."""
        if self.training:
            x = x * nn.functional.dropout(x.new_ones(x.shape[0], *[1] * (x.ndim - 2), x.shape[-1]), self.p)
        else:
            x = x * self.noise(x.shape[-1]).to(x.dtype)
        return x if onto is None else onto + x

    def noise(self, units: int) -> Float[Tensor, "{units}"]:
        """0 for the draw's units that are dropped, 1 / (1 - p) for the others."""
        number = _mixed(_mixed(self.key, self.draw), torch.arange(units, device=self.key.device))
        kept = (number & (2**24 - 1)) >= round(2**24 * self.p)
        return kept.float() / (1 - self.p)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"p={self.p}, seed={self.seed}, place={self.place}"


def _mixed(state: Int64[Tensor, "*#n"], number: Int64[Tensor, "*#n"]) -> Int64[Tensor, "*n"]:
    """Pseudo-random bits of a state and a number: a step of SplitMix64 (Steele, Lea and Flood, 2014, OOPSLA).

    Torch's generators have a state, by which a draw would depend on those before it.
    """
    z = state + (number + 1) * _signed(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ _shifted(z, shift)) * _signed(factor)
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Unsigned bits shifted to the right."""
    return (z >> bits) & (2 ** (64 - bits) - 1)


def _signed(value: int) -> int:
    """The same 64 bits as a signed number."""
    return value - 2**64 if value >= 2**63 else value
