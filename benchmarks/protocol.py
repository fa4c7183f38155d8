"""What the accuracy benchmarks share: markets, outcomes, tails, and a line for each model and level."""

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.distributions import Distribution

from qtorch.data import Panel, WindowSource, load_sample
from qtorch.distributions import take
from qtorch.forecast import Forecast
from qtorch.models import FilteredHistoricalSimulation
from qtorch.risk import expected_shortfall, fz0, pinball, value_at_risk
from qtorch.risk.backtests import acerbi_szekely, diebold_mariano, exceedances, kupiec

SESSIONS, LEVELS = 1500, (0.95, 0.975, 0.99)
SPRING = ("2020-02-20", "2020-05-31")

Tails = tuple[Tensor, Tensor]  # values at risk and expected shortfalls in per cent, [levels, D, N]


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Of what all of them take."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--data",
        type=Path,
        help="a Parquet file of date, asset, exchange, close, and open, high, low if there; default: the sample",
    )
    made.add_argument("--until", help="the last date of the data, to choose settings before the test period")
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    return made


def market(path: Path | None, until: str | None) -> pd.DataFrame:
    """The prices of the 20 stocks of the sample that trade to its end, or those of a file."""
    if path is None:
        frame = load_sample()
        ends = frame.groupby("asset")["date"].max()
        frame = frame[(frame["exchange"] == "XNYS") & frame["asset"].isin(ends.index[ends == ends.max()])]
    else:
        frame = pd.read_parquet(path)
    return frame if until is None else frame[frame["date"] <= until]


def outcomes(panel: Panel) -> tuple[np.ndarray, Tensor]:
    """The rows of the last sessions of all assets, and each asset's returns on its own, in per cent, else NaN."""
    returns = 100 * panel.returns()
    there = returns.isfinite()
    later = there.flip(0).cumsum(0).flip(0)
    tested = there & (later <= SESSIONS)
    first = int(tested.any(1).int().argmax())
    return np.arange(first, len(panel.dates)), torch.where(tested, returns, torch.nan)[first:]


def tails(forecast: Forecast, horizon: int = 0) -> Tails:
    """Those of a forecast over a horizon, by its position; NaN where there is none."""
    var, es = tails_of(take(forecast.distribution, (slice(None), horizon)))
    return torch.where(forecast.mask, var, torch.nan), torch.where(forecast.mask, es, torch.nan)


def tails_of(law: Distribution) -> Tails:
    """Those of laws of batch shape `[D, N]`."""
    var = torch.stack([value_at_risk(law, level).double() for level in LEVELS])
    es = torch.stack([expected_shortfall(law, level).double() for level in LEVELS])
    return 100 * var, 100 * es


def in_pieces(model: FilteredHistoricalSimulation, panel: Panel, rows: np.ndarray) -> Tails:
    """The tails of a model whose forecasts are large, some refits at a time."""
    source, step = WindowSource(panel, model.spec), 21 * 6
    parts = [
        tails(model.forecast(panel, panel.dates[rows[n : n + step]], source=source)) for n in range(0, len(rows), step)
    ]
    var, es = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    return var, es


def in_spring(dates: pd.DatetimeIndex) -> Tensor:
    """Which dates are in the spring of 2020."""
    return torch.as_tensor(np.asarray((dates >= SPRING[0]) & (dates <= SPRING[1])))


class Board:
    """Prints how models do against the first of them.

    Args:
        y: returns in per cent `[D, N]`, NaN where none is forecast.
        spring: dates that a second comparison leaves out, `[D]`.
        overlap: sessions that a return spans.
    """

    def __init__(self, y: Tensor, spring: Tensor, overlap: int = 1) -> None:
        self.y, self.spring, self.overlap = y, spring, overlap
        self.first: Tensor | None = None

    def add(self, name: str, forecast: Tails, assets: Tensor | None = None) -> None:
        """Prints a line a level, of some of the assets or all."""
        which = torch.ones(self.y.shape[1], dtype=torch.bool) if assets is None else assets
        y, (var, es) = self.y[:, which], (part[:, :, which] for part in forecast)
        if missing := int((y.isfinite() & ~var[0].isfinite()).sum()):
            raise ValueError(f"{name} has no forecast of {missing} of {int(y.isfinite().sum())} returns.")
        for k, level in enumerate(LEVELS):
            loss = torch.where(y.isfinite(), fz0(y, var[k], es[k], level), torch.nan)
            tick = torch.where(y.isfinite(), pinball(y, var[k], level), torch.nan)
            hits = exceedances(y, var[k])
            line = f"{name:<18} {level:.1%}  FZ0 {_mean(loss):.4f}  pinball {_mean(tick):.4f}  "
            line += f"beyond {hits[y.isfinite()].double().mean():.2%}"
            if self.overlap == 1:
                rejected = int((kupiec(hits, level, y.isfinite()).p_value < 0.05).sum())
                z2 = acerbi_szekely(y, var[k], es[k], level).z2.statistic.mean()
                line += f"  Kupiec rejects {rejected:>2}  Z2 {z2:+.3f}"
            if self.first is not None:
                reference = self.first[k][:, which]
                difference = loss - reference
                t, calm = (self._t(d) for d in (difference, difference[~self.spring]))
                better = int((loss.nanmean(0) < reference.nanmean(0)).sum())
                line += f"  t {t:+.1f} (without spring 2020 {calm:+.1f})  better on {better} of {y.shape[1]}"
            print(line, flush=True)
        if self.first is None:
            there = self.y.isfinite()
            losses = (fz0(self.y, v, e, level) for v, e, level in zip(*forecast, LEVELS, strict=True))
            self.first = torch.stack([torch.where(there, loss, torch.nan) for loss in losses])

    def _t(self, difference: Tensor) -> float:
        return float(diebold_mariano(difference, panel=True, overlap=self.overlap).statistic)


def write(path: Path, panel: Panel, rows: Iterable[int], y: Tensor, forecast: Tails) -> None:
    """The forecasts as returns in per cent, losses negative, labelled by the session they are about."""
    label = panel.session_day[torch.as_tensor(rows)].numpy().astype("M8[D]")
    there = y.isfinite().numpy()
    assets = np.broadcast_to(np.array(panel.assets), there.shape)
    frames = [
        pd.DataFrame(
            {
                "date": label[there],
                "asset": assets[there],
                "alpha": round(1 - level, 6),
                "var": -var.numpy()[there],
                "es": -es.numpy()[there],
            }
        )
        for level, var, es in zip(LEVELS, *forecast, strict=True)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.concat(frames).to_parquet(path, index=False)


def _mean(losses: Tensor) -> Tensor:
    """Over dates, then over the assets that have any."""
    return losses.nanmean(0).nanmean()
