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
# # How sure is the model?
# A value at risk is an estimate, and a desk that sizes limits by it should know its error. What the market does not
# tell (aleatoric) stays however much data there is; what the model does not know (epistemic) goes away with data. Ten
# US stocks, five of them twice: under their own name with all their past, and as `AAPL*` as if they had been listed in
# the middle of 2019. The returns are the same, so that whatever the model doubts more of the new one is for want of
# history.

# %%
import os

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.ticker import PercentFormatter

import qtorch
from qtorch.calibration import AggregatedAdaptiveConformal, backtest
from qtorch.data import DataModule, Features, Panel, WindowSpec, load_sample
from qtorch.data.features import Label
from qtorch.heads import Ensemble, SkewedStudentT
from qtorch.models import EncoderEnsemble, Recurrent, RiskMetrics, default_windows
from qtorch.risk.plots.style import AMBER, BANDS, DOT, GRID, INK, LINE, RED, date_axis, legend_above, tidy
from qtorch.training import Laplace, Schedule, fit

epochs = int(os.environ.get("QTORCH_NOTEBOOK_EPOCHS", "2"))  # 1 in the tests, on fewer years
first = "2014-01-01" if epochs == 1 else "2006-01-01"
twice = ["AAPL", "AMD", "JPM", "KO", "XOM"]
sample = load_sample()
stocks = sample["asset"].isin([*twice, "BAC", "GE", "JNJ", "MSFT", "WMT"]) & (sample["date"] >= first)
prices = sample.loc[stocks, ["date", "asset", "exchange", "close"]]
new = prices[prices["asset"].isin(twice) & (prices["date"] >= "2019-07-01")]
panel = Panel.from_frame(pd.concat([prices, new.assign(asset=new["asset"] + "*")]))
panel

# %% [markdown]
# ## A posterior
# One recurrent net for all, which also sees each stock's name: what it learns of a name comes from that stock's returns
# alone. `Laplace` puts a Gaussian around the last layer of the trained network, as wide as the data leave it;
# `heads.Variational` learns one while it trains. Both count the returns of one date as independent, and are too sure of
# what all stocks share; `Laplace.fit(..., by_date=True)` lets them depend. The ensemble is three networks in one, each
# from a start of its own.

# %%
torch.manual_seed(0)
windows = default_windows(panel, horizons=(1,), context=32)
names = Label.of_assets("stock", {asset: asset for asset in panel.assets})
spec = WindowSpec(windows.context, windows.horizons, Features((*windows.features.parts, names)))
data = DataModule(panel, spec, validation_start=None, test_start="2020-01-02")


def forecaster(members=None):
    encoder, head = Recurrent(len(spec.features), input_noise=0.1), SkewedStudentT(48, spec.horizons)
    if members is not None:
        encoder, head = EncoderEnsemble(encoder, members), Ensemble(head, members)
    model = qtorch.Forecaster(encoder, head, spec, schedule=Schedule(3e-3, warm_up=0.1))
    fit(model, data, max_epochs=epochs)
    return model


models = {"Laplace": Laplace.fit(forecaster(), data), "ensemble": forecaster(members=3)}
dates = panel.dates[panel.row("2020-01-02") : panel.row("2020-06-30")]
forecasts = {name: model.forecast(panel, dates, source=data.source) for name, model in models.items()}

# %% [markdown]
# ## Two kinds of uncertainty
# `decompose` splits the variance of tomorrow's return; `epistemic_interval` is the band of the value at risk itself.
# The doubt of tomorrow's mean is a fraction of a per cent of the variance: for one day the market's own noise is nearly
# all. The doubt of a 99 % quantile is another matter.

# %%
old = [panel.assets.index(asset) for asset in twice]
young = [panel.assets.index(asset + "*") for asset in twice]
rows, widths, bands = {}, {}, {}
for name, forecast in forecasts.items():
    parts = forecast.decompose()
    share = (parts.epistemic / (parts.epistemic + parts.aleatoric))[:, 0].nanmean(0)
    low, high = forecast.epistemic_interval(0.99)
    bands[name] = low[:, 0], forecast.value_at_risk(0.99)[:, 0], high[:, 0]
    width = ((high - low)[:, 0] / bands[name][1]).nanmean(0)
    widths[name] = {"with its past": width[old], "new": width[young]}
    for age, which in (("with its past", old), ("new", young)):
        rows[name, age] = {"epistemic share": share[which].mean(), "width of VaR's band": width[which].mean()}
table = pd.DataFrame(rows).T.astype(float)
print(table.to_string(float_format="{:.3%}".format))
for name, width in widths.items():
    wider = int((width["new"] > width["with its past"]).sum())
    print(f"{name}: a wider band for {wider} of {len(twice)} as new listings")

# %% [markdown]
# The stocks and the days are the same; what the new listings lack is history. A wider band is worth a wider limit until
# there is more.
#
# ## When the model is wrong
# A posterior is of the model's own parameters; it does not doubt the model. What does is the record of its exceedances.
# RiskMetrics' normal law is too narrow at 99 %; `AggregatedAdaptiveConformal` moves each stock's quantile by its past
# exceedances, knowing nothing later, through 2008 and 2020.

