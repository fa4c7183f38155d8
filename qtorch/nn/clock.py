"""When the sessions of a window were, in calendar days."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def days_since_start(
    inputs: Float[Tensor, "B C *N F"], mask: Bool[Tensor, "B C *N"], gap_input: int
) -> Float[Tensor, "B C *N"]:
    """Calendar days to each step from the session before the window's first usable one; a masked step adds none.

    Args:
        inputs: 0 where masked.
        mask: which steps are usable.
        gap_input: the column that holds the log of the days since the previous session, as
            `qtorch.data.features.GapDays` gives it. It is held within that feature's bounds, 1 and 30 days, so that
            no column given by mistake puts a session infinitely far away.
    """
    days = inputs[..., gap_input].float().clamp(0.0, math.log(30.0)).exp()
    return torch.where(mask, days, 0.0).cumsum(1)
