"""Standardising each series of a window by its own usable steps."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def instance_norm(
    values: Float[Tensor, "B C *F"], mask: Bool[Tensor, "B C *any"]
) -> tuple[Float[Tensor, "B C *F"], Float[Tensor, "B *F"], Float[Tensor, "B *F"]]:
    """Values less their mean over the usable steps, over their standard deviation; 0 where masked.

    Args:
        values: 0 where masked.
        mask: which are usable, broadcast to the values.

    Returns:
        The standardised values, the mean, and the standard deviation `sqrt(variance + 1e-5)`, which keeps a series
        that never moves finite. A window without usable steps has mean 0.

    References:
        Kim et al. (2022), Reversible Instance Normalization, equations 1 and 2, without its affine layer.
    """
    count = mask.sum(1, keepdim=True).clamp(min=1)
    mean = values.sum(1, keepdim=True) / count
    centred = torch.where(mask, values - mean, 0.0)
    deviation = torch.sqrt(centred.square().sum(1, keepdim=True) / count + 1e-5)
    return centred / deviation, mean.squeeze(1), deviation.squeeze(1)