# %%
plain = Panel.from_frame(prices)
raw = RiskMetrics(spec=WindowSpec(horizons=(1,))).forecast(plain, plain.dates[100:-1])
returns = plain.returns()[101:, None]
calibrated = backtest(AggregatedAdaptiveConformal([0.99]), raw, returns)
shares = {}
for name, one in (("RiskMetrics", raw), ("calibrated", calibrated)):
    seen = torch.logical_and(returns.isfinite(), one.value_at_risk(0.99).isfinite())
    beyond = torch.where(seen, (returns < -one.value_at_risk(0.99)).double(), torch.nan)[:, 0]
    shares[name] = pd.Series(beyond.nanmean(1).numpy(), index=plain.dates[101:])
    worst = shares[name].rolling(250).mean().max()
    print(f"{name}: {shares[name].mean():.2%} beyond the 99 % value at risk, in the worst year {worst:.2%}")

# %% [markdown]
# ## Seen

# %%
stock = "AMD"
low, risk, high = (100 * bound for bound in bands["Laplace"])
first = panel.row(dates[0]) + 1
came = 100 * panel.returns()[first : first + len(dates)]


def draw_limit(ax, asset, title):
    n = panel.assets.index(asset)
    days = panel.dates[first : first + len(dates)]
    ax.fill_between(days, -high[:, n], -low[:, n], color=BANDS[1], linewidth=0, label="where it is with 90 %")
    ax.plot(days, -risk[:, n], color=LINE, linewidth=1.4, label="99 % value at risk")
    ax.scatter(days, came[:, n], color=DOT, s=7, linewidth=0, label="returns")
    beyond = came[:, n] < -risk[:, n]
    ax.scatter(days[beyond.numpy()], came[beyond, n], color=RED, s=24, zorder=3, label="beyond it")
    ax.yaxis.set_major_formatter(PercentFormatter(100, decimals=0))
    tidy(ax)
    date_axis(ax)
    legend_above(ax, 4, title)


def draw_widths(ax):
    for k, (name, colour) in enumerate((("Laplace", LINE), ("ensemble", AMBER))):
        place = [n + 0.16 - 0.32 * k for n in range(len(twice))]
        before, after = (100 * widths[name][age] for age in ("with its past", "new"))
        ax.hlines(place, before, after, color=GRID, linewidth=3, zorder=1)
        ax.scatter(before, place, facecolor="white", edgecolor=colour, s=46, linewidth=1.6, zorder=2)
        ax.scatter(after, place, color=colour, s=52, zorder=2, label=name)
    ax.scatter([], [], facecolor="white", edgecolor=INK, s=46, linewidth=1.6, label="with its past")
    ax.scatter([], [], color=INK, s=52, label="as a new listing")
    tidy(ax)
    ax.grid(axis="x", color=GRID, linewidth=0.6)
    ax.grid(visible=False, axis="y")
    ax.set_yticks(range(len(twice)), twice)
    ax.set_xlim(left=0)
    ax.set_ylim(-0.6, len(twice) - 0.4)
    ax.xaxis.set_major_formatter(PercentFormatter(100, decimals=1))
    legend_above(ax, 4, "Width of the band, of the value at risk")


def draw_shares(ax):
    for name, colour in (("RiskMetrics", RED), ("calibrated", LINE)):
        ax.plot(shares[name].rolling(250).mean(), color=colour, linewidth=1.4, label=name)
    ax.axhline(0.01, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), label="1 %")
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    ax.set_ylim(bottom=0)
    tidy(ax)
    date_axis(ax)
    legend_above(ax, 3, "Beyond the 99 % value at risk in the year before, ten stocks")


with plt.rc_context({"font.size": 10, "legend.fontsize": 9, "legend.title_fontsize": 11}):
    figure, axes = plt.subplot_mosaic("ON;WS", figsize=(12.73, 7.6), layout="constrained")
    figure.get_layout_engine().set(hspace=0.08, wspace=0.05)
    draw_limit(axes["O"], stock, f"{stock} with its past")
    draw_limit(axes["N"], stock + "*", "The same stock, listed half a year ago")
    axes["N"].sharey(axes["O"])
    draw_widths(axes["W"])
    draw_shares(axes["S"])
if path := os.environ.get("QTORCH_FIGURE"):
    figure.savefig(path, dpi=110)
plt.show()

# %% [markdown]
# ## The answer

# %%
width = table["width of VaR's band"]["Laplace"]
exceeded = {name: share.mean() for name, share in shares.items()}
print(
    f"The 90 % band of a 99 % value at risk is {width['with its past']:.1%} of it wide for a stock with its past and "
    f"{width['new']:.1%} for the same stock as a new listing. That does not cover a wrong model: RiskMetrics was "
    f"exceeded on {exceeded['RiskMetrics']:.2%} of days, and calibrated by its own record on "
    f"{exceeded['calibrated']:.2%}."
)
