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

import matplotlib.pyplot as plt
import pandas as pd
import torch

from qtorch.backtest import Ledger, Signals, sharpe_interval, volatility_interval
from qtorch.data import Panel, WindowSpec, load_sample
from qtorch.models import RiskMetrics
from qtorch.portfolio import Costs

quick = os.environ.get("QTORCH_NOTEBOOK_EPOCHS") == "1"  # in the tests, on fewer years
prices = load_sample().query("asset in ['NASDAQ', 'SP500']" + (" and date < '2004'" if quick else ""))
panel = Panel.from_frame(prices.query("date >= '2000'"))
panel

# %% [markdown]
# ## Can one deal at these opens?
# Before a fill at the open is believed, the opens are looked at:

# %%
report = panel.quality()
stale = report.table["stale_opens"] / report.table["observed"]
print(report.events.query("kind == 'stale_open'")[["asset", "date", "end", "detail"]].head(3).to_string(index=False))
pd.DataFrame({"stale opens": report.table["stale_opens"], "of": report.table["observed"], "share": stale.round(3)})

# %% [markdown]
# An index is computed from its stocks' last trades, so that its first value of a day can be yesterday's close, which
# nobody could deal at any more. The Nasdaq's opens move; each index therefore gets an account of its own.


# %%
def place_in_range(panel):
    high, low, close = (panel.to_wide(field) for field in ("high", "low", "close"))
    return (close - low) / (high - low)


def sizes(panel, warm_up=60):
    dates = panel.dates[warm_up:]
    risk = RiskMetrics(spec=WindowSpec(horizons=(1,))).forecast(panel, dates).value_at_risk(0.99)[:, 0]
    return (0.01 / pd.DataFrame(risk.numpy(), dates, list(panel.assets))).clip(upper=0.98)


def buy_lows(panel):
    size = sizes(panel)
    return size.where(place_in_range(panel).loc[size.index] < 0.3, 0.0)


indices = {name: Panel.from_frame(prices.query(f"date >= '2000' and asset == '{name}'")) for name in panel.assets}
weights = {name: buy_lows(each) for name, each in indices.items()}
pd.concat(weights.values(), axis=1).tail(3).round(2)

# %% [markdown]
# ## Three ways to fill
# Weights of a panel's row are known at its `as_of`, here New York's close. `Signals` keep that instant with them;
# `orders` finds the sessions on which they can fill, and the ledger trades, at two basis points of what is traded.
# Beside them an account that is always invested, of the same sizes.

# %%
costs = Costs(proportional=0.0002)
fills = {"this close": "this_close", "next open": "next_open", "next close": "next_close"}
accounts, orders = {}, {}
for name, each in indices.items():
    for label, fill in fills.items():
        orders[name, label] = Signals.from_panel(each, weights[name], fill=fill).orders(each)
        accounts[name, label] = Ledger(costs, cash=1e6).run(orders[name, label])
    always = Signals.from_panel(each, sizes(each), fill="this_close").orders(each)
    accounts[name, "always"] = Ledger(costs, cash=1e6).run(always)


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


table = pd.DataFrame({each: figures(account) for each, account in accounts.items()}).T
table.round(3)

# %% [markdown]
# How sure are the differences? Of Sharpe ratios, with 95 % intervals by a bootstrap of blocks of days:

# %%
pairs = [("this close", "next open"), ("this close", "next close"), ("next close", "always")]


def compare(name, one, other):
    a, b = (torch.as_tensor(accounts[name, each].returns) for each in (one, other))
    return sharpe_interval(a, b, draws=200 if quick else 2000)


differences = {(name, f"{a} - {b}"): compare(name, a, b) for name in indices for a, b in pairs}
columns = ["estimate", "lower", "upper", "excludes_zero"]
pd.DataFrame({each: {c: getattr(found, c) for c in columns} for each, found in differences.items()}).T

# %%
from matplotlib.ticker import PercentFormatter

from qtorch.risk.plots.style import AMBER, INK, LINE, RED, date_axis, legend_above, tidy

colours = {"this close": RED, "next open": AMBER, "next close": LINE, "always": INK}
style = {"font.size": 10, "legend.fontsize": 9, "legend.title_fontsize": 11}


def draw_equity(ax, account, colour, label):
    ax.plot(pd.Series(account.equity / account.initial, account.dates), color=colour, linewidth=1.2, label=label)
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(plt.FixedLocator([0.8, 0.9, 1, 1.1, 1.2, 1.4, 1.6, 1.8]))
    ax.yaxis.set_minor_locator(plt.NullLocator())
    ax.yaxis.set_major_formatter("{x:g}")


