# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What is left of a backtest when its orders have to fill?
# The same weights three times: filled at the close that they were made of, at the next open and at the next close. Then
# a leak, planted and found, and the same orders in other libraries.
#
# The S&P 500 and the Nasdaq, with opens. The rule buys what closes near the low of its day, each by as much as its
# value at risk leaves room for.

# %%
import os

import pandas as pd

from qtorch.backtest import Ledger, Signals
from qtorch.data import Panel, WindowSpec, load_sample
from qtorch.models import RiskMetrics
from qtorch.portfolio import Costs

quick = os.environ.get("QTORCH_NOTEBOOK_EPOCHS") == "1"  # in the tests, on fewer years
first = 2014 if quick else 2000
panel = Panel.from_frame(load_sample().query(f"date >= '{first}' and asset in ['NASDAQ', 'SP500']"))
panel


# %%
def place_in_range(panel):
    high, low, close = (panel.to_wide(field) for field in ("high", "low", "close"))
    return (close - low) / (high - low)


def sizes(panel, warm_up=60):
    dates = panel.dates[warm_up:]
    risk = RiskMetrics(spec=WindowSpec(horizons=(1,))).forecast(panel, dates).value_at_risk(0.99)[:, 0]
    return (0.01 / pd.DataFrame(risk.numpy(), dates, list(panel.assets))).clip(upper=0.49)


def buy_lows(panel):
    size = sizes(panel)
    return size.where(place_in_range(panel).loc[size.index] < 0.3, 0.0)


weights = buy_lows(panel)
weights.tail(3).round(2)

# %% [markdown]
# ## Three ways to fill
# Weights of a panel's row are known at its `as_of`, here New York's close. `Signals` keep that instant with them;
# `orders` finds the sessions on which they can fill, and the ledger trades, at two basis points of what is traded.

# %%
costs = Costs(proportional=0.0002)
fills = {"this close": "this_close", "next open": "next_open", "next close": "next_close"}
orders = {name: Signals.from_panel(panel, weights, fill=fill).orders(panel) for name, fill in fills.items()}
accounts = {name: Ledger(costs, cash=1e6).run(each) for name, each in orders.items()}


def figures(account):
    returns = pd.Series(account.returns, account.dates)
    equity = account.equity / account.initial
    return {
        "return a year": equity[-1] ** (252 / len(equity)) - 1,
        "volatility": returns.std() * 252**0.5,
        "Sharpe ratio": returns.mean() / returns.std() * 252**0.5,
        "worst drawdown": (equity / pd.Series(equity).cummax().clip(lower=1.0) - 1).min(),
        "turnover a year": account.turnover.mean() * 252,
        "costs a year": (account.costs / account.equity).mean() * 252,
    }


table = pd.DataFrame({name: figures(account) for name, account in accounts.items()}).T
table.round(3)

# %%
import matplotlib.pyplot as plt
from matplotlib.ticker import PercentFormatter

from qtorch.risk.plots.style import AMBER, BANDS, INK, LINE, RED, date_axis, legend_above, tidy

colours = {"this close": RED, "next open": AMBER, "next close": LINE}
with plt.rc_context({"font.size": 10, "legend.fontsize": 9, "legend.title_fontsize": 11}):
    figure, axes = plt.subplots(4, figsize=(10, 10), height_ratios=(3, 2, 1.6, 1.6), sharex=True, layout="constrained")
    for name, account in accounts.items():
        equity = pd.Series(account.equity / account.initial, account.dates)
        axes[0].plot(equity, color=colours[name], linewidth=1.3, label=name)
        axes[1].plot(equity / equity.cummax().clip(lower=1.0) - 1, color=colours[name], linewidth=0.9, label=name)
    held = accounts["next open"].weights_frame()
    monthly = held.rolling(21).mean().fillna(0)
    axes[2].stackplot(held.index, monthly.T, labels=held.columns, colors=[BANDS[2], LINE])
    traded = pd.Series(accounts["next open"].turnover, held.index).rolling(21).mean()
    axes[3].plot(traded, color=LINE, linewidth=1.1)
    axes[0].set_yscale("log")
    axes[0].yaxis.set_major_locator(plt.FixedLocator([0.5, 0.75, 1, 1.5, 2, 3, 4]))
    axes[0].yaxis.set_minor_locator(plt.NullLocator())
    axes[0].yaxis.set_major_formatter("{x:g}")
    for ax in axes[1:]:
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    titles = ("Equity of 1, net of costs", "Below the last peak", "Held with fills at the next open, mean of a month")
    for ax, title in zip(axes, titles, strict=False):
        legend_above(ax, 3, title)
    axes[3].set_title(
        "Turnover a day with fills at the next open, mean of a month",
        loc="left",
        fontweight="bold",
        fontsize=11,
        color=INK,
    )
    for ax in axes:
        tidy(ax)
        date_axis(ax)
    axes[3].set_xlim(held.index[0], held.index[-1])
