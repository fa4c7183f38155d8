"""Markets that differ from a panel after a row, or begin later."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float64, Int32
from torch import Tensor

from qtorch.data import Panel, State
from qtorch.data.adjust import UNADJUSTED
from qtorch.data.calendars import NO_SESSION
from qtorch.data.rows import PRICES
from qtorch.data.states import last_listed_row, last_price, states

Kind = Literal["prices", "cells", "blank"]
_BLANKED, _GIVEN = 0.15, 0.5  # shares of later cells that lose their price, and of those without one that get one


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of a panel: what may be changed in it."""

    values: Float64[Tensor, "T N F"]
    observed: Bool[Tensor, "T N"]
    session_day: Int32[Tensor, "T N"]

    @classmethod
    def of(cls, panel: Panel) -> "Cells":
        """Those of a panel."""
        return cls(panel.values, panel.mask, panel.session_day)

    def where(self, chosen: Bool[Tensor, "T N F"], other: "Cells", close: int) -> "Cells":
        """These where chosen, else the other's; whether there is a price goes with the field `close`."""
        price = chosen[:, :, close]
        return Cells(
            torch.where(chosen, self.values, other.values),
            torch.where(price, self.observed, other.observed),
            torch.where(price, self.session_day, other.session_day),
        )


def changed(panel: Panel, row: int, kind: Kind, seed: int) -> Cells:
    """Other cells after a row, the same for the same seed.

    Args:
        panel: the market.
        row: the last that stays as it is.
        kind: ``"prices"`` multiplies each asset's later prices by a random walk with its own volatility, of which no
            step is small, and other fields by noise; ``"cells"`` takes the prices of some later cells away, and gives
            some to sessions without one; ``"blank"`` takes all away.
        seed: of the draws.
    """
    rng = np.random.default_rng((seed, row))
    later = np.arange(len(panel.dates)) > row
    cells = Cells.of(panel)
    if kind == "blank":
        return _without(cells, torch.from_numpy(np.broadcast_to(later[:, None], panel.mask.shape).copy()))
    shape = tuple(panel.mask.shape)
    draw = rng.standard_normal(shape)
    step = _volatility(panel) * np.sign(draw) * (0.5 + np.abs(draw) / 2) * later[:, None]
    if kind == "prices":
        factor = np.empty((*shape, len(panel.fields)))
        for f, name in enumerate(panel.fields):
            noise = 0.5 * rng.standard_normal(shape) * later[:, None]
            factor[:, :, f] = np.exp(step.cumsum(0) if name in (*PRICES, UNADJUSTED) else noise)
        moved = torch.where(torch.from_numpy(later)[:, None, None], torch.from_numpy(factor), 1.0)
        return replace(cells, values=cells.values * moved.to(cells.values.device))
    lost = torch.from_numpy((rng.random(shape) < _BLANKED) & later[:, None]).to(panel.state.device)
    asked = torch.from_numpy((rng.random(shape) < _GIVEN) & later[:, None]).to(panel.state.device)
    given = asked & panel.is_session & ~panel.mask
    known = torch.from_numpy(_carried(panel) * np.exp(step)[:, :, None]).to(panel.values.device)
    out = _without(cells, lost & panel.mask)
    upcoming = torch.cat([torch.full_like(panel.session_day[:1], NO_SESSION), panel.next_session_day[:-1]])
    return Cells(
        torch.where(given.unsqueeze(-1), known, out.values),
        out.observed | given,
        torch.where(given, upcoming, out.session_day),
    )


def with_cells(panel: Panel, cells: Cells, row: int) -> Panel:
    """A panel with other cells after a row; its states are those that the cells make."""
    return replace(
        panel,
        values=cells.values,
        session_day=cells.session_day,
        state=_states(panel, cells.observed),
        findings=panel.findings[~(panel.findings["date"] > panel.dates[row])],
    )


def since(panel: Panel, row: int) -> Panel:
    """A panel that begins at a row, as if nothing had been recorded before."""
    tensors = ("values", "session_day", "exchange_is_session", "exchange_next_day", "exchange_close", "state")
    late = replace(
        panel,
        dates=panel.dates[row:],
        as_of=panel.as_of[row:],
        findings=panel.findings[~(panel.findings["date"] < panel.dates[row])],
        **{name: getattr(panel, name)[row:] for name in tensors},
    )
    return replace(late, state=_states(late, late.mask))


def _states(panel: Panel, observed: Tensor) -> Tensor:
    last = None
    if panel.delisted is not None:
        last = last_listed_row(panel.delisted, panel.assets, panel.dates, last_price(observed))
    return states(observed, panel.exchange_is_session, panel.exchange_index, last)


def _without(cells: Cells, lost: Tensor) -> Cells:
    return Cells(
        torch.where(lost.unsqueeze(-1), torch.nan, cells.values),
        cells.observed & ~lost,
        torch.where(lost, NO_SESSION, cells.session_day),
    )


def _volatility(panel: Panel) -> np.ndarray:
    """Of each asset's returns `[N]`, between half a per cent and a fifth."""
    returns = panel.returns(log=True).cpu()
    there = returns.isfinite()
    square = torch.where(there, returns, 0.0).square().sum(0) / there.sum(0).clamp(min=1)
    return square.sqrt().clamp(0.005, 0.2).numpy()


def _carried(panel: Panel) -> np.ndarray:
    """Each field's last value so far `[T, N, F]`; its median where there is none, 1 where it has none at all."""
    frames = [pd.DataFrame(block) for block in np.moveaxis(panel.values.cpu().numpy(), 2, 0)]
    return np.stack([frame.ffill().fillna(frame.median()).fillna(1.0).to_numpy() for frame in frames], axis=2)


def holes(panel: Panel) -> dict[State, np.ndarray]:
    """The rows where an asset has no price and gets one later, by why it has none."""
    mask = panel.mask.cpu()
    later = mask.flip(0).cummax(0).values.flip(0)
    state = panel.state.cpu()
    return {
        kind: ((state == kind) & ~mask & later).any(1).nonzero().squeeze(-1).numpy()
        for kind in (State.MISSING, State.CLOSED, State.UNLISTED)
    }
