"""One asset's best weight, given the prices of the constraints that bind all of them."""

from typing import NamedTuple

import torch
from torch import Tensor


class Response(NamedTuple):
    """What the assets do.

    Attributes:
        weights: `[B N]`.
        free: those that move with z; others are held by a bound, at zero by the gross exposure's price, or at their
            holdings by the turnover's.
        side: sign of the weight.
        trade: sign of the trade.
    """

    weights: Tensor
    free: Tensor
    side: Tensor
    trade: Tensor


def respond(z: Tensor, lower: Tensor, upper: Tensor, holdings: Tensor, gross: Tensor, turnover: Tensor) -> Response:
    """The minimum over lower <= w <= upper of (w - z)^2 / 2 + gross |w| + turnover |w - h|.

    The slope's jumps are at 0 and at the holdings h. In each of the three pieces between them z is shifted by a
    constant, and what a piece adds beyond its ends is added up; a convex function of one variable is then clamped.

    Args:
        z: `[B N]`.
        lower: `[B N]`.
        upper: `[B N]`.
        holdings: `[B N]`.
        gross: price of |w|, not negative, `[B 1]`.
        turnover: price of |w - h|, not negative, `[B 1]`.
    """
    sign = holdings.sign()
    a, b = holdings.clamp(max=0), holdings.clamp(min=0)
    both = gross + turnover
    pieces = torch.minimum(z + both, a), (z - sign * (gross - turnover)).clamp(a, b), torch.maximum(z - both, b)
    none = torch.logical_and((z + sign * turnover).abs() <= torch.where(sign == 0, both, gross), gross > 0)
    hold = torch.logical_and(
        (z - holdings - sign * gross).abs() <= torch.where(sign == 0, both, turnover), turnover > 0
    )
    moving = pieces[0] + (pieces[1] - a) + (pieces[2] - b)
    w = torch.where(hold, holdings, torch.where(none, 0.0, moving))
    inside = torch.logical_and(w > lower, w < upper)
    free = torch.logical_and(inside, ~torch.logical_or(none, hold))
    w = w.clamp(lower, upper)
    return Response(w, free, w.sign(), (w - holdings).sign())
