"""What a network says of windows, before it is made a distribution: plain tensors that are kept, cut and joined."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float32, Float64, Int64, Shaped
from torch import Tensor

from qtorch.data.panel import Panel
from qtorch.distributions.joint import rescaled
from qtorch.forecast import Forecast
from qtorch.training.network import Network


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A head's parameters for `N` assets at `D` as-of dates; a forecast is made of them by `forecast`.

    Where there is no forecast, parameters and scale are those of some other cell.

    Attributes:
        valid: where there is a forecast.
        parameters: of the head's distribution, of returns in units of the scale.
        scale: what the returns are in units of.
        dates: as-of dates.
        assets: names.
        latest: of joint laws, the column of the asset whose session is the last known at each date; None of others.
    """

    valid: Bool[Tensor, "D N"]
    parameters: tuple[Shaped[Tensor, "D N H ..."], ...]
    scale: Float32[Tensor, "D N"] | Float64[Tensor, "D N"]
    dates: pd.DatetimeIndex
    assets: tuple[str, ...]
    latest: Int64[Tensor, " D"] | None = None

    def select(self, dates: slice) -> "Evaluated":
        """Some of the dates, by position."""
        return Evaluated(
            self.valid[dates],
            tuple(values[dates] for values in self.parameters),
            self.scale[dates],
            self.dates[dates],
            self.assets,
            None if self.latest is None else self.latest[dates],
        )

    def columns(self, assets: Sequence[str]) -> "Evaluated":
        """Some of the assets, in the order given; not of joint laws.

        The columns are copied, unless they are all.
        """
        place = {asset: n for n, asset in enumerate(self.assets)}
        at = [place[asset] for asset in assets]
        in_a_row = bool(at) and at == list(range(at[0], at[-1] + 1))
        index = slice(at[0], at[-1] + 1) if in_a_row else torch.tensor(at, dtype=torch.int64)
        return Evaluated(
            self.valid[:, index].contiguous(),
            tuple(values[:, index].contiguous() for values in self.parameters),
            self.scale[:, index].contiguous(),
            self.dates,
            tuple(assets),
        )

    def forecast(self, network: Network, panel: Panel, horizons: tuple[int, ...]) -> Forecast:
        """The forecast.

        Args:
            network: whose head the parameters are of.
            panel: of the same assets, with the dates among its own.
            horizons: of the windows.
        """
        D, N = self.valid.shape
        shape = (D, len(horizons), N)
        parameters = [values.movedim(2, 1) for values in self.parameters]
        head = network.head
        if network.joint:
            parameters = list(head.dated(parameters, self.latest, self.valid.unsqueeze(1).expand(shape)))
            # A joint law may evaluate its head's network: a copy, on the panel's device, that no training changes.
            head = copy.deepcopy(head).to(self.valid.device).eval().requires_grad_(False)
        distribution = rescaled(head.distribution(*parameters), self.scale.unsqueeze(1).expand(shape))
        at = torch.as_tensor(panel.dates.get_indexer(self.dates), device=panel.state.device)
        return Forecast(distribution, self.valid, panel.state[at], self.dates, self.assets, horizons)


def later(parts: Sequence[Evaluated]) -> Evaluated:
    """The same assets at dates one after the other as one."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return Evaluated(
        torch.cat([part.valid for part in parts]),
        tuple(torch.cat(values) for values in zip(*(part.parameters for part in parts), strict=True)),
        torch.cat([part.scale for part in parts]),
        pd.DatetimeIndex(np.concatenate([part.dates for part in parts])),
        first.assets,
    )


def beside(parts: Sequence[Evaluated]) -> Evaluated:
    """Different assets at the same dates as one."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return Evaluated(
        torch.cat([part.valid for part in parts], dim=1),
        tuple(torch.cat(values, dim=1) for values in zip(*(part.parameters for part in parts), strict=True)),
        torch.cat([part.scale for part in parts], dim=1),
        first.dates,
        tuple(asset for part in parts for asset in part.assets),
    )
