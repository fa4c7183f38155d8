"""Weights cut where the gross exposure and the turnover have kinks, so that both are linear in the parts."""

from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor


class Segments(NamedTuple):
    """Each weight is base + the sum of its J parts, each between bounds, at least one of which is 0.

    The slopes rise from part to part, so that the sums of the parts times their slopes are never below |w| and |w - h|,
    and are these where lower parts are full before higher ones begin, which is what a price of them brings about.

    Attributes:
        base: `[B N]`.
        lower: `[B J N]`, minus infinity for none.
        upper: `[B J N]`, infinity for none.
        size: slopes of |w|, `[B J N]`.
        size_at_base: |base|, `[B N]`.
        trade: slopes of |w - h|, `[B J N]`.
        trade_at_base: |base - h|, `[B N]`.
    """

    base: Tensor
    lower: Tensor
    upper: Tensor
    size: Tensor
    size_at_base: Tensor
    trade: Tensor
    trade_at_base: Tensor


def segments(
    lower: Float64[Tensor, "B N"],
    upper: Float64[Tensor, "B N"],
    holdings: Float64[Tensor, "B N"],
    gross: bool,
    turnover: bool,
) -> Segments:
    """Cuts at 0 where the gross exposure counts, and at the holdings where the turnover does.

    Args:
        lower: of the weights, minus infinity for none.
        upper: of the weights, infinity for none.
        holdings: h.
        gross: whether |w| counts.
        turnover: whether |w - h| counts.
    """
    zero = torch.zeros_like(holdings)
    kinks = [zero] * gross + [holdings] * turnover
    if len(kinks) == 2:
        kinks = [torch.minimum(zero, holdings), torch.maximum(zero, holdings)]
    cuts = [torch.maximum(torch.minimum(kink, upper), lower) for kink in kinks]
    if not cuts:
        base = torch.where(lower == upper, lower, 0.0)
        return _of(base, [lower - base], [upper - base], [zero + 1], [zero + 1], holdings)
    begins, ends = [lower, *cuts], [*cuts, upper]
    # The first part goes down from the first cut, the others up from where they begin.
    lows = [lower - cuts[0], *(torch.zeros_like(cut) for cut in cuts)]
    highs = [torch.zeros_like(cuts[0]), *(end - cut for cut, end in zip(cuts, ends[1:], strict=True))]
    of_size = [_slope(begin, end, zero) for begin, end in zip(begins, ends, strict=True)]
    of_trade = [_slope(begin, end, holdings) for begin, end in zip(begins, ends, strict=True)]
    return _of(cuts[0], lows, highs, of_size, of_trade, holdings)


def _slope(begin: Tensor, end: Tensor, kink: Tensor) -> Tensor:
    """Of |x - kink| between begin and end, which the kink is not inside of unless its slope does not count."""
    return torch.where(end <= kink, -1.0, 1.0).to(kink.dtype)


def _of(
    base: Tensor, lows: list[Tensor], highs: list[Tensor], size: list[Tensor], trade: list[Tensor], holdings: Tensor
) -> Segments:
    return Segments(
        base,
        torch.stack(lows, 1),
        torch.stack(highs, 1),
        torch.stack(size, 1),
        base.abs(),
        torch.stack(trade, 1),
        (base - holdings).abs(),
    )
