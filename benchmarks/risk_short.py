"""One-day value at risk and expected shortfall of assets with 60 to 250 sessions of history, out of sample.

As benchmarks/risk_accuracy.py, but every second asset is unseen in training and listed anew every 251 sessions of the
test period: its price begins there, and its returns are forecast from the 61st to the 250th. The other assets are there
with all their past. Beside the default forecaster and its ensemble: GJR-GARCH filtered historical simulation refitted
every 21 rows, once with parameters of each asset's own from 60 returns on, and once with those of the others (their
medians) until it has 250; RiskMetrics; its filtered historical simulation; and historical simulation.

Usage: python benchmarks/risk_short.py [--data FILE] [--until 2016-12-30] [--seeds 0 1 2]
"""

from functools import partial

import numpy as np
import pandas as pd
import torch
from protocol import SESSIONS, Board, in_pieces, in_spring, market, parser, tails
from torch import Tensor

from qtorch.data import Panel, WindowSource, WindowSpec
from qtorch.models import (
    Ewma,
    FilteredHistoricalSimulation,
    Garch,
    HistoricalSimulation,
    RiskMetrics,
    default_ensemble,
    default_forecaster,
    default_windows,
)
from qtorch.training import mixed, refit

LEAST, MOST = 60, 250
DAY = WindowSpec(horizons=(1,))


def relisted(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Every second asset in pieces of `MOST` returns from the test period, as assets of their own; and the others."""
    assets = sorted(frame["asset"].unique())
    unseen = assets[1::2]
    parts = [frame[~frame["asset"].isin(unseen)]]
    for asset in unseen:
        own = frame[frame["asset"] == asset].dropna(subset="close").sort_values("date").iloc[-SESSIONS - 1 :]
        for n, start in enumerate(range(0, len(own) - MOST, MOST + 1)):
            parts.append(own.iloc[start : start + MOST + 1].assign(asset=f"{asset}, {n + 1}"))
    return pd.concat(parts, ignore_index=True), [asset for asset in assets if asset not in unseen]


def young(panel: Panel, seen: list[str]) -> tuple[np.ndarray, Tensor]:
    """The rows of the outcomes, and the young assets' returns in per cent from the first that is forecast."""
    returns = 100 * panel.returns()
    age = returns.isfinite().cumsum(0)
    new = torch.tensor([asset not in seen for asset in panel.assets])
    tested = returns.isfinite() & (age > LEAST) & new
    first = int(tested.any(1).int().argmax())
    return np.arange(first, len(panel.dates)), torch.where(tested, returns, torch.nan)[first:]


def main() -> None:
    args = parser(__doc__).parse_args()
    frame, seen = relisted(market(args.data, args.until))
    panel = Panel.from_frame(frame)
    rows, y = young(panel, seen)
    asked, dates = rows - 1, panel.dates[rows]
    listed = frame.loc[~frame["asset"].isin(seen)].groupby("asset")["date"].min()
    trained_at = panel.row(listed.min())  # the networks know the others' past up to the first listing
    print(f"{len(listed)} young assets beside {len(seen)}, returns of {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}")

    new = y.isfinite().any(0)
    board = Board(y[:, new], in_spring(dates))

    def add(name: str, found: tuple[Tensor, Tensor]) -> None:
        board.add(name, (found[0][:, :, new], found[1][:, :, new]))

    of_others = Garch(o=1, errors="skewed_t", spec=DAY)
    of_their_own = Garch(o=1, errors="skewed_t", spec=DAY, least=LEAST)
    for name, filtered in (
        ("GJR-FHS, pooled", of_others),
        ("GJR-FHS, own", of_their_own),
        ("EWMA-FHS", Ewma()),
    ):
        add(name, in_pieces(FilteredHistoricalSimulation(filtered, spec=DAY), panel, asked))
    for name, baseline in (("RiskMetrics", RiskMetrics(DAY)), ("HS 250", HistoricalSimulation(MOST, DAY))):
        add(name, tails(baseline.forecast(panel, panel.dates[asked])))
    spec = default_windows(panel)
    known, source = WindowSource(panel.select(seen), spec), WindowSource(panel, spec)
    networks = [refit(partial(default_forecaster, panel), known, trained_at, seed) for seed in args.seeds]
    ensemble = default_ensemble(networks)
    parts = [model.forecast(panel, panel.dates[asked], source=source) for model in ensemble.models]
    add("networks", tails(mixed(parts[:-1])))
    add("ensemble", tails(mixed(parts, ensemble.weights)))


if __name__ == "__main__":
    main()
