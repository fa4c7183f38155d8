"""Elementwise affine maps."""

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch.distributions.transforms.bijection import Bijection, Values, promoted, soft_clip

MAX_LOG_SCALE = 5.0  # an element grows by at most e^5


class Affine(Bijection):
    """y = x exp(s) + m, with s the second parameter, clipped softly to +-5.

    Args:
        parameters: m and the unclipped s, `[2, ...]`; the rest is the shape of the values, or broadcasts against it.

    References:
        Dinh, Sohl-Dickstein and Bengio (2017), Density estimation using Real NVP, ICLR.
    """

    count = 2

    def __init__(self, parameters: Float[Tensor, "2 ..."]) -> None:
        super().__init__()
        self.loc, log_scale = promoted(parameters)
        self.log_scale = soft_clip(log_scale, MAX_LOG_SCALE)

    def call_and_ladj(self, x: Values) -> tuple[Values, Values]:
        """The value y(x) and log dy/dx."""
        x = promoted(x)
        return x * torch.exp(self.log_scale) + self.loc, self.log_scale + torch.zeros_like(x)

    def inv_and_ladj(self, y: Values) -> tuple[Values, Values]:
        """The x with y(x) = y and log dx/dy."""
        y = promoted(y)
        return (y - self.loc) * torch.exp(-self.log_scale), -self.log_scale + torch.zeros_like(y)
