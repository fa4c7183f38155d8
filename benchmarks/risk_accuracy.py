"""One-day value at risk and expected shortfall out of sample: the default forecaster beside what desks run.

The protocol: the last 1,500 sessions of each asset, returns in per cent, levels 95, 97.5 and 99 %. The default
forecaster is trained once, on all that is known before them, from each of some seeds, and pooled with GJR-GARCH
refitted once a year (`qtorch.models.default_ensemble`); GJR-GARCH filtered historical simulation is refitted every 21
rows on 2,000 returns. Prints, for each model, the mean FZ0 loss over the assets (Patton, Ziegel and Chen 2019), the
pinball loss, the share of exceedances, how many assets Kupiec's test rejects at 5 %, and the Diebold-Mariano t of the
FZ0 loss's difference to GJR-FHS over all assets, with and without the spring of 2020. Then the same for the
equal-weight portfolio: GJR-FHS on its own returns, beside joint scenarios from 1,000 past days, as they are and
anchored to GARCH on the portfolio's own past.

With --until the data end earlier, which is how settings are chosen: on the sessions before those of the test.

Usage: python benchmarks/risk_accuracy.py [--data FILE] [--until 2016-12-30] [--seeds 0 1 2] [--hold-out 2] [--out F]
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from protocol import Board, in_pieces, in_spring, market, outcomes, parser, tails, tails_of, write
from torch import Tensor

from qtorch.data import Panel, WindowSource, WindowSpec, portfolio_panel
from qtorch.distributions import Empirical, take
from qtorch.forecast import Forecast
from qtorch.models import (
    FilteredHistoricalSimulation,
    Garch,
    HistoricalSimulation,
    RiskMetrics,
    default_ensemble,
    default_forecaster,
    default_windows,
)
from qtorch.risk import anchored_profits, complete, rolling_scenarios
from qtorch.training import Forecaster, mixed, refit

SCENARIOS = 1000
DAY = WindowSpec(horizons=(1,))
GJR_FHS = FilteredHistoricalSimulation(Garch(o=1, errors="skewed_t"), spec=DAY)
GJR_YEARLY = Garch(o=1, errors="skewed_t", refit_every=250, spec=DAY)


def trained(
    panel: Panel, source: WindowSource, row: int, seeds: Sequence[int], unseen: Sequence[str] = ()
) -> list[Forecaster]:
    """The default forecaster from each seed, trained on what a row knows, without some of the assets."""
    make, learnt_from = partial(default_forecaster, panel, horizons=source.spec.horizons), source
    if unseen:
        learnt_from = WindowSource(panel.select([asset for asset in panel.assets if asset not in unseen]), source.spec)
    return [refit(make, learnt_from, row, seed) for seed in seeds]


def portfolio(panel: Panel, forecast: Forecast, rows: np.ndarray, asked: np.ndarray, spring: Tensor) -> None:
    """Prints the lines of the equal-weight portfolio.

    Args:
        panel: the market.
        forecast: of it, at the rows `rows`.
        rows: of the forecasts, each a row before the return; they begin `SCENARIOS` before the first of `asked`.
        asked: those of the test.
        spring: which of them are in the spring of 2020.
    """
    returns = panel.returns()[rows + 1]
    pit = forecast.pit(returns[:, None].expand(-1, len(forecast.horizons), -1))[:, 0]
    start = len(rows) - len(asked)
    filled = complete(pit, torch.Generator().manual_seed(0), fit=pit[:start])
    held = returns[start:].isfinite().double() / len(panel.assets)
    days = torch.arange(start, len(rows))
    profits = rolling_scenarios(take(forecast.distribution, (days, 0)), filled, days - SCENARIOS, SCENARIOS, held)
    alone = portfolio_panel(panel, torch.ones(len(panel.assets)))
    at = alone.dates.get_indexer(panel.dates[asked], method="pad")  # on a date without a return, from the last one
    own = GJR_YEARLY.forecast(alone, alone.dates[at])
    law = take(own.distribution, (slice(None), 0, 0))
    whole = held.sum(1, keepdim=True) > 0.9  # the law is of all positions, few of which may be held on a holiday
    both = torch.where(whole, anchored_profits(profits, law), profits)
    earned = (100 * held * returns[start:].nan_to_num()).sum(1, keepdim=True)
    board = Board(torch.where(held.sum(1, keepdim=True) > 0, earned, torch.nan), spring)
    board.add("GJR-FHS, own past", in_pieces(GJR_FHS, alone, at))
    for name, scenarios in (("scenarios", profits), ("anchored scenarios", both)):
        board.add(name, tails_of(Empirical(scenarios.unsqueeze(1))))


def main() -> None:
    settings = parser(__doc__)
    settings.add_argument("--hold-out", type=int, default=0, help="train on none of every so many assets; 0 on all")
    settings.add_argument("--out", type=Path, default=Path("out/forecasts.parquet"))
    args = settings.parse_args()
    panel = Panel.from_frame(market(args.data, args.until))
    source = WindowSource(panel, default_windows(panel))
    rows, y = outcomes(panel)
    asked, dates = rows - 1, panel.dates[rows]  # forecasts are made a row before the return
    print(f"{len(panel.assets)} assets, returns of {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}", flush=True)

    board = Board(y, in_spring(dates))
    board.add("GJR-GARCH FHS", in_pieces(GJR_FHS, panel, asked))
    for name, baseline in (("RiskMetrics", RiskMetrics()), ("HS 500", HistoricalSimulation(500))):
        board.add(name, tails(baseline.forecast(panel, panel.dates[asked], source=source)))
    start = time.perf_counter()
    unseen = panel.assets[1 :: args.hold_out] if args.hold_out else ()
    networks = trained(panel, source, int(asked[0]), args.seeds, unseen)
    print(f"trained {len(networks)} times in {time.perf_counter() - start:.0f} s", flush=True)

    every = np.arange(asked[0] - SCENARIOS, asked[-1] + 1)
    ensemble = default_ensemble(networks)
    parts = [model.forecast(panel, panel.dates[every], source=source) for model in ensemble.models]
    test = slice(SCENARIOS, None)
    for seed, part in zip(args.seeds, parts, strict=False):
        board.add(f"network, seed {seed}", tails(part.select(test)))
        both = mixed([part, parts[-1]], [1 - ensemble.weights[-1], ensemble.weights[-1]])
        board.add(f"ensemble, seed {seed}", tails(both.select(test)))
    forecast = mixed(parts, ensemble.weights)
    found = tails(forecast.select(test))
    board.add("ensemble", found)
    if unseen:
        out = torch.tensor([asset in unseen for asset in panel.assets])
        alone = tails(mixed(parts[:-1]).select(test))
        for name, which in (("seen", ~out), ("unseen", out)):
            board.add(f"networks, {name}", alone, which)
            board.add(f"ensemble, {name}", found, which)
    write(args.out, panel, rows, y, found)
    print(f"forecasts in {args.out}; the equal-weight portfolio:", flush=True)
    portfolio(panel, forecast, every, asked, in_spring(dates))


if __name__ == "__main__":
    main()
