"""The returns that correlations are made of, with what is known of them at a row of the panel."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64
from scipy.signal import lfilter
from torch import Tensor

from qtorch.data import Panel
from qtorch.data.panel import previous

LONGEST = 10  # rows that a return may span; New Year's weeks take 7
NEVER = 2**62  # the row at which nothing becomes known
_SETTLED = 20  # returns after which a volatility is one


class Returns(NamedTuple):
    """Returns of a slice of a panel's rows, 0 where there is none.

    Attributes:
        first: the panel's row of the first.
        session: of an asset's session: over its last observed close, divided by the root of the sessions in between.
        session_mask: where there is one.
        value: what is correlated: `session`, or the whole return where intervals are matched, either divided by its
            volatility where that is asked for.
        mask: where there is one.
        observed: where there is a price, with or without a return.
        following: the return under way at a row, which is `value` at the asset's next close.
        known: the row at which it ends, `NEVER` without one.
        volatility: EWMA per session through a row, NaN until it settled; None unless returns are divided by it.
    """

    first: int
    session: Float64[Tensor, "L N"]
    session_mask: Bool[Tensor, "L N"]
    value: Float64[Tensor, "L N"]
    mask: Bool[Tensor, "L N"]
    observed: Bool[Tensor, "L N"]
    following: Float64[Tensor, "L N"]
    known: Int64[Tensor, "L N"]
    volatility: Float64[Tensor, "L N"] | None


def returns(panel: Panel, first: int, last: int, whole: bool, scale_half_life: float | None) -> Returns:
    """The returns of a panel's rows `first` to `last`; of later rows nothing is read.

    A return over a halt or a fault of k sessions has k times the variance, so that `session` divides it by the root
    of k. Weekends and holidays, whose variance is a fraction of a session's, count nothing. A return over more than
    `LONGEST` rows is left out: what else moved in the meantime can't be told.

    Args:
        panel: the market.
        first: row.
        last: row.
        whole: `value` is the whole return and not a session's.
        scale_half_life: rows, of the EWMA volatility to divide `value` by; None does not.
    """
    rows = slice(first, last + 1)
    there, close = panel.mask[rows], panel.close[rows]
    sessions = torch.logical_or(panel.is_session[rows], there).cumsum(0).double()
    row = torch.arange(first, last + 1, device=close.device)[:, None]
    begin = previous(torch.where(there, row.double(), torch.nan))  # the row of the close before
    span = sessions - previous(torch.where(there, sessions, torch.nan))
    simple = close / previous(close) - 1
    mask = torch.logical_and(row - begin <= LONGEST, simple.isfinite())
    session = torch.where(mask, simple / span.sqrt(), 0.0)
    value, kept, volatility = torch.where(mask, simple, 0.0) if whole else session, mask, None
    if scale_half_life is not None:
        volatility = _volatility(session, mask, 0.5 ** (1 / scale_half_life))
        before = torch.cat([torch.full_like(volatility[:1], torch.nan), volatility[:-1]])
        kept = torch.logical_and(mask, before > 0)
        value = torch.where(kept, value / before, 0.0)
    following, known = _following(value, kept, begin, row)
    return Returns(first, session, mask, value, kept, there, following, known, volatility)


def _volatility(session: Tensor, mask: Tensor, decay: float) -> Float64[Tensor, "L N"]:
    """Root of the exponentially weighted mean square through each row, over the rows with a return."""

    def filtered(x: Tensor) -> Tensor:
        return torch.from_numpy(lfilter([1.0], [1.0, -decay], x.cpu().numpy(), axis=0)).to(x.device)

    mean = filtered(session**2) / filtered(mask.double())
    return torch.where(mask.cumsum(0) >= _SETTLED, mean.sqrt(), torch.nan)


def _following(value: Tensor, mask: Tensor, begin: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """At each row the return that began there or before and ends after it, and where it ends."""
    place = torch.arange(len(value), device=value.device)[:, None]
    ends = torch.where(mask, place, NEVER).flip(0).cummin(0).values.flip(0)  # the next return, this row's included
    ends = torch.cat([ends[1:], torch.full_like(ends[:1], NEVER)])
    at = ends.clamp(max=len(value) - 1)
    under_way = torch.logical_and(ends < NEVER, begin.gather(0, at) <= row)
    return (
        torch.where(under_way, value.gather(0, at), 0.0),
        torch.where(under_way, ends + row[0], NEVER),
    )