with plt.rc_context(style):
    shared = {"sharex": True, "sharey": "row", "layout": "constrained"}
    figure, axes = plt.subplots(3, 2, figsize=(12, 8.5), height_ratios=(3, 2, 1.6), **shared)
    for (top, middle, bottom), (name, each) in zip(axes.T, indices.items(), strict=True):
        for label, colour in colours.items():
            account = accounts[name, label]
            equity = pd.Series(account.equity / account.initial, account.dates)
            draw_equity(top, account, colour, label)
            middle.plot(equity / equity.cummax().clip(lower=1.0) - 1, color=colour, linewidth=0.9, label=label)
        opens, close = each.to_wide("open")[name], each.to_wide("close")[name]
        same = (opens / close.shift() - 1).abs() < 1e-6
        bottom.plot(same.rolling(250).mean(), color=AMBER, linewidth=1.2)
        bottom.set_ylim(-0.03, 1.03)
        for ax in (middle, bottom):
            ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        legend_above(top, 4, f"{name}: equity of 1, net of costs")
        legend_above(middle, 4, "Below the last peak")
        title = "Opens that are the close before, of 250 sessions"
        bottom.set_title(title, loc="left", fontweight="bold", fontsize=11, color=INK)
        for ax in (top, middle, bottom):
            tidy(ax)
            date_axis(ax)
    axes[0, 0].set_xlim(account.dates[0], account.dates[-1])
plt.show()

# %% [markdown]
# Where opens are stale, a fill at the next open is a fill at this close. Weights that could not have been known are
# refused:

# %%
from qtorch.data import DataError

late = weights["NASDAQ"].index.tz_localize("UTC") + pd.Timedelta(hours=23)  # two hours after the close
try:
    Signals.from_panel(indices["NASDAQ"], weights["NASDAQ"], known_at=late, fill="this_close").orders(indices["NASDAQ"])
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


cuts, starts = (2, 1) if quick else (24, 3)
nasdaq = indices["NASDAQ"]
clean = check_lookahead(buy_lows, nasdaq, cuts=cuts, starts=starts).require()
leaky = check_lookahead(buy_lows_of_all_time, nasdaq, cuts=cuts, starts=starts)
print(clean, leaky, sep="\n\n")

# %% [markdown]
# What it would have earned beside the honest rule, both filled at the next close:

# %%
dreamt = Signals.from_panel(nasdaq, buy_lows_of_all_time(nasdaq), fill="next_close").orders(nasdaq)
accounts["NASDAQ", "leaky"] = Ledger(costs, cash=1e6).run(dreamt)
gained = compare("NASDAQ", "leaky", "next close")
print(f"Sharpe ratio of the leaky rule less that of the honest one: {gained}")
with plt.rc_context(style):
    figure, ax = plt.subplots(figsize=(9, 3.4), layout="constrained")
    for label, colour, words in (("leaky", RED, "threshold of all time"), ("next close", LINE, "honest")):
        draw_equity(ax, accounts["NASDAQ", label], colour, words)
    legend_above(ax, 2, "NASDAQ: equity of 1, net of costs, filled at the next close")
    tidy(ax)
    date_axis(ax)
plt.show()

# %% [markdown]
# ## In other libraries
# The same orders go to vectorbt and bt, and each library's equity is compared with the ledger's. Each is an extra; this
# cell runs those that are installed.

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
        gap = abs(run(orders["NASDAQ", "next open"]).to_numpy() / accounts["NASDAQ", "next open"].equity - 1).max()
        print(f"{library}: the ledger's equity, to {gap:.1e} of it")

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
ends = returns.index.to_series().groupby(returns.index.to_period("Q")).last().iloc[-2 if quick else -9 : -1]
chosen = pd.DataFrame([model.fit(returns.loc[:end]).weights_ for end in ends], ends, list(returns.columns))
equal = chosen * 0 + 1 / chosen.shape[1]
books = {"least CVaR": chosen, "equal weights": equal}
stock_accounts = {
    name: Ledger(costs, cash=1e6).run(Signals.from_panel(stocks, book, fill="next_close").orders(stocks))
    for name, book in books.items()
}
later = {
    name: torch.as_tensor(account.returns[account.dates > ends.iloc[0]]) for name, account in stock_accounts.items()
}
for name, each in later.items():
    volatility = each.std().item() * 252**0.5
    print(
        f"{name}: volatility {volatility:.1%} since {ends.iloc[0]:%B %Y}, largest weight {books[name].max().max():.0%}"
    )
saved = volatility_interval(later["least CVaR"], later["equal weights"])
print(f"difference {saved.estimate:.1%}, 95 % interval {saved.lower:.1%} to {saved.upper:.1%}")

# %% [markdown]
# ## The answer

# %%
first_seen = leaky.findings["date"].min()
for name in indices:
    earned = table.loc[name, "return a year"]
    told = ", ".join(f"{earned[label]:.1%} at the {label.replace('this', 'same')}" for label in fills)
    print(f"{name}: {told} a year, always invested {earned['always']:.1%}. Stale opens: {stale[name]:.0%}.")
    for a, b in pairs[:2]:
        found = differences[name, f"{a} - {b}"]
        sure = "more than chance" if found.excludes_zero else "not told apart from chance"
        print(f"  Sharpe ratio at this close less that at the {b}: {found}, {sure}")
caught = f"the leaky one was caught, first on {first_seen:%Y-%m-%d}"
print(f"The honest rule passed {len(clean.cuts)} cuts of the future; {caught}.")
