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
# # Which risk number would have passed?
# A desk reports a value at risk every evening. Three candidates: RiskMetrics' normal law, GARCH with skewed heavy tails
# estimated for each asset, and one network for all assets. Each is walked through the same years, refitted as it would
# have been and knowing nothing later, and then tested as a supervisor would.
#
# ## The walk
# The default forecaster, trained at the end of 2018 and again at each year's end:

# %%
import os

from qtorch.backtest import walk_forward
from qtorch.data import Panel, load_sample

epochs = int(os.environ.get("QTORCH_NOTEBOOK_EPOCHS", "8"))  # 1 in the tests, on fewer years
first, start = ("2019", "2021-12-31") if epochs == 1 else ("2009", "2018-12-31")
stocks = load_sample().query(f"date >= '{first}' and exchange == 'XNYS' and asset not in ['NASDAQ', 'SP500', 'WTI']")
panel = Panel.from_frame(stocks)
walk = walk_forward(panel, start=start, max_epochs=epochs, warm_epochs=min(epochs, 3))
walk.to_frame(levels=[0.99]).query("horizon == 1")[["date", "asset", "known_at", "refit", "value_at_risk"]].tail(3)

# %% [markdown]
# The baselines take the same call. A walk's forecast of the last evening has no outcome yet.

# %%
from functools import partial

import matplotlib.pyplot as plt
import pandas as pd
import torch

from qtorch.data import WindowSpec
from qtorch.models import Garch, RiskMetrics

one_day = WindowSpec(horizons=(1,))
garch = partial(Garch, o=1, errors="skewed_t", window=1000, spec=one_day)
forecasts = {
    "RiskMetrics": walk_forward(panel, partial(RiskMetrics, spec=one_day), start=start).forecast.select(slice(-1)),
    "GARCH": walk_forward(panel, garch, start=start).forecast.select(slice(-1)),
    "network": walk.forecast.select(slice(-1)),
}
days = panel.dates[-len(walk.dates) + 1 :]
y = panel.returns()[-len(days) :]
print(f"{len(days)} sessions, {len(panel.assets)} assets")

# %% [markdown]
# What a desk holds is a portfolio. One copula, fitted to RiskMetrics' transforms before the walk begins, joins the
# marginals of each model, so that they differ in nothing else; of 20 stocks with the same weight this gives a law a
# day.

# %%
from qtorch.risk import fit_copula, value_at_risk

before = panel.row(start)
past = RiskMetrics(spec=one_day).forecast(panel, panel.dates[100:before])
copula = fit_copula(past.pit(panel.returns()[101 : before + 1, None])[:, 0], factors=3)
weights = torch.full((len(panel.assets),), 1 / len(panel.assets))
book = y @ weights.double()
book_var = {
    name: value_at_risk(each.with_copula(copula).portfolio(weights), 0.99)[:, 0] for name, each in forecasts.items()
}

# %% [markdown]
# Tested as a supervisor would: how many days were beyond, what Kupiec's test says of the whole walk, and Basel's zone
# of each year.

# %%
from qtorch.risk.backtests import exceedances, kupiec, traffic_light

book_beyond = torch.stack([exceedances(book, risk) for risk in book_var.values()], 1)
book_test = kupiec(book_beyond, 0.99)
columns = {"days beyond": book_beyond.sum(0), "said": 0.01 * len(book), "Kupiec's p": book_test.p_value}
for year in days.year.unique():
    columns[f"{year}"] = traffic_light(book_beyond[days.year == year]).to_frame()["zone"].to_numpy()
book_table = pd.DataFrame(columns, list(book_var))
book_table.round(4)

# %% [markdown]
# ## Scores
# Mean losses with returns in per cent, the lower the better: of the 1 % quantile, and FZ0, of value at risk and
# expected shortfall together. Of a hundred returns one should be beyond the 99 % value at risk.

# %%
from qtorch.risk import fz0, pinball

var = {level: {name: each.value_at_risk(level)[:, 0] for name, each in forecasts.items()} for level in (0.975, 0.99)}
es = {name: each.expected_shortfall(0.975)[:, 0] for name, each in forecasts.items()}
loss = {name: fz0(100 * y, 100 * var[0.975][name], 100 * es[name], 0.975) for name in forecasts}
beyond = {name: exceedances(y, var[0.99][name]) for name in forecasts}
counted = {name: y.isfinite() & var[0.99][name].isfinite() for name in forecasts}
table = {
    name: {
        "pinball loss, 1 %": 100 * pinball(y, -var[0.99][name], 0.01).nanmean().item(),
        "FZ0, 2.5 %": loss[name].nanmean().item(),
        "beyond the 99 % VaR, %": 100 * beyond[name][counted[name]].double().mean().item(),
    }
    for name in forecasts
}
table = pd.DataFrame(table)
table.round(4)

# %% [markdown]
# ## Tests
# For each asset: are there too many exceedances (Kupiec), do they come in clusters as well (Christoffersen), is the
# expected shortfall too small (Acerbi and Szekely's Z2)? How many assets are rejected at 5 %, before and after
# Benjamini and Hochberg's correction for asking of so many.

# %%
from qtorch.risk.backtests import acerbi_szekely, benjamini_hochberg, christoffersen, diebold_mariano


