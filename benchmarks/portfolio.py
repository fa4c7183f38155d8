"""Allocators walked forward out of sample: return, risk, trading, and what survives the bootstrap.

The sample's 20 stocks (2015 to 2022), or the stocks of a Parquet file (--data, from 2012 by default), monthly or
weekly, 10 basis points of what is traded, weights that drift in between. Differences are to equal weights, or to
--reference, on the same resampled sessions; * marks those whose interval leaves out zero. The deflated Sharpe ratio
counts every row of the table as a trial. What is trained sees nothing from the start on. Nothing may be chosen by the
test: for choices, give --start and --until before it.

Usage: PYTHONPATH=. python benchmarks/portfolio.py [--names NAMES] [--rebalance month week] [--seeds 5]
    [--data FILE] [--start DATE] [--until DATE] [--reference NAME] [--markdown FILE]
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from qtorch.backtest import (
    Allocate,
    EqualWeight,
    InverseVolatility,
    ScenarioAllocator,
    Track,
    Walked,
    WalkForward,
    deflated_sharpe,
    equal_risk,
    hierarchical_risk_parity,
    maximum_diversification,
    minimum_variance,
    sharpe_interval,
    summary,
    volatility_interval,
)
from qtorch.data import Panel, WindowSpec, load_sample
from qtorch.models import AssetGraph, GraphCovariance, GraphScores, Recurrent, RiskMetrics
from qtorch.portfolio import Constraints, Costs, MinimumVariance, Projected, ScenarioProgram, TailRisk
from qtorch.training import Allocator, MostSharpe, Schedule, ShapeLikelihood, fit_allocator

HALF_LIVES, REACH, INERTIA = (63.0, 252.0, 504.0), 0.5, 3.0  # chosen before the tests
RELUCTANT_HALF_LIVES, RELUCTANT_REACH, RELUCTANCE = (63.0, 126.0, 252.0), 0.1, 0.075  # so too
SPEC = WindowSpec(64, (1,))
START, FILE_START, COST = "2015-01-01", "2012-01-01", 0.001
REFERENCE = "equal weight"


class Run(NamedTuple):
    """What an allocator is made for."""

    panel: Panel
    start: str  # nothing may be learned from this date on
    dates: pd.DatetimeIndex  # of the trades
    seed: int


Make = Callable[[Run], Allocate]
MAKE: dict[
    str, tuple[Make, Constraints, bool]
] = {}  # by name: the allocator, what it must keep to, whether it is random


def register(name: str, constraints: Constraints | None = None, *, random: bool = False) -> Callable[[Make], Make]:
    """Adds an allocator: a function of a `Run` that gives what `WalkForward.run` takes.

    Args:
        name: in the table.
        constraints: long only and fully invested by default.
        random: whether it is run for each seed.
    """

    def add(make: Make) -> Make:
        MAKE[name] = make, constraints or Constraints(), random
        return make

    return add


@register(REFERENCE)
def _equal_weight(run: Run) -> Allocate:
    return EqualWeight()


@register("inverse volatility")
def _inverse_volatility(run: Run) -> Allocate:
    return InverseVolatility()


@register("minimum variance")
def _minimum_variance(run: Run) -> Allocate:
    return minimum_variance()


@register("minimum variance, 10 %", Constraints(upper=0.1))
def _minimum_variance_capped(run: Run) -> Allocate:
    return minimum_variance(upper=0.1)


@register("hierarchical risk parity")
def _hierarchical_risk_parity(run: Run) -> Allocate:
    return hierarchical_risk_parity()


@register("risk parity")
def _equal_risk(run: Run) -> Allocate:
    return equal_risk()


@register("maximum diversification")
def _maximum_diversification(run: Run) -> Allocate:
    return maximum_diversification()


def _states(estimates: int) -> AssetGraph:
    return AssetGraph(Recurrent(len(SPEC.features), width=16, dropout=0.1), estimates=estimates, width=16)


@cache  # one training serves every rebalancing
def _network(
    panel: Panel, start: str, seed: int, steps: int, half_lives: tuple[float, ...], reach: float
) -> GraphCovariance:
    torch.manual_seed(seed)
    network = GraphCovariance(_states(len(half_lives)), reach=reach)
    model = Allocator(
        network,
        MinimumVariance(),
        SPEC,
        half_lives=half_lives,
        length=1,
        objective=ShapeLikelihood(),
        schedule=Schedule(5e-3),
    )
    if steps:
        fit_allocator(model, panel, _before(start), steps=steps, batch_size=16, seed=seed)
    return network.eval()


def _covariance(
    run: Run,
    steps: int,
    allocation: MinimumVariance,
    half_lives: tuple[float, ...] = HALF_LIVES,
    reach: float = REACH,
) -> Allocate:
    network = _network(run.panel, run.start, run.seed, steps, half_lives, reach)
    model = Allocator(network, allocation, SPEC, half_lives=half_lives).eval()
    return Walked(model, run.panel, run.dates)


@register("graph covariance, untrained")
def _untrained(run: Run) -> Allocate:
    return _covariance(run, 0, MinimumVariance(inertia=INERTIA))


@register("graph covariance", random=True)
def _graph_covariance(run: Run) -> Allocate:
    return _covariance(run, 150, MinimumVariance(inertia=INERTIA))


@register("graph covariance, reluctant", random=True)
def _reluctant(run: Run) -> Allocate:
    allocation = MinimumVariance(reluctance=RELUCTANCE)
    return _covariance(run, 150, allocation, RELUCTANT_HALF_LIVES, RELUCTANT_REACH)


@register("graph covariance, reluctant, untrained")
def _reluctant_untrained(run: Run) -> Allocate:
    allocation = MinimumVariance(reluctance=RELUCTANCE)
    return _covariance(run, 0, allocation, RELUCTANT_HALF_LIVES, RELUCTANT_REACH)


@register("graph tilts", Constraints(upper=0.2), random=True)
def _graph_tilts(run: Run) -> Allocate:
    torch.manual_seed(run.seed)
    model = Allocator(
        GraphScores(_states(len(HALF_LIVES))),
        Projected(Constraints(upper=0.2)),
        SPEC,
        half_lives=HALF_LIVES,
        objective=MostSharpe(turnover=0.1),
        schedule=Schedule(3e-3),
    )
    fit_allocator(model, run.panel, _before(run.start), steps=60, batch_size=8, seed=run.seed)
    return Walked(model, run.panel, run.dates)


@register("scenario cvar")
def _scenario_cvar(run: Run) -> Allocate:
    program = ScenarioProgram(TailRisk(0.95))
    return ScenarioAllocator(RiskMetrics(WindowSpec(64, (1,))), program, run.panel, horizon=1, lookback=756)


def _before(date: str) -> pd.Timestamp:
    return pd.Timestamp(date) - pd.Timedelta(days=1)


@cache
def market(path: str | None) -> Panel:
    """The sample's stocks, or a file's assets."""
    if path is not None:
        return Panel.from_parquet(path)
    sample = load_sample()
    stocks = sample[(sample["exchange"] == "XNYS") & ~sample["asset"].isin(["SP500", "NASDAQ", "WTI"])]
    return Panel.from_frame(stocks[["date", "asset", "exchange", "close"]])


def tracks(
    panel: Panel, names: Sequence[str], rebalance: str, seeds: int, start: str, until: str | None
) -> dict[str, Track]:
    """A run for each allocator and seed."""
    dates = WalkForward(rebalance, start, until).run(panel, EqualWeight()).trade_dates
    done = {}
    for name in names:
        make, constraints, random = MAKE[name]
        walk = WalkForward(rebalance, start, until, Costs(proportional=COST), constraints=constraints)
        for seed in range(seeds if random else 1):
            label = f"{name}, seed {seed}" if random else name
            began = time.process_time()
            done[label] = walk.run(panel, make(Run(panel, start, dates, seed)))
            print(f"{rebalance}: {label}, {time.process_time() - began:.0f} s", flush=True)
    return done


def table(done: dict[str, Track], reference: str) -> pd.DataFrame:
    """Figures of each track, intervals, and the differences to the reference."""
    ratios = torch.tensor([summary(track)["sharpe"] for track in done.values()]) / 252**0.5
    spread = float(ratios.var()) if len(ratios) > 1 else 0.0
    rows = {}
    for name, track in done.items():
        row = summary(track).to_dict()
        own = sharpe_interval(track.net)
        row |= {"sharpe_interval": f"{own.lower:.2f} to {own.upper:.2f}"}
        row["deflated"] = deflated_sharpe(track.net, len(done), spread)
        if reference in done and name != reference:
            other = done[reference].net
            for what, interval, digits in (("sharpe", sharpe_interval, 3), ("volatility", volatility_interval, 4)):
                difference = interval(track.net, other)
                low, high = f"{difference.lower:+.{digits}f}", f"{difference.upper:+.{digits}f}"
                star = "*" if difference.excludes_zero else ""
                row[f"d_{what}"] = f"{difference.estimate:+.{digits}f} ({low} to {high}){star}"
        rows[name] = row
    return pd.DataFrame(rows).T


COLUMNS = {
    "annual_return": ("return", "{:.1%}"),
    "volatility": ("volatility", "{:.4f}"),
    "sharpe": ("Sharpe", "{:.3f}"),
    "sharpe_interval": ("95 %", "{}"),
    "deflated": ("deflated", "{:.3f}"),
    "max_drawdown": ("drawdown", "{:.1%}"),
    "cvar": ("CVaR 95 %", "{:.2%}"),
    "turnover": ("turnover", "{:.3f}"),
    "effective_number": ("effective number", "{:.1f}"),
    "largest_weight": ("largest", "{:.3f}"),
    "violations": ("violations", "{:.0f}"),
    "d_sharpe": ("Sharpe less the reference's", "{}"),
    "d_volatility": ("volatility less the reference's", "{}"),
}


def markdown(frame: pd.DataFrame) -> str:
    """The table for benchmarks/results/portfolio.md."""
    columns = {name: shown for name, shown in COLUMNS.items() if name in frame}
    lines = ["| | " + " | ".join(title for title, _ in columns.values()) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in frame.iterrows():
        cells = ["" if pd.isna(row[key]) else form.format(row[key]) for key, (_, form) in columns.items()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="*", choices=list(MAKE), default=list(MAKE))
    parser.add_argument("--rebalance", nargs="*", choices=("month", "week"), default=("month", "week"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", help="a Parquet file as Panel.from_parquet reads it")
    parser.add_argument("--start", help="first session of the test")
    parser.add_argument("--until", help="last session; for choices, one before the test")
    parser.add_argument("--reference", choices=list(MAKE), default=REFERENCE, help="whose figures are taken off")
    parser.add_argument("--markdown", type=Path, help="a file to write the tables to")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    panel = market(asked.data)
    start = asked.start or (START if asked.data is None else FILE_START)
    print(panel)
    texts = []
    for rebalance in asked.rebalance:
        done = tracks(panel, asked.names, rebalance, asked.seeds, start, asked.until)
        first = next(iter(done.values()))
        title = (
            f"{len(panel.assets)} stocks, by the {rebalance}, {len(first.dates)} sessions "
            f"{first.dates[0]:%Y-%m-%d} to {first.dates[-1]:%Y-%m-%d}, {sum(first.decisions)} rebalances"
        )
        texts.append(f"### {title}\n\n{markdown(table(done, asked.reference))}\n")
        print(texts[-1], flush=True)
    if asked.markdown:
        asked.markdown.write_text("\n".join(texts))


if __name__ == "__main__":
    main()