plt.show()

# %% [markdown]
# A rule that buys weakness at the close lives off the night and the day after: whoever trades later gets less of it.
# Which convention a backtest took is therefore part of its result. Weights that could not have been known are refused:

# %%
from qtorch.data import DataError

late = weights.index.tz_localize("UTC") + pd.Timedelta(hours=23)  # two hours after the close
try:
    Signals.from_panel(panel, weights, known_at=late, fill="this_close").orders(panel)
except DataError as error:
    refusal = str(error)
print(refusal)

# %% [markdown]
# ## A leak, planted
# Instants cannot tell what went into the numbers. Here the threshold is the 30 % quantile of all days, those to come
# included: one line, easily written. The detector changes the future and looks whether the past moves.

# %%
from qtorch.backtest import check_lookahead


def buy_lows_of_all_time(panel):
    size, place = sizes(panel), place_in_range(panel)
    return size.where(place.loc[size.index] < place.quantile(0.3), 0.0)


cuts, starts = (3, 1) if quick else (24, 3)
clean = check_lookahead(buy_lows, panel, cuts=cuts, starts=starts).require()
leaky = check_lookahead(buy_lows_of_all_time, panel, cuts=cuts, starts=starts)
print(clean, leaky, sep="\n\n")

# %% [markdown]
# ## In other libraries
# The same orders go to vectorbt and bt, with the ledger's equity to rounding. Each is an extra; this cell runs those
# that are installed.

# %%
from importlib.util import find_spec

from qtorch.backtest.adapters import to_bt, to_vectorbt


def by_vectorbt(orders):
    return to_vectorbt(orders, costs, cash=1e6).value()


def by_bt(orders):
    import bt

    backtest = to_bt(orders, costs, cash=1e6)
    bt.run(backtest)
    return backtest.strategy.values.resample("D").last().loc[orders.dates]


for library, run in {"vectorbt": by_vectorbt, "bt": by_bt}.items():
    if find_spec(library) is None:
        print(f"{library} is not installed: pip install 'qtorch-finance[{library}]'")
    else:
        gap = abs(run(orders["next open"]).to_numpy() / accounts["next open"].equity - 1).max()
        print(f"{library}: the ledger's equity to {gap:.1e}")

# %% [markdown]
# The other way round, a forecast is a prior of skfolio's optimisers, and their weights are signals like any other: 20
# stocks of least CVaR on a forecast's scenarios, at each quarter's end, at most 15 % in one.

# %%
from skfolio import RiskMeasure
from skfolio.optimization import MeanRisk

from qtorch.backtest.adapters import ForecastPrior

sample = load_sample().query("date >= '2020' and exchange == 'XNYS' and asset not in ['NASDAQ', 'SP500', 'WTI']")
stocks = Panel.from_frame(sample)
returns = stocks.to_wide().pct_change().iloc[1:]
prior = ForecastPrior(RiskMetrics(spec=WindowSpec(horizons=(1,))), scenarios=256, lookback=250, factors=1)
model = MeanRisk(risk_measure=RiskMeasure.CVAR, prior_estimator=prior, max_weights=0.15)
ends = returns.index.to_series().groupby(returns.index.to_period("Q")).last().iloc[-3 if quick else -9 : -1]
chosen = pd.DataFrame([model.fit(returns.loc[:end]).weights_ for end in ends], ends, list(returns.columns))
equal = chosen * 0 + 1 / chosen.shape[1]
books = {"least CVaR": chosen, "equal weights": equal}
stock_accounts = {
    name: Ledger(costs, cash=1e6).run(Signals.from_panel(stocks, book, fill="next_close").orders(stocks))
    for name, book in books.items()
}
volatilities = {
    name: pd.Series(account.returns, account.dates).loc[ends.iloc[0] :].std() * 252**0.5
    for name, account in stock_accounts.items()
}
for name, volatility in volatilities.items():
    print(
        f"{name}: volatility {volatility:.1%} since {ends.iloc[0]:%B %Y}, largest weight {books[name].max().max():.0%}"
    )

# %% [markdown]
# ## The answer

# %%
earned, first_seen = table["return a year"], leaky.findings["date"].min()
print(
    f"Of {earned['this close']:.1%} a year at this close {earned['next open']:.1%} are left at the next open and "
    f"{earned['next close']:.1%} at the next close. The honest rule "
    f"passed {len(clean.cuts)} cuts of the future; the leaky one was caught, first on {first_seen:%Y-%m-%d}."
)