def tests(name):
    chain = christoffersen(beyond[name], 0.99, counted[name])
    seed = torch.Generator().manual_seed(0)
    shortfall = acerbi_szekely(y, var[0.975][name], es[name], 0.975, counted[name], generator=seed)
    return kupiec(beyond[name], 0.99, counted[name]), chain.conditional_coverage, shortfall.z2


def counts(p):
    return f"{int((p < 0.05).sum())}, corrected {int((benjamini_hochberg(p) < 0.05).sum())}"


tested = {name: tests(name) for name in forecasts}
rejected = pd.DataFrame({name: {each.name: counts(each.p_value) for each in tested[name]} for name in forecasts})
print(f"rejected at 5 %, of {len(panel.assets)} assets")
rejected

# %% [markdown]
# And is the network better than the others by more than chance? Diebold and Mariano's test of equal FZ0 losses over the
# whole panel, where what falls on one day counts once; p-values as they are and corrected for asking twice:

# %%
compared = {rival: diebold_mariano(loss[rival] - loss["network"], panel=True) for rival in ("RiskMetrics", "GARCH")}
corrected = benjamini_hochberg(torch.stack([test.p_value for test in compared.values()]))
for (rival, test), p in zip(compared.items(), corrected.tolist(), strict=True):
    verdict = "lower" if test.statistic > 0 else "higher"
    told = f"t {test.statistic.item():+.1f}, p {test.p_value.item():.3f}, corrected {p:.3f}"
    print(f"the network's loss is {verdict} than {rival}'s: {told}")

# %% [markdown]
# ## Seen
# The portfolio under RiskMetrics and under the network, with Basel's zone of the last 250 days below; the share beyond
# the value at risk over all assets; where in its forecast each return came (a right model gives a flat histogram); and
# whose loss was lower, added up over time.

# %%
from qtorch.risk.plots import exceedance_chart, legend_above, loss_difference, pit_histogram
from qtorch.risk.plots.style import AMBER, INK, LINE, RED, date_axis, tidy

colours = {"RiskMetrics": RED, "GARCH": AMBER, "network": LINE}


def draw_shares(ax):
    for name, colour in colours.items():
        shares = beyond[name].double().where(counted[name], torch.nan).nanmean(1)
        ax.plot(pd.Series(shares.numpy(), days).rolling(250, min_periods=60).mean(), color=colour, label=name)
    ax.axhline(0.01, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), label="1 %")
    ax.yaxis.set_major_formatter(lambda share, _: f"{share:.1%}")
    ax.set_ylim(bottom=0)
    tidy(ax)
    date_axis(ax)


with plt.rc_context({"font.size": 10, "legend.fontsize": 9, "legend.title_fontsize": 11}):
    figure, axes = plt.subplot_mosaic("AAAAPP;BBBBQQ;SSSDDD", figsize=(12.73, 11), layout="constrained")
    figure.get_layout_engine().set(hspace=0.06, wspace=0.04)
    for place, name in (("A", "RiskMetrics"), ("B", "network")):
        exceedance_chart(axes[place], days, book.numpy(), book_var[name].numpy())
        legend_above(axes[place], 3, f"Portfolio of {len(weights)} stocks: {name}")
    axes["B"].sharey(axes["A"])
    for place, name in (("P", "RiskMetrics"), ("Q", "network")):
        forecast = forecasts[name]
        transforms = forecast.pit(y[:, None].expand(-1, len(forecast.horizons), -1))[:, 0]
        pit_histogram(axes[place], transforms.numpy())
        legend_above(axes[place], 1, f"Probability transforms, {name}")
    draw_shares(axes["S"])
    legend_above(axes["S"], 4, "Beyond the 99 % value at risk in the year before, all assets")
    loss_difference(axes["D"], days, (loss["GARCH"] - loss["network"]).nanmean(1).numpy(), names=("GARCH", "network"))
    legend_above(axes["D"], 2, "All assets: FZ0 loss, GARCH minus network")
if path := os.environ.get("QTORCH_FIGURE"):
    figure.savefig(path, dpi=110)
plt.show()

# %% [markdown]
# ## The answer
# The sentence is made of the figures above:

# %%
rejections = {name: int((benjamini_hochberg(each[0].p_value) < 0.05).sum()) for name, each in tested.items()}
for name in forecasts:
    beyond_said, stocks = book_table.loc[name, "days beyond"] / (0.01 * len(book)), table.loc["beyond the 99 % VaR, %"]
    zones = book_table.loc[name].iloc[3:]
    print(
        f"{name}: stocks {stocks[name]:.1f} times as often beyond as said, {rejections[name]} of {len(panel.assets)} "
        f"rejected; the portfolio {beyond_said:.1f} times, {(zones == 'green').sum()} of {len(zones)} years green"
    )
sound = [name for name in forecasts if rejections[name] == 0]
passed = book_table.index[book_test.p_value.numpy() >= 0.05]
print(
    f"Corrected, no stock is rejected under {' and '.join(sound) or 'none of them'}. The portfolio passes Kupiec's "
    f"test under {' and '.join(passed) or 'none of them'}. Best by the score of both measures: "
    f"{table.loc['FZ0, 2.5 %'].idxmin()}."
)

# %% [markdown]
# The next notebook asks how far out the tails go, alone and together.
